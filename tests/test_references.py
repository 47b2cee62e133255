"""The library gives today what it gave when the references were recorded; see `references.py`."""

import logging

import pytest
import reference_store as store
import references


@pytest.fixture(autouse=True)
def _no_traces():
    """What torch tells of every step of an export costs pytest more time than the export."""
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture(scope="module")
def recorded():
    return store.read()


@pytest.mark.parametrize("case", references.cases())
def test_the_output_is_the_recorded_one(case, recorded):
    of = references.CONFIGURATIONS[case.split("/")[-2]]
    store.assert_same(references.output(case), store.part(recorded, case), of.tolerance, of.rare)


def test_nothing_is_recorded_that_is_not_compared(recorded):
    names = tuple(f"{case}." for case in references.cases())
    assert not [name for name in recorded if not f"{name}.".startswith(names)]
