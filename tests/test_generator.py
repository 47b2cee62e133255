"""What FlowMatchingGenerator promises, against laws and simple rivals."""

import copy
import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.integrate import trapezoid
from scipy.special import logsumexp
from scipy.stats import gamma, kstest, multivariate_normal, norm
from sklearn.base import clone
from sklearn.datasets import load_iris, load_wine, make_moons
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.neighbors import KernelDensity
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import flowmatch.model.density
from flowmatch import MLP, FlowMatchingGenerator, TrainingOptions, load
from flowmatch.flow import LogitNormalTimes, OptimalTransportCoupling
from flowmatch.metrics import classifier_two_sample_test, copy_check, sliced_wasserstein
from flowmatch.networks import AutoNetwork
from flowmatch.objectives import MeanFlow
from flowmatch.training import Phase

pytestmark = pytest.mark.filterwarnings("ignore:X has .* rows")


def quick(**parameters):
    return FlowMatchingGenerator(**{"max_iter": 20, "random_state": 0, "device": "cpu"} | parameters)


@pytest.fixture(scope="module")
def wine():
    X, y = load_wine(return_X_y=True, as_frame=True)
    return FlowMatchingGenerator(random_state=0, device="cpu").fit(X, y), X, y


@pytest.fixture(scope="module")
def gaussian():
    """A correlated normal law with two classes of known means, and a model of it."""
    rng = np.random.default_rng(0)
    covariance = np.array([[1.0, 0.6], [0.6, 0.5]])
    y = np.repeat(["left", "right"], [900, 600])
    X = rng.multivariate_normal([0, 0], covariance, size=1500) + np.where(y == "right", 3.0, 0.0)[:, None]
    model = FlowMatchingGenerator(
        random_state=0, device="cpu", preprocessing="standardize", max_iter=800, condition_dropout=0.2
    ).fit(X, y)
    laws = {label: multivariate_normal([shift, shift], covariance) for label, shift in (("left", 0), ("right", 3))}
    return model, laws, X, y


# -- quality against laws and rivals ------------------------------------------------------------------------------


def test_a_moon_is_better_drawn_than_by_a_kernel_density():
    train, test = (make_moons(1000, noise=0.05, random_state=seed)[0] for seed in (0, 1))
    ours = quick(max_iter=600, coupling="ot").fit(train).sample(1000, random_state=0)
    rival = KernelDensity(bandwidth="scott").fit(train).sample(1000, random_state=0)
    assert sliced_wasserstein(test, ours) < 0.7 * sliced_wasserstein(test, rival)


@pytest.mark.slow
def test_synthetic_wine_can_hardly_be_told_from_real_and_is_no_copy(wine):
    X, y = load_wine(return_X_y=True)
    X_train, X_test, y_train, _ = train_test_split(X, y, stratify=y, test_size=0.3, random_state=0)
    synthetic = (
        FlowMatchingGenerator(random_state=0, device="cpu").fit(X_train, y_train).sample(len(X_train), random_state=0)
    )
    rng = np.random.default_rng(0)
    independent = np.column_stack([rng.permutation(column) for column in X_train.T])
    assert classifier_two_sample_test(X_train, synthetic) < 0.65 < classifier_two_sample_test(X_train, independent)
    scale = X_train.std(0)
    bootstrap = X_train[rng.integers(0, len(X_train), len(X_train))]
    assert copy_check(X_train / scale, synthetic / scale, X_test / scale).gap < 0.45
    assert copy_check(X_train / scale, bootstrap / scale, X_test / scale).gap > 0.6


def test_log_density_is_close_to_the_law_it_was_trained_on(gaussian):
    model, laws, X, y = gaussian
    for label, law in laws.items():
        fresh = law.rvs(400, random_state=1)
        error = model.score_samples(fresh, np.repeat(label, 400)) - law.logpdf(fresh)
        assert abs(error.mean()) < 0.1
        assert error.std() < 0.4


def test_density_without_labels_is_the_mixture_over_classes(gaussian):
    model, _, X, _ = gaussian
    parts = [model.score_samples(X[:20], np.repeat(label, 20)) for label in ("left", "right")]
    expected = logsumexp(parts, axis=0, b=np.array([[0.6], [0.4]]))
    np.testing.assert_allclose(model.score_samples(X[:20]), expected, rtol=1e-9)


@pytest.mark.parametrize("n_steps", [10, 30, 100])
def test_single_precision_adds_little_to_what_the_solver_leaves(gaussian, n_steps, monkeypatch):
    model, _, X, y = gaussian
    exact = model.score_samples(X[:100], y[:100], solver="rk4", n_steps=100)
    single = model.score_samples(X[:100], y[:100], n_steps=n_steps)
    monkeypatch.setattr(flowmatch.model.density, "COARSE_STEPS", 0)
    double = model.score_samples(X[:100], y[:100], n_steps=n_steps)
    assert 0 < np.abs(single - double).max() < 1e-4
    assert np.median(np.abs(single - double)) < 0.05 * np.median(np.abs(double - exact))


