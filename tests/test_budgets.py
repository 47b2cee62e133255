"""A time budget becomes a number of steps, once, and the fit is to the bit that of so many steps.

No test looks at the time: on the false clock every step takes as long as the test says.
"""

import functools

import numpy as np
import pytest
import reference_estimators
import torch
from damaged_files import put_together, take_apart
from reference_store import FOLDER
from sklearn.base import clone

import flowmatch
from flowmatch import (
    MLP,
    ConditionalForecaster,
    DistilledFlowMap,
    FlowAnomalyDetector,
    FlowMatchingGenerator,
    NonFiniteTrainingError,
    TrainingOptions,
)
from flowmatch.fitting import FitSettings, Schedule, schedule_of
from flowmatch.forecasting import schedule_of_forecasts
from flowmatch.networks import UNet
from flowmatch.training import Phase, TimeBudget, TrainingRun, budgets

RNG = np.random.default_rng(0)
X = RNG.gamma(2.0, size=(70, 3))
GAPS = np.where(RNG.random(X.shape) < 0.1, np.nan, X)
LABELS = np.arange(70) % 2
WAVES = RNG.normal(size=(40, 1, 16))
WALKS = RNG.normal(size=(6, 20, 2)).cumsum(axis=1)
TINY = {"network": MLP(width=8, depth=1), "batch_size": 16, "random_state": 0, "device": "cpu"}

pytestmark = pytest.mark.filterwarnings("ignore:max_time=.* ends training", "ignore:the fit was interrupted")


class FalseClock:
    """Tells the seconds that steps and reports are said to have taken."""

    def __init__(self):
        self.now = 1000.0
        self.step = lambda run: 0.01
        self.report = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock, advance, report = FalseClock(), TrainingRun.advance, TrainingRun.report

    def advance_slowly(run):
        clock.now += clock.step(run)
        return advance(run)

    def report_slowly(run):
        clock.now += clock.report
        return report(run)

    monkeypatch.setattr(budgets, "clock", clock)
    monkeypatch.setattr(TrainingRun, "advance", advance_slowly)
    monkeypatch.setattr(TrainingRun, "report", report_slowly)
    return clock


class KilledError(BaseException):
    """In place of a signal."""


class Kill:
    """Ends a fit after some steps of one of its runs."""

    def __init__(self, step, run=1):
        self.step, self.run, self.runs = step, run, 0

    def setup(self, estimator, context):
        self.runs += 1

    def on_fit_task_end(self, estimator, context):
        if (self.runs, context.task_id >= self.step) == (self.run, True):
            raise KilledError


def generator(**parameters):
    return FlowMatchingGenerator(**{**TINY, **parameters})


def forecaster(**parameters):
    return ConditionalForecaster(**{**TINY, "n_samples": 4, **parameters})


def detector(**parameters):
    return FlowAnomalyDetector(**{**TINY, "n_folds": 2, **parameters})


@functools.cache
def teacher():
    return generator(max_iter=10).fit(X)


def student(method="progressive", **parameters):
    pairs = {"n_pairs": 32} if method in ("progressive", "reflow") else {}
    return DistilledFlowMap(teacher(), method, **{"batch_size": 16, "random_state": 0, **pairs, **parameters})


def outcome(model):
    """All that two fits of the same steps have in common to the bit: weights, losses, learning rates."""
    flows = model.flows_ if isinstance(model, FlowAnomalyDetector) else [model]
    weights = [value.numpy() for flow in flows for value in flow.network_.state_dict().values()]
    history = [np.array(flow.history_[name]) for flow in flows for name in ("step", "loss", "learning_rate")]
    return [*weights, *history, [flow.n_iter_ for flow in flows], [flow.max_iter_ for flow in flows]]


def assert_same(one, other):
    for left, right in zip(outcome(one), outcome(other), strict=True):
        np.testing.assert_array_equal(left, right)


# -- how many steps ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("max_time", [0.4, 1.2])
def test_a_fit_makes_the_steps_that_there_is_time_for(clock, max_time):
    model = generator(max_time=max_time).fit(X)
    assert 0 <= 1000 + max_time - clock.now < 0.011
    assert model.n_iter_ == model.max_iter_ < 300
    assert model.history_["learning_rate"][-1] < 0.01 * max(model.history_["learning_rate"])  # it has fallen to its end


