"""Few-step sampling: what it costs, how straight its paths are, and the displays of both."""

from types import SimpleNamespace

import matplotlib

matplotlib.use("Agg")

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib import pyplot as plt
from sklearn.base import BaseEstimator
from sklearn.exceptions import NotFittedError

from flowmatch import MLP, DistilledFlowMap, FlowMatchingGenerator
from flowmatch.flow import ADAPTIVE, FIXED_STEP, follow, integrate, n_evaluations, time_grid
from flowmatch.metrics import energy_distance, sliced_wasserstein, straightness
from flowmatch.plotting import QualityDisplay, TrajectoryDisplay


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


RNG = np.random.default_rng(0)
X = RNG.normal(size=(200, 2)) * [1.0, 0.5] + [3.0, -1.0]


class Rotation(BaseEstimator):
    """Samples turn by a right angle about the origin, in Euler steps of their velocity unless they jump."""

    def __init__(self, jumps=False, sample_shape=(2,)):
        self.model_ = SimpleNamespace(is_flow_map=jumps)
        self.jumps = jumps
        self.sample_shape = sample_shape
        self.calls = []

    def fit(self, X):
        return self

    def sample(self, n_samples=1, y=None, random_state=None, *, n_steps=None, solver="euler", return_trajectory=False):
        self.calls.append({"n_samples": n_samples, "y": y, "seed": random_state, "n_steps": n_steps, "solver": solver})
        x = torch.from_numpy(np.random.RandomState(random_state).normal(size=(n_samples, *self.sample_shape)))
        times = time_grid(n_steps, dtype=torch.float64)
        if self.model_.is_flow_map:
            return follow(self._average, x, times, return_trajectory=return_trajectory).numpy()
        return integrate(self._velocity, x, times, solver, return_trajectory=return_trajectory).numpy()

    @staticmethod
    def _velocity(x, t):
        return np.pi / 2 * torch.stack([-x[:, 1], x[:, 0], *x[:, 2:].T], dim=1)

    @staticmethod
    def _average(x, t, step):
        angle = np.pi / 2 * step
        turned = torch.stack(
            [x[:, 0] * angle.cos() - x[:, 1] * angle.sin(), x[:, 0] * angle.sin() + x[:, 1] * angle.cos()], dim=1
        )
        return (turned - x) / step[:, None]


@pytest.fixture(scope="module")
def fitted():
    frame = pd.DataFrame(X, columns=["speed", "torque"])
    return FlowMatchingGenerator(
        MLP(width=16), preprocessing="standardize", max_iter=30, random_state=0, device="cpu"
    ).fit(frame)


# -- evaluations --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", FIXED_STEP)
@pytest.mark.parametrize("n_steps", [1, 2, 7])
def test_a_solver_evaluates_the_velocity_as_often_as_told(method, n_steps):
    calls = []

    def velocity(x, t):
        calls.append(t)
        return -x

    integrate(velocity, torch.ones(3, 2), time_grid(n_steps), method)
    assert n_evaluations(method, n_steps) == len(calls)


def test_a_flow_map_is_evaluated_once_a_jump():
    calls = []

    def average_velocity(x, t, step):
        calls.append(t)
        return -x

    follow(average_velocity, torch.ones(3, 2), time_grid(5))
    assert n_evaluations("flow_map", 5) == len(calls)


@pytest.mark.parametrize("method", ADAPTIVE)
def test_an_adaptive_solver_has_no_fixed_number_of_evaluations(method):
    with pytest.raises(ValueError, match=f"method '{method}' chooses its steps itself.* Choose one of 'euler'"):
        n_evaluations(method, 10)


def test_wrong_methods_and_steps_are_refused():
    with pytest.raises(ValueError, match="unknown method 'eulr'. Choose one of 'euler', 'midpoint'"):
        n_evaluations("eulr", 10)
    with pytest.raises(ValueError, match="n_steps must be an integer >= 1, got 0"):
        n_evaluations("ab2", 0)