@pytest.mark.parametrize(
    ("solver", "n_steps", "tolerance"),
    [("midpoint", 10, 1e-4), ("heun", 20, 1e-4), ("midpoint", 101, 1e-11), ("rk4", 10, 1e-11)],
)
def test_solvers_that_are_exact_stay_in_double_precision(gaussian, solver, n_steps, tolerance):
    model, _, X, y = gaussian
    together = model.score_samples(X[:33], y[:33], solver=solver, n_steps=n_steps)
    alone = [model.score_samples(X[[i]], y[[i]], solver=solver, n_steps=n_steps)[0] for i in range(33)]
    difference = np.abs(together - alone).max()
    assert difference < tolerance
    assert (difference > 1e-11) == (tolerance > 1e-11)


def test_density_integrates_to_one_in_the_datas_own_units():
    X = np.random.default_rng(0).gamma(2.0, 30.0, size=(300, 1))
    model = quick(max_iter=200).fit(X)
    grid = np.linspace(-300, 900, 6001)[:, None]
    assert trapezoid(np.exp(model.score_samples(grid)), grid[:, 0]) == pytest.approx(1, abs=0.01)


def test_codes_of_fresh_data_are_standard_normal(gaussian):
    model, laws, _, _ = gaussian
    codes = model.encode(laws["left"].rvs(500, random_state=2), np.repeat("left", 500))
    for column in codes.T:
        assert kstest(column, "norm").pvalue > 1e-3
    assert abs(np.corrcoef(codes.T)[0, 1]) < 0.15


@pytest.mark.slow
def test_quantile_densities_are_smooth_enough_to_beat_one_normal_on_skewed_data():
    """Densities go through a map with few knots: one knot a row would follow the sample and lose on fresh rows."""
    rng = np.random.default_rng(0)
    train, fresh = rng.gamma(1.5, 30.0, size=(400, 1)), rng.gamma(1.5, 30.0, size=(1000, 1))
    rival = norm(train.mean(), train.std()).logpdf(fresh).mean()
    law = gamma(1.5, scale=30.0).logpdf(fresh).mean()
    ours = FlowMatchingGenerator(random_state=0, device="cpu").fit(train).score(fresh)
    assert ours > rival + 0.7 * (law - rival)


def test_estimated_density_agrees_with_the_exact_one_within_its_error(gaussian):
    model, _, X, y = gaussian
    exact, none = model.score_samples(X[:50], y[:50], return_error=True)
    estimate, error = model.score_samples(X[:50], y[:50], n_probes=64, return_error=True)
    assert (none == 0).all()
    assert np.mean(np.abs(estimate - exact) < 3 * error + 1e-9) > 0.9
    assert not np.array_equal(estimate, exact)


def test_wide_tables_are_scored_by_probes():
    X = np.random.default_rng(0).normal(size=(60, 70))
    density, error = quick().fit(X).score_samples(X[:3], return_error=True)
    assert np.isfinite(density).all()
    assert (error > 0).all()


# -- conditions ---------------------------------------------------------------------------------------------------


def test_samples_follow_their_label(gaussian):
    model, _, _, _ = gaussian
    for label, centre in (("left", 0.0), ("right", 3.0)):
        assert model.sample(500, y=label, random_state=0).mean() == pytest.approx(centre, abs=0.2)


def test_labels_are_drawn_in_their_shares(gaussian):
    model, _, _, _ = gaussian
    _, y = model.sample(50, random_state=0, return_y=True)
    assert sorted(y.tolist()) == ["left"] * 30 + ["right"] * 20
    assert y.tolist() != sorted(y.tolist())


def test_guidance_exaggerates_the_condition(gaussian):
    model, _, _, _ = gaussian
    means = [model.sample(500, y="right", random_state=0, guidance_scale=scale).mean() for scale in (0.0, 1.0, 2.5)]
    assert means[0] < means[1] - 0.5
    assert means[1] < means[2]
    same = model.sample(5, y="right", random_state=0, guidance_scale=1.0)
    np.testing.assert_array_equal(same, model.sample(5, y="right", random_state=0))


def test_guidance_needs_an_unconditional_model():
    X, y = load_iris(return_X_y=True)
    with pytest.raises(ValueError, match="fit with y"):
        quick(guidance_scale=2.0).fit(X)
    with pytest.raises(ValueError, match="condition_dropout > 0"):
        quick(condition_dropout=0.0).fit(X, y).sample(3, guidance_scale=2.0)


def test_numeric_conditions_steer_the_samples():
    rng = np.random.default_rng(0)
    angle = rng.uniform(-2, 2, size=600)
    X = np.column_stack([angle + 0.1 * rng.normal(size=600), rng.normal(size=600)])
    model = FlowMatchingGenerator(max_iter=500, random_state=0, device="cpu").fit(X, angle)
    for wanted in (-1.0, 1.0):
        drawn = model.sample(200, y=wanted, random_state=0)[:, 0]
        assert drawn.mean() == pytest.approx(wanted, abs=0.2)
    _, y = model.sample(600, random_state=0, return_y=True)
    assert sorted(y) == pytest.approx(sorted(angle), abs=0.05)  # blurred with their neighbors
    assert np.isfinite(model.score_samples(X[:3])).all()  # the unconditional density, learned by condition dropout
    with pytest.raises(ValueError, match="condition_dropout"):
        quick(condition_dropout=0.0).fit(X, angle).score_samples(X[:3])


