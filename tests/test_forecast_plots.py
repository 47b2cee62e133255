"""The display of forecasts: fans, panels and animations."""

import matplotlib

matplotlib.use("Agg")

import numpy as np
import pytest
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from PIL import Image, ImageSequence

from flowmatch.plotting import ForecastDisplay


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def ensemble(*state, n_samples=9, n=2, n_steps=6, seed=0):
    """Samples and truth of walks."""
    draws = np.random.default_rng(seed).normal(size=(n_samples + 1, n, n_steps, *state)).cumsum(axis=2)
    return draws[1:], draws[0]


class Walker:
    """Rolls out from the last value of X in steps of known size."""

    def rollout(self, X, n_steps, n_samples=1, random_state=None):
        self.asked = {"n_steps": n_steps, "n_samples": n_samples, "random_state": random_state}
        steps = np.random.default_rng(random_state).normal(size=(n_samples, len(X), n_steps, *np.shape(X)[1:]))
        return X[:, None] + steps.cumsum(axis=2)


def band_at(band, time):
    corners = band.get_paths()[0].vertices
    return np.sort(np.unique(corners[np.isclose(corners[:, 0], time), 1]))


# Series


def test_a_fan_holds_the_shares_it_says_from_the_last_known_value_on():
    samples = np.arange(1.0, 20)[:, None, None] * np.ones((19, 2, 6))  # ranks are values
    samples[:, 0] = 99.0  # another row
    truth, history = np.full((2, 6), 7.0), np.arange(8.0).reshape(2, 4)
    display = ForecastDisplay.from_samples(samples, truth, history=history, index=1)
    wide, narrow = display.bands_[0]
    np.testing.assert_allclose(band_at(wide, 3.0), [1.0, 19.0])  # 19 members: 90 % from the smallest to the largest
    np.testing.assert_allclose(band_at(narrow, 3.0), [5.0, 15.0])
    np.testing.assert_allclose(band_at(wide, 0.0), [7.0])
    (past,), (true,), (median,) = (display.lines_[name] for name in ("history", "truth", "median"))
    np.testing.assert_allclose(past.get_xydata(), np.column_stack([np.arange(-3.0, 1.0), history[1]]))
    np.testing.assert_allclose(true.get_ydata(), 7.0)
    np.testing.assert_allclose(median.get_ydata(), [7.0] + [10.0] * 6)


def test_series_have_a_panel_a_variable_and_times_may_be_dates():
    samples, truth = ensemble(2)
    dates = np.arange("2024-02-27", "2024-03-08", dtype="datetime64[D]")
    history = np.zeros((2, 4, 2))
    display = ForecastDisplay.from_samples(samples, truth, history=history, times=dates, names=["wind", "rain"])
    assert [panel.get_ylabel() for panel in display.axes_] == ["wind", "rain"]
    np.testing.assert_array_equal(display.lines_["truth"][1].get_ydata()[1:], truth[0, :, 1])
    alone = ForecastDisplay.from_samples(samples, history=history, times=dates[4:])
    for line, expected in zip(alone.lines_["history"], display.lines_["history"], strict=True):
        np.testing.assert_array_equal(line.get_xdata(), expected.get_xdata())
    assert not alone.lines_["truth"]


def test_an_estimator_is_rolled_out_as_asked():
    walker, X = Walker(), np.zeros((3, 2))
    display = ForecastDisplay.from_estimator(
        walker, X, n_steps=5, n_samples=7, random_state=4, index=2, coverages=[0.5]
    )
    assert walker.asked == {"n_steps": 5, "n_samples": 7, "random_state": 4}
    np.testing.assert_array_equal(display.samples, walker.rollout(X, 5, 7, 4)[:, 2])
    assert len(display.bands_[0]) == 1


# Fields


@pytest.mark.parametrize("state", [(2, 8), (2, 5, 7), (2, 4, 5, 7)])
def test_fields_show_truth_mean_member_spread_and_error_on_their_scales(state):
    samples, truth = ensemble(*state)
    steps = None if len(state) == 2 else [1, 6]
    display = ForecastDisplay.from_samples(samples, truth, index=1, channel=1, member=3, slice_axis=0, steps=steps)
    ours, true = samples[:, 1, :, 1], truth[1, :, 1]
    if len(state) == 4:
        ours, true = ours[:, :, 2], true[:, 2]
    expected = {
        "truth": true,
        "mean": ours.mean(axis=0),
        "member": ours[3],
        "spread": ours.std(axis=0, ddof=1),
        "error": ours.mean(axis=0) - true,
    }
    assert list(display.images_) == list(expected)
    for name, images in display.images_.items():
        last = expected[name].T if len(state) == 2 else expected[name][-1]
        np.testing.assert_allclose(np.reshape(images[-1].get_array(), last.shape), last)  # flat before matplotlib 3.8
    limits = {name: images[0].get_clim() for name, images in display.images_.items()}
    assert limits["truth"] == limits["mean"] == limits["member"]
    assert limits["member"] == (min(true.min(), ours[3].min()), max(true.max(), ours[3].max()))
    assert limits["error"][0] == -limits["error"][1]
    assert limits["spread"][0] == 0.0
    assert len(display.colorbars_) == 3
    assert display.axes_.shape == ((5,) if len(state) == 2 else (5, 2))