# -- straightness -------------------------------------------------------------------------------------------------


def arcs(n_steps, angle=2.0, radii=(1.0, 3.0)):
    """Circular arcs run through at constant speed, (n_steps + 1, n_samples, 2)."""
    phases = angle * np.linspace(0, 1, n_steps + 1)
    return np.stack([np.cos(phases), np.sin(phases)], axis=-1)[:, None] * np.asarray(radii)[:, None]


@pytest.mark.parametrize("n_steps", [1, 2, 5, 40])
def test_straightness_of_arcs_is_that_of_their_polygons(n_steps):
    """An arc of radius r has speed r a and a chord of 2 r sin(a / 2); a polygon's sides are such chords."""
    angle, mean_square_radius = 2.0, (1 + 9) / 2
    expected = mean_square_radius * 4 * (n_steps**2 * np.sin(angle / 2 / n_steps) ** 2 - np.sin(angle / 2) ** 2)
    assert straightness(arcs(n_steps)) == pytest.approx(expected, abs=1e-12)


def test_straightness_rises_to_that_of_the_smooth_path_at_second_order():
    exact = 5 * (2.0**2 - 4 * np.sin(1.0) ** 2)
    gaps = np.array([exact - straightness(arcs(n)) for n in (10, 20, 40)])
    assert (gaps > 0).all()
    np.testing.assert_allclose(np.log2(gaps[:-1] / gaps[1:]), 2, atol=0.01)


def test_straight_paths_at_constant_speed_have_none_whatever_their_lengths():
    ends = RNG.normal(size=(2, 6, 3, 4))
    t = np.linspace(0, 1, 9)[:, None, None, None]
    assert straightness(ends[0] + t * (ends[1] - ends[0])) == pytest.approx(0, abs=1e-24)


def test_a_straight_path_at_uneven_speed_is_not_straight():
    """Z = t^2 has the velocity 2t: the integral of (1 - 2t)^2 is 1/3."""
    t = np.linspace(0, 1, 201)
    assert straightness((t**2)[:, None, None]) == pytest.approx(1 / 3 - 1 / (3 * 200**2))


def test_times_undo_uneven_steps_and_may_run_backwards_or_beyond_one():
    times = np.array([0.0, 0.1, 0.4, 0.45, 1.0])
    line = times[:, None, None] * np.array([[2.0, -1.0], [0.0, 5.0]])
    assert straightness(line) > 0.1
    assert straightness(line, times) == pytest.approx(0, abs=1e-24)
    curve = times[:, None, None] ** 2 * np.ones((1, 3, 2))
    expected = straightness(curve, times)
    assert expected > 0.1
    assert straightness(curve, 3 + 7 * times) == pytest.approx(expected)
    assert straightness(curve[::-1], times[::-1]) == pytest.approx(expected)


def test_straightness_is_a_mean_over_samples_and_a_sum_over_values_in_squared_units():
    paths = RNG.normal(size=(6, 4, 2, 3))
    whole = straightness(paths)
    assert straightness(np.concatenate([paths, paths], axis=1)) == pytest.approx(whole)
    assert np.mean([straightness(paths[:, [i]]) for i in range(4)]) == pytest.approx(whole)
    assert sum(straightness(paths[:, :, [j]]) for j in range(2)) == pytest.approx(whole)
    assert straightness(torch.from_numpy(3 * paths)) == pytest.approx(9 * whole)