@pytest.mark.parametrize(
    ("y", "kind"),
    [
        (np.array(["a", "b"] * 30), str), (np.array([True, False] * 30), np.bool_), (np.array([3, 7] * 30), np.int64),
        (np.array([1.0, 2.0] * 30), np.float64), (pd.Series(["x", "y"] * 30, dtype="category"), str),
        (pd.Series([1, 2] * 30, name="label"), np.int64), (torch.tensor([0, 1] * 30), np.int64),
    ],
    ids=str,
)  # fmt: skip
def test_labels_of_any_dtype_come_back(y, kind):
    X = np.random.default_rng(0).normal(size=(60, 2))
    model = quick().fit(X, y)
    assert isinstance(model.classes_[0], kind)
    _, drawn = model.sample(6, return_y=True)
    assert type(drawn) is type(y)
    assert set(np.asarray(drawn).tolist()) <= set(np.asarray(y).tolist())
    assert model.sample(2, y=model.classes_[1]).shape == (2, 2)


def test_one_condition_a_row():
    X, y = load_iris(return_X_y=True)
    model = quick().fit(X, y)
    _, drawn = model.sample(3, y=[2, 0, 1], return_y=True)
    assert drawn.tolist() == [2, 0, 1]
    with pytest.raises(ValueError, match="one label, or one for each of 2"):
        model.sample(2, y=[0, 1, 2])


# -- tables in and out --------------------------------------------------------------------------------------------


def test_a_table_comes_back_in_columns_dtypes_grid_and_range(wine):
    model, X, _ = wine
    synthetic = model.sample(300, random_state=0)
    assert list(synthetic.columns) == list(X.columns)
    assert list(synthetic.dtypes) == list(X.dtypes)
    assert (synthetic.min() >= X.min()).all()
    assert (synthetic.max() <= X.max()).all()
    for column, decimals in (("alcohol", 2), ("magnesium", 0), ("proline", 0), ("alcalinity_of_ash", 1)):
        np.testing.assert_allclose(synthetic[column], synthetic[column].round(decimals), atol=1e-9)
    assert not set(map(tuple, synthetic.round(6).values)) & set(map(tuple, X.round(6).values))


def test_constant_columns_come_back_exactly_and_mark_other_values_as_impossible():
    X = np.random.default_rng(0).normal(size=(60, 3))
    X[:, 1] = 0.1
    model = quick().fit(X)
    assert (model.sample(20)[:, 1] == 0.1).all()
    other = X[:2].copy()
    other[1, 1] = 0.2
    scores = model.score_samples(other)
    assert np.isfinite(scores[0])
    assert scores[1] == -np.inf
    assert model.encode(X).shape == (60, 2)


@pytest.mark.parametrize("shape", [(2, 7), (1, 4, 4), (3, 5, 2), (1, 3, 2, 2)])
@pytest.mark.parametrize("preprocessing", ["auto", "minmax", "quantile", "none"])
def test_grids_of_any_shape_work(shape, preprocessing):
    X = np.random.default_rng(0).normal(size=(60, *shape)).astype(np.float32)
    model = quick(network="mlp", max_iter=5, preprocessing=preprocessing).fit(X)
    assert model.sample_shape_ == shape
    assert model.n_features_in_ == shape[0]
    assert model.sample(3).shape == (3, *shape)
    assert model.sample(3).dtype == np.float32
    assert model.score_samples(X[:2]).shape == (2,)
    np.testing.assert_allclose(
        model.decode(model.encode(X, n_steps=50, solver="rk4"), n_steps=50, solver="rk4"), X, rtol=1e-3, atol=1e-3
    )


# -- going on -----------------------------------------------------------------------------------------------------


def test_warm_start_goes_on_and_a_plain_fit_starts_anew():
    X = np.random.default_rng(0).normal(size=(60, 2))
    model = quick(warm_start=True).fit(X)
    first = torch.cat([p.flatten() for p in model.network_.parameters()])
    model.fit(X)
    assert model.n_iter_ == 40
    assert model.history_["step"] == sorted(set(model.history_["step"]))
    assert model.history_["step"][-1] == 40
    assert not torch.equal(first, torch.cat([p.flatten() for p in model.network_.parameters()]))
    model.set_params(warm_start=False).fit(X)
    torch.testing.assert_close(first, torch.cat([p.flatten() for p in model.network_.parameters()]))
    assert model.n_iter_ == 20


@pytest.mark.slow
def test_partial_fit_follows_drifting_data():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(400, 2))
    model = quick(max_iter=200, preprocessing="standardize").partial_fit(X)
    before = model.sample(500, random_state=0).mean()
    for _ in range(2):
        model.partial_fit(X + 2.0)
    assert abs(before) < 0.3
    assert model.sample(500, random_state=0).mean() == pytest.approx(2.0, abs=0.3)


def test_labels_are_drawn_in_the_shares_of_the_newest_rows():
    X, y = load_iris(return_X_y=True)
    model = quick().partial_fit(X, y).partial_fit(X[:100], y[:100])
    assert set(model.sample(60, return_y=True)[1].tolist()) == {0, 1}
    with np.errstate(all="raise"):
        assert np.isfinite(model.score_samples(X[:3])).all()


def test_calls_of_partial_fit_draw_their_own_noise():
    X = np.random.default_rng(0).normal(size=(60, 2))
    model = quick(learning_rate=1e-12).partial_fit(X).partial_fit(X)
    half = len(model.history_["loss"]) // 2
    assert model.history_["loss"][:half] != model.history_["loss"][half:]
    assert model.history_["seconds"] == sorted(model.history_["seconds"])


