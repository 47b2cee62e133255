"""What is easily overlooked about flow maps and students: precisions, files, grids of jumps, settings after the fit."""

import copy
import pickle
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from closed_forms import GaussianFlow
from sklearn.base import clone

import flowmatch
from flowmatch import MLP, DistilledFlowMap, FlowMatchingGenerator, TrainingOptions
from flowmatch.distillation import Rollouts, SemigroupObjective
from flowmatch.flow import FixedSteps, IndependentCoupling, LinearPath, NormalSource, UniformTimes
from flowmatch.objectives import MeanFlow, VelocityObjective

RNG = np.random.default_rng(0)
Y = RNG.integers(0, 2, 300)
X = RNG.normal(size=(300, 2)) * [1.0, 0.3] + 2 * Y[:, None]
TINY = {"network": MLP(width=8, depth=1), "max_iter": 30, "random_state": 0, "device": "cpu"}


@pytest.fixture(scope="module")
def teacher():
    return FlowMatchingGenerator(**TINY).fit(X, Y)


def student_of(teacher, method="progressive", **changes):
    return DistilledFlowMap(teacher, method, **{"max_iter": 5, "random_state": 0, **changes}).fit(X, Y)


@pytest.mark.parametrize("method", ["progressive", "reflow", "semigroup", "lagrangian"])
def test_students_train_in_half_precision(teacher, method):
    training = TrainingOptions(precision="bf16")
    drawn = student_of(teacher, method, training=training, guidance_scale=2.0).sample(5)
    assert np.isfinite(drawn).all()


def test_guided_mean_flow_trains_in_half_precision():
    training = TrainingOptions(precision="bf16")
    model = FlowMatchingGenerator(objective="mean_flow", guidance_scale=2.0, training=training, **TINY).fit(X, Y)
    assert np.isfinite(model.sample(5)).all()


def test_early_stopping_waits_for_the_jumps_to_be_trained():
    training = TrainingOptions(early_stopping=True, patience=1, report_period=1)
    # nothing is learned at this rate, so patience runs out as soon as it counts
    model = FlowMatchingGenerator(objective="mean_flow", training=training, learning_rate=1e-12, **TINY).fit(X)
    assert MeanFlow().warmup * TINY["max_iter"] < model.n_iter_ < TINY["max_iter"]


def test_mean_flow_goes_on_without_learning_the_velocity_anew():
    """In a warm-up increments are 0, whose sines are 0, so the weights that read those would stay as they are."""
    model = FlowMatchingGenerator(objective="mean_flow", **TINY).fit(X)
    network = model.network_.network  # inside of what sees the cells
    before = network.embed_context.weight.clone()
    model.set_params(objective=MeanFlow(flow_ratio=0.0, warmup=0.99), max_iter=5).partial_fit(X)
    network = model.network_.network
    sines = network.time_features.columns_of_step()
    changed = (network.embed_context.weight - before)[:, sines].chunk(2, dim=1)[1]
    assert changed.abs().max() > 0


@pytest.mark.parametrize("objective", ["velocity", "mean_flow"])
def test_a_fit_goes_on_with_the_kind_of_field_it_began_with(objective):
    model = FlowMatchingGenerator(objective=objective, **TINY).fit(X)
    other = {"velocity": "mean_flow", "mean_flow": "velocity"}[objective]
    with pytest.raises(ValueError, match="objective was"):
        model.set_params(objective=other).partial_fit(X)


@pytest.mark.parametrize("method", ["reflow", "progressive"])
def test_densities_of_students_are_not_integrated_in_their_few_steps(teacher, method):
    student = student_of(teacher, method)
    default, fine = (student.score_samples(X[:5], Y[:5], **how) for how in ({}, {"n_steps": 10, "solver": "midpoint"}))
    np.testing.assert_allclose(default, fine)
    coarse = student.score_samples(X[:5], Y[:5], n_steps=1, solver="euler")
    assert np.abs(default - coarse).max() > 1e-3


def test_jumps_asked_of_a_velocity_are_refused_by_name(teacher):
    model = pickle.loads(pickle.dumps(teacher)).set_params(solver="flow_map")
    with pytest.raises(ValueError, match="this model predicts a velocity"):
        model.sample(3)


def test_pickles_from_before_there_were_flow_maps_work(teacher):
    old = pickle.loads(pickle.dumps(teacher))
    state = old.__getstate__()
    for name in ("objective", "_predicts_jumps", "_few_steps", "_jumps_back", "_dyadic_jumps"):
        state.pop(name, None)
    again = object.__new__(FlowMatchingGenerator)
    again.__setstate__(state)
    assert again.get_params()["objective"] == "velocity"
    np.testing.assert_array_equal(again.sample(4, random_state=0), teacher.sample(4, random_state=0))