@pytest.mark.parametrize(
    ("trajectory", "times", "message"),
    [
        (np.zeros((5, 3)), None, r"trajectory has shape \(5, 3\); states are \(n_steps \+ 1, n_samples, \*sample"),
        (np.zeros((1, 3, 2)), None, r"trajectory has shape \(1, 3, 2\); .* at two times or more"),
        (np.full((4, 3, 2), np.nan), None, "trajectory holds NaN"),
        (np.zeros((4, 3, 2)), [0, 0.5, 1], r"times has shape \(3,\) for a trajectory of 4 states"),
        (np.zeros((3, 3, 2)), [0, 0.5, 0.5], "times must be finite and strictly increasing or decreasing"),
        (np.zeros((3, 3, 2)), [0, 2, 1], "times must be finite and strictly increasing"),
        (np.zeros((3, 3, 2)), [0, 1, 0], "times must be finite and strictly increasing"),
        (np.zeros((3, 3, 2)), [0, np.nan, 1], "times must be finite"),
        (np.zeros((3, 3, 2)), [0, 1, np.inf], "times must be finite"),
    ],
)
def test_wrong_trajectories_and_times_are_refused(trajectory, times, message):
    with pytest.raises(ValueError, match=message):
        straightness(trajectory, times)


# -- quality ------------------------------------------------------------------------------------------------------


def test_velocities_take_euler_steps_and_flow_maps_jumps_as_many_as_evaluations():
    estimators = {"teacher": Rotation(), "student": Rotation(jumps=True)}
    display = QualityDisplay.from_estimators(estimators, X, n_evaluations=(1, 3, 4), n_samples=17, y="label")
    assert list(display.lines_) == ["teacher", "student"]
    for name, solver in [("teacher", "euler"), ("student", "flow_map")]:
        assert [call["n_steps"] for call in estimators[name].calls] == [1, 3, 4]
        assert {call["solver"] for call in estimators[name].calls} == {solver}
        assert {(call["n_samples"], call["y"]) for call in estimators[name].calls} == {(17, "label")}


def test_scores_are_the_metric_between_samples_and_data():
    teacher, jumps = Rotation(), Rotation(jumps=True)
    estimators = {"teacher": teacher, "student": jumps}
    display = QualityDisplay.from_estimators(estimators, X, n_evaluations=(1, 4), metric=energy_distance)
    for name, line in display.lines_.items():
        asked = {"solver": "euler"} if name == "teacher" else {}
        samples = [estimators[name].sample(len(X), None, 0, n_steps=n, **asked) for n in (1, 4)]
        np.testing.assert_allclose(line.get_ydata(), [energy_distance(drawn, X) for drawn in samples], rtol=1e-12)
        np.testing.assert_array_equal(line.get_xdata(), [1, 4])
    assert np.ptp(display.scores["student"]) < 1e-9 < np.ptp(display.scores["teacher"])  # exact jumps, of any length
    assert display.ax_.get_ylabel() == "energy distance"


@pytest.mark.parametrize("random_state", [5, np.random.RandomState(5), np.random.default_rng(5), None])
def test_every_estimator_and_number_of_steps_starts_from_the_same_noise(random_state):
    first, second = Rotation(), Rotation()
    display = QualityDisplay.from_estimators(
        {"a": first, "b": second}, X, n_evaluations=(1, 2), random_state=random_state
    )
    assert len({call["seed"] for call in first.calls + second.calls}) == 1
    np.testing.assert_array_equal(display.scores["a"], display.scores["b"])


def test_by_default_distances_are_sliced_wassersteins_and_grids_are_flattened():
    pictures = RNG.normal(size=(30, 1, 4, 4))

    class Pictures(Rotation):
        def sample(self, n_samples, y, random_state, *, n_steps, solver):
            return pictures[:n_samples] + 1 / n_steps

    display = QualityDisplay.from_estimators({"pictures": Pictures()}, pictures, n_evaluations=(1, 2))
    expected = [sliced_wasserstein(pictures, pictures + shift, random_state=0) for shift in (1.0, 0.5)]
    np.testing.assert_allclose(display.scores["pictures"], expected)
    assert display.ax_.get_ylabel() == "sliced Wasserstein distance"