def test_parameters_set_after_a_fit_do_not_reach_it(tmp_path):
    X, y = load_iris(return_X_y=True)
    model = quick(condition_dropout=0.0, network=MLP(width=16)).fit(X, y)
    before = model.sample(5, random_state=0)
    model.set_params(path="cosine", network__width=32, condition_dropout=0.5, source="matched")
    np.testing.assert_array_equal(before, model.sample(5, random_state=0))
    with pytest.raises(ValueError, match="condition_dropout > 0"):
        model.sample(5, guidance_scale=2.0)
    model.save(tmp_path / "model")
    np.testing.assert_array_equal(before, load(tmp_path / "model", device="cpu").sample(5, random_state=0))
    with pytest.raises(ValueError, match="network was MLP.*16.*32"):
        model.partial_fit(X, y)


def test_one_condition_of_several_numbers_serves_all_samples():
    X = np.random.default_rng(0).normal(size=(60, 3))
    model = quick().fit(X[:, :1], X[:, 1:])
    for n in (2, 5):
        drawn, y = model.sample(n, y=[1.0, 2.0], return_y=True)
        assert drawn.shape == (n, 1)
        np.testing.assert_array_equal(y, np.tile([1.0, 2.0], (n, 1)))
    one = model.score_samples(X[:4, :1], [1.0, 2.0])
    np.testing.assert_allclose(one, model.score_samples(X[:4, :1], np.tile([1.0, 2.0], (4, 1))))


def test_one_label_serves_all_rows_of_a_score(gaussian):
    model, _, X, _ = gaussian
    np.testing.assert_allclose(model.score_samples(X[:4], "left"), model.score_samples(X[:4], ["left"] * 4))


def test_integers_with_more_levels_than_knots_keep_all_of_them():
    X = np.repeat(np.arange(3000.0), 5)[:, None]
    drawn = quick(max_iter=2).fit(X).sample(20_000, random_state=0)
    assert len(np.unique(drawn)) > 2500


def test_going_on_refuses_other_columns_and_labels():
    X, y = load_iris(return_X_y=True)
    model = quick().partial_fit(X, y)
    with pytest.raises(ValueError, match="3 features"):
        model.partial_fit(X[:, :3], y)
    with pytest.raises(ValueError, match="label 9"):
        model.partial_fit(X, np.where(y == 2, 9, y))
    with pytest.raises(ValueError, match="pass them here too"):
        model.partial_fit(X)


# -- scikit-learn's manners ---------------------------------------------------------------------------------------


def test_nested_parameters_are_reached_also_through_names_and_none():
    model = FlowMatchingGenerator(network="mlp").set_params(
        network__width=16, training__ema_decay=0.9, coupling="ot", coupling__block_size=8
    )
    assert model.network == MLP(width=16)
    assert model.training == TrainingOptions(ema_decay=0.9)
    assert model.coupling == OptimalTransportCoupling(8)
    with pytest.raises(ValueError, match="Invalid parameter 'wdth'|no parameter 'wdth'"):
        FlowMatchingGenerator(network=MLP()).set_params(network__wdth=3)
    untouched = FlowMatchingGenerator(network="mlp")
    with pytest.raises(ValueError, match="no parameter 'wdth'"):
        untouched.set_params(network__wdth=3)
    assert untouched.network == "mlp"


def test_auto_has_no_parameters_of_its_own():
    untouched = FlowMatchingGenerator()
    with pytest.raises(ValueError, match="preprocessing='auto' has no parameters.*max_knots.*a transform by name"):
        untouched.set_params(preprocessing__max_knots=3)
    with pytest.raises(ValueError, match="network='auto' has no parameters.*width.*'mlp' for tables, 'unet'"):
        untouched.set_params(network__width=3)
    assert untouched.network == untouched.preprocessing == "auto"


def test_setting_a_component_does_not_reach_other_estimators():
    shared = MLP(width=16)
    one, other = FlowMatchingGenerator(network=shared), FlowMatchingGenerator(network=MLP(width=16))
    one.set_params(network__width=32)
    assert other.network.width == 16


def test_grid_search_and_pipelines_work():
    X, _ = load_iris(return_X_y=True)
    search = GridSearchCV(quick(max_iter=5, network=MLP()), {"network__width": [8, 16]}, cv=2).fit(X)
    assert search.best_params_["network__width"] in (8, 16)
    assert make_pipeline(StandardScaler(), quick(max_iter=5)).fit(X).score(X) < 1e3


def test_network_factory_is_called_with_shapes():
    calls = []

    class Field(torch.nn.Module):
        def __init__(self, size):
            super().__init__()
            self.layer = torch.nn.Linear(size, size)

        def forward(self, x, t, condition=None):
            return self.layer(x)

    def factory(sample_shape, condition_size, flow_map):
        calls.append((sample_shape, condition_size, flow_map))
        return Field(sample_shape[0])

    X, y = load_iris(return_X_y=True)
    assert quick(network=factory).fit(X, y).sample(3).shape == (3, 4)
    quick(network=factory, masked_share=0.0).fit(X, y)
    cells = 5 * 4  # what is known of a row, and where its noise starts
    assert calls == [((4,), 3 + cells, False), ((4,), 3, False)]


