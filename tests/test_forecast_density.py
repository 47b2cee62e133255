"""score_samples of forecasters: log-densities of outcomes given contexts, in the data's units."""

import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from closed_forms import GaussianFlow
from exact_forecasts import follow_rule, tiny, tiny_fields, with_source
from scipy.integrate import trapezoid
from scipy.stats import norm
from torch import nn

import flowmatch
from flowmatch import DistilledFlowMap
from flowmatch.networks import MLP

RNG = np.random.default_rng(0)
FIELDS = 3.0 + 2.0 * RNG.normal(size=(5, 10, 2, 4))
X, EPS = RNG.normal(size=(300, 2)), RNG.normal(size=(300, 2))
Y = np.column_stack([np.exp(0.5 * X[:, 0]), 5 * X[:, 1]]) * (1 + 0.1 * EPS)


class LinearGaussian(nn.Module):
    """The exact velocity to codes of mean ``a . context + b`` and a standard deviation of their own."""

    def __init__(self, size, context_size, std=0.4):
        super().__init__()
        self.linear, self.std = nn.Linear(context_size, size), std

    def forward(self, x, t, condition, step=None):
        return GaussianFlow(mean=self.linear(condition), std=self.std).field(x, t)


def with_network(forecaster, network):
    fitted = forecaster.fitted_
    model = replace(fitted.model, network=network)
    forecaster.fitted_ = replace(fitted, flow=replace(fitted.flow, model=model))
    return forecaster


def rule(lags):
    return 0.8 * lags[:, 0] + 0.3


@pytest.mark.parametrize("target", ["residual", "state"])
@pytest.mark.parametrize("std", [0.5, pytest.param(2.0, marks=pytest.mark.slow)])
def test_density_of_next_fields_is_the_normal_one_in_their_own_units(target, std):
    model = follow_rule(tiny_fields(target=target).fit(FIELDS), rule, std)
    now, following = FIELDS[0, :-1], FIELDS[0, 1:]
    expected = norm(0.8 * now + 0.3, std).logpdf(following).sum(axis=(1, 2))
    np.testing.assert_allclose(model.score_samples(now, following, n_steps=400), expected, rtol=1e-4)
    np.testing.assert_allclose(model.score_samples(now, following), expected, rtol=0.02)
    np.testing.assert_allclose(model.score_samples(now, following, solver="dopri5"), expected, rtol=1e-3)


def test_density_of_several_lags_and_steps_is_joint():
    def two_steps(lags):
        return torch.cat([lags[:, -1], 0.5 * lags[:, -1] + 0.5 * lags[:, -2]], dim=1)

    model = follow_rule(tiny_fields(n_lags=2, horizon=2).fit(FIELDS), two_steps, 1.0)
    windows = [FIELDS[i, start : start + 4] for i in range(5) for start in range(7)]
    expected = [
        norm(np.concatenate([w[1], 0.5 * w[1] + 0.5 * w[0]]), 1.0).logpdf(np.concatenate([w[2], w[3]])).sum()
        for w in windows
    ]
    np.testing.assert_allclose(model.score_samples(FIELDS, n_steps=400), expected, rtol=1e-4)


@pytest.mark.parametrize("target", ["residual", "state", "auto"])
def test_density_of_tables_has_the_jacobian_of_their_transform(target):
    """The density of normal codes, times the derivatives of codes by targets, which differences tell."""
    model = with_source(tiny(target=target).fit(X, Y))
    encoder, residuals, rows = model.model_.conditions, model.model_.encoder, slice(0, 40)
    scaled = encoder.contexts_of(X[:, None], None, np.empty((len(X), 0)))  # and what trees expect
    model = with_network(model, LinearGaussian(2, scaled.shape[1]))

    def codes(targets):
        return residuals.encode(targets - encoder.base(scaled.double()).numpy())[rows], scaled[rows]

    (found, context), step = codes(Y), 1e-7
    slopes = [(codes(Y + step * np.eye(2)[j])[0] - found)[:, j] / step for j in range(2)]
    mean = model.network_.linear(context).detach().double()
    expected = GaussianFlow(mean, 0.4).log_density(torch.as_tensor(found)).numpy() + np.log(slopes).sum(axis=0)
    np.testing.assert_allclose(model.score_samples(X[rows], Y[rows], n_steps=400), expected, atol=1e-3)


@pytest.mark.parametrize("target", ["residual", "state"])
def test_density_integrates_to_one_and_is_that_of_the_draws(target):
    """Of many rows: draws take their values from a blurred distribution function, densities from that of the rows."""
    random = np.random.default_rng(1)
    x = random.normal(size=(3000, 2))
    y = np.exp(0.5 * x[:, 0]) * (1 + 0.1 * random.normal(size=3000))
    model = tiny(target=target, network=MLP(width=16, depth=1), max_iter=300, n_steps=20).fit(x, y)
    grid = np.linspace(-3, 9, 4001)
    at = np.repeat(x[:1], len(grid), axis=0)
    density = np.exp(model.score_samples(at, grid))
    assert np.sum(density) * (grid[1] - grid[0]) == pytest.approx(1.0, abs=0.01)
    drawn = model.sample(x[:1], 4000, random_state=0)[:, 0]
    for level in np.quantile(drawn, (0.1, 0.3, 0.5, 0.7, 0.9)):
        assert np.sum(density[grid <= level]) * (grid[1] - grid[0]) == pytest.approx(np.mean(drawn <= level), abs=0.05)


