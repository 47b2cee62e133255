"""Displays of anomalies: a row's contributions, and scores with their threshold."""

import matplotlib

matplotlib.use("Agg")

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib import pyplot as plt
from sklearn.ensemble import IsolationForest
from sklearn.exceptions import NotFittedError

from flowmatch import MLP, FlowAnomalyDetector
from flowmatch.plotting import AnomalyDisplay, AnomalyScoreDisplay


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def fit(X, **parameters):
    parameters = {"method": "one_step", "n_folds": 1, "false_alarm_rate": 0.1} | parameters
    detector = FlowAnomalyDetector(MLP(width=8), max_iter=5, device="cpu", random_state=0, **parameters)
    return detector.fit(X)


RNG = np.random.default_rng(0)
SIGNALS = RNG.normal(size=(80, 2, 24)) * [[1.0], [50.0]] + [[0.0], [1000.0]]
SIGNALS[3, 1, 10:14] += 900.0
TABLE = pd.DataFrame(RNG.normal(size=(80, 5)), columns=list("abcde"))
TABLE.loc[7, "d"] = 40.0
IMAGES = RNG.uniform(size=(80, 1, 6, 8))
FIELDS = RNG.normal(size=(60, 2, 3, 4, 5))


@pytest.fixture(scope="module")
def of_signals():
    return fit(np.delete(SIGNALS, 3, axis=0))


@pytest.fixture(scope="module")
def of_tables():
    return fit(TABLE.drop(index=7))


class Fixed:
    """A detector whose answers are known: contributions are the numbers themselves."""

    offset_ = -2.0
    calibration_ = None

    def explain(self, X):
        return np.asarray(X, dtype=float)

    def score_samples(self, X):
        return -self.explain(X).reshape(len(X), -1).sum(axis=1)


# -- signals ------------------------------------------------------------------------------------------------------


def test_a_signals_panels_show_its_channels_over_their_contributions(of_signals):
    display = AnomalyDisplay.from_estimator(
        of_signals, SIGNALS, index=5, sampling_rate=100.0, channel_names=["drive", "fan"]
    )
    contributions = of_signals.explain(SIGNALS[5:6])[0]
    assert len(display.axes_) == len(display.lines_) == len(display.maps_) == 2
    for j in range(2):
        np.testing.assert_allclose(display.lines_[j].get_xdata(), np.arange(24) / 100)
        np.testing.assert_array_equal(display.lines_[j].get_ydata(), SIGNALS[5, j])
        np.testing.assert_allclose(np.ravel(display.maps_[j].get_array()), contributions[j])
        assert display.maps_[j].get_clim() == (0.0, contributions.max())
        assert display.maps_[j].axes is display.axes_[j]
    assert [panel.get_ylabel() for panel in display.axes_] == ["drive", "fan"]
    assert [panel.get_xlabel() for panel in display.axes_] == ["", "time [s]"]
    assert display.contributions.sum() == pytest.approx(display.score)


def test_a_band_of_color_is_centered_on_its_instant_and_fills_the_height(of_signals):
    display = AnomalyDisplay.from_estimator(of_signals, SIGNALS, index=3)
    display.figure_.canvas.draw()
    panel, band = display.axes_[1], display.maps_[1]
    np.testing.assert_allclose(band.get_coordinates()[0, :, 0], np.arange(25) - 0.5)
    assert set(band.get_coordinates()[:, 0, 1]) == {0.0, 1.0}
    corners = panel.get_xaxis_transform().transform([[0.0, 0.0], [0.0, 1.0]])
    np.testing.assert_allclose(corners[:, 1], [panel.bbox.y0, panel.bbox.y1])
    assert panel.get_xlabel() == "time [samples]"
    low, high = panel.get_ylim()  # the limits are the waveform's: no 0 is forced into 1000 +- 50
    assert 0 < low < SIGNALS[3, 1].min()
    assert SIGNALS[3, 1].max() < high < 2 * SIGNALS[3, 1].max()