def test_numpys_booleans_count(teacher):
    kept, folded = (student_of(teacher, "semigroup", fold=np.bool_(fold)) for fold in (False, True))
    assert kept.n_parameters_ > folded.n_parameters_
    with pytest.raises(ValueError, match="fold must be True or False"):
        student_of(teacher, "semigroup", fold=0)


def test_students_of_students_go_through_files(teacher, tmp_path):
    path = tmp_path / "student.safetensors"
    for first in (DistilledFlowMap(teacher, max_iter=3), DistilledFlowMap(FlowMatchingGenerator(**TINY), max_iter=3)):
        second = student_of(first.fit(X, Y) if first.estimator is teacher else first)
        second.save(path)
        np.testing.assert_array_equal(flowmatch.load(path).sample(4, random_state=0), second.sample(4, random_state=0))


def test_settings_after_the_fit_do_not_spoil_the_file(teacher, tmp_path):
    path = tmp_path / "model.safetensors"
    student = student_of(teacher).set_params(n_steps=2, training=TrainingOptions(compile=True))
    student.save(path)
    np.testing.assert_array_equal(flowmatch.load(path).sample(4, random_state=0), student.sample(4, random_state=0))


def test_a_student_of_a_corrected_velocity_is_not_corrected_again(teacher):
    corrected = student_of(teacher, "semigroup", fold=False)
    with pytest.raises(ValueError, match="corrects one itself"):
        student_of(corrected, "semigroup")


def test_a_teacher_that_a_file_has_no_use_for_is_refused(teacher, tmp_path):
    path = tmp_path / "student.safetensors"
    student_of(teacher).save(path)
    with pytest.raises(ValueError, match="leave"):
        flowmatch.load(path, teacher=teacher)
    student_of(teacher, "semigroup", fold=False).save(path, teacher=False)
    with pytest.raises(ValueError, match="teacher must be the estimator"):
        flowmatch.load(path, teacher="the old one")
    teacher.save(path)
    with pytest.raises(ValueError, match="leave teacher out"):
        flowmatch.load(path, teacher=teacher)


def test_steps_are_even_except_for_students_that_know_halves_only(teacher):
    def lengths(method, **changes):
        return student_of(teacher, method, **changes).student_.times(3, "flow_map").diff()

    even = torch.full((3,), 1 / 3)
    torch.testing.assert_close(lengths("progressive", n_steps=3), even)
    torch.testing.assert_close(lengths("lagrangian"), even)
    torch.testing.assert_close(lengths("semigroup", step_sampler=FixedSteps(3, 0.5)), even)
    torch.testing.assert_close(lengths("semigroup"), torch.tensor([0.5, 0.25, 0.25]))


def test_reflow_pairs_start_at_the_noise_that_sampling_starts_from():
    # of rows with given cells the noise starts at a guess, which data as far away as these would show in
    model = FlowMatchingGenerator(path="vp", preprocessing="standardize", masked_share=0.0, **TINY).fit(X)
    seen = []

    def spy(x, t, condition=None):
        seen.append(x)
        return torch.zeros_like(x)

    class Peek(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))

        def forward(self, x, t, condition=None):
            return spy(x, t) + self.weight

    model.fitted_ = replace(model.fitted_, model=replace(model.model_, network=Peek(), trainable=(True,)))
    DistilledFlowMap(model, "reflow", n_pairs=1000, max_iter=1, random_state=0).fit(X + 100)
    assert seen[0].mean().abs() < 0.2  # of a standard normal; a trace of the data would show


def test_paths_are_as_many_as_asked_for_and_few_of_them_are_told(teacher, monkeypatch):
    monkeypatch.setattr("flowmatch.distillation.students.MOST_ELEMENTS", 9 * 2 * 50)
    with pytest.warns(UserWarning, match="50 of the teacher's paths"):
        student_of(teacher, max_iter=10, batch_size=64)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        student_of(teacher, n_pairs=200)


def test_rows_are_drawn_by_their_weight(teacher, monkeypatch):
    told, make = [], Rollouts.make

    def spy(rollout, x, times, condition, *rest, **how):
        told.append(condition)
        return make(rollout, x, times, condition, *rest, **how)

    monkeypatch.setattr(Rollouts, "make", spy)
    weight = np.where(Y == 1, 3.0, 1.0)
    DistilledFlowMap(teacher, max_iter=1, n_pairs=20_000, random_state=0).fit(X, Y, sample_weight=weight)
    labels = told[0][:, :2]  # behind them stand the cells that are given
    shown = labels[labels.any(1)].double().mean(0)
    share = 3 * (Y == 1).sum() / (3 * (Y == 1).sum() + (Y == 0).sum())
    assert shown[1] / shown.sum() == pytest.approx(share, abs=0.015)


