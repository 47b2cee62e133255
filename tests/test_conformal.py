"""Conformal intervals of forecasters: their finite-sample guarantee, whatever the forecaster is worth."""

import numpy as np
import pandas as pd
import pytest
import torch
from exact_forecasts import tiny, tiny_fields, with_source
from sklearn.base import clone

import flowmatch
from flowmatch import ConditionalForecaster, DistilledFlowMap
from flowmatch.forecasting.conformal import distance_from_middle, value_at

RNG = np.random.default_rng(0)


def rows(n, rng=RNG):
    """A skewed target whose spread depends on X, and one on a grid."""
    X = rng.normal(size=(n, 2))
    skewed = X[:, 0] + np.exp(0.5 * X[:, 1]) * rng.gamma(2.0, size=n)
    return X, np.column_stack([skewed, rng.poisson(np.exp(0.5 * X[:, 0]))])


X, Y = rows(200)


@pytest.fixture(scope="module")
def forecaster():
    """Hardly trained, so that the intervals of its draws are wrong."""
    return tiny().fit(X, 0.5 * Y)


# -- ranks ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["distinct", "shared", "equal"])
def test_a_value_is_in_the_interval_of_a_score_if_its_own_is_no_larger(kind):
    rng = np.random.default_rng(1)
    draws = np.sort({"distinct": rng.normal(size=(9, 50, 1)), "shared": rng.poisson(2.0, size=(9, 50, 1)).astype(float), "equal": np.full((9, 50, 1), 2.0)}[kind], axis=0)  # fmt: skip
    truth = rng.integers(-3, 9, size=(50, 1)).astype(float) if kind != "distinct" else 2 * rng.normal(size=(50, 1))
    width = np.array([0.01])
    scores = distance_from_middle(draws, truth, width)
    assert np.isfinite(scores).all()
    for score in [0.05, 0.3, 0.41, 0.6, 3.0, *scores[:10, 0]]:
        low, high = (value_at(draws, np.array([[0.5 + side * (score + 1e-9)]]), width)[0] for side in (-1, 1))
        np.testing.assert_array_equal((low <= truth) & (truth <= high), scores <= score + 1e-8)


def test_scores_are_ranks_inside_the_draws():
    draws = np.arange(1.0, 10.0)[:, None, None]
    for value, rank in ((5.0, 5), (1.0, 1), (7.25, 7.25)):
        assert distance_from_middle(draws, np.array([[value]]), np.ones(1)).item() == pytest.approx(
            abs(rank / 10 - 0.5)
        )


# -- the guarantee ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("coverage", [0.5, 0.9])
def test_coverage_is_that_of_split_conformal_prediction(forecaster, coverage):
    """At least `coverage`, and for targets without ties ceil((n + 1) coverage) / (n + 1) exactly."""
    rng, n, inside = np.random.default_rng(2), 29, []
    for _ in range(60):
        forecaster.calibrate(*rows(n, rng))
        X_new, Y_new = rows(100, rng)
        low, high = forecaster.predict_interval(X_new, coverage, method="conformal")
        inside.append(((low <= Y_new) & (Y_new <= high)).mean(axis=0))
    (skewed, counts), error = np.mean(inside, axis=0), np.std(inside, axis=0) / np.sqrt(60)
    assert skewed == pytest.approx(np.ceil(30 * coverage) / 30, abs=3.5 * error[0])
    assert counts >= coverage - 3 * error[1]
    if coverage == 0.9:
        low, high = forecaster.predict_interval(X_new, coverage)
        assert ((low <= Y_new) & (Y_new <= high)).mean() < 0.85  # the ensemble's own are wrong


def test_each_lead_time_and_target_is_calibrated_by_itself():
    series = np.random.default_rng(3).normal(size=(200, 6, 2)) * [1.0, 100.0]
    series[:, -1] *= 3.0
    model = tiny(n_lags=4, horizon=2).fit(series[:60]).calibrate(series[60:160])
    low, high = model.predict_interval(series[160:, :4], 0.9, method="conformal")
    assert low.shape == (40, 2, 2)
    widths = (high - low).mean(axis=0)
    inside = ((low <= series[160:, 4:]) & (series[160:, 4:] <= high)).mean(axis=0)
    assert (inside > 0.75).all()
    assert (widths[1] > 1.8 * widths[0]).all()


def test_cross_conformal_intervals_are_those_of_the_definition():
    """CV+ of Barber et al. (2021), interval by interval, with models that are fitted here.

    Their draws start from the noise of training: scores make up for what they lack in width.
    """
    X_few, y = X[:40], Y[:40, 0]
    model = tiny(max_iter=20).fit(X_few, y).calibrate(X_few, y, cv=4)
    fold = model.fitted_.conformal.fold
    ends = [[], []]
    for number in range(4):
        own = fold == number
        assert own.sum() == 10
        other = with_source(tiny(max_iter=20).fit(X_few[~own], y[~own]))
        other.calibrate(X_few[own], y[own])
        np.testing.assert_allclose(
            model.fitted_.conformal.scores[own], other.fitted_.conformal.scores, rtol=1e-3, atol=1e-3
        )
        for score in other.fitted_.conformal.scores:
            draws = np.sort(other.predict_quantiles(X[50:60], np.arange(1, 21) / 21), axis=0)[..., None]
            for side in (0, 1):
                level = np.array([[0.5 + (2 * side - 1) * score.item()]])
                unit = 1e-3 * np.diff(other.model_.encoder.limits, axis=0)[0]
                ends[side].append(value_at(draws, level, unit)[0, :, 0])
    expected = np.sort(ends[0], axis=0)[3], np.sort(ends[1], axis=0)[36]  # 37 of 41 are 90 %
    np.testing.assert_allclose(
        model.predict_interval(X[50:60], 0.9, method="conformal"), expected, rtol=1e-3, atol=1e-3
    )


