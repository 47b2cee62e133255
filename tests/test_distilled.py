"""What DistilledFlowMap promises: students that need one evaluation, against their teachers and against Euler steps."""

import copy
import pickle
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import make_moons
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from flowmatch import MLP, DistilledFlowMap, FlowAnomalyDetector, FlowMatchingGenerator, TrainingOptions, load
from flowmatch.distillation import CorrectedVelocity
from flowmatch.flow import STEP_SAMPLERS, BetaSteps, FixedSteps, LinearPath, StepSampler
from flowmatch.metrics import sliced_wasserstein
from flowmatch.model import FlowModel
from flowmatch.networks import UNet
from flowmatch.training import Phase

METHODS = ("progressive", "semigroup", "lagrangian", "reflow")
ROLLOUTS = ("progressive", "reflow")
EVERY_METHOD = pytest.mark.parametrize("method", METHODS)
N = 600

pytestmark = pytest.mark.filterwarnings("ignore:X has .* rows")


def generator(**parameters):
    start = {"network": MLP(width=16, depth=1), "max_iter": 20, "random_state": 0, "device": "cpu"}
    return FlowMatchingGenerator(**start | {"preprocessing": "standardize"} | parameters)


def distil(teacher, method="progressive", **parameters):
    """A student that trains for a moment."""
    start = {"max_iter": 5, "random_state": 0} | ({"n_pairs": 100} if method in ROLLOUTS else {})
    return DistilledFlowMap(teacher, method, **start | parameters)


@pytest.fixture(scope="module")
def moons():
    return make_moons(400, noise=0.05, random_state=0)[0]


@pytest.fixture(scope="module")
def teacher(moons):
    return generator(max_iter=150, masked_share=0.0).fit(moons)  # of so few steps, all go to whole rows


@pytest.fixture(scope="module")
def students(teacher, moons):
    """One step by each method, and for the way back by progressive distillation too."""
    few = {"progressive": {"n_pairs": 3000}, "reflow": {"n_pairs": 3000}}
    fitted = {
        method: DistilledFlowMap(teacher, method, max_iter=80, random_state=0, **few.get(method, {})).fit(moons)
        for method in METHODS
    }
    both = DistilledFlowMap(teacher, inverse=True, max_iter=80, n_pairs=3000, random_state=0).fit(moons)
    return fitted | {"both ways": both}


@pytest.fixture(scope="module")
def labelled():
    """Two classes in two columns, and a teacher that knows them."""
    y = np.repeat(["left", "right"], [90, 60])
    X = np.random.default_rng(0).normal(size=(150, 2)) + np.where(y == "right", 3.0, 0.0)[:, None]
    return generator(max_iter=150, condition_dropout=0.2).fit(X, y), X, y


@pytest.fixture(scope="module")
def numeric():
    """A column that follows a number, one that does not, and a teacher that knows the number."""
    rng = np.random.default_rng(0)
    angle = rng.uniform(-2, 2, size=300)
    X = np.column_stack([angle + 0.1 * rng.normal(size=300), rng.normal(size=300)])
    return generator(max_iter=100).fit(X, angle), X, angle


@pytest.fixture(scope="module")
def mean_flow(moons):
    return generator(objective="mean_flow", max_iter=40).fit(moons)


def rmse(first, second):
    return np.sqrt(np.mean((np.asarray(first) - np.asarray(second)) ** 2))


def weights(fitted):
    return torch.cat([p.detach().flatten() for p in fitted.network_.parameters()]).numpy()


def snapshot(fitted):
    """Everything about a fitted generator that a distillation could spoil."""
    state = {name: value.clone() for name, value in fitted.network_.state_dict().items()}
    return state, repr(fitted.get_params()), dict(fitted.history_), fitted.sample(5, random_state=0)


def assert_same(fitted, before):
    state, parameters, history, samples = before
    for name, value in fitted.network_.state_dict().items():
        assert torch.equal(value, state[name]), name
    assert repr(fitted.get_params()) == parameters
    assert fitted.history_ == history
    np.testing.assert_array_equal(fitted.sample(5, random_state=0), samples)


class Calls:
    """How often modules are evaluated."""

    def __init__(self, *modules):
        self.counts = [0] * len(modules)
        self.hooks = [module.register_forward_hook(self.count(i)) for i, module in enumerate(modules)]

    def count(self, i):
        def hook(*_):
            self.counts[i] += 1

        return hook

    def __enter__(self):
        return self.counts

    def __exit__(self, *_):
        for hook in self.hooks:
            hook.remove()


# -- quality ------------------------------------------------------------------------------------------------------


@EVERY_METHOD
def test_one_step_is_far_closer_to_the_teacher_than_its_own_euler_step(students, teacher, method):
    fresh = make_moons(1000, noise=0.05, random_state=1)[0]
    aim = teacher.sample(N, random_state=3, n_steps=40)
    rival = teacher.sample(N, random_state=3, n_steps=1, solver="euler")
    ours = students[method].sample(N, random_state=3)
    assert rmse(ours, aim) < 0.35 * rmse(rival, aim)
    ours, rival = (sliced_wasserstein(fresh, samples, random_state=0) for samples in (ours, rival))
    assert ours < 0.6 * rival


@EVERY_METHOD
def test_more_steps_do_not_hurt(students, teacher, method):
    fresh = make_moons(1000, noise=0.05, random_state=1)[0]
    aim = teacher.sample(N, random_state=3, n_steps=40)
    one, *more = (students[method].sample(N, random_state=3, n_steps=n) for n in (1, 2, 4))
    for samples in more:
        assert rmse(samples, aim) < 2 * rmse(one, aim)
        distances = [sliced_wasserstein(fresh, drawn, random_state=0) for drawn in (samples, one)]
        assert distances[0] < 1.25 * distances[1]


@EVERY_METHOD
def test_one_seed_draws_the_noise_that_the_teacher_draws(students, teacher, method):
    ours, theirs = students[method].sample(N, random_state=5), teacher.sample(N, random_state=5, n_steps=40)
    other = teacher.sample(N, random_state=6, n_steps=40)
    for column in range(2):
        assert np.corrcoef(ours[:, column], theirs[:, column])[0, 1] > 0.95
        assert abs(np.corrcoef(ours[:, column], other[:, column])[0, 1]) < 0.2