def test_the_title_says_what_the_detector_says(of_signals):
    display = AnomalyDisplay.from_estimator(of_signals, SIGNALS, index=3)
    row = SIGNALS[3:4]
    assert of_signals.predict(row)[0] == -1
    assert display.score == -of_signals.score_samples(row)[0]
    assert display.threshold == -of_signals.offset_
    assert display.p_value == of_signals.p_values(row)[0]
    title = display.axes_[0].get_title()
    assert title.startswith("row 3: anomaly\n")
    assert f"score {display.score:.4g}, threshold {-of_signals.offset_:.4g}, p = {display.p_value:.2g}" in title
    usual = int(np.argmax(of_signals.score_samples(SIGNALS)))
    display = AnomalyDisplay.from_estimator(of_signals, SIGNALS, index=usual)
    assert display.axes_[0].get_title().startswith(f"row {usual}: normal\n")


def test_without_held_out_rows_there_is_no_p_value():
    detector = fit(SIGNALS, contamination=0.1)
    display = AnomalyDisplay.from_estimator(detector, SIGNALS, index=0)
    assert display.p_value is None
    assert "p =" not in display.axes_[0].get_title()


def test_by_default_the_row_of_the_highest_score_is_shown(of_signals, of_tables):
    assert AnomalyDisplay.from_estimator(of_signals, SIGNALS).index == 3
    assert AnomalyDisplay.from_estimator(of_tables, TABLE).index == 7


def test_one_channel_is_drawn_on_the_given_axes_itself():
    figure, axes = plt.subplots(1, 2)
    display = AnomalyDisplay.from_estimator(Fixed(), np.ones((1, 1, 3)), ax=axes[1], colorbar=False, color="C2")
    assert display.axes_.tolist() == [axes[1]]
    assert display.figure_ is figure
    assert display.colorbar_ is None
    assert display.lines_[0].get_color() == "C2"


def test_channels_are_drawn_on_given_axes_or_in_place_of_one(of_signals):
    figure, axes = plt.subplots(2)
    assert AnomalyDisplay.from_estimator(of_signals, SIGNALS, ax=axes).axes_.tolist() == axes.tolist()
    figure, axes = plt.subplots(1, 2)
    box = axes[1].get_position()
    display = AnomalyDisplay.from_estimator(of_signals, SIGNALS, ax=axes[1], colorbar=False)
    assert display.figure_ is figure
    for panel in display.axes_:
        assert box.x0 - 1e-9 <= panel.get_position().x0 < panel.get_position().x1 <= box.x1 + 1e-9


def test_colors_lie_around_zero_where_contributions_are_negative():
    display = AnomalyDisplay.from_estimator(Fixed(), np.array([[[1.0, -3.0, 2.0]]]))
    assert display.maps_[0].get_clim() == (-3.0, 3.0)
    assert display.maps_[0].get_cmap().name == "RdBu_r"
    assert AnomalyDisplay.from_estimator(Fixed(), np.zeros((1, 1, 3))).maps_[0].get_clim() == (0.0, 1.0)
    chosen = AnomalyDisplay.from_estimator(Fixed(), np.ones((1, 1, 3)), cmap="viridis")
    assert chosen.maps_[0].get_cmap().name == "viridis"
    assert chosen.colorbar_ is not None


# -- table rows ---------------------------------------------------------------------------------------------------


def labels(display):
    return [label.get_text() for label in display.axes_[0].get_yticklabels()]


def test_a_table_rows_bars_fall_from_the_largest_contribution(of_tables):
    display = AnomalyDisplay.from_estimator(of_tables, TABLE, index=7)
    contributions = of_tables.explain(TABLE).iloc[7].sort_values(ascending=False)
    np.testing.assert_allclose([bar.get_width() for bar in display.bars_], contributions)
    assert labels(display) == [f"{name} = {TABLE.loc[7, name]:.4g}" for name in contributions.index]
    assert labels(display)[0] == "d = 40"
    assert display.axes_[0].yaxis_inverted()
    assert display.axes_[0].get_title().startswith("row 7: anomaly\n")


def test_bars_of_a_mixed_table_show_its_entries():
    table = TABLE[["a"]].assign(kind=np.repeat(["x", "y"], 40), on=TABLE["b"] > 0)
    row = table.loc[[7]].assign(a=np.nan)
    display = AnomalyDisplay.from_estimator(fit(table), row)
    assert set(labels(display)) == {"a = nan", "kind = x", f"on = {row.on[7]}"}