def test_reports_count(clock):
    clock.report = 0.03
    model = generator(max_time=1.6, training=TrainingOptions(report_period=5)).fit(X)
    assert 60 < model.n_iter_ < 120
    assert 0 <= 1001.6 - clock.now < 0.05
    clock.now = 1000.0
    assert generator(max_time=1.6).fit(X).n_iter_ < 50  # a report after each of so few
    assert 0 <= 1001.6 - clock.now < 0.05


def test_phases_of_other_costs_count_by_their_shares(clock):
    clock.step = lambda run: 0.05 if run.step >= run.plan.phase_ends[0] else 0.01
    options = TrainingOptions(phases=[Phase(share=0.5), Phase(share=0.5, learning_rate=0.5)])
    generator(max_time=2.0, training=options).fit(X)
    assert abs(1002 - clock.now) < 0.06  # a step of the dearer phase


def test_what_goes_before_training_counts(clock, monkeypatch):
    make_task = flowmatch.fitting.row_task

    def slowly(*arguments, **named):
        clock.now += 0.75
        return make_task(*arguments, **named)

    at_once = generator(max_time=1.0).fit(X).n_iter_
    monkeypatch.setattr(flowmatch.fitting, "row_task", slowly)
    assert at_once > 3.5 * generator(max_time=1.0).fit(X).n_iter_


@pytest.mark.slow
def test_timing_takes_a_twentieth_of_the_time_and_four_steps_at_least(clock):
    made, step = [], clock.step
    clock.step = lambda run: made.append(run) or step(run)
    n_timed = {}
    for max_time in (0.05, 2.0, 100.0):
        made.clear()
        n_timed[max_time] = -generator(max_iter=2, max_time=max_time).fit(X).n_iter_ + len(made)
    assert n_timed == {0.05: 4, 2.0: 2 + 1 + 10, 100.0: 2 + 1 + 50}


@pytest.mark.parametrize(("make", "data"), [(generator, X), (forecaster, WALKS), (detector, X), (student, X)])
def test_however_little_time_there_is_some_steps_are_made_and_a_warning_says_so(clock, make, data):
    with pytest.warns(UserWarning, match=r"max_time=1e-09 ends training after 20 steps instead of 70: ") as caught:
        model = make(max_iter=70, max_time=1e-9).fit(data)
    assert len([w for w in caught if "max_time" in str(w.message)]) == 1
    assert caught[0].filename == __file__
    assert (model.n_iter_, model.max_iter_) == (20, 20)


@pytest.mark.filterwarnings("error:max_time")
def test_an_integer_bounds_the_steps_too(clock):
    model = generator(max_iter=25, max_time=1e6).fit(X)
    assert (model.n_iter_, model.max_iter_) == (25, 25)


def settings(**parameters):
    found = generator(**parameters).check_parameters()
    assert isinstance(found, FitSettings)
    return found


