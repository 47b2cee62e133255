"""Measures of forecasts, judged by closed forms, exchangeable draws and each other."""

from __future__ import annotations

import json

import numpy as np
import pytest
import scipy.stats
import torch

import flowmatch.metrics._ensembles
from flowmatch.metrics import (
    correlation_time,
    crps,
    energy_score,
    ensemble_energy_distance,
    forecast_report,
    high_wavenumber_ratio,
    interval_coverage,
    nrmse,
    pattern_correlation,
    pinball_loss,
    pit_histogram,
    skill_score,
    spectrum,
    spectrum_error,
    spread_skill,
)


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


# Scores


def test_crps_of_a_large_gaussian_ensemble_has_its_closed_form():
    mean, std, y = 0.4, 1.7, np.array([-2.0, 0.4, 3.0])
    ensemble = scipy.stats.norm.ppf((np.arange(4000) + 0.5) / 4000, mean, std)[:, None] * np.ones(3)
    z = (y - mean) / std
    expected = std * (z * (2 * scipy.stats.norm.cdf(z) - 1) + 2 * scipy.stats.norm.pdf(z) - np.pi**-0.5)
    assert crps(y, ensemble) == pytest.approx(expected.mean(), abs=1e-3)


@pytest.mark.parametrize("score", [crps, energy_score])
def test_a_fair_score_does_not_depend_on_the_number_of_members_and_the_plain_one_does(score):
    truth, ensemble = normal(10_000, 1), normal(50, 10_000, 1, seed=1)
    exact = np.pi**-0.5  # E|X - y| - E|X - X'| / 2 for standard normal X and y
    few, many = score(truth, ensemble[:2]), score(truth, ensemble)
    assert few == pytest.approx(exact, abs=0.02)
    assert many == pytest.approx(exact, abs=0.01)
    assert score(truth, ensemble[:2], fair=False) == pytest.approx(exact * 1.5, abs=0.02)  # half of the pairs are equal


def test_the_crps_of_one_member_is_the_absolute_error():
    truth, ensemble = normal(30), normal(1, 30, seed=1)
    assert crps(truth, ensemble, fair=False) == pytest.approx(np.abs(truth - ensemble[0]).mean())


def test_the_energy_score_in_one_dimension_is_the_crps():
    truth, ensemble = normal(20, 4, 1), normal(7, 20, 4, 1, seed=1)
    np.testing.assert_allclose(
        energy_score(truth, ensemble, per_lead=True), crps(truth, ensemble, per_lead=True), rtol=1e-12
    )
    np.testing.assert_allclose(
        energy_score(truth, ensemble, per_lead=True, fair=False), crps(truth, ensemble, per_lead=True, fair=False)
    )


def test_the_energy_score_sees_how_variables_hang_together_and_the_crps_does_not():
    shared, other = normal(21, 4000, 1), normal(20, 4000, 2, seed=1)
    together, apart = np.repeat(shared, 2, axis=-1), other
    assert crps(together[0], together[1:]) == pytest.approx(crps(together[0], apart), rel=0.03)
    assert energy_score(together[0], together[1:]) < 0.97 * energy_score(together[0], apart)


def test_the_energy_distance_of_ensembles_is_zero_for_one_distribution_and_has_its_closed_form_for_a_shift():
    X, Y = normal(5, 4000, 3, seed=1), normal(9, 4000, 3, seed=2)
    assert ensemble_energy_distance(X, Y) == pytest.approx(0.0, abs=0.005)
    points = np.array([[[0.0, 0.0]], [[3.0, 4.0]]])  # a distance of 5 within, 10 sqrt(2) to the other ones
    far = points + [[[40.0, -30.0]]]  # orthogonal to it, 50 away
    between = (2 * 50 + 2 * np.hypot(50, 5)) / 4
    assert ensemble_energy_distance(points, far, scaled=False) == pytest.approx(2 * between - 5 - 5)
    assert ensemble_energy_distance(points, far) == pytest.approx((2 * between - 10) / np.sqrt(2))


def test_nrmse_counts_standard_deviations_and_takes_a_scale_for_each_variable():
    truth = normal(50, 3) * [1.0, 10.0, 100.0]
    assert nrmse(truth, np.full_like(truth, truth.mean())) == pytest.approx(1.0)
    assert nrmse(truth, truth + [1.0, 10.0, 100.0], scale=[1.0, 10.0, 100.0]) == pytest.approx(1.0)
    np.testing.assert_allclose(nrmse(truth, truth + [1.0, 2.0, 3.0], scale=2.0, per_lead=True), [0.5, 1.0, 1.5])


