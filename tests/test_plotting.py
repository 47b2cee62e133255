"""Displays of samples and of training."""

import subprocess
import sys

import matplotlib

matplotlib.use("Agg")

import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt
from sklearn.exceptions import NotFittedError

from flowmatch import MLP, FlowMatchingGenerator, TrainingOptions
from flowmatch.plotting import SampleGridDisplay, SignalGridDisplay, TrainingCurveDisplay


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def texts(axis):
    return [label.get_text() for label in axis.get_ticklabels()]


def fit(X, y=None, **training):
    generator = FlowMatchingGenerator(
        MLP(width=8), max_iter=4, random_state=0, device="cpu", training=TrainingOptions(**training)
    )
    return generator.fit(X, y)


RAMP = np.arange(6 * 2 * 3, dtype=np.uint8).reshape(6, 1, 2, 3)


# -- pictures -----------------------------------------------------------------------------------------------------


def test_every_picture_is_in_its_cell_and_nothing_is_between():
    display = SampleGridDisplay.from_samples(RAMP, n_columns=3)
    shown = np.ma.filled(display.image_.get_array(), np.nan)
    assert shown.shape == (2 * 3 - 1, 3 * 4 - 1)
    for i in range(6):
        row, column = divmod(i, 3)
        cell = shown[3 * row : 3 * row + 2, 4 * column : 4 * column + 3]
        np.testing.assert_allclose(cell, RAMP[i, 0] / 35.0)  # the largest value is 35
    assert np.isnan(shown[2]).all()
    assert np.isnan(shown[:, [3, 7]]).all()


@pytest.mark.parametrize(
    ("parameters", "columns"),
    [({}, 3), ({"n_columns": 4}, 4), ({"row_labels": "ab"}, 3), ({"column_labels": "ab"}, 2), ({"row_labels": "a"}, 6)],
)
def test_the_number_of_columns_follows_from_what_is_given(parameters, columns):
    display = SampleGridDisplay.from_samples(RAMP, **parameters)
    assert display.n_columns == columns
    assert display.image_.get_array().shape[1] == 4 * columns - 1


def test_labels_stand_in_the_middle_of_their_rows_and_columns():
    display = SampleGridDisplay.from_samples(RAMP, row_labels=["1 step", "8 steps"], column_labels=[0, 1, 2], gap=2)
    assert texts(display.ax_.yaxis) == ["1 step", "8 steps"]
    assert texts(display.ax_.xaxis) == ["0", "1", "2"]
    assert display.ax_.get_yticks().tolist() == [0.5, 4.5]
    assert display.ax_.get_xticks().tolist() == [1.0, 6.0, 11.0]


def test_a_value_range_sets_black_and_white():
    display = SampleGridDisplay.from_samples(RAMP, value_range=(10, 20), n_columns=6)
    np.testing.assert_allclose(display.image_.get_array()[:, :3], 0.0)
    np.testing.assert_allclose(display.image_.get_array()[0, 8], (12 - 10) / 10)
    np.testing.assert_allclose(display.image_.get_array()[:, -3:], 1.0)


@pytest.mark.parametrize("channels", [3, 4])
def test_colors_are_kept_and_gaps_are_transparent(channels):
    X = np.random.default_rng(0).integers(0, 256, size=(3, channels, 2, 2)).astype(np.uint8)
    X[0, :, 0, 0], X[0, :, 1, 1] = 0, 255
    shown = SampleGridDisplay.from_samples(X, n_columns=2).image_.get_array()
    assert shown.shape == (5, 5, 4)
    np.testing.assert_allclose(shown[:2, 3:, :channels], X[1].transpose(1, 2, 0) / 255)
    assert (shown[2, :, 3] == 0).all()
    assert (shown[3:, 3:, 3] == 0).all()  # there is no fourth picture
    if channels == 3:
        assert (shown[:2, :2, 3] == 1).all()


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_field_shows_its_middle_slice(axis):
    X = np.random.default_rng(0).normal(size=(2, 3, 4, 5, 6))
    display = SampleGridDisplay.from_samples(torch.as_tensor(X, dtype=torch.float64), slice_axis=axis, channel=2)
    middle = X[:, 2].take([2, 2, 3][axis], axis=axis + 1)
    np.testing.assert_allclose(display.pictures[..., 0], middle, rtol=1e-6)
    first = SampleGridDisplay.from_samples(X, slice_axis=axis)
    np.testing.assert_allclose(first.pictures[..., 0], X[:, 0].take([2, 2, 3][axis], axis=axis + 1))