def test_lead_times_are_chosen_and_what_is_unknown_is_left_out():
    samples, truth = ensemble(1, 4, 4)
    display = ForecastDisplay.from_samples(samples, steps=[1, 4, 4], times=np.arange(6) / 2)
    assert list(display.images_) == ["mean", "member", "spread"]
    assert [panel.get_title() for panel in display.axes_[0]] == ["t = 0", "t = 1.5", "t = 1.5"]
    np.testing.assert_array_equal(display.images_["member"][1].get_array(), samples[0, 0, 3, 0])
    single = ForecastDisplay.from_samples(samples[:1], truth)
    assert single.axes_.shape == (3, 5)
    assert list(single.images_) == ["truth", "member", "error"]
    one_step = ForecastDisplay.from_samples(*(X[..., :1, :, 0, :] for X in (samples, truth)), colorbar=False)
    assert one_step.axes_.shape == (5,)
    assert not one_step.colorbars_


def test_a_given_axes_is_divided():
    figure, (left, right) = plt.subplots(1, 2)
    display = ForecastDisplay.from_samples(ensemble(1, 4, 4)[0], ax=left, steps=[1, 6])
    assert display.figure_ is figure
    assert display.axes_.shape == (3, 2)
    assert ForecastDisplay.from_samples(*ensemble(), ax=right).axes_[0] is right


# Animation


@pytest.mark.parametrize("state", [(2,), (1, 8), (1, 5, 7)])
def test_an_animation_has_a_frame_a_lead_time_and_moves(tmp_path, state):
    samples, truth = ensemble(*state, n_steps=2)
    target = ForecastDisplay(samples[:, 0], truth[0]).animate(tmp_path / "rollout.gif", interval_ms=60, dpi=30)
    with Image.open(target) as image:
        frames = [np.asarray(frame.convert("L"), dtype=float) for frame in ImageSequence.Iterator(image)]
        assert image.info["duration"] == 60
    assert len(frames) == 2
    height = len(frames[0])
    below_title = [frame[height // 4 :] for frame in frames]
    assert all(np.abs(a - b).max() > 20 for a, b in zip(below_title[:-1], below_title[1:], strict=True))
    assert not plt.get_fignums()


def test_animated_pictures_are_those_of_each_step(tmp_path, monkeypatch):
    samples, truth = ensemble(1, 4, 5, n_steps=3)
    seen = []
    draw = Figure.savefig

    def spy(figure, *args, **kwargs):
        seen.append({panel.get_title(): panel.images[0].get_array().copy() for panel in figure.axes})
        return draw(figure, *args, **kwargs)

    monkeypatch.setattr(Figure, "savefig", spy)
    ForecastDisplay(samples[:, 0], truth[0]).animate(
        tmp_path / "rollout.gif", panels=("truth", "member", "error"), member=2, dpi=20
    )
    assert [list(frame) for frame in seen] == [["truth", "member", "error"]] * 3
    for step, frame in enumerate(seen):
        np.testing.assert_array_equal(frame["truth"], truth[0, step, 0])
        np.testing.assert_array_equal(frame["member"], samples[2, 0, step, 0])


SERIES, FIELDS = ensemble(2), ensemble(2, 4, 4)
UNDRAWN = ForecastDisplay(FIELDS[0][:, 0], FIELDS[1][0])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda show: show(SERIES[0][0, 0]),
            r"samples has shape \(6, 2\); expected \(n_samples, n, n_steps, \*state\)",
        ),
        (lambda show: show(SERIES[0], SERIES[1][:, :4]), r"y_true has shape \(2, 4, 2\); expected \(2, 6, 2\)"),
        (
            lambda show: show(SERIES[0], history=np.zeros((2, 3))),
            r"history has shape \(2, 3\); expected \(2, n_history, 2",
        ),
        (lambda show: show(FIELDS[0], history=FIELDS[1]), "history is for series"),
        (lambda show: show(*SERIES, index=2), "index must be an integer from 0 to 1 for samples with 2 rows"),
        (lambda show: show(*SERIES, times=np.arange(5)), r"times has shape \(5,\); expected \(6,\)"),
        (lambda show: show(*SERIES, times=[0, 1, 2, 2, 3, 4]), "times must be increasing"),
        (lambda show: show(*SERIES, times=list("abcdef")), "times must be numbers or dates"),
        (lambda show: show(*SERIES, names=["wind"]), "names holds 1 labels for 2 variables"),
        (lambda show: show(*SERIES, coverages=[90]), "coverages must be a number in"),
        (lambda show: show(*FIELDS, channel=2), "channel must be an integer from 0 to 1 for fields with 2 channels"),
        (lambda show: show(*FIELDS, member=9), "member must be an integer from 0 to 8"),
        (lambda show: show(*FIELDS, steps=[0]), "each of steps must be an integer from 1 to 6"),
        (lambda show: show(*FIELDS, steps=[]), "steps is empty"),
        (lambda show: show(*ensemble(1, 8), steps=[1]), "steps is for fields in 2 and 3 dimensions"),
        (lambda show: UNDRAWN.animate("a.mp4"), "path must end in '.gif', got 'a.mp4'"),
        (lambda show: UNDRAWN.animate("a.gif", panels=["mode"]), "panels must be some of 'truth', 'mean'"),
        (
            lambda show: ForecastDisplay(FIELDS[0][:, 0]).animate("a.gif", panels=["error"]),
            "leaves nothing to show: there are 'mean'",
        ),
        (lambda show: UNDRAWN.animate("a.gif", interval_ms=0), "interval_ms must be an integer >= 10"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call(ForecastDisplay.from_samples)