@pytest.mark.parametrize("solver", ["euler", "midpoint", "heun", "rk4", "ab2", "dopri5"])
@pytest.mark.parametrize("path", ["linear", "vp", "cosine"])
def test_every_path_samples_with_every_solver(gaussian, solver, path):
    X = gaussian[2]
    if path == "linear":
        n_steps = None if solver == "dopri5" else 20
        drawn = gaussian[0].sample(300, random_state=0, solver=solver, n_steps=n_steps)
        assert drawn.std() == pytest.approx(X.std(), rel=0.15)
    else:
        assert np.isfinite(quick(path=path, max_iter=5).fit(X).sample(10, solver=solver)).all()


@pytest.mark.slow
@pytest.mark.parametrize("path", ["vp", "cosine"])
def test_curved_paths_reach_the_same_law(path):
    rng = np.random.default_rng(0)
    X = rng.multivariate_normal([0, 1], [[1.0, 0.8], [0.8, 1.0]], size=1000)
    drawn = quick(path=path, max_iter=800, preprocessing="standardize").fit(X).sample(2000, random_state=0, n_steps=30)
    np.testing.assert_allclose(np.cov(drawn.T), np.cov(X.T), atol=0.15)


def test_steps_go_by_the_number_of_rows_unless_they_are_given():
    from flowmatch.fitting import Schedule, resolve_settings, schedule_of

    nothing = resolve_settings(FlowMatchingGenerator())
    assert [schedule_of(nothing, (3,), n).max_iter for n in (20, 150, 300, 10_000)] == [300, 351, 703, 1000]
    given = resolve_settings(FlowMatchingGenerator(max_iter=7, batch_size=3, learning_rate=0.5))
    assert schedule_of(given, (3,), 20) == schedule_of(given, (1, 8, 8), 20) == Schedule(7, 3, 0.5)


def test_training_and_networks_of_generators_grow_with_the_table():
    from flowmatch.fitting import Schedule, resolve_settings, schedule_of
    from flowmatch.fitting.schedule import network_of

    nothing = resolve_settings(FlowMatchingGenerator())
    found = [schedule_of(nothing, (3,), n, grows=True) for n in (20, 1000, 4000, 50_000, 10**6)]
    assert [schedule.max_iter for schedule in found] == [300, 1000, 2000, 7071, 7071]
    assert [schedule.batch_size for schedule in found] == [256, 256, 256, 512, 512]
    assert found[0].learning_rate == found[1].learning_rate > found[2].learning_rate > found[3].learning_rate
    given = resolve_settings(FlowMatchingGenerator(max_iter=7, batch_size=3, learning_rate=0.5))
    assert schedule_of(given, (3,), 10**6, grows=True) == Schedule(7, 3, 0.5)
    auto = AutoNetwork()
    assert [network_of(auto, (3,), n).width for n in (20, 250, 2000, 16_000, 10**6)] == [64, 64, 128, 256, 256]
    assert [network_of(auto, (d,), 20).width for d in (40, 200, 1000)] == [64, 288, 512]
    for network, shape in [(MLP(width=8), (200,)), (auto, (1, 8, 8))]:
        assert network_of(network, shape, 10**6) is network


def test_what_auto_chooses_is_what_is_trained():
    X = np.random.default_rng(0).normal(size=(2000, 2))
    fitted = FlowMatchingGenerator(max_iter=1, device="cpu").fit(X)
    assert fitted.model_.blueprint.factory == MLP(width=128)


def test_a_fit_that_ends_for_the_sake_of_time_says_so(monkeypatch):
    monkeypatch.setattr("flowmatch.fitting.announcements._FEW_PASSES", 10**6)
    X = np.random.default_rng(0).normal(size=(60, 2))
    with pytest.warns(UserWarning, match="max_iter=None ends training after 300 steps .* such as max_iter=600"):
        FlowMatchingGenerator(network=MLP(width=4, depth=1), batch_size=4, device="cpu").fit(X)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        FlowMatchingGenerator(network=MLP(width=4, depth=1), max_iter=2, batch_size=4, device="cpu").fit(X)


def test_times_move_towards_the_noise_as_grids_grow():
    from flowmatch.fitting.schedule import measured_times

    assert measured_times((20,)) == measured_times((3, 8, 8)) == measured_times((1, 5)) == LogitNormalTimes()
    means = [measured_times(shape).mean for shape in ((1, 100), (1, 16, 16), (2, 28, 28), (1, 32, 32, 32))]
    assert 0 > means[0] > means[1] > -0.99 > means[2] >= means[3] == -1


def test_a_bad_time_sampler_is_refused_by_name():
    with pytest.raises(ValueError, match="unknown time_sampler 'beta'. Choose one of 'auto', 'uniform', 'stratified'"):
        quick(time_sampler="beta").fit(np.eye(5))


def test_verbose_says_what_auto_picked(capsys):
    quick(verbose=1, max_iter=3).fit(np.random.default_rng(0).normal(size=(60, 2)))
    captured = capsys.readouterr()
    assert "QuantileNormal" in captured.out
    assert "network: MLP(" in captured.out
    assert "max_iter=3" in captured.out
    assert "LogitNormalTimes" in captured.out
    assert "3/3" in captured.err


def test_auto_takes_the_network_that_suits_the_shape():
    assert [type(AutoNetwork()(shape, 0)).__name__ for shape in ((3,), (1, 8), (1, 4, 4), (1, 2, 2, 2))] == [
        "ModulatedMLP", *["ConvolutionalUNet"] * 3,
    ]  # fmt: skip