def test_one_channel_of_many_can_be_shown():
    X = np.random.default_rng(0).normal(size=(2, 5, 4, 4))
    np.testing.assert_array_equal(SampleGridDisplay.from_samples(X, channel=3).pictures[..., 0], X[:, 3])


def test_a_grid_is_drawn_on_given_axes_and_saved(tmp_path):
    figure, ax = plt.subplots()
    display = SampleGridDisplay.from_samples(RAMP, ax=ax, cmap="viridis")
    assert display.ax_ is ax
    assert display.figure_ is figure
    assert display.image_.get_cmap().name == "viridis"
    display.figure_.savefig(tmp_path / "grid.png")
    assert (tmp_path / "grid.png").stat().st_size > 0


@pytest.mark.parametrize(
    ("X", "parameters", "message"),
    [
        (RAMP[:, 0], {}, r"X has shape \(6, 2, 3\); images are .* One-channel images are X\[:, None\]"),
        (RAMP[:0], {}, r"X has shape \(0, 1, 2, 3\)"),
        (np.zeros((2, 8, 8, 3)), {}, r"8 channels; .* channels last: pass X.transpose\(0, 3, 1, 2\)"),
        (np.zeros((2, 2, 8, 8)), {}, r"2 channels; pictures show 1 \(gray\), 3 \(RGB\) or 4 \(RGBA\): choose one"),
        (RAMP, {"channel": 1}, "channel must be an integer from 0 to 0 for samples with 1 channels, got 1"),
        (np.zeros((2, 1, 4, 4, 4)), {"slice_axis": 3}, "slice_axis must be an integer from 0 to 2, got 3"),
        (RAMP, {"n_columns": 0}, "n_columns must be an integer >= 1"),
        (RAMP, {"n_columns": 3, "row_labels": "abc"}, "row_labels holds 3 labels for 2 rows"),
        (RAMP, {"n_columns": 3, "column_labels": "ab"}, "column_labels holds 2 labels for 3 columns"),
        (RAMP, {"gap": -1}, "gap must be an integer >= 0"),
    ],
)
def test_wrong_pictures_are_refused(X, parameters, message):
    with pytest.raises(ValueError, match=message):
        SampleGridDisplay.from_samples(X, **parameters)


def test_a_generator_with_labels_fills_a_column_a_label():
    X = np.random.default_rng(0).integers(0, 17, size=(60, 1, 4, 4)).astype(np.uint8)
    generator = fit(X, np.repeat(["a", "b", "c"], 20))
    display = SampleGridDisplay.from_estimator(generator, n_rows=2, random_state=0, sample_params={"n_steps": 2})
    assert texts(display.ax_.xaxis) == ["a", "b", "c"]
    samples = generator.sample(6, ["a", "b", "c", "a", "b", "c"], random_state=0, n_steps=2)
    np.testing.assert_array_equal(display.pictures[..., 0], samples[:, 0])
    chosen = SampleGridDisplay.from_estimator(generator, ["c", "a"], column_labels=["third", "first"])
    assert texts(chosen.ax_.xaxis) == ["third", "first"]


def test_a_generator_without_labels_fills_eight_columns():
    X = np.random.default_rng(0).normal(size=(60, 1, 4, 4))
    display = SampleGridDisplay.from_estimator(fit(X), n_rows=2)
    assert display.pictures.shape == (16, 4, 4, 1)
    assert display.n_columns == 8


# -- signals ------------------------------------------------------------------------------------------------------

SIGNALS = np.random.default_rng(0).normal(size=(3, 2, 50))


def test_every_signal_has_a_panel_and_every_channel_a_line():
    display = SignalGridDisplay.from_samples(
        SIGNALS, sampling_rate=100.0, labels=["a", "b", "c"], channel_names=["drive", "fan"]
    )
    assert display.lines_.shape == (3, 2)
    for i in range(3):
        assert display.axes_[i].get_title() == "abc"[i]
        for j in range(2):
            np.testing.assert_allclose(display.lines_[i, j].get_xdata(), np.arange(50) / 100)
            np.testing.assert_array_equal(display.lines_[i, j].get_ydata(), SIGNALS[i, j])
    assert display.axes_[2].get_xlabel() == "time [s]"
    assert [text.get_text() for text in display.axes_[0].get_legend().get_texts()] == ["drive", "fan"]


def test_without_a_rate_the_axis_counts():
    display = SignalGridDisplay.from_samples(SIGNALS, n_columns=2, color="k")
    np.testing.assert_array_equal(display.lines_[0, 0].get_xdata(), np.arange(50))
    assert [panel.get_xlabel() for panel in display.axes_] == ["", "time [samples]", "time [samples]"]
    assert display.lines_[2, 1].get_color() == "k"


