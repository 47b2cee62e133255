"""The displays of calibration: ranks of outcomes, and how many intervals hold."""

import matplotlib

matplotlib.use("Agg")

import numpy as np
import pytest
from matplotlib import pyplot as plt

from flowmatch.metrics import interval_coverage, pit_histogram, pit_values
from flowmatch.plotting import PITDisplay, ReliabilityDisplay

DISPLAYS = [PITDisplay, ReliabilityDisplay]


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def forecasts(n=2000, leads=3, spread=1.0, seed=0):
    """Outcomes (n, leads), and draws that are too narrow the further ahead they are."""
    rng = np.random.default_rng(seed)
    factor = spread ** np.arange(leads)
    return rng.normal(size=(n, leads)), factor * rng.normal(size=(19, n, leads))


class Forecaster:
    def sample(self, X, n_samples, random_state):
        self.asked = n_samples, random_state
        return np.random.default_rng(random_state).normal(size=(n_samples, len(X)))


def test_ranks_are_those_of_the_histogram():
    truth, draws = forecasts(spread=0.5)
    ranks = pit_values(truth, draws)
    assert ranks.shape == truth.shape
    np.testing.assert_allclose(np.histogram(ranks[:, 1], 10, (0, 1))[0] / len(ranks), pit_histogram(truth, draws, per_lead=True)[1])  # fmt: skip


def test_ranks_among_ties_are_uniform():
    rng = np.random.default_rng(0)
    ranks = pit_values(rng.poisson(1.0, 20_000), rng.poisson(1.0, (9, 20_000)))
    assert np.histogram(ranks, 7, (0, 1))[0] / 20_000 == pytest.approx(1 / 7, abs=0.01)


def test_bars_are_densities_of_each_lead_time():
    truth, draws = forecasts(spread=0.5)
    display = PITDisplay.from_predictions(truth, draws, lead_times=[1, 2, 3], n_bins=5)
    assert [panel.get_title() for panel in display.axes_] == ["lead 1", "lead 2", "lead 3"]
    heights = np.array([[bar.get_height() for bar in bars] for bars in display.bars_])
    np.testing.assert_allclose(heights, 5 * pit_histogram(truth, draws, 5, per_lead=True))
    assert heights[0] == pytest.approx(1.0, abs=0.15)
    assert (heights[2, [0, -1]] > 1.5).all()  # a U


@pytest.mark.parametrize("coverage", [0.5, 0.9])
def test_lines_are_coverages(coverage):
    truth, draws = forecasts(spread=0.5)
    display = ReliabilityDisplay.from_predictions(truth, draws, lead_times=[1, 2, 3])
    for line, expected in zip(display.lines_, interval_coverage(truth, draws, coverage, per_lead=True), strict=True):
        levels, held = line.get_data()
        assert held[np.isclose(levels, coverage)] == pytest.approx(expected, abs=0.02)
    assert [text.get_text() for text in display.ax_.get_legend().get_texts()] == ["lead 1", "lead 2", "lead 3"]


def test_a_bias_shows_in_quantiles_and_hardly_in_intervals():
    truth, draws = forecasts(leads=1)
    lines = {kind: ReliabilityDisplay.from_predictions(truth + 0.5, draws, kind=kind).lines_[0].get_data() for kind in ("quantile", "interval")}  # fmt: skip
    assert lines["quantile"][1][50] < 0.35
    assert lines["interval"][1][50] == pytest.approx(0.46, abs=0.04)


@pytest.mark.parametrize("display", DISPLAYS)
def test_an_estimator_makes_the_draws(display):
    forecaster = Forecaster()
    found = display.from_estimator(forecaster, np.zeros((50, 1)), np.zeros(50), n_samples=9, random_state=4)
    assert forecaster.asked == (9, 4)
    assert found.pit.shape == (50,)


@pytest.mark.parametrize("display", DISPLAYS)
def test_axes_that_are_given_are_drawn_on(display):
    _, ax = plt.subplots()
    found = display.from_predictions(*forecasts(50), ax=ax)
    assert found.figure_ is ax.figure
    assert ax.has_data()


@pytest.mark.parametrize("display", DISPLAYS)
def test_lead_times_that_do_not_fit_are_refused(display):
    truth, draws = forecasts(20)
    with pytest.raises(ValueError, match="lead_times holds 2 labels for 3 steps"):
        display.from_predictions(truth, draws, lead_times=[1, 2])
    with pytest.raises(ValueError, match="lead_times are for outcomes of shape"):
        display.from_predictions(truth[:, 0], draws[:, :, 0], lead_times=[1])


def test_parameters_are_checked():
    with pytest.raises(ValueError, match="n_bins"):
        PITDisplay(np.array([0.5])).plot(n_bins=0)
    with pytest.raises(ValueError, match="kind"):
        ReliabilityDisplay(np.array([0.5])).plot(kind="both")