def test_guidance_becomes_part_of_the_student(labelled):
    model, X, y = labelled
    student = DistilledFlowMap(model, guidance_scale=2.0, max_iter=100, n_pairs=2000, random_state=0).fit(X, y)
    straight = DistilledFlowMap(
        model, "reflow", guidance_scale=2.0, max_iter=100, n_pairs=2000, random_state=0
    ).fit(X, y)  # fmt: skip
    guided, plain = (
        model.sample(N, y="right", random_state=1, n_steps=30, guidance_scale=scale) for scale in (2.0, 1.0)
    )
    assert rmse(guided, plain) > 0.1
    for fitted in (student, straight):
        ours = fitted.sample(N, y="right", random_state=1)
        assert rmse(ours, guided) < 0.5 * rmse(ours, plain)
    with pytest.raises(ValueError, match="guidance_scale=1, but .* learned with guidance_scale=2"):
        student.as_teacher().sample(3, guidance_scale=1.0)
    assert model.guidance_scale == 1.0


def test_the_teachers_own_guidance_is_the_default(labelled):
    model, X, y = labelled
    guided = copy.copy(model).set_params(guidance_scale=1.5)
    assert distil(guided).fit(X, y).student_.kind.guidance_scale == 1.5
    assert distil(guided, guidance_scale=1.0).fit(X, y).student_.kind.guidance_scale == 1.0


@pytest.mark.parametrize(
    "changes", [{"path": "vp", "source": "matched"}, pytest.param({"coupling": "ot"}, marks=pytest.mark.slow)], ids=str
)
def test_teachers_of_any_path_coupling_and_source_are_distilled(moons, changes):
    model = generator(max_iter=60, **changes).fit(moons)
    aim = model.sample(N, random_state=3, n_steps=40)
    rival = model.sample(N, random_state=3, n_steps=1, solver="euler")
    for method in ROLLOUTS:
        ours = DistilledFlowMap(model, method, max_iter=60, n_pairs=2000, random_state=0).fit(moons)
        assert rmse(ours.sample(N, random_state=3), aim) < 0.5 * rmse(rival, aim)


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{"path": "vp"}, {"path": "cosine"}, {"coupling": "ot"}], ids=str)
@pytest.mark.parametrize("method", ["semigroup", "lagrangian"])
def test_objectives_on_the_path_know_paths_and_couplings(moons, changes, method):
    model = generator(max_iter=300, **changes).fit(moons)
    aim = model.sample(N, random_state=3, n_steps=40)
    rival = model.sample(N, random_state=3, n_steps=1, solver="euler")
    ours = DistilledFlowMap(model, method, max_iter=300, random_state=0).fit(moons)
    assert rmse(ours.sample(N, random_state=3), aim) < 0.5 * rmse(rival, aim)


def test_a_mean_flow_model_is_a_teacher(mean_flow, moons):
    before = snapshot(mean_flow)
    for method in ("progressive", "semigroup", "lagrangian"):
        student = distil(mean_flow, method).fit(moons)
        assert not np.array_equal(student.sample(5, random_state=0), mean_flow.sample(5, random_state=0))
    assert_same(mean_flow, before)
    aim = mean_flow.sample(N, random_state=3, solver="midpoint", n_steps=20)
    ours = DistilledFlowMap(mean_flow, max_iter=100, n_pairs=2000, random_state=0).fit(moons).sample(N, random_state=3)
    assert rmse(ours, aim) < 0.5 * rmse(mean_flow.sample(N, random_state=3), aim)
    with pytest.raises(ValueError, match="method='reflow' straightens a velocity.*flow map already"):
        distil(mean_flow, "reflow").fit(moons)


@pytest.mark.parametrize("first", METHODS)
def test_a_student_is_a_teacher(students, moons, first):
    known = students[first]
    before = snapshot(known.as_teacher())
    student = distil(known).fit(moons)
    assert student.teacher_ is known
    assert_same(known.as_teacher(), before)
    aim, ours = (fitted.sample(N, random_state=3, n_steps=4) for fitted in (known, student))
    assert rmse(ours, aim) < 0.3
    assert rmse(ours, aim) > 0


def test_images_are_drawn_in_one_step():
    X = np.random.default_rng(0).integers(0, 255, size=(12, 1, 6, 6)).astype(np.uint8)
    model = generator(network=UNet(width=8, attention_levels=0, context_width=8), max_iter=3).fit(X)
    for method, more in (("progressive", {"loss": "sobolev"}), ("reflow", {"loss": "multiscale"})):
        student = distil(model, method, max_iter=2, batch_size=4, **more).fit(X)
        drawn = student.sample(3, random_state=0)
        assert drawn.shape == (3, 1, 6, 6)
        assert drawn.dtype == np.uint8
        assert student.sample(2, n_steps=2, return_trajectory=True).shape == (3, 2, 1, 6, 6)
        assert np.isfinite(student.history_["loss"]).all()


# -- what a student starts from, and what it costs ------------------------------------------------------------------