def test_features_beyond_the_most_are_added_up():
    row = np.array([[0.5, 4.0, -2.0, 1.0, 0.25]])
    display = AnomalyDisplay.from_estimator(Fixed(), row, max_features=2)
    assert [bar.get_width() for bar in display.bars_] == [4.0, 1.0, 0.5 - 2.0 + 0.25]
    assert labels(display) == ["x1 = 4", "x3 = 1", "3 others"]
    assert len(AnomalyDisplay.from_estimator(Fixed(), row, max_features=5).bars_) == 5


def test_names_come_from_the_caller_or_the_data_or_the_fit(of_tables):
    plain = TABLE.to_numpy()
    named = AnomalyDisplay.from_estimator(of_tables, TABLE, feature_names=list("vwxyz"))
    assert sorted(label[0] for label in labels(named)) == list("vwxyz")
    with pytest.warns(UserWarning, match="feature names"):
        fitted = AnomalyDisplay.from_estimator(of_tables, plain)
    assert sorted(label[0] for label in labels(fitted)) == list("abcde")
    columns = pd.DataFrame([[1.0, 2.0]], columns=["load", "speed"])
    assert labels(AnomalyDisplay.from_estimator(Fixed(), columns)) == ["speed = 2", "load = 1"]


def test_a_table_row_is_drawn_on_the_given_axes(of_tables):
    figure = plt.figure()
    ax = figure.add_axes([0.3, 0.1, 0.6, 0.7])
    display = AnomalyDisplay.from_estimator(of_tables, TABLE, ax=ax, color="C4")
    assert display.axes_.tolist() == [ax]
    assert display.bars_[0].get_facecolor() == matplotlib.colors.to_rgba("C4")


def test_rows_of_tensors_and_of_lists_are_picked_as_those_of_arrays(of_signals):
    expected = AnomalyDisplay.from_estimator(of_signals, SIGNALS, index=4)
    for X in (torch.as_tensor(SIGNALS), list(SIGNALS)):
        display = AnomalyDisplay.from_estimator(of_signals, X, index=4)
        np.testing.assert_allclose(display.sample, expected.sample, rtol=1e-6)
        np.testing.assert_allclose(display.contributions, expected.contributions, rtol=1e-3)


# -- images and fields --------------------------------------------------------------------------------------------


def test_an_image_stands_beside_the_map_of_its_contributions():
    detector = fit(IMAGES)
    display = AnomalyDisplay.from_estimator(detector, IMAGES, index=2)
    assert len(display.axes_) == 2
    shown = np.asarray(display.axes_[0].get_images()[0].get_array())
    image = IMAGES[2, 0]
    np.testing.assert_allclose(shown, (image - image.min()) / (image.max() - image.min()))
    np.testing.assert_allclose(display.maps_[0].get_array(), detector.explain(IMAGES[2:3])[0, 0])
    assert display.maps_[0].axes is display.axes_[1]
    assert display.axes_[0].get_title().startswith("row 2: ")


def test_contributions_of_channels_are_added_up_unless_one_is_chosen():
    X = RNG.uniform(size=(1, 3, 4, 5))
    whole = AnomalyDisplay.from_estimator(Fixed(), X)
    np.testing.assert_allclose(whole.maps_[0].get_array(), X[0].sum(axis=0))
    assert whole.axes_[0].get_images()[0].get_array().shape == (4, 5, 4)
    one = AnomalyDisplay.from_estimator(Fixed(), X, channel=1)
    np.testing.assert_allclose(one.maps_[0].get_array(), X[0, 1])
    assert one.axes_[0].get_images()[0].get_array().shape == (4, 5)


def test_a_field_shows_the_slice_that_contributes_most():
    X = np.zeros((1, 2, 3, 4, 5))
    X[0, 1, 2] = 1.0
    X[0, 0, 0, 1, 1] = 1.5
    display = AnomalyDisplay.from_estimator(Fixed(), X)
    np.testing.assert_array_equal(display.maps_[0].get_array(), X[0, :, 2].sum(axis=0))
    np.testing.assert_array_equal(AnomalyDisplay.from_estimator(Fixed(), X, channel=0).maps_[0].get_array(), X[0, 0, 0])
    assert AnomalyDisplay.from_estimator(fit(FIELDS), FIELDS, channel=1).maps_[0].get_array().shape == (4, 5)