def test_the_axis_counts_evaluations_in_powers_of_two_and_a_floor_is_dashed():
    scores = {"teacher": [4.0, 2.0, 1.0], "student": [0.9, np.nan, 0.8]}
    display = QualityDisplay.from_scores(scores, (1, 2, 8), "distance [mm]", floor=0.5, linewidth=3.0)
    axis = display.ax_.xaxis
    assert display.ax_.get_xscale() == "log"
    assert axis.get_transform().base == 2
    assert axis.get_ticklocs().tolist() == [1, 2, 8]
    assert [text.get_text() for text in axis.get_ticklabels()] == ["1", "2", "8"]
    assert axis.get_ticklocs(minor=True).tolist() == []
    assert display.ax_.get_xlabel() == "network evaluations a sample"
    assert display.ax_.get_ylabel() == "distance [mm]"
    assert set(display.floor_line_.get_ydata()) == {0.5}
    assert display.floor_line_.get_linestyle() == "--"
    assert [text.get_text() for text in display.ax_.get_legend().get_texts()] == ["teacher", "student", "floor 0.5"]
    assert [line.get_linewidth() for line in display.lines_.values()] == [3.0, 3.0]
    np.testing.assert_array_equal(display.lines_["student"].get_ydata(), [0.9, np.nan, 0.8])


def test_precomputed_scores_are_drawn_on_given_axes_and_saved(tmp_path):
    figure, ax = plt.subplots()
    display = QualityDisplay({"teacher": np.array([2.0, 1.0])}, (1, 2), "distance").plot(ax=ax, log_scale=True)
    assert display.ax_ is ax
    assert display.figure_ is figure
    assert display.floor_line_ is None
    assert ax.get_yscale() == "log"
    figure.savefig(tmp_path / "quality.png")
    assert (tmp_path / "quality.png").stat().st_size > 0


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"estimators": {}}, "estimators must map names to fitted estimators, at least one, got {}"),
        ({"estimators": 3}, "estimators must map names to fitted estimators, at least one, got 3"),
        ({"estimators": {"mlp": MLP()}}, r"estimators\['mlp'\] must have a method sample, got MLP"),
        ({"n_evaluations": (1, 0)}, "each of n_evaluations must be an integer >= 1, got 0"),
        ({"n_evaluations": (1, 2.5)}, "each of n_evaluations must be an integer >= 1, got 2.5"),
        ({"n_evaluations": (2, 1)}, r"n_evaluations must be increasing integers, at least one, got \(2, 1\)"),
        ({"n_evaluations": (2, 2)}, "n_evaluations must be increasing"),
        ({"n_evaluations": ()}, r"n_evaluations must be increasing integers, at least one, got \(\)"),
        ({"n_samples": 0}, "n_samples must be an integer >= 1, got 0"),
        ({"metric": "energy"}, r"metric must be a callable metric\(samples, X\) -> float, got 'energy'"),
        ({"floor": np.nan}, "floor must be a number"),
    ],
)
def test_wrong_questions_about_quality_are_refused(parameters, message):
    parameters = {"estimators": {"teacher": Rotation()}, "X": X, "n_evaluations": (1,)} | parameters
    with pytest.raises(ValueError, match=message):
        QualityDisplay.from_estimators(**parameters)


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ({}, "scores must map names to values, at least one, got {}"),
        ({"a": [1.0, 2.0, 3.0]}, r"scores\['a'\] has shape \(3,\); expected \(2,\)"),
    ],
)
def test_wrong_scores_are_refused(scores, message):
    with pytest.raises(ValueError, match=message):
        QualityDisplay.from_scores(scores, (1, 2))