@pytest.mark.parametrize(
    ("shape", "n_rows", "steps", "longest"),
    [
        ((3,), 100, 300, 234),
        ((3,), 1000, 1000, 600 * 1000 // 256),
        ((3,), 100_000, 7071, 600 * 100_000 // 512),
        ((1, 8, 8), 60_000, 8000, 130 * 60_000 // 32),
    ],
)
def test_more_time_makes_more_steps_where_the_rule_ends_for_the_sake_of_time_and_copies_no_few_rows(
    clock, shape, n_rows, steps, longest
):
    free = settings(batch_size=None)
    schedule = schedule_of(free, shape, n_rows, grows=True)
    assert (schedule.max_iter, schedule.longest) == (steps, longest)
    plan = planned(clock, TimeBudget(1e9), schedule)
    assert plan.max_iter == max(steps, longest)
    assert steps < planned(clock, TimeBudget(0.012 * steps), schedule).max_iter <= 1.2 * steps or longest <= steps
    given = schedule_of(settings(max_iter=9), shape, n_rows, grows=True)
    assert planned(clock, TimeBudget(1e9), given).max_iter == 9


def planned(clock, budget, schedule):
    """The plan of a run of a tiny network, which is not carried out."""
    linear = torch.nn.Linear(1, 1)
    x = torch.ones(50, 1)
    plan = flowmatch.training.TrainingPlan(
        [lambda network, rows, generator: network(x[rows])[:, 0] ** 2],
        50,
        schedule.max_iter,
        5,
        0.01,
        TrainingOptions(),
    )
    make = lambda plan: TrainingRun(linear, plan, torch.Generator(), torch.Generator())  # noqa: E731
    return budget.planned(plan, make, longest=schedule.longest)


def test_forecasts_of_few_windows_are_not_learned_by_heart():
    few, many = (forecaster(max_iter=1).fit(np.repeat(WALKS, n, axis=0)).fitted_.window_encoder for n in (1, 4))
    free = settings(batch_size=None)
    assert schedule_of_forecasts(free, few, 114).longest == 0
    assert schedule_of_forecasts(free, many, 80_000) == Schedule(4000, 16 if free.batch_size else 256, 1e-3)
    assert schedule_of_forecasts(free, many, 80_000).longest == 20_000


# -- the same fit -----------------------------------------------------------------------------------------------------

FITS = {
    "table": (generator, (X, LABELS), {"coupling": "ot"}),
    "gaps": (generator, (GAPS, None, np.linspace(0.5, 1, 70)), {}),
    "dropout": (generator, (X,), {"network": MLP(width=8, depth=1, dropout=0.2)}),
    "mean_flow": (generator, (X,), {"objective": "mean_flow"}),
    "signals": (generator, (WAVES,), {"network": UNet(width=8)}),
    "held_out": (generator, (X,), {"training": TrainingOptions(early_stopping=True, patience=3)}),
    "phases": (generator, (X,), {"training": TrainingOptions(phases=[Phase(0.3), Phase(0.7, loss="huber")])}),
    "forecaster": (forecaster, (WALKS,), {"context_noise": 0.1, "horizon": 2}),
    "folds": (detector, (X,), {}),
    "trimmed": (detector, (X,), {"trim": 0.2, "method": "one_step"}),
    "stages": (student, (X,), {"n_stages": 2}),
    "pairs": (student, (X,), {"n_pairs": None, "batch_size": 400, "teacher_steps": 2}),
    "lagrangian": (student, (X,), {"method": "lagrangian", "ema_target": True}),
    "semigroup": (student, (X,), {"method": "semigroup", "ema_target": True}),
}
N_RUNS = {"folds": 2, "trimmed": 4, "stages": 2}


QUICK = {"table", "held_out", "forecaster", "folds"}


@pytest.mark.parametrize(
    "case", [case if case in QUICK else pytest.param(case, marks=pytest.mark.slow) for case in FITS]
)
def test_a_fit_is_to_the_bit_that_of_the_same_number_of_steps(clock, case):
    make, data, parameters = FITS[case]
    timed = make(**parameters, max_iter=50, max_time=0.4 * N_RUNS.get(case, 1)).fit(*data)
    assert 20 < timed.max_iter_ < 50
    assert_same(timed, make(**parameters, max_iter=timed.max_iter_).fit(*data))


@pytest.mark.slow
def test_so_many_paths_of_a_teacher_are_made_as_the_steps_draw(clock):
    own = {"n_pairs": None, "batch_size": 400, "teacher_steps": 1}
    for max_iter in (50, 9):
        hurried = student(**own, max_iter=max_iter, max_time=1e-9).fit(X)
        assert hurried.max_iter_ == min(max_iter, 10_000 // 400)
        assert_same(hurried, student(**own, max_iter=hurried.max_iter_).fit(X))


@pytest.mark.parametrize("make", [generator, detector])
def test_all_runs_share_the_time_and_make_the_same_steps(clock, make):
    clock.step = lambda run: 0.01 * (1 + (clock.now - 1000) / 50)  # it slows down
    model = make(max_time=1.5, **({"n_folds": 3} if make is detector else {})).fit(X)
    flows = model.flows_ if make is detector else [model]
    assert len({flow.n_iter_ for flow in flows}) == 1
    assert 1001.3 < clock.now < 1001.6


SLOW_STAGES = [("progressive", 3), ("reflow", 2), ("semigroup", 1)]


@pytest.mark.parametrize(
    ("method", "stages"),
    [("progressive", 1), *(pytest.param(*slow, marks=pytest.mark.slow) for slow in SLOW_STAGES)],
)
def test_the_stages_of_a_student_share_the_time(clock, method, stages):
    own = {"n_stages": stages} if stages > 1 else {}
    taught = student(method, max_iter=500, max_time=1.5, **own)
    clock.now = 1000.0
    taught.fit(X)
    assert 1001.3 < clock.now <= 1001.51


@pytest.mark.slow
def test_each_call_that_goes_on_has_its_own_time(clock):
    slow = generator(max_time=0.3).fit(X)
    first = slow.n_iter_
    clock.step = lambda run: 0.008
    slow.partial_fit(X)
    second = slow.n_iter_ - first
    assert second == slow.max_iter_ > first
    again = generator(max_iter=first).fit(X).set_params(max_iter=second).partial_fit(X)
    assert_same(slow, again)
    assert slow.set_params(warm_start=True).fit(X).n_iter_ == first + 2 * second


@pytest.mark.slow
def test_an_unfitted_teacher_has_its_own_time(clock):
    both = DistilledFlowMap(generator(max_time=0.6), max_time=0.4, n_pairs=32, random_state=0).fit(X)
    assert 20 < both.n_iter_ < both.teacher_.n_iter_ < 60
    alone = generator(max_iter=both.teacher_.max_iter_)
    assert_same(both, DistilledFlowMap(alone, max_iter=both.max_iter_, n_pairs=32, random_state=0).fit(X))


def test_callbacks_are_told_the_number_of_steps(clock):
    class Told:
        seen = set()

        def on_fit_task_end(self, estimator, context):
            self.seen.add(context.max_iter)

    model = generator(max_time=0.5, training=TrainingOptions(callbacks=[Told()])).fit(X)
    assert Told.seen == {model.max_iter_}


def test_what_is_said_before_training_names_the_time(clock, capsys):
    generator(max_time=0.5, verbose=1).fit(X)
    assert ", max_time=0.5, " in capsys.readouterr().out


def test_a_fit_that_diverges_while_it_is_timed_is_the_same_error(clock):
    model = generator(max_time=1.0, learning_rate=1e38, training=TrainingOptions(warmup=0.0))
    with pytest.raises(NonFiniteTrainingError, match="became non-finite at step [12]"):
        model.fit(X)


# -- interrupted ------------------------------------------------------------------------------------------------------


SLOW_RUNS = [("held_out", 1), ("forecaster", 1), ("trimmed", 2), ("stages", 2), ("semigroup", 1)]


@pytest.mark.parametrize(
    ("case", "run"),
    [
        ("table", 1),
        ("folds", 2),
        ("semigroup", 2),
        *(pytest.param(*slow, marks=pytest.mark.slow) for slow in SLOW_RUNS),
    ],
)  # fmt: skip
def test_a_fit_that_goes_on_makes_the_recorded_number_of_steps(clock, tmp_path, case, run):
    make, data, parameters = FITS[case]
    max_time = 0.4 * N_RUNS.get(case, 1)
    own = parameters.get("training", TrainingOptions())

    def fit(*callbacks, folder=tmp_path, **more):
        options = own.replace(checkpoint_folder=folder, checkpoint_period=3, report_period=3, callbacks=callbacks)
        return make(**{"max_iter": 50, **parameters, "training": options, **more}).fit(*data)

    with pytest.raises(KilledError):
        fit(Kill(6, run), max_time=max_time)
    assert len(list(tmp_path.iterdir())) == 1
    clock.step = lambda run: 0.02  # on a busier machine, where there would be time for 20
    resumed = fit(max_time=max_time)
    assert 20 < resumed.max_iter_ < 50
    assert not list(tmp_path.iterdir())
    assert_same(resumed, fit(folder=None, max_iter=resumed.max_iter_))


@pytest.mark.parametrize("other", [0.5, None])
def test_a_checkpoint_is_of_its_time(clock, tmp_path, other):
    options = TrainingOptions(checkpoint_folder=tmp_path, checkpoint_period=3, report_period=3)
    for max_time in (0.4, other, 0.4):
        with pytest.raises(KilledError):
            generator(max_time=max_time, training=options.replace(callbacks=[Kill(6)])).fit(X)
    assert len(list(tmp_path.iterdir())) == 2
    clock.step = lambda run: 0.02
    assert generator(max_time=0.4, training=options).fit(X).max_iter_ > 25
    assert len(list(tmp_path.iterdir())) == 1


def test_an_unseeded_fit_goes_on_with_the_recorded_number(clock, tmp_path):
    options = TrainingOptions(checkpoint_folder=tmp_path, checkpoint_period=3, report_period=3)
    with pytest.raises(KilledError):
        generator(max_time=0.4, random_state=None, training=options.replace(callbacks=[Kill(6)])).fit(X)
    clock.step = lambda run: 0.02
    assert generator(max_time=0.4, random_state=None, training=options).fit(X).max_iter_ > 25


@pytest.mark.parametrize("n_steps", [None, 0, "many"])
def test_a_checkpoint_that_does_not_say_how_many_is_refused(clock, tmp_path, n_steps):
    options = TrainingOptions(checkpoint_folder=tmp_path, checkpoint_period=3, report_period=3)
    with pytest.raises(KilledError):
        generator(max_time=0.4, training=options.replace(callbacks=[Kill(6)])).fit(X)
    (path,) = tmp_path.iterdir()
    header, tensors = take_apart(path.read_bytes())
    header["n_steps"] = n_steps
    path.write_bytes(put_together(header, tensors))
    with pytest.raises(ValueError, match=r"does not say how many steps there are\. Delete it to start anew"):
        generator(max_time=0.4, training=options).fit(X)


# -- a parameter ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("max_time", [0, -1.0, np.nan, np.inf, "60", True, [60], 10**400])
@pytest.mark.parametrize("make", [generator, forecaster, detector, student])
def test_what_is_no_time_is_refused_by_name(make, max_time):
    with pytest.raises(ValueError, match=r"max_time must be a number in \(0, inf\), got "):
        make(max_time=max_time).fit("no data are looked at")


@pytest.mark.parametrize("max_time", [60, 60.0, np.float32(60), np.int64(60)])
def test_all_numbers_will_do(clock, max_time):
    assert generator(max_iter=3, max_time=max_time).fit(X).max_iter_ == 3


@pytest.mark.parametrize(("make", "data"), [(generator, X), (forecaster, WALKS), (detector, X), (student, X)])
def test_it_is_a_parameter_like_any_other(clock, tmp_path, make, data):
    model = make(max_iter=4, max_time=2.5)
    assert clone(model).max_time == clone(model).set_params(max_iter=3).max_time == 2.5
    assert model.set_params(max_time=7.0).get_params()["max_time"] == 7.0
    model.fit(data).save(tmp_path / "model")
    loaded = flowmatch.load(tmp_path / "model")
    assert (loaded.max_time, loaded.max_iter_, loaded.n_iter_) == (7.0, model.max_iter_, model.n_iter_)
    assert not hasattr(clone(model), "max_iter_")


@pytest.mark.parametrize("make", [generator, student])
def test_files_of_earlier_versions_have_no_limit(tmp_path, make):
    model = make(max_iter=4).fit(X)
    model.save(tmp_path / "model")
    header, tensors = take_apart((tmp_path / "model").read_bytes())
    del header["parameters"]["max_time"]
    fitted = header["fitted"]["fields"]
    fitted = fitted["flow"]["fields"] if make is student else fitted
    del fitted["max_iter"]
    (tmp_path / "model").write_bytes(put_together(header, tensors))
    loaded = flowmatch.load(tmp_path / "model")
    assert (loaded.max_time, loaded.max_iter_, loaded.n_iter_) == (None, None, model.n_iter_)
    np.testing.assert_array_equal(loaded.sample(5, random_state=0), model.sample(5, random_state=0))


def test_files_of_format_3_have_no_limit():
    path = min((FOLDER / "format_3").iterdir())
    loaded = reference_estimators.load(path)
    assert (loaded.max_time, loaded.max_iter_) == (None, None)
    assert loaded.n_iter_ > 0