# -- what is refused ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("X", "parameters", "message"),
    [
        (SIGNALS, {"index": 80}, "index must be an integer from 0 to 79 for X with 80 rows, got 80"),
        (SIGNALS, {"index": -1}, "index must be an integer from 0 to 79"),
        (SIGNALS, {"index": 1.5}, "index must be an integer"),
        (list(SIGNALS), {"index": 80}, "index must be an integer from 0 to 79"),
        (SIGNALS, {"channel_names": ["a"]}, "channel_names holds 1 labels for 2 channels"),
        (SIGNALS, {"sampling_rate": 0}, "sampling_rate must be a number"),
        (SIGNALS, {"feature_names": ["a", "b"]}, r"feature_names is for table rows; each row of X has shape \(2, 24\)"),
        (SIGNALS, {"channel": 0}, "channel is for images and fields"),
        (TABLE, {"feature_names": ["a"]}, "feature_names holds 1 labels for 5 features"),
        (TABLE, {"sampling_rate": 10}, "sampling_rate is for signals"),
        (TABLE, {"channel_names": list("abcde")}, "channel_names is for signals"),
        (TABLE, {"max_features": 0}, "max_features must be an integer >= 1"),
        (IMAGES, {"channel": 1}, "channel must be an integer from 0 to 0 for samples with 1 channels, got 1"),
    ],
)
def test_options_that_do_not_fit_are_refused(X, parameters, message):
    with pytest.raises(ValueError, match=message):
        AnomalyDisplay.from_estimator(Fixed(), X, **parameters)
    assert not plt.get_fignums()  # nothing is left open


def test_wrong_axes_are_refused():
    figure, axes = plt.subplots(3)
    with pytest.raises(ValueError, match="ax holds 3 Axes for 2 channels"):
        AnomalyDisplay.from_estimator(Fixed(), SIGNALS, ax=axes)
    with pytest.raises(ValueError, match="ax cannot be divided"):
        AnomalyDisplay.from_estimator(Fixed(), SIGNALS, ax=figure.add_axes([0, 0, 1, 1]))


def test_other_shapes_and_unfitted_detectors_are_refused_by_the_detector(of_signals):
    for display in (AnomalyDisplay, AnomalyScoreDisplay):
        with pytest.raises(ValueError, match=r"samples of shape \(2, 23\), but FlowAnomalyDetector was fitted to"):
            display.from_estimator(of_signals, SIGNALS[:, :, 1:])
        with pytest.raises(NotFittedError):
            display.from_estimator(FlowAnomalyDetector(), SIGNALS)
    with pytest.raises(ValueError, match=r"samples of shape \(2, 23\)"):
        AnomalyDisplay.from_estimator(of_signals, SIGNALS[:, :, 1:], index=0)


# -- scores -------------------------------------------------------------------------------------------------------


def heights(patch):
    return patch.get_data().values


def test_a_histogram_holds_the_scores_and_the_threshold_stands_at_the_offset(of_tables):
    display = AnomalyDisplay.score_histogram(of_tables, TABLE, bins=12)
    assert isinstance(display, AnomalyScoreDisplay)
    scores = -of_tables.score_samples(TABLE)
    np.testing.assert_array_equal(display.scores, scores)
    assert list(display.threshold_line_.get_xdata()) == [-of_tables.offset_] * 2
    counts = np.histogram(scores, display.edges_)[0]
    np.testing.assert_allclose(heights(display.histograms_[None]), counts / len(scores))
    assert counts.sum() == len(scores)
    assert len(display.edges_) == 13


def test_held_out_scores_are_drawn_by_their_weights(of_tables):
    display = AnomalyScoreDisplay.from_estimator(of_tables, TABLE)
    held_out = of_tables.calibration_.scores
    counts = np.histogram(held_out, display.edges_)[0]
    np.testing.assert_allclose(heights(display.reference_histogram_), counts / len(held_out))
    assert counts.sum() == len(held_out)
    assert AnomalyScoreDisplay.from_estimator(of_tables, TABLE, reference=False).reference_histogram_ is None
    weighted = AnomalyScoreDisplay.from_scores([1.0], reference=[1.0, 2.0], reference_weights=[3.0, 1.0], bins=2)
    np.testing.assert_allclose(heights(weighted.reference_histogram_), [0.75, 0.25])