@pytest.mark.parametrize(
    "student",
    [{"method": method} for method in METHODS] + [{"method": "semigroup", "fold": False}, {"n_steps": 4}],
    ids=str,
)
def test_an_untrained_student_takes_the_teachers_euler_steps(teacher, moons, student):
    fitted = distil(teacher, **{"max_iter": 1, "learning_rate": 1e-12} | student).fit(moons)
    for n_steps in (1, 4):
        expected = teacher.sample(50, random_state=1, n_steps=n_steps, solver="euler")
        np.testing.assert_allclose(fitted.sample(50, random_state=1, n_steps=n_steps), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("n_steps", [1, 3])
@EVERY_METHOD
def test_a_step_takes_one_evaluation(students, method, n_steps):
    with Calls(students[method].network_) as counts:
        students[method].sample(20, random_state=0, n_steps=n_steps)
    assert counts == [n_steps]


def test_steps_are_the_estimators_where_the_call_does_not_say(teacher, moons):
    student = distil(teacher, n_steps=3).fit(moons)
    with Calls(student.network_) as counts:
        student.sample(5)
        student.as_teacher().sample(5)
    assert counts == [6]


def test_folding_leaves_one_network_and_not_folding_two(students, teacher, moons):
    unfolded = DistilledFlowMap(teacher, "semigroup", fold=False, max_iter=80, random_state=0).fit(moons)
    folded = students["semigroup"]
    assert isinstance(unfolded.network_, CorrectedVelocity)
    assert not isinstance(folded.network_, CorrectedVelocity)
    assert unfolded.n_parameters_ == folded.n_parameters_ + teacher.n_parameters_
    assert unfolded.n_iter_ == 80
    assert folded.n_iter_ == 80 + 24
    with Calls(unfolded.network_.velocity.network, unfolded.network_.corrector) as counts:
        ours = unfolded.sample(N, random_state=3, n_steps=2)
    assert counts == [2, 2]
    for name, value in unfolded.network_.velocity.network.state_dict().items():
        assert torch.equal(value, teacher.network_.state_dict()[name]), name
    np.testing.assert_allclose(unfolded.score_samples(moons[:20]), teacher.score_samples(moons[:20]))
    assert rmse(ours, folded.sample(N, random_state=3, n_steps=2)) < 0.1  # the folded network knows the other one
    assert rmse(ours, teacher.sample(N, random_state=3, n_steps=2, solver="euler")) > 0.1


def test_stages_go_on_from_each_other(teacher, moons):
    student = distil(
        teacher, n_stages=3, teacher_steps=2, max_iter=60, n_pairs=1000, training=TrainingOptions(report_period=10)
    ).fit(moons)
    assert student.n_iter_ == 180
    assert student.history_["step"] == list(range(10, 181, 10))
    assert student.history_["seconds"] == sorted(student.history_["seconds"])
    cycles = np.reshape(student.history_["learning_rate"], (3, 6))
    np.testing.assert_allclose(cycles, np.tile(cycles[0], (3, 1)))
    assert cycles[0, 0] > 10 * cycles[0, -1]
    aim = teacher.sample(N, random_state=3, n_steps=40)
    rival = teacher.sample(N, random_state=3, n_steps=1, solver="euler")
    assert rmse(student.sample(N, random_state=3), aim) < 0.35 * rmse(rival, aim)
    for n_steps in (2, 4, 8):  # what earlier stages taught is not forgotten
        rival = teacher.sample(N, random_state=3, n_steps=n_steps, solver="euler")
        assert rmse(student.sample(N, random_state=3, n_steps=n_steps), aim) < 0.8 * rmse(rival, aim)


def test_rounds_of_reflow_go_on_from_each_other(teacher, moons):
    one, two = (
        DistilledFlowMap(teacher, "reflow", n_stages=n, max_iter=60, n_pairs=2000, random_state=0).fit(moons)
        for n in (1, 2)
    )
    assert (one.n_iter_, two.n_iter_) == (60, 120)
    half = len(two.history_["loss"]) // 2
    np.testing.assert_array_equal(two.history_["loss"][:half], one.history_["loss"])
    np.testing.assert_allclose(two.history_["learning_rate"][half:], one.history_["learning_rate"])
    assert np.mean(two.history_["loss"][half:]) < 0.5 * np.mean(one.history_["loss"])  # straighter already
    assert isinstance(two.student_.path, LinearPath)


def test_a_moving_average_can_make_the_target(students, teacher, moons):
    plain = students["semigroup"]
    averaged = DistilledFlowMap(teacher, "semigroup", ema_target=True, max_iter=80, random_state=0).fit(moons)
    aim = teacher.sample(N, random_state=3, n_steps=40)
    rival = teacher.sample(N, random_state=3, n_steps=1, solver="euler")
    assert rmse(averaged.sample(N, random_state=3), aim) < 0.5 * rmse(rival, aim)
    assert not np.array_equal(weights(averaged), weights(plain))
    ours, other = (distil(teacher, "lagrangian", ema_target=use).fit(moons) for use in (True, None))
    assert not np.array_equal(weights(ours), weights(other))


# -- the way back ---------------------------------------------------------------------------------------------------


def test_few_steps_lead_to_codes_and_back(students, teacher, moons):
    student = students["both ways"]
    codes = teacher.encode(moons, n_steps=40)
    for n_steps in (1, 2, 4):
        ours = student.encode(moons, n_steps=n_steps)
        rival = teacher.encode(moons, n_steps=n_steps, solver="euler")
        assert rmse(ours, codes) < 0.6 * rmse(rival, codes)
        back = teacher.decode(rival, n_steps=n_steps, solver="euler")
        assert rmse(student.decode(ours, n_steps=n_steps), moons) < 0.6 * rmse(back, moons)
    np.testing.assert_array_equal(student.encode(moons[:3]), student.encode(moons[:3], n_steps=1))


def test_a_straightened_velocity_goes_back_unasked(students, teacher, moons):
    codes = teacher.encode(moons, n_steps=40)
    rival = teacher.encode(moons, n_steps=1, solver="euler")
    ours = students["reflow"].encode(moons)
    assert rmse(ours, codes) < 0.6 * rmse(rival, codes)
    assert rmse(students["reflow"].decode(ours), moons) < 0.2


@pytest.mark.parametrize("method", ["semigroup", pytest.param("lagrangian", marks=pytest.mark.slow)])
def test_objectives_on_the_path_teach_the_way_back(teacher, moons, method):
    student = distil(teacher, method, inverse=True, max_iter=100).fit(moons)
    codes = teacher.encode(moons, n_steps=40)
    rival = teacher.encode(moons, n_steps=2, solver="euler")
    assert rmse(student.encode(moons, n_steps=2), codes) < 0.8 * rmse(rival, codes)


def test_the_way_back_must_have_been_learned(students, moons):
    for method in ("progressive", "semigroup", "lagrangian"):
        with pytest.raises(ValueError, match="has not learned the way from data to noise: fit it with inverse=True"):
            students[method].encode(moons)
    assert students["progressive"].decode(np.zeros((3, 2))).shape == (3, 2)


def test_decoding_noise_is_sampling(students):
    for method in METHODS:
        start = students[method].sample(6, random_state=2, n_steps=3, return_trajectory=True)[0]
        noise = students[method].student_.encoder.encode(start)
        expected = students[method].sample(6, random_state=2, n_steps=3)
        np.testing.assert_allclose(students[method].decode(noise, n_steps=3), expected, rtol=1e-4, atol=1e-4)


# -- what it is fitted to -------------------------------------------------------------------------------------------


@EVERY_METHOD
def test_a_teacher_stays_as_it_is_bit_by_bit(teacher, moons, method):
    before = snapshot(teacher)
    student = distil(teacher, method).fit(moons)
    assert student.teacher_ is teacher
    assert student.estimator is teacher
    assert_same(teacher, before)
    assert not student.network_.training
    assert not any(p.requires_grad for p in student.network_.parameters())


@EVERY_METHOD
def test_fits_are_reproducible_and_leave_global_generators_alone(teacher, moons, method):
    numpy_state, torch_state = np.random.get_state()[1].copy(), torch.get_rng_state()
    first, again, other = (weights(distil(teacher, method, random_state=seed).fit(moons)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    distil(teacher, method, random_state=None).fit().sample(3)
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_state)
    assert torch.equal(torch.get_rng_state(), torch_state)


@EVERY_METHOD
def test_an_unfitted_teacher_is_fitted_first(moons, method):
    unfitted = generator(max_iter=5)
    student = distil(unfitted, method).fit(moons)
    assert not hasattr(unfitted, "network_")
    assert student.estimator is unfitted
    alone = generator(max_iter=5).fit(moons)
    np.testing.assert_array_equal(weights(student.teacher_), weights(alone))
    np.testing.assert_array_equal(weights(student), weights(distil(alone, method).fit(moons)))


def test_a_teacher_without_a_seed_takes_the_distillations(moons):
    student, again = (distil(generator(random_state=None), random_state=7).fit(moons) for _ in range(2))
    np.testing.assert_array_equal(weights(student), weights(again))
    np.testing.assert_array_equal(weights(student.teacher_), weights(generator(random_state=7).fit(moons)))
    assert student.estimator.random_state is None


def test_weights_reach_the_teacher_and_the_student(moons):
    weight = np.where(moons[:, 0] < 0.5, 1.0, 0.0)
    for method in ("progressive", "semigroup"):
        kept = moons[weight > 0]
        whole = distil(generator(), method).fit(moons, sample_weight=weight)
        np.testing.assert_array_equal(weights(whole), weights(distil(generator(), method).fit(kept)))
        np.testing.assert_array_equal(weights(whole.teacher_), weights(generator().fit(kept)))
    model = generator().fit(moons)
    plain = distil(model, "semigroup").fit(moons)
    tilted = distil(model, "semigroup").fit(moons, sample_weight=1 + 9 * weight)
    assert not np.array_equal(weights(plain), weights(tilted))


def test_a_frozen_teacher_stays_fitted_through_clones(teacher, moons):
    cloned = clone(distil(FrozenEstimator(teacher)))
    student = cloned.fit(moons)
    assert student.teacher_ is teacher
    np.testing.assert_array_equal(weights(student), weights(distil(teacher).fit(moons)))
    assert not hasattr(clone(distil(teacher)).estimator, "network_")
    with pytest.raises(NotFittedError, match="FlowMatchingGenerator is not fitted, and frozen"):
        distil(FrozenEstimator(generator())).fit(moons)


@pytest.mark.parametrize(
    "method", ["progressive", "reflow", *(pytest.param(name, marks=pytest.mark.slow) for name in METHODS[1:3])]
)
def test_samples_of_the_teachers_own_stand_in_for_data(labelled, method):
    model, X, y = labelled
    steps, n_pairs = (60, 1000) if method in ROLLOUTS else (200, None)
    student = distil(model, method, max_iter=steps, n_pairs=n_pairs).fit()
    assert student.classes_.tolist() == ["left", "right"]
    assert student.sample_shape_ == (2,)
    aim = model.sample(N, random_state=3, n_steps=40)
    rival = model.sample(N, random_state=3, n_steps=1, solver="euler")
    ours, labels = student.sample(N, random_state=3, return_y=True)
    np.testing.assert_array_equal(labels, model.sample(N, random_state=3, return_y=True)[1])
    assert np.mean(labels == "left") == pytest.approx(0.6, abs=0.01)
    assert rmse(ours, aim) < 0.9 * rmse(rival, aim)
    assert ours[labels == "right"].mean() - ours[labels == "left"].mean() > 2


def test_samples_of_its_own_suit_stages_and_samplers(teacher):
    for more in ({"n_stages": 2}, {"n_steps": 2}, {"step_sampler": "uniform"}):
        assert np.isfinite(distil(teacher, **more).fit().sample(5)).all()
    assert distil(teacher, n_pairs=1, n_stages=2).fit().n_iter_ == 10


def test_steps_follow_the_teachers_where_nobody_says(teacher, moons):
    model = generator(max_iter=20).fit(moons)
    found = {
        method: DistilledFlowMap(model, method, n_pairs=50 if method in ROLLOUTS else None, random_state=0).fit(moons)
        for method in METHODS
    }
    assert {method: fitted.n_iter_ for method, fitted in found.items()} == {
        "progressive": 14, "reflow": 14, "semigroup": 9 + 3, "lagrangian": 7,
    }  # fmt: skip


# -- containers, conditions, trajectories ---------------------------------------------------------------------------


@EVERY_METHOD
def test_tables_come_back_as_they_went_in(method):
    rng = np.random.default_rng(0)
    X = pd.DataFrame(
        {
            "size": rng.gamma(2.0, 3.0, size=80).round(1),
            "count": rng.integers(0, 9, size=80).astype(np.int16),
            "flag": rng.random(80) < 0.3,
            "single": rng.normal(size=80).astype(np.float32),
        }
    )
    student = distil(generator(preprocessing="auto"), method).fit(X)
    drawn = student.sample(60, random_state=0)
    assert list(drawn.columns) == list(student.feature_names_in_) == list(X.columns)
    assert list(drawn.dtypes) == list(X.dtypes)
    assert student.n_features_in_ == 4
    for name in ("size", "count", "single"):
        assert drawn[name].between(X[name].min(), X[name].max()).all()
    np.testing.assert_allclose(drawn["size"], drawn["size"].round(1), atol=1e-9)
    tensor = distil(generator(), method).fit(torch.tensor(X[["single"]].to_numpy())).sample(3)
    assert isinstance(tensor, torch.Tensor)
    assert tensor.dtype == torch.float32


@EVERY_METHOD
def test_numeric_conditions_are_passed_on(numeric, method):
    model, X, angle = numeric
    student = distil(model, method, max_iter=20, **({"n_pairs": 1000} if method in ROLLOUTS else {})).fit(X, angle)
    low, high = (student.sample(200, y=wanted, random_state=0)[:, 0].mean() for wanted in (-1.5, 1.5))
    assert high - low > 1.5
    _, y = student.sample(5, random_state=0, return_y=True)
    assert set(y) <= set(model.model_.conditions.rows[:, 0])


@EVERY_METHOD
def test_a_trajectory_goes_from_the_noise_to_the_samples(students, teacher, method):
    states = students[method].sample(20, random_state=4, n_steps=3, return_trajectory=True)
    assert states.shape == (4, 20, 2)
    np.testing.assert_allclose(states[-1], students[method].sample(20, random_state=4, n_steps=3), rtol=1e-5, atol=1e-5)
    theirs = teacher.sample(20, random_state=4, n_steps=2, return_trajectory=True)
    np.testing.assert_allclose(states[0], theirs[0], rtol=1e-5, atol=1e-5)
    halfway = teacher.sample(20, random_state=4, n_steps=30, return_trajectory=True)[10]
    assert method == "reflow" or rmse(states[1], halfway) < 0.25  # a reflow takes ways of its own


def test_trajectories_come_with_their_conditions(labelled):
    model, X, y = labelled
    states, labels = distil(model).fit(X, y).sample(6, n_steps=2, return_trajectory=True, return_y=True)
    assert states.shape == (3, 6, 2)
    assert set(labels) <= {"left", "right"}


def test_the_batch_size_of_a_call_changes_nothing(students):
    for method in METHODS:
        expected = students[method].sample(20, random_state=0)
        np.testing.assert_allclose(students[method].sample(20, random_state=0, batch_size=3), expected, atol=1e-5)


# -- options of training --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["progressive", "semigroup", "lagrangian"])
def test_each_step_sampler_teaches_other_jumps(teacher, moons, method):
    samplers = [BetaSteps(1.0, 1.5) if name == "beta" else name for name in STEP_SAMPLERS]  # (1, 1) is uniform
    found = [weights(distil(teacher, method, step_sampler=sampler).fit(moons)) for sampler in samplers]
    assert all(np.isfinite(each).all() for each in found)
    assert len({each.tobytes() for each in found}) == len(STEP_SAMPLERS)
    default = {"progressive": "fixed", "semigroup": "dyadic", "lagrangian": "beta"}[method]
    expected = found[list(STEP_SAMPLERS).index(default)]
    np.testing.assert_array_equal(weights(distil(teacher, method).fit(moons)), expected)


@EVERY_METHOD
def test_the_loss_is_the_users_choice(teacher, moons, method):
    square, robust, default = (weights(distil(teacher, method, loss=loss).fit(moons)) for loss in ("l2", "huber", None))
    assert not np.array_equal(square, robust)
    np.testing.assert_array_equal(default, square if method == "reflow" else robust)


@EVERY_METHOD
def test_rows_held_out_tell_when_to_stop(teacher, moons, method):
    options = TrainingOptions(early_stopping=True, patience=3, report_period=2, validation_fraction=0.2)
    student = distil(teacher, method, max_iter=200, learning_rate=1e-12, training=options).fit(moons)
    assert np.isfinite(student.history_["validation_loss"]).all()
    assert student.n_iter_ < 200  # nothing is learned, so nothing gets better
    measured = distil(teacher, method, training=TrainingOptions(validation_fraction=0.2)).fit(moons)
    assert np.isfinite(measured.history_["validation_loss"]).all()
    assert not np.array_equal(weights(measured), weights(distil(teacher, method).fit(moons)))


class Watcher:
    def __init__(self):
        self.calls, self.samples = [], []

    def setup(self, estimator, context):
        self.calls.append("setup")

    def on_fit_task_end(self, estimator, context):
        self.calls.append(context.task_id)
        self.samples.append(estimator.sample(3, random_state=0))

    def teardown(self, estimator, context):
        self.calls.append("teardown")


@EVERY_METHOD
def test_callbacks_are_called_and_can_sample(teacher, moons, method):
    watcher = Watcher()
    options = TrainingOptions(callbacks=(watcher,), report_period=2)
    student = distil(teacher, method, max_iter=4, training=options).fit(moons)
    once = ["setup", 2, 4, "teardown"]
    assert watcher.calls == (once + ["setup", 1, "teardown"] if method == "semigroup" else once)
    assert all(samples.shape == (3, 2) for samples in watcher.samples)
    assert not np.array_equal(watcher.samples[0], watcher.samples[1])
    np.testing.assert_array_equal(watcher.samples[-1], student.sample(3, random_state=0))


class Interruption:
    """Raises at a step of a stage, counted from 0."""

    def __init__(self, step, stage):
        self.step, self.stage = step, stage

    def setup(self, estimator, context):
        self.stage -= 1

    def on_fit_task_end(self, estimator, context):
        if self.stage < 0 and context.task_id >= self.step:
            raise KeyboardInterrupt


INTERRUPTED = [
    {"method": "progressive", "n_stages": 2},
    {"method": "semigroup", "ema_target": True},
    *(
        pytest.param(how, marks=pytest.mark.slow)
        for how in ({"method": "reflow", "n_stages": 2}, {"method": "semigroup"}, {"method": "lagrangian"})
    ),
]


@pytest.mark.parametrize("how", INTERRUPTED, ids=str)
def test_an_interrupted_distillation_ends_as_if_it_had_not_been(teacher, moons, tmp_path, how):
    def student(*callbacks, folder=tmp_path):
        kept = TrainingOptions(checkpoint_folder=folder, checkpoint_period=3, report_period=2, callbacks=callbacks)
        return distil(teacher, max_iter=14, n_pairs=how.get("n_stages") and 50, training=kept, **how)

    whole = student(folder=tmp_path / "whole").fit(moons)
    for stage in range(1 if how["method"] == "lagrangian" else 2):
        with pytest.raises(KeyboardInterrupt):
            student(Interruption(4, stage)).fit(moons)
        assert len(list(tmp_path.glob("checkpoint-*"))) == 1
        watcher = Watcher()
        resumed = student(watcher).fit(moons)
        np.testing.assert_array_equal(weights(resumed), weights(whole))
        assert resumed.history_["loss"] == whole.history_["loss"]
        assert resumed.n_iter_ == whole.n_iter_
        starts = [i for i, call in enumerate(watcher.calls) if call == "setup"]
        assert watcher.calls[starts[stage] + 1] >= 4  # from the checkpoint, not from the beginning
        assert not list(tmp_path.glob("checkpoint-*"))


@pytest.mark.parametrize("change", [{"guidance_scale": 2.0}, {"n_steps": 2}], ids=str)
def test_another_distillation_does_not_go_on_from_a_checkpoint(labelled, tmp_path, change):
    model, X, y = labelled

    def student(*callbacks, folder=tmp_path, **parameters):
        options = TrainingOptions(checkpoint_folder=folder, checkpoint_period=3, report_period=2, callbacks=callbacks)
        return distil(model, max_iter=12, training=options, **parameters)

    with pytest.raises(KeyboardInterrupt):
        student(Interruption(8, 0)).fit(X, y)
    beside, alone = (student(folder=folder, **change).fit(X, y) for folder in (tmp_path, tmp_path / "alone"))
    np.testing.assert_array_equal(weights(beside), weights(alone))


def test_unfitted_teachers_and_interruptions_go_together(moons, tmp_path):
    def student(*callbacks, folder=tmp_path):
        options = TrainingOptions(checkpoint_folder=folder, checkpoint_period=3, report_period=2, callbacks=callbacks)
        return distil(generator(random_state=None), max_iter=12, training=options)

    with pytest.raises(KeyboardInterrupt):
        student(Interruption(8, 0)).fit(moons)
    watcher = Watcher()
    resumed, whole = student(watcher).fit(moons), student(folder=tmp_path / "whole").fit(moons)
    assert watcher.calls[1] > 2
    np.testing.assert_array_equal(weights(resumed), weights(whole))


# -- scikit-learn's manners -----------------------------------------------------------------------------------------


def test_nested_parameters_are_reached():
    student = DistilledFlowMap(generator(), loss="huber", step_sampler="fixed", training=None)
    student.set_params(
        estimator__max_iter=7,
        estimator__network__width=8,
        loss__scale=0.1,
        step_sampler__jitter=0.2,
        training__ema_decay=0.9,
        n_steps=2,
    )
    assert (student.estimator.max_iter, student.estimator.network.width) == (7, 8)
    assert student.loss.scale == 0.1
    assert student.step_sampler == FixedSteps(jitter=0.2)
    assert student.get_params()["training__ema_decay"] == 0.9
    assert student.get_params()["estimator__network__width"] == 8
    with pytest.raises(ValueError, match="no parameter 'wdth'"):
        student.set_params(loss__wdth=1)


def test_clones_have_the_parameters_and_nothing_learned(students):
    copied = clone(students["reflow"])
    assert copied.method == "reflow"
    assert not hasattr(copied, "student_")
    with pytest.raises(NotFittedError):
        copied.sample(3)
    for name in ("network_", "n_iter_", "n_features_in_", "sample_shape_", "history_", "classes_"):
        assert not hasattr(copied, name)


def test_its_repr_says_what_differs_from_the_defaults():
    text = repr(DistilledFlowMap(FlowMatchingGenerator(max_iter=3), "reflow", n_steps=2))
    assert text == "DistilledFlowMap(estimator=FlowMatchingGenerator(max_iter=3), method='reflow',\n" + (
        " " * 17 + "n_steps=2)"
    )


def test_it_offers_what_its_teacher_offers(students, teacher):
    unfitted = DistilledFlowMap(generator())
    for estimator in (unfitted, students["progressive"]):
        assert all(hasattr(estimator, name) for name in ("sample", "encode", "decode", "fit"))
        assert not any(hasattr(estimator, name) for name in ("predict", "rollout", "transform"))
    assert not hasattr(DistilledFlowMap(LogisticRegression()), "sample")
    assert type(students["progressive"].student_) is FlowModel
    assert type(students["progressive"].as_teacher()) is FlowMatchingGenerator
    assert not hasattr(students["progressive"], "classes_")
    assert not hasattr(students["progressive"], "feature_names_in_")


@pytest.mark.slow
def test_search_and_pipelines_work(teacher, moons):
    def closeness(estimator, X, y=None):
        return -sliced_wasserstein(X, estimator.sample(200, random_state=0), random_state=0)

    model = distil(FrozenEstimator(teacher), n_pairs=500)
    search = GridSearchCV(model, {"max_iter": [1, 60]}, scoring=closeness, cv=2).fit(moons)
    assert search.best_params_ == {"max_iter": 60}
    assert search.best_estimator_.sample(3).shape == (3, 2)
    assert make_pipeline(StandardScaler(), distil(generator())).fit(moons)[-1].sample(3).shape == (3, 2)


@EVERY_METHOD
def test_pickles_sample_alike(students, method):
    copied = pickle.loads(pickle.dumps(students[method]))
    expected = students[method].sample(5, random_state=0)
    np.testing.assert_array_equal(copied.sample(5, random_state=0), expected)
    np.testing.assert_array_equal(
        copied.teacher_.sample(5, random_state=0), students[method].teacher_.sample(5, random_state=0)
    )


def test_students_are_values_and_do_not_go_on_by_fits_to_data(students, moons):
    student = students["progressive"]
    assert not hasattr(student.student_, "fit")
    with pytest.raises(AttributeError):
        student.student_.network = None
    before = snapshot(student.as_teacher())
    with pytest.raises(ValueError, match="distilled from a velocity.*distil it anew"):
        student.as_teacher().partial_fit(moons)
    assert_same(student.as_teacher(), before)
    anew = students["both ways"].as_teacher().set_params(max_iter=2, n_steps=None)
    with Calls(anew.fit(moons).network_) as counts:  # a velocity like any
        anew.decode(anew.encode(moons[:3]))
        anew.sample(3)
    assert counts[0] >= 20
    assert students["both ways"].student_.is_flow_map
    straight = students["reflow"].as_teacher().set_params(max_iter=2)
    assert straight.partial_fit(moons).n_iter_ == 82
    assert students["reflow"].n_iter_ == 80


def test_the_steps_of_one_student_are_not_those_of_another(students):
    one, other = copy.copy(students["progressive"]), copy.copy(students["progressive"])
    one.set_params(n_steps=3)
    with Calls(one.network_) as counts:
        one.sample(4)
        other.sample(4)
    assert counts == [4]


def test_students_compute_densities_as_their_teachers_do(students, teacher, moons):
    for method in METHODS:
        found, expected = students[method].score_samples(moons[:50]), teacher.score_samples(moons[:50])
        assert np.isfinite(found).all()
        assert np.corrcoef(found, expected)[0, 1] > 0.5
        assert students[method].score(moons[:50]) == pytest.approx(found.mean())


# -- bad input ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Backwards(StepSampler):
    def draw_steps(self, n_samples, generator=None, device=None, dtype=None):
        return -torch.ones(n_samples, device=device, dtype=dtype)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"method": "magic"}, "unknown method 'magic'. Choose one of 'progressive', 'semigroup', 'lagrangian', 'reflow'"),
        ({"n_steps": 0}, "n_steps must be an integer >= 1, got 0"),
        ({"n_steps": None}, "n_steps must be an integer >= 1, got None"),
        ({"n_stages": 0}, "n_stages must be an integer >= 1, got 0"),
        ({"teacher_steps": 1.5}, "teacher_steps must be an integer >= 1, got 1.5"),
        ({"n_pairs": 0}, "n_pairs must be an integer >= 1, got 0"),
        ({"max_iter": 0}, "max_iter must be an integer >= 1, got 0"),
        ({"batch_size": True}, "batch_size must be an integer >= 1, got True"),
        ({"learning_rate": 0.0}, r"learning_rate must be a number in \(0, inf\), got 0.0"),
        ({"guidance_scale": "high"}, "guidance_scale must be a number .* got 'high'"),
        ({"guidance_scale": np.nan}, "guidance_scale must be a number .* got nan"),
        ({"inverse": "yes"}, "inverse must be True or False, got 'yes'"),
        ({"ema_target": 3, "method": "semigroup"}, "ema_target must be True or False, got 3"),
        ({"fold": "no", "method": "semigroup"}, "fold must be True or False, got 'no'"),
        ({"n_stages": 2, "method": "semigroup"}, "n_stages=2 has no meaning for method='semigroup', only for 'progressive'"),
        ({"teacher_steps": 2, "method": "lagrangian"}, "teacher_steps=2 has no meaning for method='lagrangian'"),
        ({"n_pairs": 20, "method": "lagrangian"}, "n_pairs=20 has no meaning for method='lagrangian'"),
        ({"step_sampler": "uniform", "method": "reflow"}, "step_sampler='uniform' has no meaning for method='reflow'"),
        ({"ema_target": True}, "ema_target=True has no meaning for method='progressive'.*leave it at None"),
        ({"fold": False, "method": "lagrangian"}, "fold=False has no meaning for method='lagrangian', only for 'semigroup'"),
        ({"step_sampler": "fixed", "n_stages": 2}, "step_sampler='fixed' with n_stages=2: the steps of stages follow"),
        ({"step_sampler": "magic"}, "unknown step_sampler 'magic'. Choose one of 'uniform', 'beta'"),
        ({"step_sampler": Backwards()}, "Backwards drew jumps with d down to -1.*expected d > 0"),
        ({"loss": "magic"}, "unknown loss 'magic'. Choose one of 'l2'"),
        ({"loss": "sobolev"}, "loss Sobolev needs samples on a grid"),
        ({"training": 3}, "training must be None or TrainingOptions, got 3"),
        ({"training": TrainingOptions(ema_decay=2.0)}, "ema_decay must be a number"),
        ({"training": TrainingOptions(phases=(Phase(1.0),))}, "training phases are for fits to data"),
        ({"training": TrainingOptions(compile=True), "method": "lagrangian"}, "compile=True does not go with method='lagrangian'"),
        ({"training": TrainingOptions(checkpoint_folder="x"), "random_state": None}, "checkpoints of a distillation need random_state"),
        ({"training": TrainingOptions(early_stopping=True), "n_pairs": 3}, "validation_fraction=0.1 of 3 paths .* leaves 3 to train on and 0"),
        ({"training": TrainingOptions(early_stopping=True), "method": "semigroup", "X": slice(3)}, "validation_fraction=0.1 of 3 rows"),
        ({"guidance_scale": 2.0}, "guidance_scale=2 needs conditions, but the model has none"),
        ({"y": True}, "y was given, but this model was fitted without conditions"),
        ({"columns": 1}, "X has 1 features, but FlowMatchingGenerator is expecting 2"),
        ({"X": slice(1)}, "minimum of 2"),
    ],
    ids=str,
)  # fmt: skip
def test_bad_parameters_and_data_are_named_and_change_nothing(students, moons, parameters, message):
    student = copy.copy(students["progressive"])
    before = snapshot(student.as_teacher())
    given = dict(parameters)
    X = moons[given.pop("X", slice(None)), : given.pop("columns", 2)]
    y = np.arange(len(X)) % 2 if given.pop("y", False) else None
    with pytest.raises(ValueError, match=message):
        student.set_params(**({"n_pairs": None} | given)).fit(X, y)
    assert student.network_ is students["progressive"].network_
    assert_same(student.set_params(n_steps=1).as_teacher(), before)
    np.testing.assert_array_equal(student.set_params(n_steps=1).sample(5, random_state=0), before[-1])