# -- mean flow ----------------------------------------------------------------------------------------------------


def small(**parameters):
    return quick(**{"network": MLP(width=16, depth=1), "preprocessing": "standardize"} | parameters)


@pytest.fixture(scope="module")
def jumper():
    """A flow map learned from data with two labels."""
    y = np.repeat(["left", "right"], [90, 60])
    X = np.random.default_rng(0).normal(size=(150, 2)) + np.where(y == "right", 3.0, 0.0)[:, None]
    return small(objective="mean_flow", max_iter=250, condition_dropout=0.2).fit(X, y), X, y


def evaluations(model, **options):
    """How often the network is called for a sample."""
    calls = []
    hook = model.network_.register_forward_hook(lambda *_: calls.append(1))
    model.sample(5, random_state=0, **options)
    hook.remove()
    return len(calls)


@pytest.mark.slow
def test_mean_flow_beats_eulers_steps_on_a_velocity_of_the_same_network():
    train, fresh = (make_moons(n, noise=0.05, random_state=seed)[0] for seed, n in enumerate((400, 1000)))
    settings = {"network": MLP(width=32, depth=2), "max_iter": 300, "preprocessing": "standardize"}
    jumps = quick(objective="mean_flow", **settings).fit(train)
    rival = quick(**settings).fit(train)
    for n_steps in (1, 2):
        ours = jumps.sample(1000, random_state=3, n_steps=n_steps)
        theirs = rival.sample(1000, random_state=3, n_steps=n_steps, solver="euler")
        distances = [sliced_wasserstein(fresh, drawn, random_state=0) for drawn in (ours, theirs)]
        assert distances[0] < 0.75 * distances[1]
    one, four = (jumps.sample(1000, random_state=3, n_steps=n) for n in (1, 4))
    assert sliced_wasserstein(fresh, four, random_state=0) < sliced_wasserstein(fresh, one, random_state=0)


def test_a_flow_map_jumps_and_its_velocity_can_be_integrated(jumper):
    model, _, _ = jumper
    found = {
        name: evaluations(model, **options)
        for name, options in {
            "default": {}, "two": {"n_steps": 2}, "asked": {"solver": "flow_map", "n_steps": 4},
            "midpoint": {"solver": "midpoint"}, "euler": {"solver": "euler", "n_steps": 3},
        }.items()
    }  # fmt: skip
    assert found == {"default": 1, "two": 2, "asked": 4, "midpoint": 20, "euler": 3}
    jumps, walk, adaptive = (
        model.sample(300, random_state=0, **options)
        for options in ({"n_steps": 4}, {"solver": "midpoint"}, {"solver": "dopri5"})
    )
    np.testing.assert_allclose(walk, adaptive, atol=0.05)
    assert 0 < np.abs(jumps - walk).mean() < 0.5
    np.testing.assert_array_equal(model.sample(4, random_state=0), model.sample(4, random_state=0, n_steps=1))