def test_density_of_windows_scaled_by_their_own_lags_is_in_the_units_of_each():
    levels = (1.0, 1e3)
    panel = [level * (5 + RNG.normal(size=(60, 1))) for level in levels]
    model = tiny(n_lags=6, max_iter=60).fit(panel)
    assert model.fitted_.window_encoder.local is not None
    for level, series in zip(levels, panel, strict=True):
        outcomes = level * np.linspace(-8, 18, 800)[:, None]
        density = np.exp(model.score_samples(np.repeat(series[None, -6:], 800, axis=0), outcomes))
        assert trapezoid(density, outcomes[:, 0]) == pytest.approx(1.0, abs=0.05)


def test_windows_and_pairs_of_them_are_one_thing():
    walks = RNG.normal(size=(4, 20, 2)).cumsum(axis=1)
    model = tiny(n_lags=3).fit(walks)
    pairs = [(walk[start : start + 3], walk[start + 3]) for walk in walks for start in range(17)]
    contexts, following = (np.stack(part) for part in zip(*pairs, strict=True))
    np.testing.assert_allclose(model.score_samples(walks), model.score_samples(contexts, following))
    series = pd.DataFrame(walks[0], pd.date_range("2026-01-01", periods=20), ["a", "b"])
    known = tiny(n_lags=3, known_columns="b").fit(series)
    assert known.score_samples(series).shape == (17,)


def test_a_rows_density_does_not_depend_on_its_neighbors():
    model = tiny().fit(X, Y)
    together = model.score_samples(X[:5], Y[:5])
    alone = [model.score_samples(X[i : i + 1], Y[i : i + 1])[0] for i in range(5)]
    np.testing.assert_allclose(together, alone, rtol=1e-9)
    assert together.dtype == np.float64


def test_estimated_densities_tell_their_error():
    model = tiny_fields().fit(FIELDS)
    exact, none = model.score_samples(FIELDS[:2], return_error=True)
    estimated, error = model.score_samples(FIELDS[:2], n_probes=64, return_error=True)
    assert not none.any()
    assert (np.abs(estimated - exact) <= 5 * error + 1e-9).all()
    assert error.max() > 0


def test_files_and_students_have_them_too(tmp_path):
    model = tiny(max_iter=20).fit(X, Y)
    model.save(tmp_path / "model.safetensors")
    expected = model.score_samples(X[:9], Y[:9])
    np.testing.assert_array_equal(flowmatch.load(tmp_path / "model.safetensors").score_samples(X[:9], Y[:9]), expected)
    student = DistilledFlowMap(model, max_iter=2, n_pairs=30, random_state=0).fit(X, Y)
    assert np.isfinite(student.score_samples(X[:9], Y[:9])).all()
    np.testing.assert_allclose(student.score_samples(X[:9], Y[:9]), expected, atol=0.5)


@pytest.mark.parametrize("value", [1.0, 0.1, 12345.678])
def test_a_constant_target_counts_where_it_differs(value):
    constant = np.column_stack([Y[:, 0], np.full(300, value)])
    model = tiny().fit(X, constant)
    assert np.isneginf(model.score_samples(X[:9], constant[:9] + [0.0, 1.0])).all()
    assert np.isfinite(model.score_samples(X[:9], constant[:9])).all()


def test_frequent_values_are_warned_of_and_grids_are_not():
    counts = RNG.poisson(20, size=300).astype(float)
    rare = np.where(RNG.random(300) < 0.6, 0.0, RNG.gamma(2.0, size=300))
    table = pd.DataFrame({"rain": rare, "sales": counts})
    model = tiny(target="state").fit(X, table)
    with pytest.warns(UserWarning, match="many rows share one value: [56].% in column 'rain'. What is"):
        model.score_samples(X, table)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tiny(target="state").fit(X, counts).score_samples(X, counts)


def test_what_makes_no_sense_is_refused():
    model = tiny().fit(X, Y)
    with pytest.raises(ValueError, match="row 3 of what is to be scored lacks values"):
        model.score_samples(X[:9], np.where(np.arange(9)[:, None] == 3, np.nan, Y[:9]))
    with pytest.raises(ValueError, match="unknown solver"):
        model.score_samples(X[:9], Y[:9], solver="best")
    with pytest.raises(ValueError, match="n_probes"):
        model.score_samples(X[:9], Y[:9], n_probes=0)
    with pytest.raises(ValueError, match="integrates a velocity"):
        model.score_samples(X[:9], Y[:9], solver="flow_map")
