"""Displays of tables, real beside synthetic."""

import matplotlib

matplotlib.use("Agg")

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from matplotlib.dates import AutoDateLocator, num2date
from sklearn.decomposition import PCA

from flowmatch.metrics import SampleReport
from flowmatch.plotting import EmbeddingDisplay, MarginalsDisplay, PairDifferenceDisplay


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


REAL = pd.DataFrame(
    {
        "x": [0.0, 1.0, 2.0, 3.0] * 2,
        "gap": [1.0] * 6 + [np.nan] * 2,
        "kind": list("aaaabbc") + [None],
        "day": pd.date_range("2024-01-01", periods=8),
    }
)
OTHER = pd.DataFrame(
    {
        "x": [0.0, 0.0, 0.0, 4.0] * 2,
        "gap": [1.0] * 8,
        "kind": list("abbbbbdd"),
        "day": pd.date_range("2024-01-03", periods=8),
    }
)


def texts(axis):
    return [label.get_text() for label in axis.get_ticklabels()]


def test_marginals_are_shares_in_common_bins_and_of_the_levels():
    display = MarginalsDisplay.from_samples(REAL, OTHER, bins=4)
    np.testing.assert_allclose(display.shares_[0], [[0.5, 0.5, 0], [0.75, 0, 0.25]])  # 0 and 1, 2 and 3, 4 and 5
    halves = MarginalsDisplay.from_samples(REAL[["x"]] / 2, OTHER[["x"]] / 2, bins=4)
    np.testing.assert_allclose(halves.shares_[0], [[0.25, 0.25, 0.25, 0.25], [0.75, 0, 0, 0.25]])
    assert texts(display.axes_[2].xaxis) == ["a", "b", "c", "d", "(missing)"]
    expected = [[4 / 8, 2 / 8, 1 / 8, 0, 1 / 8], [1 / 8, 5 / 8, 0, 2 / 8, 0]]
    np.testing.assert_allclose(display.shares_[2], expected)
    assert [bar.get_height() for bar in display.axes_[2].patches] == pytest.approx(np.ravel(expected))
    assert display.axes_[1].get_title() == "gap\nmissing 25.0%, 0.0%"
    assert [panel.get_title() for panel in display.axes_[[0, 2, 3]]] == ["x", "kind", "day"]
    assert isinstance(display.axes_[3].xaxis.get_major_locator(), AutoDateLocator)
    low, high = display.axes_[3].dataLim.intervalx
    assert [str(num2date(day).date()) for day in (low, high)] == ["2023-12-31", "2024-01-12"]  # half a day on each side


def test_columns_are_chosen_and_rare_levels_are_drawn_as_one():
    display = MarginalsDisplay.from_samples(REAL, OTHER, columns=["kind", 0], max_levels=1, labels=("then", "now"))
    assert texts(display.axes_[0].xaxis) == ["a", "(others)", "(missing)"]
    np.testing.assert_allclose(display.shares_[0], [[4 / 8, 3 / 8, 1 / 8], [1 / 8, 7 / 8, 0]])
    assert [text.get_text() for text in display.axes_[0].get_legend().get_texts()] == ["then", "now"]
    _, axes = plt.subplots(2)
    assert MarginalsDisplay.from_samples(REAL, OTHER, max_columns=2, ax=axes).axes_[1] is axes[1]


def test_the_heat_map_shows_the_differences_of_a_report_and_of_samples():
    rng = np.random.default_rng(0)
    x = rng.normal(size=200)
    real, synthetic = np.column_stack([x, x, -x]), np.column_stack([x, -x, rng.permutation(x)])
    display = PairDifferenceDisplay.from_samples(real, synthetic)
    shown = np.asarray(display.image_.get_array())
    assert shown[0, 1] == shown[1, 0] == pytest.approx(-2)
    assert shown[0, 2] == pytest.approx(1, abs=0.2)
    assert display.image_.get_clim() == pytest.approx((-2, 2))
    assert texts(display.ax_.xaxis) == texts(display.ax_.yaxis) == ["x0", "x1", "x2"]
    pairs = [{"difference": value} for value in (0.1, 0.05, -0.1)]
    found = SampleReport({}, dict.fromkeys("abc", {}), 6, "held-out rows", {}, pairs)
    again = PairDifferenceDisplay.from_report(found, ax=plt.gca())
    np.testing.assert_allclose(again.image_.get_array(), [[0, 0.1, 0.05], [0.1, 0, -0.1], [0.05, -0.1, 0]])
    assert again.image_.get_clim() == pytest.approx((-0.2, 0.2))  # chance looks faint
    assert again.ax_ is plt.gcf().axes[0]


def test_rows_are_shown_on_the_principal_axes_of_the_real_ones(tmp_path):
    rng = np.random.default_rng(0)
    real = rng.normal(size=(300, 4)) @ rng.normal(size=(4, 4))
    display = EmbeddingDisplay.from_samples(real, real[:50] + 100, max_rows=40)
    standardized = (real - real.mean(axis=0)) / real.std(axis=0)
    axes = PCA(2).fit(standardized)
    assert display.explained == pytest.approx(tuple(axes.explained_variance_ratio_))
    assert display.real.shape == display.synthetic.shape == (40, 2)
    shift = (100 / real.std(axis=0)) @ axes.components_.T
    expected = axes.transform(standardized[:50]) + shift
    found = display.points_["synthetic"].get_offsets()
    nearest = np.linalg.norm(abs(np.asarray(found))[:, None] - abs(expected)[None], axis=2).min(axis=1)
    assert nearest.max() < 1e-6  # up to the signs of the axes
    display.figure_.savefig(tmp_path / "rows.png")
    assert (tmp_path / "rows.png").stat().st_size > 0
    assert EmbeddingDisplay.from_samples(REAL, OTHER).real.shape == (8, 2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: MarginalsDisplay.from_samples(REAL, OTHER[["x"]]), "real has 4 columns and synthetic has 1"),
        (lambda: MarginalsDisplay.from_samples(REAL, OTHER, columns=["y"]), "columns names the column 'y'"),
        (lambda: MarginalsDisplay.from_samples(REAL, OTHER, columns="x"), "columns must be a sequence .* got 'x'"),
        (lambda: MarginalsDisplay.from_samples(REAL, OTHER, bins=0), "bins must be an integer >= 1, got 0"),
        (lambda: MarginalsDisplay.from_samples(REAL, OTHER, max_levels=0), "max_levels must be an integer >= 1"),
        (lambda: PairDifferenceDisplay(np.zeros((2, 3)), "ab").plot(), r"difference has shape \(2, 3\)"),
        (lambda: PairDifferenceDisplay(np.zeros((2, 2)), "a").plot(), "names holds 1 labels for 2 columns"),
        (lambda: PairDifferenceDisplay(np.zeros((2, 2)), "ab").plot(limit=0), "limit must be a number"),
        (lambda: PairDifferenceDisplay.from_report(None), "report has no pairs .* got None"),
        (lambda: EmbeddingDisplay.from_samples(REAL[["x"]], OTHER[["x"]]), r"real has shape \(8, 1\) after encoding"),
        (lambda: EmbeddingDisplay.from_samples(REAL, OTHER, max_rows=0), "max_rows must be an integer >= 1"),
    ],
)
def test_wrong_input_is_refused_by_name(call, message):
    with pytest.raises(ValueError, match=message):
        call()