def test_bad_parameters_are_found_before_the_teacher_is_fitted(moons):
    class Untouched(FlowMatchingGenerator):
        def fit(self, X, y=None, sample_weight=None):
            raise AssertionError("the teacher was fitted")

    for bad in ({"loss": "magic"}, {"step_sampler": "magic"}, {"n_steps": 0}, {"training": 3}, {"method": "magic"}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            distil(Untouched(random_state=0), **bad).fit(moons)


def test_conditions_of_the_teacher_are_asked_for(labelled):
    model, X, y = labelled
    with pytest.raises(ValueError, match="this model was fitted with conditions y; pass them here too"):
        distil(model).fit(X)
    with pytest.raises(ValueError, match="label 'up', which was not there"):
        distil(model).fit(X, np.where(y == "left", "up", y))
    with pytest.raises(ValueError, match="y and sample_weight belong to rows X, but X is None"):
        distil(model).fit(y=y)
    with pytest.raises(ValueError, match="y and sample_weight belong to rows X, but X is None"):
        distil(model).fit(sample_weight=np.ones(3))
    certain = generator(condition_dropout=0.0).fit(X, y)
    with pytest.raises(ValueError, match="condition_dropout > 0"):
        distil(certain, guidance_scale=2.0).fit(X, y)


def test_bad_steps_are_refused_when_sampling(students):
    for bad in (0, -1, 1.5):
        with pytest.raises(ValueError, match=f"n_steps must be an integer >= 1, got {bad}"):
            students["progressive"].sample(3, n_steps=bad)
        with pytest.raises(ValueError, match="n_steps must be an integer >= 1"):
            students["both ways"].encode(np.zeros((2, 2)), n_steps=bad)
        with pytest.raises(ValueError, match="n_steps must be an integer >= 1"):
            students["reflow"].decode(np.zeros((2, 2)), n_steps=bad)


@pytest.mark.parametrize("estimator", [LogisticRegression(), FlowAnomalyDetector(), None, "teacher"], ids=str)
def test_a_teacher_has_a_velocity(moons, estimator):
    with pytest.raises(ValueError, match="estimator must be one with a velocity, such as FlowMatchingGenerator()"):
        distil(estimator).fit(moons)
    with pytest.raises(ValueError, match="estimator must be one with a velocity"):
        distil(FrozenEstimator(estimator)).fit(moons)


def test_an_unfitted_teacher_needs_rows():
    with pytest.raises(
        NotFittedError, match="FlowMatchingGenerator is not fitted: pass X to fit it to, or a fitted one"
    ):
        distil(generator()).fit()


class Plain(torch.nn.Module):
    """A velocity that knows nothing of increments."""

    def __init__(self, size):
        super().__init__()
        self.layers = torch.nn.Linear(size + 1, size)

    def forward(self, x, t, condition=None):
        return self.layers(torch.cat([x, t[:, None]], dim=1))


class Normed(Plain):
    def __init__(self, size):
        super().__init__(size)
        self.norm = torch.nn.BatchNorm1d(size)

    def forward(self, x, t, condition=None, step=None):
        return self.norm(super().forward(x, t))


def plain_factory(sample_shape, condition_size, flow_map):
    return Plain(sample_shape[0])


def normed_factory(sample_shape, condition_size, flow_map):
    return Normed(sample_shape[0])


def test_a_factory_must_make_flow_maps_for_jumps_but_not_for_reflow(moons):
    model = generator(network=plain_factory).fit(moons)
    before = snapshot(model)
    expected = (
        r"network factory plain_factory returned a Plain .* expected a module with forward\(x, t, condition, step\)"
    )
    for method in ("progressive", "semigroup", "lagrangian"):
        with pytest.raises(ValueError, match=expected):
            distil(model, method).fit(moons)
    with pytest.raises(ValueError, match=expected):
        generator(network=plain_factory, objective="mean_flow").fit(moons)
    assert distil(model, "reflow").fit(moons).sample(3).shape == (3, 2)
    assert_same(model, before)


def test_forward_derivatives_are_asked_for_where_they_are_needed(moons):
    model = generator(network=normed_factory).fit(moons)
    before = snapshot(model)
    with pytest.raises(
        ValueError, match=r"method='lagrangian' needs forward-mode .*'network.norm' \(BatchNorm1d\).* LayerNorm"
    ):
        distil(model, "lagrangian").fit(moons)
    for method in ("progressive", "semigroup", "reflow"):
        assert np.isfinite(distil(model, method).fit(moons).sample(3)).all()
    assert_same(model, before)


def test_a_diverging_distillation_leaves_all_as_it_was(students, teacher, moons):
    from flowmatch import NonFiniteTrainingError

    student = copy.copy(students["progressive"])
    before, known = snapshot(student.as_teacher()), snapshot(teacher)
    options = TrainingOptions(gradient_clipping=None, warmup=0.0)
    with pytest.raises(NonFiniteTrainingError, match="smaller learning_rate.*The distillation is undone"):
        student.set_params(learning_rate=1e30, max_iter=30, n_pairs=100, training=options).fit(moons)
    assert_same(student.set_params(n_steps=1).as_teacher(), before)
    assert_same(teacher, known)


# -- files ----------------------------------------------------------------------------------------------------------


@EVERY_METHOD
def test_files_sample_alike(students, tmp_path, method):
    students[method].save(tmp_path / "student")
    loaded = load(tmp_path / "student", device="cpu")
    expected = students[method].sample(5, random_state=0, n_steps=2)
    np.testing.assert_array_equal(loaded.sample(5, random_state=0, n_steps=2), expected)
    assert loaded.teacher_ is None
    assert loaded.method == method