def test_targets_of_short_jumps_are_exact_in_single_precision():
    flow = GaussianFlow(0.7, 0.3)
    problem = VelocityObjective(
        LinearPath(), NormalSource(), IndependentCoupling(), UniformTimes(), torch.ones(2, dtype=torch.float32)
    )
    objective = SemigroupObjective(problem, FixedSteps())
    x, t = torch.randn(64, 2, generator=torch.Generator().manual_seed(0)), torch.full((64,), 0.4)
    for length in (1e-3, 1e-6, 1e-9):
        residual = objective.residual(flow.flow_map, x, t, torch.full((64,), length), None)
        assert residual.abs().max() < 1e-4


def test_a_bad_student_is_found_before_its_teacher_is_trained():
    teacher = FlowMatchingGenerator(**{**TINY, "max_iter": 10**9})
    for changes, message in (
        ({"loss": "sobolev"}, "grid"),
        ({"random_state": "abc"}, "random_state"),
        ({"guidance_scale": 2.0}, "condition_dropout"),
    ):
        with pytest.raises(ValueError, match=message):
            DistilledFlowMap(teacher.set_params(condition_dropout=0.0), **changes).fit(X, Y)


def test_a_forecaster_is_not_trained_for_guidance_that_it_has_not():
    teacher = flowmatch.ConditionalForecaster(**{**TINY, "max_iter": 10**9})
    with pytest.raises(ValueError, match="guidance_scale=2 has no meaning for a ConditionalForecaster"):
        DistilledFlowMap(teacher, guidance_scale=2.0).fit(RNG.normal(size=(3, 20, 2)))


def test_a_student_is_of_the_teacher_as_it_was(teacher):
    student = student_of(clone(teacher).set_params(max_iter=5).fit(X, Y))
    expected = student.sample(5, random_state=0)
    student.estimator.set_params(preprocessing="minmax", guidance_scale=3.0)
    np.testing.assert_array_equal(student.sample(5, random_state=0), expected)
    student.set_params(estimator=flowmatch.ConditionalForecaster())
    assert isinstance(student.as_teacher(), FlowMatchingGenerator)


@pytest.mark.parametrize("copy_of", [copy.copy, copy.deepcopy, lambda student: pickle.loads(pickle.dumps(student))])
def test_copies_work_on_the_device_of_the_teachers_parameters(teacher, copy_of, monkeypatch):
    asked = []
    monkeypatch.setattr("flowmatch.base.available_device", lambda name: asked.append(name) or torch.device("cpu"))
    copy_of(student_of(student_of(teacher).set_params(estimator=teacher)))
    assert asked == ["cpu"] * len(asked)
    student = student_of(teacher)
    student.set_params(estimator=clone(teacher).set_params(device="cuda:1"))
    copy_of(student)
    assert asked[-1] == "cuda:1"


def test_a_teacher_from_another_machine_is_distilled_where_it_is(teacher):
    elsewhere = copy.deepcopy(teacher)
    elsewhere.device = "cuda:7"  # a pickle says so where there is none
    assert np.isfinite(student_of(elsewhere).sample(5)).all()


def test_of_a_teacher_that_diverges_nothing_is_said_to_be_kept():
    teacher = FlowMatchingGenerator(**{**TINY, "learning_rate": 1e30, "max_iter": 50})
    with pytest.raises(flowmatch.NonFiniteTrainingError, match="teacher's fit; nothing is kept") as caught:
        DistilledFlowMap(teacher, random_state=0).fit(X, Y)
    assert "are kept on" not in str(caught.value)


@pytest.mark.parametrize("steps", [0, -1, 2.7, "two"])
def test_steps_that_were_set_after_the_fit_are_checked_when_they_are_taken(teacher, steps):
    for model in (copy.deepcopy(teacher), student_of(teacher)):
        model.set_params(n_steps=steps)
        with pytest.raises(ValueError, match="n_steps"):
            model.sample(2)
        if isinstance(model, FlowMatchingGenerator):
            with pytest.raises(ValueError, match="n_steps"):
                model.score_samples(X[:2], Y[:2], solver="euler")
        model.set_params(n_steps=1)
        assert np.isfinite(model.sample(2)).all()