def test_a_fitted_generator_is_sampled_by_euler(fitted):
    display = QualityDisplay.from_estimators({"teacher": fitted}, pd.DataFrame(X, columns=["speed", "torque"]))
    assert display.n_evaluations == [1, 2, 4, 8, 16, 32]
    samples = fitted.sample(len(X), random_state=0, solver="euler", n_steps=8)
    assert display.scores["teacher"][3] == pytest.approx(sliced_wasserstein(samples, samples * 0 + X, random_state=0))
    with pytest.raises(NotFittedError):
        QualityDisplay.from_estimators({"teacher": FlowMatchingGenerator()}, X)


@pytest.mark.parametrize(("method", "solver"), [("progressive", "flow_map"), ("reflow", "euler")])
def test_students_make_a_step_an_evaluation_too(fitted, method, solver):
    student = DistilledFlowMap(fitted, method, max_iter=3, n_pairs=50, random_state=0).fit()
    display = QualityDisplay.from_estimators({"student": student}, X, n_evaluations=(1, 3))
    samples = student.as_teacher().sample(len(X), random_state=0, solver=solver, n_steps=3).to_numpy()
    assert display.scores["student"][1] == sliced_wasserstein(X, samples, random_state=0)


# -- trajectories -------------------------------------------------------------------------------------------------


def test_a_panel_shows_every_path_from_its_start_to_its_end():
    estimators = {"teacher": Rotation(), "student": Rotation(jumps=True)}
    display = TrajectoryDisplay.from_estimators(estimators, n_samples=5, n_steps=3, random_state=2, color="C1")
    assert display.lines_.shape == (2, 5)
    for k, (name, panel) in enumerate(zip(estimators, display.axes_, strict=True)):
        states = estimators[name].sample(5, None, 2, n_steps=3, return_trajectory=True)
        for i in range(5):
            np.testing.assert_array_equal(display.lines_[k, i].get_xydata(), states[:, i])
            assert display.lines_[k, i].get_color() == "C1"
            assert display.lines_[k, i].axes is panel
        np.testing.assert_array_equal(display.starts_[k].get_xydata(), states[0])
        np.testing.assert_array_equal(display.ends_[k].get_xydata(), states[-1])
        assert display.straightness_[name] == straightness(states)
        assert panel.get_title() == f"{name}\nstraightness {straightness(states):.3g}"
    texts = [text.get_text() for text in display.figure_.legends[0].get_texts()]
    assert texts == ["start: noise", "end: samples"]


def test_paths_of_a_rotation_are_as_straight_as_arcs():
    display = TrajectoryDisplay.from_estimators({"arcs": Rotation(jumps=True)}, n_samples=300, n_steps=64)
    radii = (display.trajectories["arcs"][0] ** 2).sum(axis=1)
    expected = radii.mean() * ((np.pi / 2) ** 2 - 4 * np.sin(np.pi / 4) ** 2)
    assert display.straightness_["arcs"] == pytest.approx(expected, rel=1e-2)


def test_a_fitted_generators_paths_end_in_its_samples_and_bear_its_columns_names(fitted):
    display = TrajectoryDisplay.from_estimators({"teacher": fitted}, n_samples=7, n_steps=4, columns=(1, 0))
    samples = fitted.sample(7, random_state=0, n_steps=4).to_numpy()
    np.testing.assert_allclose(display.ends_[0].get_xydata(), samples[:, [1, 0]], rtol=1e-5, atol=1e-5)
    assert display.trajectories["teacher"].shape == (5, 7, 2)
    assert (display.axes_[0].get_xlabel(), display.axes_[0].get_ylabel()) == ("torque", "speed")


def test_two_columns_of_many_are_shown_and_named():
    paths = RNG.normal(size=(4, 6, 5))
    display = TrajectoryDisplay.from_trajectories({"a": paths}, (3, 0))
    np.testing.assert_array_equal(display.lines_[0, 2].get_xydata(), paths[:, 2, [3, 0]])
    assert (display.axes_[0].get_xlabel(), display.axes_[0].get_ylabel()) == ("x3", "x0")
    assert display.straightness_["a"] == straightness(paths)
    named = TrajectoryDisplay.from_trajectories({"a": paths}, (3, 0), column_names=["load", "age"])
    assert (named.axes_[0].get_xlabel(), named.axes_[0].get_ylabel()) == ("load", "age")