def test_panels_take_the_place_of_given_axes():
    figure, axes = plt.subplots(1, 2)
    display = SignalGridDisplay.from_samples(SIGNALS, ax=axes[1])
    assert display.figure_ is figure
    box = axes[1].get_position()
    for panel in display.axes_:
        assert box.x0 - 1e-9 <= panel.get_position().x0 < panel.get_position().x1 <= box.x1 + 1e-9
    figure, axes = plt.subplots(3)
    assert SignalGridDisplay.from_samples(SIGNALS, ax=axes).axes_.tolist() == axes.tolist()


@pytest.mark.parametrize(
    ("X", "parameters", "message"),
    [
        (SIGNALS[0], {}, r"X has shape \(2, 50\); signals are .* A one-channel signal a row is X\[:, None\]"),
        (SIGNALS[None], {}, r"X has shape \(1, 3, 2, 50\); signals are \(n_signals, n_channels, n_times\)"),
        (SIGNALS, {"labels": ["a"]}, "labels holds 1 labels for 3 signals"),
        (SIGNALS, {"channel_names": ["a"]}, "channel_names holds 1 labels for 2 channels"),
        (SIGNALS, {"sampling_rate": 0}, "sampling_rate must be a number"),
    ],
)
def test_wrong_signals_are_refused(X, parameters, message):
    with pytest.raises(ValueError, match=message):
        SignalGridDisplay.from_samples(X, **parameters)


def test_wrong_axes_are_refused():
    figure, axes = plt.subplots(2)
    with pytest.raises(ValueError, match="ax holds 2 Axes for 3 signals"):
        SignalGridDisplay.from_samples(SIGNALS, ax=axes)
    with pytest.raises(ValueError, match="ax cannot be divided"):
        SignalGridDisplay.from_samples(SIGNALS, ax=figure.add_axes([0, 0, 1, 1]))


def test_a_generator_of_signals_is_drawn_a_label_a_panel():
    X = np.random.default_rng(0).normal(size=(60, 1, 16))
    generator = fit(X, np.arange(60) % 3)
    display = SignalGridDisplay.from_estimator(generator, random_state=0)
    np.testing.assert_array_equal(display.signals, generator.sample(3, [0, 1, 2], random_state=0))
    assert [panel.get_title() for panel in display.axes_] == ["0", "1", "2"]
    assert len(SignalGridDisplay.from_estimator(fit(X), n_samples=2).axes_) == 2


# -- training -----------------------------------------------------------------------------------------------------


def test_training_curves_are_the_history():
    generator = fit(np.random.default_rng(0).normal(size=(60, 2)), report_period=1, validation_fraction=0.2)
    display = TrainingCurveDisplay.from_estimator(generator, log_scale=True)
    assert set(display.lines_) == {"loss", "validation_loss", "learning_rate"}
    for name, line in display.lines_.items():
        assert line.get_xdata().tolist() == [1, 2, 3, 4]
        assert line.get_ydata().tolist() == generator.history_[name]
    assert display.ax_.get_yscale() == "log"
    assert display.lines_["learning_rate"].axes is display.learning_rate_ax_


def test_columns_without_values_are_left_out_and_others_can_be_named():
    generator = fit(np.random.default_rng(0).normal(size=(60, 2)))
    assert set(TrainingCurveDisplay.from_estimator(generator, learning_rate=False).lines_) == {"loss"}
    generator.history_["quality"] = [np.nan, 2.0, np.nan, 1.0]
    display = TrainingCurveDisplay.from_estimator(generator, names=["quality"], learning_rate=False)
    assert display.lines_["quality"].get_xdata().tolist() == [2, 4]
    assert display.learning_rate_ax_ is None


def test_unknown_columns_and_unfitted_estimators_are_refused():
    generator = fit(np.random.default_rng(0).normal(size=(60, 2)))
    with pytest.raises(ValueError, match=r"unknown name 'fid'. Choose one of 'step', 'loss'"):
        TrainingCurveDisplay.from_estimator(generator, names=["fid"])
    with pytest.raises(NotFittedError):
        TrainingCurveDisplay.from_estimator(FlowMatchingGenerator())


# -- matplotlib is optional ---------------------------------------------------------------------------------------


def test_the_module_is_imported_without_matplotlib():
    code = (
        "import sys; sys.modules['matplotlib'] = None\n"
        "import numpy as np, flowmatch.plotting\n"
        "try:\n"
        "    flowmatch.plotting.SampleGridDisplay.from_samples(np.zeros((1, 1, 2, 2)))\n"
        "except ImportError as error:\n"
        "    print(error)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "plots need matplotlib: pip install 'flowmatch[plot]'."