def test_densities_and_codes_go_through_the_velocity_of_a_flow_map(jumper):
    model, X, y = jumper
    scores = model.score_samples(X[:40], y[:40])
    law = multivariate_normal([0, 0], np.eye(2)).logpdf(X[:40])
    assert np.corrcoef(scores, law)[0, 1] > 0.8
    grid = np.stack(np.meshgrid(np.linspace(-8, 11, 81), np.linspace(-8, 11, 81)), axis=-1).reshape(-1, 2)
    assert np.exp(model.score_samples(grid, "left")).sum() * (19 / 80) ** 2 == pytest.approx(1, abs=0.03)
    codes = model.encode(X, y, n_steps=50, solver="rk4")
    np.testing.assert_allclose(model.decode(codes, y, n_steps=50, solver="rk4"), X, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(model.decode(model.encode(X, y), y), X, atol=0.05)
    for method in (model.score_samples, model.encode):
        with pytest.raises(ValueError, match="solver='flow_map' takes the steps .* this method integrates a velocity"):
            method(X, y, solver="flow_map")
    asked = small(objective="mean_flow", solver="flow_map", n_steps=2, max_iter=3).fit(X)
    assert np.isfinite(asked.score_samples(X[:3])).all()
    np.testing.assert_allclose(asked.decode(asked.encode(X)), X, atol=0.05)
    assert evaluations(asked) == 2


def test_flow_maps_know_conditions(jumper):
    model, _, _ = jumper
    for label, centre in (("left", 0.0), ("right", 3.0)):
        assert model.sample(300, y=label, random_state=0, n_steps=4).mean() == pytest.approx(centre, abs=0.3)
    drawn, y = model.sample(500, random_state=0, return_y=True)
    assert (y == "left").sum() == pytest.approx(300, abs=4)
    assert drawn[y == "right"].mean() > drawn[y == "left"].mean() + 1.5
    rng = np.random.default_rng(0)
    angle = rng.uniform(-2, 2, size=300)
    X = np.column_stack([angle + 0.1 * rng.normal(size=300), rng.normal(size=300)])
    numeric = small(objective="mean_flow", max_iter=100).fit(X, angle)
    low, high = (numeric.sample(200, y=wanted, random_state=0, n_steps=4)[:, 0].mean() for wanted in (-1.5, 1.5))
    assert high - low > 1


def test_guidance_of_a_flow_map_is_learned_and_fixed(jumper):
    plain, X, y = jumper
    model = small(objective="mean_flow", max_iter=250, condition_dropout=0.2, guidance_scale=3.0).fit(X, y)
    for n_steps in (1, 4):
        gaps = [
            fitted.sample(500, y="right", random_state=0, n_steps=n_steps).mean()
            - fitted.sample(500, y="left", random_state=0, n_steps=n_steps).mean()
            for fitted in (model, plain)
        ]
        assert gaps[0] > 1.5 * gaps[1]
    assert evaluations(model, y="right") == 1
    for fitted, scale, learned in ((model, 1.0, 3), (plain, 2.0, 1)):
        with pytest.raises(ValueError, match=f"guidance_scale={scale:g}, but .* learned with guidance_scale={learned}"):
            fitted.sample(3, guidance_scale=scale)
    np.testing.assert_array_equal(
        model.sample(3, random_state=0), model.sample(3, random_state=0, guidance_scale=3.0)
    )  # fmt: skip
    with pytest.raises(ValueError, match="guidance_scale was 3.0 in the fit that this one goes on from, and is 1.0"):
        model.set_params(guidance_scale=1.0).partial_fit(X, y)
    with pytest.raises(ValueError, match="guidance_scale=2 needs conditions"):
        small(objective="mean_flow", guidance_scale=2.0).fit(X)


def test_weights_go_to_flow_maps_too():
    X = np.random.default_rng(0).normal(size=(60, 2))
    weight = np.arange(60) % 2
    parts = [
        torch.cat([p.flatten() for p in model.network_.parameters()])
        for model in (
            small(objective="mean_flow", max_iter=5).fit(X, sample_weight=weight),
            small(objective="mean_flow", max_iter=5).fit(X[weight > 0]),
        )
    ]
    assert torch.equal(*parts)


def test_fits_of_flow_maps_go_on_and_stay_flow_maps():
    X = np.random.default_rng(0).normal(size=(60, 2))
    model = small(objective="mean_flow", warm_start=True).fit(X)
    first = model.network_
    model.fit(X).partial_fit(X)
    assert model.n_iter_ == 60
    assert model.history_["step"] == sorted(set(model.history_["step"]))
    assert evaluations(model) == 1
    assert not torch.equal(*(torch.cat([p.flatten() for p in net.parameters()]) for net in (first, model.network_)))
    before = model.sample(4, random_state=0)
    with pytest.raises(ValueError, match="objective was 'mean_flow' .* and is 'velocity' now"):
        model.set_params(objective="velocity").fit(X)
    np.testing.assert_array_equal(before, model.sample(4, random_state=0))
    model.set_params(warm_start=False).fit(X)
    assert evaluations(model) == 20  # a velocity by midpoint steps


def test_early_stopping_measures_the_loss_of_jumps():
    X = np.random.default_rng(0).normal(size=(60, 2))
    options = TrainingOptions(early_stopping=True, patience=3, report_period=2, validation_fraction=0.2)
    model = small(objective="mean_flow", max_iter=200, learning_rate=1e-12, training=options).fit(X)
    assert model.n_iter_ < 200
    assert np.isfinite(model.history_["validation_loss"]).all()
    velocity = small(max_iter=200, learning_rate=1e-12, training=options).fit(X)
    assert velocity.history_["validation_loss"][0] != model.history_["validation_loss"][0]


def test_parts_of_mean_flow_have_parameters():
    X = np.random.default_rng(0).normal(size=(60, 2))
    base = small(objective="mean_flow", max_iter=10)
    plain = torch.cat([p.flatten() for p in base.fit(X).network_.parameters()])
    for name, value in {
        "flow_ratio": 0.25, "velocity": "conditional", "step_sampler": "fixed", "jump_weight": "uniform", "warmup": 0.0,
    }.items():  # fmt: skip
        other = clone(base).set_params(**{f"objective__{name}": value}).fit(X)
        assert other.objective == MeanFlow(**{name: value})
        assert not torch.equal(plain, torch.cat([p.flatten() for p in other.network_.parameters()])), name
    assert clone(base).objective == "mean_flow"
    with pytest.raises(ValueError, match="no parameter 'wamrup'"):
        clone(base).set_params(objective__wamrup=0.2)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"objective": "magic"}, "unknown objective 'magic'. Choose one of 'velocity', 'mean_flow', or pass a Objective"),
        ({"objective": MeanFlow(warmup=1.5)}, r"warmup must be a number in \[0, 1\), got 1.5"),
        ({"objective": MeanFlow(velocity="magic")}, "unknown velocity 'magic'"),
        ({"objective": MeanFlow(step_sampler="magic")}, "unknown step_sampler 'magic'"),
        ({"objective": "mean_flow", "training": TrainingOptions(compile=True)}, "compile=True does not go with objective='mean_flow'"),
        ({"objective": "mean_flow", "training": TrainingOptions(phases=(Phase(1.0),))}, "phases do not go with objective='mean_flow'"),
        ({"solver": "flow_map"}, "solver='flow_map' takes the steps .*: choose objective='mean_flow'.*, distil it"),
        ({"objective": "mean_flow", "n_steps": 0}, "n_steps must be an integer >= 1, got 0"),
        ({"objective": "mean_flow", "guidance_scale": "high"}, "guidance_scale must be a number .* got 'high'"),
    ],
    ids=str,
)  # fmt: skip
def test_bad_options_of_mean_flow_are_named(jumper, parameters, message):
    model = copy.copy(jumper[0])
    before = model.sample(4, random_state=0)
    with pytest.raises(ValueError, match=message):
        model.set_params(**{"objective": "velocity"} | parameters).fit(jumper[1], jumper[2])
    np.testing.assert_array_equal(jumper[0].sample(4, random_state=0), before)