def test_every_label_has_a_histogram_of_its_own_share():
    scores, y = np.array([1.0, 2.0, 3.0, 4.0, 5.0]), ["normal", "normal", "normal", "fault", "fault"]
    display = AnomalyScoreDisplay.from_scores(scores, 3.5, y, bins=4)
    assert list(display.histograms_) == ["fault", "normal"]
    np.testing.assert_allclose(heights(display.histograms_["fault"]), [0, 0, 0, 1])
    np.testing.assert_allclose(heights(display.histograms_["normal"]), [1 / 3, 1 / 3, 1 / 3, 0])
    legend = [text.get_text() for text in display.ax_.get_legend().get_texts()]
    assert legend == ["fault (2)", "normal (3)", "threshold 3.5"]
    colors = {patch.get_facecolor() for patch in display.histograms_.values()}
    assert len(colors) == 2


@pytest.mark.parametrize(
    ("scores", "threshold", "scale"),
    [
        ([1.0, 3.0, 100.0], 5.0, "log"),
        ([1.0, 3.0, 100.0], None, "log"),
        ([1.0, 3.0, 9.0], 5.0, "linear"),
        ([0.0, 3.0, 100.0], 5.0, "linear"),
        ([-1.0, 3.0, 100.0], 5.0, "linear"),
        ([1.0, 3.0, 100.0], -5.0, "linear"),
        ([2.0, 2.0, 2.0], 5.0, "linear"),
    ],
)
def test_bins_have_equal_ratios_where_positive_scores_span_far(scores, threshold, scale):
    display = AnomalyScoreDisplay.from_scores(scores, threshold, bins=7)
    assert display.ax_.get_xscale() == scale
    steps = np.diff(np.log(display.edges_)) if scale == "log" else np.diff(display.edges_)
    np.testing.assert_allclose(steps, steps[0])
    assert heights(display.histograms_[None]).sum() == pytest.approx(1.0)
    assert (display.threshold_line_ is None) == (threshold is None)


def test_the_reference_widens_the_bins():
    display = AnomalyScoreDisplay.from_scores([5.0, 6.0], reference=[1.0, 100.0])
    assert (display.edges_[0], display.edges_[-1]) == pytest.approx((1.0, 100.0))


def test_scores_are_drawn_on_given_axes_and_saved(of_tables, tmp_path):
    figure, ax = plt.subplots()
    display = AnomalyDisplay.score_histogram(of_tables, TABLE, np.arange(80) % 2, ax=ax, alpha=0.25)
    assert display.ax_ is ax
    assert display.figure_ is figure
    assert display.histograms_[0].get_alpha() == 0.25
    display.figure_.savefig(tmp_path / "scores.png")
    assert (tmp_path / "scores.png").stat().st_size > 0


def test_other_detectors_scores_are_drawn_too():
    forest = IsolationForest(n_estimators=5, contamination=0.1, random_state=0).fit(TABLE)
    display = AnomalyScoreDisplay.from_estimator(forest, TABLE)
    assert list(display.threshold_line_.get_xdata()) == [-forest.offset_] * 2
    assert display.reference_histogram_ is None


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"scores": [1.0, np.inf]}, "scores must hold finite numbers, but 1 of its 2 values are not finite"),
        ({"scores": []}, "scores must hold finite numbers, but it holds none"),
        ({"scores": [1.0, 2.0], "y": [1]}, "y holds 1 labels for 2 rows"),
        ({"scores": np.arange(20.0), "y": np.arange(20)}, "y holds 20 different labels; at most 10 are shown"),
        ({"scores": [1.0], "reference": [np.nan]}, "reference must hold finite numbers"),
        ({"scores": [1.0], "reference": [1.0], "reference_weights": [1.0, 2.0]}, "holds 2 weights for 1 scores"),
        ({"scores": [1.0], "reference_weights": [1.0]}, "reference_weights holds 1 weights for 0 scores"),
        ({"scores": [1.0], "bins": 0}, "bins must be an integer >= 1"),
    ],
)
def test_wrong_scores_are_refused(parameters, message):
    with pytest.raises(ValueError, match=message):
        AnomalyScoreDisplay.from_scores(**parameters)
    assert not plt.get_fignums()
