"""Options that would do nothing, or hide what is to be learned, are refused by name before training starts."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
from exact_forecasts import tiny, tiny_fields

from flowmatch import MLP, FlowMatchingGenerator, TrainingOptions
from flowmatch.flow import Coupling, OptimalTransportCoupling
from flowmatch.networks import UNet
from flowmatch.training import Phase

RNG = np.random.default_rng(0)
TABLE, GRIDS = RNG.normal(size=(60, 3)), RNG.normal(size=(60, 1, 8))
LABELS, AMOUNTS = RNG.integers(3, size=60), RNG.normal(size=(60, 2))
SERIES, FIELDS = RNG.normal(size=(4, 20, 2)).cumsum(axis=1), RNG.normal(size=(3, 20, 1, 8))
MIXED = pd.DataFrame({"amount": AMOUNTS[:, 0], "color": RNG.choice(["red", "green"], 60)})

SMALL = {"max_iter": 2, "batch_size": 32, "device": "cpu", "random_state": 0}


def tables(**changes):
    return FlowMatchingGenerator(MLP(width=8, depth=1), **SMALL, **changes)


def grids(**changes):
    return FlowMatchingGenerator(UNet(width=4, multipliers=(1,)), **SMALL, **changes)


WITHOUT_LABELS = {
    "numbers": (tables, (TABLE, AMOUNTS)),
    "numbers and labels": (tables, (TABLE, MIXED)),
    "grids": (grids, (GRIDS, GRIDS[::-1])),
    "contexts of series": (tiny, (SERIES,)),
    "contexts of fields": (tiny_fields, (FIELDS,)),
    "rows of a table": (tiny, (TABLE, AMOUNTS)),
}
FORECASTS = [name for name, (make, _) in WITHOUT_LABELS.items() if make in (tiny, tiny_fields)]


@pytest.fixture
def refuses(monkeypatch):
    """Check that a fit is refused before any training, and leaves an unfitted estimator unfitted."""

    def refuse_training(*_, **__):
        raise AssertionError("training started")

    def check(estimator, data, message):
        with monkeypatch.context() as patched:
            patched.setattr("flowmatch.training.train", refuse_training)
            with pytest.raises(ValueError, match=message):
                estimator.fit(*data)
        assert not hasattr(estimator, "fitted_")

    return check


@dataclass(frozen=True)
class Reversed(Coupling):
    """A user's coupling."""

    def pair(self, x0, x1, groups=None):
        return x0.flip(0)


@pytest.mark.parametrize("name", WITHOUT_LABELS)
def test_couplings_are_refused_where_they_would_pair_nothing(name, refuses):
    make, data = WITHOUT_LABELS[name]
    for coupling in ("ot", OptimalTransportCoupling(block_size=16), Reversed()):
        refuses(
            make(coupling=coupling), data, r"coupling=\w+\(.*\) .* has no effect under conditions that are no labels"
        )


@pytest.mark.parametrize("data", [(TABLE,), (TABLE, LABELS)], ids=["no conditions", "labels"])
def test_couplings_have_an_effect_elsewhere(data):
    losses = [tables(coupling=coupling).fit(*data).history_["loss"] for coupling in ("independent", "ot")]
    assert losses[0] != losses[1]


HIDDEN = TrainingOptions(phases=[Phase(0.5, conditioned=False), Phase(0.5)])


@pytest.mark.parametrize("name", FORECASTS)
def test_phases_without_contexts_are_refused(name, refuses):
    make, data = WITHOUT_LABELS[name]
    refuses(make(training=HIDDEN), data, "conditioned=False hides all contexts, without which there is no forecast")


def test_phases_that_hide_conditions_are_refused_where_there_are_none_or_all_hide_them(refuses):
    refuses(tables(training=HIDDEN), (TABLE,), "conditioned=False hides conditions, but there are none to hide")
    always = TrainingOptions(phases=[Phase(1.0, conditioned=False)])
    refuses(tables(training=always), (TABLE, LABELS), "all phases have conditioned=False")
    assert tables(training=HIDDEN).fit(TABLE, LABELS).n_iter_ == 2


CONTEXTS = {
    "numbers": (),
    "contexts of series": (SERIES[:, -1],),
    "contexts of fields": (FIELDS[:, -1],),
    "rows of a table": (TABLE,),
}
"""What samples are drawn for."""


@pytest.mark.parametrize("name", CONTEXTS)
def test_steps_of_a_flow_map_are_refused_for_a_velocity(name, refuses):
    make, data = WITHOUT_LABELS[name]
    refuses(make(solver="flow_map"), data, "solver='flow_map' takes the steps of a flow map, but .* learns a velocity")
    fitted = make().fit(*data)
    with pytest.raises(ValueError, match="solver='flow_map' takes the steps of a flow map"):
        fitted.sample(*CONTEXTS[name], solver="flow_map")


@pytest.mark.parametrize("name", CONTEXTS)
def test_a_number_of_steps_is_refused_for_solvers_that_choose_their_own(name, refuses):
    make, data = WITHOUT_LABELS[name]
    message = "n_steps=5 has no effect with solver='dopri5'"
    refuses(make().set_params(solver="dopri5", n_steps=5), data, message)
    fitted = make().fit(*data)
    with pytest.raises(ValueError, match=message):
        fitted.sample(*CONTEXTS[name], solver="dopri5", n_steps=5)