def test_twice_the_mean_pinball_loss_over_all_quantiles_is_the_crps():
    truth, ensemble = normal(100, 2), np.sort(normal(200, 100, 2, seed=1), axis=0)
    levels = (np.arange(200) + 0.5) / 200
    losses = pinball_loss(truth, ensemble, levels, per_lead=True)
    assert losses.shape == (200, 2)
    np.testing.assert_allclose(2 * losses.mean(axis=0), crps(truth, ensemble, fair=False, per_lead=True), rtol=1e-3)
    assert pinball_loss(truth, ensemble[3], levels[3]) == pytest.approx(losses[3].mean())


def test_skill_is_the_share_of_the_references_score_that_is_saved():
    assert skill_score(1.0, 4.0) == 0.75
    np.testing.assert_allclose(skill_score(np.array([0.0, 1.0, 3.0]), 2.0), [1.0, 0.5, -0.5])


# Calibration


@pytest.mark.parametrize(("n_members", "coverage"), [(19, 0.9), (99, 0.9), (9, 0.8), (2, 1 / 3)])
def test_intervals_of_exchangeable_members_cover_what_they_say(n_members, coverage):
    draws = np.random.default_rng(0).standard_cauchy(size=(n_members + 1, 20_000))  # any distribution will do
    assert interval_coverage(draws[0], draws[1:], coverage) == pytest.approx(coverage, abs=0.01)


def test_ends_of_intervals_are_order_statistics_and_interpolated_between_them():
    members = np.arange(99.0)[:, None]  # the 5th is 4, the 95th is 94; ends belong to the interval
    inside = [interval_coverage([y], members) for y in (3.999, 4.0, 94.0, 94.001)]
    assert inside == [0.0, 1.0, 1.0, 0.0]
    members = np.arange(29.0)[::-1, None]  # rank 1.5
    inside = [interval_coverage([y], members) for y in (0.499, 0.501, 27.499, 27.501)]
    assert inside == [0.0, 1.0, 1.0, 0.0]


def test_the_pit_histogram_is_flat_when_calibrated_like_a_u_when_too_narrow_and_shares_out_ties():
    draws = normal(20, 20_000)
    np.testing.assert_allclose(pit_histogram(draws[0], draws[1:]), 0.1, atol=0.01)
    np.testing.assert_allclose(pit_histogram(draws[0], draws[1:], n_bins=7), 1 / 7, atol=0.01)  # no divisor of 20
    narrow = pit_histogram(draws[0], 0.3 * draws[1:])
    assert narrow[[0, -1]].min() > 0.25
    assert narrow[1:-1].max() < 0.1
    rain = np.maximum(draws, 0.5)  # most of it equal
    np.testing.assert_allclose(pit_histogram(rain[0], rain[1:]), 0.1, atol=0.01)


def test_spread_matches_the_error_for_two_members_as_for_many():
    draws = normal(41, 40_000)
    assert spread_skill(draws[0], draws[1:3]).ratio == pytest.approx(1.0, abs=0.01)
    assert spread_skill(draws[0], draws[1:]).ratio == pytest.approx(1.0, abs=0.01)
    result = spread_skill(draws[0], 2 * draws[1:])
    assert result.spread == pytest.approx(2 * np.sqrt(41 / 40), rel=0.01)
    assert result.error == pytest.approx(np.sqrt(1 + 4 / 40), rel=0.01)


# Structure


@pytest.mark.parametrize("grid", [(15,), (16, 16), (8, 9, 10), (8, 16)])
def test_shells_add_up_to_the_mean_square(grid):
    X = normal(3, 2, *grid)
    power = spectrum(X, len(grid), per_lead=True)
    np.testing.assert_allclose(power.sum(axis=1), (X**2).mean(axis=(0, *range(2, X.ndim))))


def test_a_wave_lands_in_its_shell_on_grids_that_are_not_cubic():
    y, x = np.meshgrid(np.arange(16) / 16, np.arange(32) / 32, indexing="ij")
    along_x, along_y = np.sin(2 * np.pi * 6 * x), np.sin(2 * np.pi * 3 * y)
    for wave in (along_x, along_y):  # square cells: y is half as long, so three waves there are six along x
        np.testing.assert_allclose(spectrum(wave[None], 2)[6], 0.5)
    np.testing.assert_allclose(spectrum(along_y[None], 2, lengths=(1.0, 1.0))[3], 0.5)
    oblique = np.sin(2 * np.pi * (8 * x + 3 * y))  # 8 and 6: 10
    np.testing.assert_allclose(spectrum(oblique[None], 2)[10], 0.5)


