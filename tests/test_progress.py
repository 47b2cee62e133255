"""Progress bars of what can take its time: shown if `verbose`, and of no influence on results."""

import numpy as np
import pytest
import torch

from flowmatch import MLP, ConditionalForecaster, DistilledFlowMap, FlowAnomalyDetector, FlowMatchingGenerator
from flowmatch.core import batches
from flowmatch.core.progress import progress
from flowmatch.forecasting import ensembles
from flowmatch.tables import rows as sample_rows

RNG = np.random.default_rng(0)
X = RNG.normal(size=(1500, 2))
Y = np.arange(1500) % 2
HOLES = np.where(RNG.random(X.shape) < 0.4, np.nan, X)
WALKS = RNG.normal(size=(6, 20, 2)).cumsum(axis=1)
TINY = {"network": MLP(width=8, depth=1), "max_iter": 8, "batch_size": 16, "random_state": 0, "device": "cpu"}


@pytest.fixture(scope="module")
def generator():
    return FlowMatchingGenerator(**TINY, n_steps=2).fit(X, Y)


@pytest.fixture(scope="module")
def detector():
    return FlowAnomalyDetector("mlp", method="likelihood", **{k: v for k, v in TINY.items() if k != "network"}).fit(X)


@pytest.fixture(scope="module")
def forecaster():
    return ConditionalForecaster(**TINY, n_lags=2, n_steps=2, n_samples=4).fit(WALKS)


@pytest.fixture
def small_pieces(monkeypatch):
    """Pieces that so few rows make more than one of."""
    monkeypatch.setattr(batches, "BLOCK_ELEMENTS", 1600)
    monkeypatch.setattr(ensembles, "BLOCK_ELEMENTS", 30)


def bars_of(call, estimator, capfd):
    """What a call shows with `verbose`, once it has given the same as without, which shows nothing."""
    quiet = call(estimator.set_params(verbose=0))
    assert capfd.readouterr().err == ""
    try:
        np.testing.assert_array_equal(call(estimator.set_params(verbose=1)), quiet)
    finally:
        estimator.set_params(verbose=0)
    return capfd.readouterr().err


def test_bars_count_the_pieces_of_a_task(capfd):
    assert list(progress(range(3), "reading", True)) == [0, 1, 2]
    assert list(progress(iter("ab"), "writing", 1, 2)) == ["a", "b"]
    shown = capfd.readouterr().err
    assert "reading: 100%" in shown
    assert "3/3" in shown
    assert "writing: 100%" in shown


def test_there_is_no_bar_unless_asked_for_and_of_several_pieces(capfd):
    pieces = [1, 2]
    assert progress(pieces, "reading", 0) is pieces
    for few in ([], [1]):
        assert progress(few, "reading", True) is few
    one = iter("a")
    assert progress(one, "reading", True, 1) is one
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("call", "label"),
    [
        (lambda g: g.sample(1300, random_state=0), "blocks of samples: "),
        (lambda g: g.sample(1100, random_state=0, batch_size=400), "sampling: "),
        (lambda g: g.sample(10, y=1, random_state=0, batch_size=4, return_trajectory=True), "sampling: "),
        (lambda g: g.score_samples(X[:4]), "log-densities by class: "),
        (lambda g: g.encode(X, Y), "encoding: "),
        (lambda g: g.decode(X, Y), "sampling: "),
        (lambda g: g.impute(HOLES[:20], Y[:20], n_imputations=3, random_state=0), "imputations: "),
        (lambda g: g.impute(HOLES, Y, random_state=0), "blocks of rows to fill: "),
    ],
)
def test_generators_say_what_they_do(generator, small_pieces, capfd, call, label):
    assert label in bars_of(call, generator, capfd)


def test_large_data_are_read_a_piece_at_a_time_behind_a_bar(generator, capfd, monkeypatch):
    monkeypatch.setattr(sample_rows.SampleRows.chunks, "__defaults__", (20,))
    monkeypatch.setattr(sample_rows.SampleRows.n_chunks, "__defaults__", (20,))
    assert "encoding all rows: 100%" in bars_of(lambda g: g.encode(X[:30], Y[:30]), generator, capfd)
    assert "log-densities of all rows: 100%" in bars_of(lambda g: g.score_samples(X[:30], Y[:30]), generator, capfd)


def test_densities_show_their_batches(generator, capfd, monkeypatch):
    monkeypatch.setattr("flowmatch.model.density._ELEMENTS_AT_ONCE", 640)
    assert "log-densities: 100%" in bars_of(lambda g: g.score_samples(X[:30], Y[:30]), generator, capfd)


def test_detectors_show_how_far_scores_are(detector, capfd, monkeypatch):
    monkeypatch.setattr("flowmatch.anomaly.members.FITTED_ELEMENTS", 400)
    for name in ("score_samples", "explain"):
        assert "anomaly scores: 100%" in bars_of(lambda d, name=name: getattr(d, name)(X[:300]), detector, capfd)


def test_forecasters_show_blocks_and_the_steps_of_rollouts(forecaster, small_pieces, capfd):
    contexts = WALKS[:, :2]
    assert "forecasts: 100%" in bars_of(lambda f: f.predict(contexts), forecaster, capfd)
    assert "forecasts: 100%" in bars_of(lambda f: f.sample(contexts, 8, 0), forecaster, capfd)
    assert "rollout: 100%" in bars_of(lambda f: f.rollout(contexts, 4, 2, 0), forecaster, capfd)


@pytest.mark.parametrize("with_rows", [True, False])
def test_students_show_their_teachers_paths_and_their_own_sampling(generator, with_rows, capfd):
    data = (X, Y) if with_rows else ()

    def sampled(student):
        return student.fit(*data).sample(2100, random_state=0)

    method = {} if with_rows else {"n_stages": 2}
    student = DistilledFlowMap(generator, max_iter=4, n_pairs=2500, random_state=0, **method)
    shown = bars_of(sampled, student, capfd)
    assert "teacher's paths: 100%" in shown
    assert "sampling: 100%" in shown
    assert generator.verbose == 0


def test_a_model_that_is_on_a_device_stays_itself(generator):
    model = generator.model_
    assert model.to(torch.device("cpu")) is model
    there = model.to(torch.device("meta"))
    assert there is not model
    assert there.device == there.source.scale.device == torch.device("meta")
    assert there.to(torch.device("meta")) is there