def test_jumps_are_refused_where_there_is_a_velocity_only():
    model = small(max_iter=3).fit(np.random.default_rng(0).normal(size=(60, 2)))
    with pytest.raises(ValueError, match="solver='flow_map' takes the steps .* this model predicts a velocity"):
        model.sample(3, solver="flow_map")
    with pytest.raises(ValueError, match="n_steps must be an integer >= 1, got 0"):
        model.sample(3, n_steps=0)


class Interruption:
    def on_fit_task_end(self, estimator, context):
        if context.task_id >= 8:
            raise KeyboardInterrupt


@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_checkpoints_of_flow_maps_belong_to_their_guidance(jumper, tmp_path, scale):
    _, X, y = jumper

    def model(folder, *callbacks, **parameters):
        options = TrainingOptions(checkpoint_folder=folder, checkpoint_period=3, report_period=2, callbacks=callbacks)
        return small(objective="mean_flow", max_iter=12, training=options, **parameters)

    with pytest.raises(KeyboardInterrupt):
        model(tmp_path, Interruption()).fit(X, y)
    kept = list(tmp_path.glob("checkpoint-*"))
    beside, alone = (model(folder, guidance_scale=scale).fit(X, y) for folder in (tmp_path, tmp_path / "alone"))
    for ours, theirs in zip(beside.network_.parameters(), alone.network_.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert list(tmp_path.glob("checkpoint-*")) == ([] if scale == 1.0 else kept)


def test_files_and_pickles_keep_flow_maps(jumper, tmp_path):
    model, X, y = jumper
    model.save(tmp_path / "model")
    for other in (load(tmp_path / "model", device="cpu"), pickle.loads(pickle.dumps(model))):
        np.testing.assert_array_equal(other.sample(4, random_state=0), model.sample(4, random_state=0))
        np.testing.assert_allclose(other.score_samples(X[:4], y[:4]), model.score_samples(X[:4], y[:4]))
        assert evaluations(other) == 1
        with pytest.raises(ValueError, match="cannot be changed afterwards"):
            other.sample(3, guidance_scale=2.0)


# -- trajectories -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"solver": "euler", "n_steps": 3}, {"solver": "rk4", "n_steps": 2}], ids=str)
@pytest.mark.parametrize("kind", ["velocity", "flow map"])
def test_a_trajectory_goes_from_noise_to_samples(gaussian, jumper, kind, options):
    model = gaussian[0] if kind == "velocity" else jumper[0]
    states, y = model.sample(9, random_state=0, return_trajectory=True, return_y=True, **options)
    n_steps = options.get("n_steps", 10 if kind == "velocity" else 1)
    assert states.shape == (n_steps + 1, 9, 2)
    expected, labels = model.sample(9, random_state=0, return_y=True, **options)
    np.testing.assert_array_equal(y, labels)
    np.testing.assert_allclose(states[-1], expected, rtol=1e-5, atol=1e-5)
    many = model.sample(2000, random_state=0, return_trajectory=True, **options)[0]
    codes = model.model_.encoder.encode(many)
    assert abs(codes.mean()) < 0.06
    assert codes.std() == pytest.approx(1, abs=0.06)
    for size in (1, 4):
        parts = model.sample(9, random_state=0, return_trajectory=True, batch_size=size, **options)
        np.testing.assert_allclose(parts, states, rtol=1e-3, atol=1e-3)


def test_trajectories_of_tables_are_arrays_in_the_tables_units(wine):
    model, X, _ = wine
    states = model.sample(5, random_state=0, n_steps=2, return_trajectory=True)
    assert isinstance(states, np.ndarray)
    assert states.shape == (3, 5, 13)
    assert (states.mean((0, 1)) >= X.min()).all()  # those of noise may lie beyond the data
    assert (states.mean((0, 1)) <= X.max()).all()


def test_whether_conditions_were_dropped_is_known_of_the_last_fit():
    X, y = load_wine(return_X_y=True)
    model = quick(network=MLP(width=8), max_iter=2, condition_dropout=0.0).fit(X, y)
    with pytest.raises(ValueError, match="condition_dropout"):
        model.sample(2, y[:2], guidance_scale=2.0)
    model.set_params(condition_dropout=0.1, warm_start=True).fit(X, y)
    assert np.isfinite(model.sample(2, y[:2], guidance_scale=2.0)).all()
    model.set_params(condition_dropout=0.0).fit(X, y)
    with pytest.raises(ValueError, match="condition_dropout"):
        model.sample(2, y[:2], guidance_scale=2.0)


def test_guidance_that_a_fit_does_not_teach_is_refused_before_it_goes_on():
    X, y = load_wine(return_X_y=True)
    model = quick(network=MLP(width=8), max_iter=2, warm_start=True, condition_dropout=0.0).fit(X, y)
    with pytest.raises(ValueError, match="condition_dropout"):
        model.set_params(guidance_scale=3.0).fit(X, y)