def test_spectra_are_compared_at_the_wavenumbers_they_say():
    x = np.arange(36) / 36
    waves = np.sin(2 * np.pi * np.arange(19)[:, None] * x)  # the modes 0, 1, ..., 18 (0 and 18 vanish)
    truth, louder = waves.sum(axis=0)[None], (np.arange(19) == 5) * 9.0 + 1
    forecast = (louder @ waves)[None]
    assert spectrum_error(truth, forecast, 1) == pytest.approx(2 / 12)  # 100 times the power in one of 12
    assert high_wavenumber_ratio(truth, forecast, 1) == pytest.approx(1.0)
    for mode, ratio in ((7, 1.0), (8, 1 + 99 / 5), (12, 1 + 99 / 5), (13, 1.0)):
        forecast = (((np.arange(19) == mode) * 9.0 + 1) @ waves)[None]
        assert high_wavenumber_ratio(truth, forecast, 1) == pytest.approx(ratio), mode


def test_an_ensembles_spectrum_is_its_members_not_its_means():
    draws = normal(9, 20, 3, 1, 32)
    ratio = high_wavenumber_ratio(draws[0], draws[1:], 1, per_lead=True)
    np.testing.assert_allclose(ratio, 1.0, atol=0.2)
    assert high_wavenumber_ratio(draws[0], draws[1:].mean(axis=0), 1) == pytest.approx(1 / 8, rel=0.2)
    assert spectrum_error(draws[0], draws[0], 1) == 0.0
    assert spectrum_error(draws[0], 0 * draws[0], 1) == np.inf


def test_correlation_time_of_a_wave_that_runs_ahead():
    x, t = np.arange(64) * 2 * np.pi / 64, np.arange(1, 21)[:, None, None]
    truth, ahead = np.sin(x - 0 * t)[None], np.sin(x - 0.1 * t)[None]
    np.testing.assert_allclose(pattern_correlation(truth, ahead, per_lead=True), np.cos(0.1 * t[:, 0, 0]))
    assert correlation_time(truth, 3 * ahead + 1) == 6.0  # cos(0.6) > 0.8 > cos(0.7)
    assert correlation_time(truth, ahead, threshold=0.1, interval=0.5) == 7.0  # cos(1.4) > 0.1 > cos(1.5)
    assert correlation_time(truth, truth) == 20.0
    assert correlation_time(truth, -truth) == 0.0
    constant = 0 * truth[0] + 0.1
    assert pattern_correlation(constant, constant) == 0.0  # a constant correlates with nothing


# All together


def test_the_report_holds_every_measure_over_all_leads_and_at_each():
    walks = normal(20, 40, 5, 1, 12).cumsum(axis=2)
    found = forecast_report(
        walks[0], walks[1:], y_reference=0 * walks[0], per_lead=True, grid_ndim=1, interval=0.5, coverage=0.8
    )
    assert set(found.leads) == set(found.measures) - {"correlation_time"}
    assert len(found.leads) == 9
    np.testing.assert_allclose(found.lead_times, [0.5, 1.0, 1.5, 2.0, 2.5])
    np.testing.assert_allclose(found.leads["crps"], crps(walks[0], walks[1:], per_lead=True))
    assert found.measures["crps"] == pytest.approx(found.leads["crps"].mean())
    naive = np.abs(walks[0]).mean(axis=(0, 2, 3))  # the score of single values is their absolute error
    np.testing.assert_allclose(found.leads["crps_skill"], 1 - found.leads["crps"] / naive)
    assert found.measures["coverage"] == pytest.approx(0.8, abs=0.03)
    assert json.loads(json.dumps(found.to_dict()))["n_samples"] == 19
    assert list(found.to_frame().index) == found.lead_times.tolist()
    assert "near 0.8" in repr(found)
    assert "lead 2.5" in repr(found)
    same = forecast_report(walks[0], walks[1:], y_reference=walks[1:])
    assert same.measures["crps_skill"] == pytest.approx(0.0)
    single = forecast_report(walks[0, :, 0, 0, 0], walks[1:, :, 0, 0, 0])
    assert set(single.measures) == {"nrmse", "crps", "energy_score", "coverage", "spread_skill"}
    assert not single.leads


