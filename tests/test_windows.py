"""Windows of trajectories, the calendar, boundaries, and the rows that a forecaster trains on."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from exact_forecasts import tiny, tiny_fields

from flowmatch.forecasting import training_windows_of, window_data, windows_like_fit
from flowmatch.forecasting.layout import layout_of_trajectories
from flowmatch.forecasting.training import unseen_predictions
from flowmatch.preprocessing import (
    calendar_features,
    find_boundaries,
    find_cycles,
    read_trajectories,
)

RNG = np.random.default_rng(0)
UNEQUAL = [RNG.normal(size=(length, 3)) for length in (9, 4, 6)]
FIELDS = [RNG.normal(size=(length, 2, 4)) for length in (9, 4, 6)]


def windows_of(X, **parameters):
    forecaster, trajectories = tiny(**parameters), read_trajectories(X)
    return layout_of_trajectories(trajectories, forecaster).windows_of(trajectories)


def by_hand(X, n_lags, horizon):
    """Contexts, targets and numbers of trajectories, one window after the other."""
    found = [], [], []
    for number, states in enumerate(X):
        for now in range(n_lags, len(states) - horizon + 1):
            for part, value in zip(
                found, (states[now - n_lags : now], states[now : now + horizon], number), strict=True
            ):
                part.append(value)
    return tuple(map(np.array, found))


def rows_of(forecaster, X):
    """Rows to train on, as `fit` makes them."""
    return training_windows_of(forecaster.fitted_, windows_like_fit(forecaster, X, None))


# -- windows --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n_lags", "horizon"), [(1, 1), (3, 1), (1, 3), (2, 2)])
@pytest.mark.parametrize("X", [UNEQUAL, FIELDS, RNG.normal(size=(3, 7, 2)), RNG.normal(size=(8, 2))], ids=["lists", "fields", "array", "one"])  # fmt: skip
def test_windows_are_what_a_loop_cuts_and_never_reach_across_trajectories(X, n_lags, horizon):
    windows = windows_of(X, n_lags=n_lags, horizon=horizon)
    contexts, targets, groups = by_hand(X if np.ndim(X[0]) > 1 else [X], n_lags, horizon)
    every = np.arange(len(windows))
    np.testing.assert_array_equal(windows.contexts(every), contexts)
    np.testing.assert_array_equal(windows.states_ahead(every), targets)
    np.testing.assert_array_equal(windows.groups, groups)
    np.testing.assert_array_equal(windows.contexts(every[::-2]), contexts[::-2])


def test_trajectories_come_in_many_containers():
    expected = read_trajectories(UNEQUAL).frames.array()
    for X in (tuple(UNEQUAL), [torch.as_tensor(x) for x in UNEQUAL], [pd.DataFrame(x) for x in UNEQUAL], [x.tolist() for x in UNEQUAL]):  # fmt: skip
        read = read_trajectories(X)
        np.testing.assert_array_equal(read.frames.array(), expected)
        assert read.lengths.tolist() == [9, 4, 6]
    assert read_trajectories(np.arange(5.0)).state_shape == (1,)
    assert read_trajectories([1.0, 2.0, 3.0]).lengths.tolist() == [3]
    assert [read.at(frame) for frame in (0, 8, 9, 18)] == [(0, 0), (0, 8), (1, 0), (2, 5)]


def test_columns_land_where_they_should():
    """Contexts hold all columns of all lags, then those known ahead of the instants to come; targets hold the others."""
    names = ["load", "price", "wind", "heat"]
    frames = [pd.DataFrame(np.random.default_rng(k).normal(size=(12, 4)), columns=names) for k in range(2)]
    parameters = {"n_lags": 2, "horizon": 3, "known_columns": "price", "exogenous_columns": ["wind"], "target": "state"}
    forecaster = tiny(**parameters).fit(frames)
    encoder, windows = forecaster.model_.conditions, windows_like_fit(forecaster, frames, None)
    every = np.arange(len(windows))
    states = [((frame - encoder.mean) / encoder.scale).to_numpy() for frame in frames]
    contexts, targets, _ = by_hand(states, 2, 3)
    expected = np.concatenate([contexts.reshape(len(every), -1), targets[:, :, 1]], axis=1)
    np.testing.assert_allclose(encoder.read_contexts(windows, every), expected, atol=1e-6)
    asked = (
        by_hand([frame.to_numpy() for frame in frames], 2, 3)[1][:, :, [0, 3]] - encoder.target_mean
    ) / encoder.target_scale
    np.testing.assert_allclose(encoder.target_states(windows.states_ahead(every)), asked, atol=1e-6)
    np.testing.assert_allclose(encoder.truth(windows), asked * encoder.target_scale + encoder.target_mean)
    np.testing.assert_allclose(encoder.mean, np.concatenate(frames).mean(axis=0))
    np.testing.assert_allclose(encoder.scale, np.concatenate(frames).std(axis=0))
    by_number = tiny(**{**parameters, "known_columns": 1, "exogenous_columns": -2}).fit([f.to_numpy() for f in frames])
    assert by_number.fitted_.layout.targets == forecaster.fitted_.layout.targets == (0, 3)
    assert by_number.fitted_.layout.known == forecaster.fitted_.layout.known == (1,)


# -- rows to train on -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("changes", [{}, {"target": "state"}, {"n_lags": 2, "horizon": 2}], ids=str)
@pytest.mark.parametrize("exogenous", [None, 0])
def test_rows_of_fields_are_computed_from_the_raw_states(changes, exogenous):
    forecaster = tiny_fields(**changes, exogenous_columns=exogenous).fit(FIELDS)
    n_lags, horizon = forecaster.n_lags, forecaster.horizon
    contexts, targets, _ = by_hand(FIELDS, n_lags, horizon)
    whole = np.concatenate(FIELDS)
    mean, std = whole.mean(axis=(0, 2), keepdims=True), whole.std(axis=(0, 2), keepdims=True)
    contexts, targets = (contexts - mean) / std, (targets - mean) / std
    if exogenous is not None:
        targets = targets[:, :, 1:]
    base = 0.0 if "target" in changes else contexts[:, -1:, -targets.shape[2] :]
    left = (targets - base).reshape(len(targets), -1, 4)
    codes = (left - left.mean(axis=(0, 2), keepdims=True)) / left.std(axis=(0, 2), keepdims=True)
    rows = torch.tensor([5, 0, 7])
    found, condition = rows_of(forecaster, FIELDS).draw(rows)
    np.testing.assert_allclose(condition, contexts[rows].reshape(3, -1), atol=1e-5)
    np.testing.assert_allclose(found, codes[rows], atol=1e-5)


def test_states_that_stay_on_disk_or_are_too_many_give_the_same_rows(tmp_path, monkeypatch):
    states = np.random.default_rng(0).normal(size=(3, 6, 1, 4))
    np.save(tmp_path / "states.npy", states)
    mapped = np.load(tmp_path / "states.npy", mmap_mode="r")
    forecaster = tiny_fields(n_lags=2).fit(mapped)
    np.testing.assert_array_equal(
        forecaster.predict(states[:, :2]), tiny_fields(n_lags=2).fit(states).predict(states[:, :2])
    )
    kept, read = rows_of(forecaster, states), rows_of(forecaster, mapped)
    monkeypatch.setattr(window_data, "KEPT_ELEMENTS", states.size - 1)
    many = rows_of(forecaster, states)
    assert (kept.kept is None, read.kept is None, many.kept is None) == (False, True, True)
    rows = torch.tensor([3, 11, 0])
    for other in (read, many, read.take(torch.arange(12))):
        for a, b in zip(kept.draw(rows), other.draw(rows), strict=True):
            torch.testing.assert_close(a, b)
    for a, b in zip(kept.take(rows).draw(torch.tensor([2])), kept.draw(torch.tensor([0])), strict=True):
        torch.testing.assert_close(a, b)
    assert torch.equal(kept.tensors()["states"], read.tensors()["states"])


def test_pairs_of_fields_keep_targets_of_their_own():
    contexts, targets = np.random.default_rng(0).normal(size=(9, 2, 4)), np.random.default_rng(0).normal(size=(9, 1, 4))
    forecaster = tiny_fields().fit(contexts, targets)
    data = training_windows_of(forecaster.fitted_, windows_like_fit(forecaster, contexts, targets))
    codes, condition = data.draw(torch.arange(9))
    scaled = (contexts - contexts.mean((0, 2), keepdims=True)) / contexts.std((0, 2), keepdims=True)
    np.testing.assert_allclose(condition, scaled.reshape(9, -1), atol=1e-5)
    np.testing.assert_allclose(codes, (targets - targets.mean()) / targets.std(), atol=1e-5)


def test_noise_on_the_context_leaves_the_true_next_state_the_target():
    forecaster = tiny_fields(n_lags=2, horizon=2).fit(FIELDS)
    encoder, transform = forecaster.model_.conditions, forecaster.preprocessing_
    plain = rows_of(forecaster, FIELDS)
    noisy = replace(plain, context_noise=0.7)
    assert len(noisy) == len(plain)
    assert noisy.weight is None
    rows = torch.arange(len(plain))
    codes, condition = noisy.draw(rows, torch.Generator().manual_seed(0))
    clean = plain.draw(rows)[1]
    assert float((condition - clean).std()) == pytest.approx(0.7, rel=0.1)
    left = forecaster.model_.encoder.decode(codes.double().numpy())
    context = condition.unflatten(1, (encoder.n_columns, 4))
    reached = encoder.base(context).numpy() + left
    truth = encoder.target_states(by_hand(FIELDS, 2, 2)[1]).flatten(1, 2)
    np.testing.assert_allclose(reached, truth, atol=1e-5)
    assert transform.scale_.shape == (4,)
    part = noisy.take(rows[:3])
    assert len(part) == 3


# -- rows that are held out -------------------------------------------------------------------------------------------


def test_whole_trajectories_are_held_out():
    X = [np.random.default_rng(0).normal(size=(length, 2)) for length in (9, 4, 6, 8, 7, 5, 9, 6, 4, 12)]
    data = rows_of(tiny().fit(X), X)
    kept, held_out = data.order(round(0.2 * len(data)), torch.Generator().manual_seed(0))
    groups = [set(data.groups[rows].tolist()) for rows in (kept, held_out)]
    assert len(held_out) == pytest.approx(0.2 * len(data), abs=4)  # half of a trajectory's windows
    assert not groups[0] & groups[1]
    assert sorted([*kept.tolist(), *held_out.tolist()]) == list(range(len(data)))
    assert held_out.tolist() != sorted(held_out.tolist())  # parts of them are looked at, so the order is random
    others = {
        tuple(sorted(set(data.groups[data.order(12, torch.Generator().manual_seed(s))[1]].tolist()))) for s in range(9)
    }
    assert len(others) > 3


def test_one_of_a_few_short_trajectories_is_held_out_whole():
    X = np.random.default_rng(0).normal(size=(3, 5, 2))
    kept, held_out = rows_of(tiny().fit(X), X).split(0.1, torch.Generator().manual_seed(0))
    assert (len(kept), len(held_out)) == (8, 4)
    assert len(set(held_out.groups.tolist())) == 1


@pytest.mark.parametrize("n_trajectories", [1, 3])
def test_the_ends_of_few_series_are_held_out_and_share_nothing_with_what_is_kept(n_trajectories):
    X = [100.0 * number + np.arange(40.0)[:, None] for number in range(n_trajectories)]
    data = rows_of(tiny(n_lags=3, horizon=2, training=None).fit(X), X)
    kept, held_out = data.order(round(0.1 * len(data)), torch.Generator().manual_seed(0))
    contexts, targets, groups = by_hand(X, 3, 2)
    states = np.concatenate([contexts, targets], axis=1)[:, :, 0]
    assert not set(states[kept].ravel()) & set(states[held_out].ravel())
    for number in range(n_trajectories):
        ends = np.sort(held_out[groups[held_out] == number])
        last = np.flatnonzero(groups == number)[-1]
        np.testing.assert_array_equal(ends, np.arange(last - 3, last + 1))
        assert len(kept[groups[kept] == number]) == 36 - 4 - 4


@pytest.mark.parametrize("lengths", [(300, 40, 25, 10), (100, *[30] * 8), (60, *range(5, 25))])
def test_about_as_much_is_held_out_as_asked_of_series_of_unequal_lengths(lengths):
    X = [np.random.default_rng(0).normal(size=(length, 1)) for length in lengths]
    data = rows_of(tiny(n_lags=2).fit(X), X)
    for seed in range(10):
        kept, held_out = data.order(round(0.15 * len(data)), torch.Generator().manual_seed(seed))
        assert 0.07 < len(held_out) / len(data) < 0.25
        assert len(kept) + len(held_out) >= len(data) - 2 * len(X)


def test_too_few_windows_to_hold_any_out_are_refused_by_name():
    data = rows_of(
        tiny(n_lags=8).fit(np.random.default_rng(0).normal(size=(14, 1))), np.random.default_rng(0).normal(size=(14, 1))
    )
    with pytest.raises(ValueError, match="holding out 1 of 6 windows leaves none to train on"):
        data.split(0.1, torch.Generator().manual_seed(0))


@pytest.mark.parametrize("n_rows", [6, 19, 40])
def test_residuals_of_a_row_come_from_a_regression_that_has_not_seen_it(n_rows):
    X, groups = np.random.default_rng(0).normal(size=(n_rows, 4)), np.arange(n_rows)
    y = X.sum(axis=1, keepdims=True)
    moved = y + 50.0 * (groups == 3)[:, None]
    first, second = (unseen_predictions(X, targets, 0.01, groups, 1) for targets in (y, moved))
    np.testing.assert_array_equal(first[3], second[3])
    assert (first != second).any()


# -- the calendar -----------------------------------------------------------------------------------------------------


def test_calendar_features_have_the_periods_they_are_named_for():
    hours = pd.date_range("2021-01-01", periods=24 * 800, freq="h")
    year, week, day = (calendar_features(hours, (name,)) for name in ("year", "week", "day"))
    assert year.shape == (len(hours), 4)
    np.testing.assert_allclose(day[24:], day[:-24], atol=1e-9)
    np.testing.assert_allclose(week[168:], week[:-168], atol=1e-9)
    np.testing.assert_allclose(year[365 * 24 : 365 * 24 * 2], year[: 365 * 24], atol=1e-9)  # 2021 and 2022
    for features in (day[:24], week[:168], year[: 365 * 24]):  # no smaller period, and the unit circle
        assert len(np.unique(features.round(9), axis=0)) == len(features)
        np.testing.assert_allclose(features[:, 0] ** 2 + features[:, 1] ** 2, 1.0)
        np.testing.assert_allclose(features[:, 2], 2 * features[:, 0] * features[:, 1], atol=1e-9)
    np.testing.assert_array_equal(calendar_features(hours, ("week", "day")), np.hstack([week, day]))
    midsummer = calendar_features(pd.DatetimeIndex(["2021-07-02 12:00", "2020-07-02"]), ("year",))
    np.testing.assert_allclose(midsummer[:, :2], [[0.0, -1.0]] * 2, atol=1e-6)  # half a year, leap or not


def test_cycles_are_found_if_seen_twice_and_sampled_often_enough():
    def cycles(freq, periods):
        return find_cycles((pd.date_range("2020-01-01", periods=periods, freq=freq),))

    assert cycles("D", 60) == ("week",)
    assert cycles("D", 800) == ("year", "week")
    assert cycles("h", 24 * 20) == ("week", "day")
    assert cycles("h", 40) == ()
    assert cycles("MS", 30) == ("year",)
    assert cycles("QS", 30) == ("year",)
    assert cycles("YS", 30) == ()
    assert find_cycles((None,)) == ()
    assert find_cycles(()) == ()


@pytest.mark.parametrize("freq", ["MS", "QS", "B", "h", "7h", "W-SUN"])
def test_instants_to_come_follow_the_spacing(freq):
    index = pd.date_range("2019-01-01", periods=700, freq=freq)
    frame = pd.DataFrame({"a": np.random.default_rng(0).normal(size=700)}, index=index)
    forecaster = tiny(n_lags=2, calendar=["year"]).fit(frame[:600])
    for last, step in ((599, 0), (599, 5), (601, 17)):
        expected = calendar_features(index[[last + 1 + step]], ("year",))
        np.testing.assert_allclose(forecaster.fitted_.layout.calendar_ahead([index[last]], step), expected, atol=1e-9)
    windows = windows_like_fit(forecaster, frame[:5], None)
    np.testing.assert_allclose(windows.calendar, calendar_features(index[2:5], ("year",)))


# -- boundaries -------------------------------------------------------------------------------------------------------


def grid(*sizes):
    return np.meshgrid(*[np.arange(size) / size for size in sizes], indexing="ij")


def test_periodic_and_walled_axes_are_told_apart():
    phases, (x, y) = np.random.default_rng(0).uniform(0, 2 * np.pi, size=(40, 1, 1)), grid(16, 12)
    waves = np.sin(2 * np.pi * x + phases) + np.sin(2 * np.pi * 2 * y - phases)
    assert find_boundaries(waves[:, None]) == ("periodic", "periodic")
    profile = np.cos(np.pi * y * 12 / 11)  # from wall to wall, another value at each
    mixed = np.sin(2 * np.pi * x + phases) * (2 + profile) + profile
    assert find_boundaries(mixed[:, None]) == ("periodic", "wall")
    assert find_boundaries(mixed.swapaxes(1, 2)[:, None]) == ("wall", "periodic")
    assert find_boundaries(np.stack([waves, mixed], 1)) == ("periodic", "wall")  # one channel that tells is enough
    blank = np.pad(np.random.default_rng(0).normal(size=(40, 1, 12, 8)), ((0, 0), (0, 0), (2, 2), (2, 2)))
    assert find_boundaries(blank) == ("wall", "wall")
    layers = np.full((400, 1, 12), 10.0)  # the ends differ as neighbours do in the mean, but not as those beside them
    layers[..., [0, -1]] = np.random.default_rng(0).normal(scale=2.5, size=(400, 1, 2))
    assert find_boundaries(layers) == ("wall",)
    assert find_boundaries(np.ones((5, 1, 8))) == ("wall",)
    assert find_boundaries(waves[:, None, :, :1])[1] == "wall"  # a single point has no neighbours
    assert find_boundaries(np.sin(2 * np.pi * grid(16)[0] + phases[:, :, 0])[:, None]) == ("periodic",)


def test_fits_look_at_the_border_unless_they_are_told():
    phases = np.random.default_rng(0).uniform(0, 2 * np.pi, size=(3, 8, 1, 1))
    fields = np.sin(2 * np.pi * grid(8)[0] + phases)
    assert tiny_fields().fit(fields).boundary_ == ("periodic",)
    assert tiny_fields(boundary="wall").fit(fields).boundary_ == ("wall",)
    unet = tiny_fields(network="unet", max_iter=1, boundary=("periodic", "wall")).fit(
        np.random.default_rng(0).normal(size=(2, 4, 1, 8, 8))
    )
    assert unet.boundary_ == ("periodic", "wall")
    assert unet.model_.blueprint.factory.boundary == ("periodic", "zeros")


def test_the_errors_of_a_long_series_among_short_ones_come_from_regressions_that_know_the_rest_of_it():
    """Folds of trajectories would leave a few rows of the short ones to learn from."""
    rng = np.random.default_rng(0)
    states = [rng.normal(size=(length, 10)) for length in (400, 8, 8, 8, 8)]
    series = [np.cumsum(part, axis=0) for part in states]
    forecaster = tiny(target="residual").fit(series)
    assert forecaster.preprocessing_.scale_.max() < 1.3  # the walk's steps have 1; without the rest of it, 14