@pytest.mark.filterwarnings("ignore:contexts reach")  # beyond the training range
def test_cross_conformal_intervals_cover_what_is_new():
    rng, inside = np.random.default_rng(4), []
    for _ in range(3):
        X_few, Y_few = rows(60, rng)
        model = tiny().fit(X_few, Y_few).calibrate(X_few, Y_few, cv=3)
        X_new, Y_new = rows(300, rng)
        low, high = model.predict_interval(X_new, 0.8, method="conformal")
        inside.append(((low <= Y_new) & (Y_new <= high)).mean())
    assert np.mean(inside) == pytest.approx(0.82, abs=0.07)


def test_trajectories_are_in_one_fold():
    series = RNG.normal(size=(6, 20, 2))
    conformal = tiny(n_lags=2).fit(series).calibrate(series, cv=3).fitted_.conformal
    assert (conformal.fold.reshape(6, 18) == conformal.fold.reshape(6, 18)[:, :1]).all()
    assert np.bincount(conformal.fold).tolist() == [36, 36, 36]


# -- what is kept -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cv", [None, 2])
def test_files_and_copies_keep_it(cv, tmp_path):
    model = tiny().fit(X, Y).calibrate(X[:50], Y[:50], cv=cv)
    expected = model.predict_interval(X[:9], method="conformal")
    model.save(tmp_path / "model.safetensors")
    loaded = flowmatch.load(tmp_path / "model.safetensors", device="cpu")
    np.testing.assert_array_equal(loaded.predict_interval(X[:9], method="conformal"), expected)
    known = model.fitted_.to(torch.device("cpu"))
    other = ConditionalForecaster.from_fitted(known, **model.get_params(deep=False))
    np.testing.assert_array_equal(other.predict_interval(X[:9], method="conformal"), expected)
    np.testing.assert_array_equal(model.predict_interval(X[:9]), clone(model).fit(X, Y).predict_interval(X[:9]))


def test_other_weights_have_to_be_calibrated_anew():
    for again in (
        lambda m: m.fit(X, Y),
        lambda m: m.partial_fit(X, Y),
        lambda m: m.set_params(warm_start=True).fit(X, Y),
    ):
        with pytest.raises(ValueError, match=r"call calibrate\(X, y\) with them"):
            again(tiny().fit(X, Y).calibrate(X, Y)).predict_interval(X, method="conformal")


def test_students_are_calibrated_themselves(tmp_path):
    teacher = tiny().fit(X, Y).calibrate(X[:60], Y[:60])
    student = DistilledFlowMap(teacher, max_iter=2, n_pairs=30, random_state=0).fit(X, Y)
    with pytest.raises(ValueError, match="call calibrate"):
        student.predict_interval(X, method="conformal")
    before = teacher.fitted_.conformal
    low, high = student.calibrate(X, Y).predict_interval(X, 0.9, method="conformal")
    assert 0.9 <= ((low <= Y) & (high >= Y))[:, 0].mean() <= 0.92
    assert teacher.fitted_.conformal is before
    student.save(tmp_path / "student.safetensors")
    loaded = flowmatch.load(tmp_path / "student.safetensors")
    np.testing.assert_array_equal(loaded.predict_interval(X, 0.9, method="conformal"), [low, high])


def test_draws_are_as_many_as_when_it_was_calibrated(forecaster):
    model = clone(forecaster).fit(X, Y).calibrate(X, Y)
    expected = model.predict_interval(X[:9], method="conformal")
    np.testing.assert_array_equal(model.set_params(n_samples=5).predict_interval(X[:9], method="conformal"), expected)


def test_intervals_come_as_frames(forecaster):
    table = pd.DataFrame(Y, columns=["a", "b"])
    model = clone(forecaster).fit(X, table).calibrate(X, table)
    frame = model.predict_interval(X[:5], method="conformal", output="pandas")
    np.testing.assert_array_equal(frame["b", "upper"], model.predict_interval(X[:5], method="conformal")[1, :, 1])


def test_what_makes_no_sense_is_refused(forecaster):
    model = clone(forecaster).fit(X, Y)
    with pytest.raises(ValueError, match="unknown method 'cqr'. Choose one of 'ensemble', 'conformal'"):
        model.predict_interval(X, method="cqr")
    with pytest.raises(ValueError, match="coverage=0.95 take 19 outcomes or more, but calibrate was given 18"):
        model.calibrate(X[:18], Y[:18]).predict_interval(X, 0.95, method="conformal")
    assert np.isfinite(model.calibrate(X[:19], Y[:19]).predict_interval(X, 0.95, method="conformal")).all()
    with pytest.raises(ValueError, match="cv=30 takes so many rows, or trajectories, but there are 20"):
        model.calibrate(X[:20], Y[:20], cv=30)
    with pytest.raises(ValueError, match="cv"):
        model.calibrate(X, Y, cv=1)
    with pytest.raises(ValueError, match="coverage"):
        model.predict_interval(X, 1.0, method="conformal")
    fields = RNG.normal(size=(3, 8, 1, 8))
    with pytest.raises(ValueError, match="for tables and series, but states here are fields"):
        tiny_fields().fit(fields).calibrate(fields)
    series = RNG.normal(size=(40, 1))
    with pytest.raises(ValueError, match="cv=5 takes so many rows, or trajectories, but there are 1"):
        tiny().fit(series).calibrate(series, cv=5)