def test_blocks_and_containers_change_nothing(monkeypatch):
    truth, ensemble = normal(23, 3, 2), normal(19, 23, 3, 2, seed=1)
    measures = (crps, energy_score, interval_coverage, pit_histogram, lambda *a, **k: spread_skill(*a, **k).ratio)
    for measure in measures:
        whole = measure(truth, ensemble, per_lead=True)
        with monkeypatch.context() as patch:
            patch.setattr(flowmatch.metrics._ensembles, "BLOCK_ENTRIES", 1000)
            np.testing.assert_allclose(measure(truth, ensemble, per_lead=True), whole, rtol=1e-12)
        np.testing.assert_array_equal(measure(torch.tensor(truth), torch.tensor(ensemble), per_lead=True), whole)
    kept = ensemble.copy()
    crps(truth, ensemble)
    np.testing.assert_array_equal(ensemble, kept)  # sorted on a copy


Y, E = normal(6, 4), normal(20, 6, 4)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: crps(Y, E.transpose(1, 2, 0)), r"Members come first: pass np.moveaxis\(samples, 2, 0\)"),
        (lambda: crps(Y, Y), r"One member alone is samples\[None\]"),
        (lambda: crps(Y, E[:, :5]), r"samples has shape \(20, 5, 4\) and y_true \(6, 4\)"),
        (lambda: crps(Y, E[:1]), r"samples has 1 member\(s\); expected at least 2"),
        (
            lambda: crps(Y, np.where(E > 2.2, np.nan, E)),
            r"samples holds NaN or infinity in \d+ of its 480 values, first",
        ),
        (
            lambda: crps(Y[:, 0], E[:, :, 0], per_lead=True),
            r"per_lead=True needs y_true of shape \(n, n_steps, \.\.\.\)",
        ),
        (lambda: energy_score(Y[:0], E[:, :0]), r"y_true has shape \(0, 4\)"),
        (lambda: ensemble_energy_distance(E, E[:, :3]), r"X has shape \(20, 6, 4\) and Y \(20, 3, 4\)"),
        (lambda: ensemble_energy_distance(E, E[:1]), r"Y has 1 member"),
        (lambda: nrmse(Y, E), r"y_pred has shape .* The mean of an ensemble is samples.mean\(axis=0\)"),
        (lambda: nrmse(0 * Y, Y), "y_true is constant"),
        (lambda: nrmse(Y, Y, scale=np.ones(5)), r"scale has shape \(5,\)"),
        (lambda: nrmse(Y, Y, scale=[0, 1, 1, 1]), "scale must be finite and positive"),
        (lambda: pinball_loss(Y, E[:2], [0.1, 0.5, 0.9]), r"y_quantiles has shape \(2, 6, 4\) for 3 quantile"),
        (lambda: pinball_loss(Y, Y, 1.1), "quantiles must be a number in"),
        (lambda: skill_score(0.1, 0.0), "reference must be positive"),
        (
            lambda: interval_coverage(Y, E[:18]),
            r"coverage=0.9 needs 19 members or more, samples has 18, .* cover 0.895",
        ),
        (lambda: interval_coverage(Y, E, 1.0), "coverage must be a number in"),
        (lambda: pit_histogram(Y, E, 0), "n_bins must be an integer"),
        (lambda: spread_skill(Y, E[:1]), "expected at least 2 to have a spread"),
        (lambda: correlation_time(Y, Y), "one value a state"),
        (lambda: correlation_time(Y[..., None] * [1, 2], Y[..., None] * [1, 2], interval=0), "interval must be"),
        (lambda: spectrum(Y, 4), "grid_ndim must be an integer from 1 to 3"),
        (lambda: spectrum(Y, 2), r"X has shape \(6, 4\); expected \(n, \.\.\., \*grid\) with 2 axes of a grid"),
        (lambda: spectrum(Y, 1, lengths=(1, 2)), "lengths must be 1 positive numbers"),
        (lambda: spectrum_error(Y, E[:, :5], 1), r"samples has shape \(20, 5, 4\)"),
        (lambda: spectrum_error(Y[:, :2], E[:, :, :2], 1), "expected 3 a side at least"),
        (lambda: spectrum_error(0 * Y, E, 1), "y_true has no power"),
        (lambda: forecast_report(Y, E, y_reference=Y[:3]), r"y_reference has shape \(3, 4\)"),
        (lambda: forecast_report(Y, E, interval=-1), "interval must be"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
