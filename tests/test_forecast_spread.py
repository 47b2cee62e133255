"""The source of a fitted forecaster is as wide as the noise that outcomes come from which it was not trained on."""

import numpy as np
import pytest
import torch
from exact_forecasts import tiny, tiny_fields, with_source
from scipy import integrate, stats

from flowmatch import ConditionalForecaster, TrainingOptions, fitting
from flowmatch.flow import NormalSource, SparseSource
from flowmatch.forecasting import Ensemble
from flowmatch.networks import MLP

RNG = np.random.default_rng(0)
X = RNG.normal(size=(90, 6))
Y = X[:, 0] - X[:, 1] + RNG.normal(size=90)


@pytest.fixture(scope="module")
def overfitted():
    """Trained for so long that it knows its rows by heart."""
    return ConditionalForecaster(max_iter=300, learning_rate=4e-3, random_state=0, device="cpu").fit(X, Y)


def test_intervals_hold_what_they_should_in_spite_of_overfitting(overfitted):
    fresh = np.random.default_rng(1).normal(size=(300, 6))
    truth = fresh[:, 0] - fresh[:, 1] + np.random.default_rng(2).normal(size=300)
    narrow = with_source(overfitted, None)
    covered = {}
    for name, forecaster in (("narrow", narrow), ("wide", overfitted)):
        low, high = forecaster.predict_interval(fresh, 0.8)
        covered[name] = ((low <= truth) & (truth <= high)).mean()
    assert covered["narrow"] < 0.65
    assert covered["wide"] == pytest.approx(0.8, abs=0.08)
    assert overfitted.crps(fresh, truth) < narrow.crps(fresh, truth)
    assert overfitted.score_samples(fresh, truth).mean() > narrow.score_samples(fresh, truth).mean()


def test_densities_of_the_wider_source_are_densities(overfitted):
    grid = np.linspace(-15, 15, 1501)
    density = np.exp(overfitted.score_samples(np.repeat(X[:1], len(grid), axis=0), grid, n_steps=40))
    assert integrate.trapezoid(density, grid) == pytest.approx(1.0, abs=0.02)


def test_noise_of_predictions_is_scaled_and_even(overfitted):
    wide, plain = (
        Ensemble.of(with_source(overfitted, scale)).paired_noise(9, torch.Generator().manual_seed(0))[:, 0].numpy()
        for scale in (2.0, None)
    )
    np.testing.assert_allclose(wide, 2 * plain, rtol=1e-6)
    np.testing.assert_allclose(np.sort(plain), stats.norm.ppf(np.arange(1, 10) / 10), atol=1e-6)


@pytest.mark.parametrize("random_state", [3, np.random.RandomState(3)])
def test_the_rows_that_are_looked_at_are_those_that_validated(random_state, monkeypatch):
    """And of a network that has learned nothing, codes are noise: the factor is that of their own spread."""
    held_out, original = [], fitting.TrainingData.split

    def split(self, fraction, generator):
        parts = original(self, fraction, generator)
        held_out.append(None if parts[1] is None else parts[1].groups.tolist())
        return parts

    monkeypatch.setattr(fitting.TrainingData, "split", split)
    options = TrainingOptions(early_stopping=True, validation_fraction=0.4)
    rows = np.random.default_rng(0).normal(size=(300, 2))
    forecaster = tiny(training=options, learning_rate=1e-12, random_state=random_state).fit(rows, rows[:, 0] ** 3)
    assert held_out[0] == held_out[1]  # of the fit, and what was looked at
    assert len(held_out) == 2
    assert forecaster.model_.source.scale.item() == pytest.approx(1.0, abs=0.15)


def test_each_target_has_a_factor_and_lead_times_share_it():
    walk = np.random.default_rng(0).normal(size=(400, 2)).cumsum(axis=0)
    forecaster = tiny(n_lags=2, horizon=3).fit([walk])
    scale = forecaster.model_.source.scale.numpy().reshape(3, 2)
    np.testing.assert_array_equal(scale[0], scale[2])
    assert scale[0, 0] != scale[0, 1]


@pytest.mark.parametrize("kind", ["fields", "sparse"])
def test_other_sources_and_fields_stay_as_they_are(kind):
    if kind == "fields":
        forecaster = tiny_fields().fit(np.random.default_rng(0).normal(size=(3, 6, 1, 8)))
        assert isinstance(forecaster.model_.source.source, NormalSource)
    else:
        forecaster = tiny(source="sparse").fit(X, Y)
        assert isinstance(forecaster.model_.source.source, SparseSource)
    assert (forecaster.model_.source.scale == 1).all()


def test_going_on_keeps_the_factor():
    forecaster = tiny().fit(X, Y)
    scale = forecaster.model_.source.scale.item()
    assert scale != 1
    assert forecaster.partial_fit(X, Y).model_.source.scale.item() == scale


def test_a_time_budget_is_for_the_fit_alone(monkeypatch):
    """Models of parts would take as long again."""
    monkeypatch.setattr("flowmatch.forecasting.spread.fit_flow", None)
    with pytest.warns(UserWarning, match="max_time"):
        forecaster = tiny(max_iter=None, max_time=0.2).fit(X, Y)
    assert isinstance(forecaster.model_.source.source, NormalSource)


def test_what_targets_lack_says_nothing_of_the_spread():
    """Codes of missing values are none: taken for zeros, they made the source narrow."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200, 2))
    Y = X + 0.5 * rng.normal(size=(200, 2))
    holes = np.where(rng.random(Y.shape) < 0.4, np.nan, Y)
    holes[0] = Y[0]

    def scale(targets):
        forecaster = ConditionalForecaster(network=MLP(width=16, depth=1), max_iter=60, random_state=0)
        return forecaster.fit(X, targets).model_.source.scale

    with pytest.warns(UserWarning, match="windows lack values"):
        found = scale(holes)
    assert (found / scale(Y) - 1).abs().max() < 0.2