def test_panels_fill_rows_or_given_axes():
    paths = dict.fromkeys("abcd", RNG.normal(size=(3, 2, 2)))
    display = TrajectoryDisplay.from_trajectories(paths, n_columns=3)
    rows, columns = display.axes_[0].get_subplotspec().get_gridspec().get_geometry()
    assert (rows, columns, len(display.axes_)) == (2, 3, 4)
    assert [panel.get_ylabel() for panel in display.axes_] == ["x1", "", "", "x1"]
    assert [panel.get_xlabel() for panel in display.axes_] == ["", "x0", "x0", "x0"]
    assert [panel.xaxis.get_major_ticks()[0].label1.get_visible() for panel in display.axes_] == [False, *[True] * 3]
    for n, expected in [(1, (1, 1)), (3, (1, 3)), (4, (2, 2)), (5, (2, 3)), (7, (3, 3))]:
        display = TrajectoryDisplay.from_trajectories(dict.fromkeys(range(n), paths["a"]))
        assert display.axes_[0].get_subplotspec().get_gridspec().get_geometry() == expected
    figure, axes = plt.subplots(4)
    assert TrajectoryDisplay(paths).plot(ax=axes).axes_.tolist() == axes.tolist()
    figure, ax = plt.subplots()
    display = TrajectoryDisplay.from_trajectories({"a": paths["a"]}, ax=ax)
    assert display.axes_.tolist() == [ax]
    assert display.figure_ is figure
    assert figure.legends == []  # nothing is put outside of axes that are another's
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["start: noise", "end: samples"]


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"estimators": {}}, "estimators must map names to fitted estimators, at least one, got {}"),
        ({"estimators": {"a": None}}, r"estimators\['a'\] must have a method sample, got None"),
        ({"columns": (0, 2)}, "each of columns must be an integer from 0 to 1 for tables of 2 columns, got 2"),
        ({"columns": (-1, 0)}, "each of columns must be an integer from 0 to 1 for tables of 2 columns, got -1"),
        ({"columns": (0, 1, 1)}, r"columns must be two columns of the table, got \(0, 1, 1\)"),
        ({"columns": 1}, "columns must be two columns of the table, got 1"),
        ({"column_names": ["a"]}, "column_names holds 1 labels for 2 columns"),
        ({"n_samples": 0}, "n_samples must be an integer >= 1, got 0"),
        ({"n_steps": 0}, "n_steps must be an integer >= 1, got 0"),
        ({"n_columns": 0}, "n_columns must be an integer >= 1, got 0"),
    ],
)
def test_wrong_questions_about_paths_are_refused(parameters, message):
    parameters = {"estimators": {"teacher": Rotation()}, "n_samples": 3, "n_steps": 2} | parameters
    with pytest.raises(ValueError, match=message):
        TrajectoryDisplay.from_estimators(**parameters)


def test_grids_have_no_paths_to_draw():
    class Signals:
        def sample(self, n_samples, y, random_state, *, n_steps, return_trajectory):
            return np.zeros((n_steps + 1, n_samples, 1, 24))

    message = r"the trajectory of 'waves' has shape \(3, 4, 1, 24\): samples are grids of shape \(1, 24\); paths are"
    with pytest.raises(ValueError, match=message):
        TrajectoryDisplay.from_estimators({"waves": Signals()}, n_samples=4, n_steps=2)
    with pytest.raises(ValueError, match=r"the trajectory of 'a' has shape \(4, 2\)"):
        TrajectoryDisplay.from_trajectories({"a": np.zeros((4, 2))})
    with pytest.raises(ValueError, match="trajectories must map names to paths, at least one"):
        TrajectoryDisplay.from_trajectories({})
