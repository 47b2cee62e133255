import contextlib
import math
import subprocess
import sys
import time
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from flowmatch import FlowMatchingGenerator, TrainingOptions, load
from flowmatch.flow import IndependentCoupling
from flowmatch.training import NonFiniteTrainingError, TrainingPlan, TrainingRun, train
from flowmatch.training.averaging import AveragedWeights
from flowmatch.training.optimizer import clip_gradients
from flowmatch.training.plans import learning_rate_factor
from flowmatch.training.rows import RowSampler

warnings.filterwarnings("ignore", message="X has .* rows")


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def linear_problem(max_iter=50, n_rows=64, options=None, network=None, **plan):
    """Least squares: the loss of a row is the squared error of a linear network on it."""
    x = torch.randn(n_rows, 3, generator=generator())
    y = x @ torch.tensor([[1.0], [-2.0], [0.5]])
    torch.manual_seed(0)
    network = network or nn.Linear(3, 1)

    def batch_loss(network, rows, generator):
        return (network(x[rows]) - y[rows]).square().mean(1)

    plan = TrainingPlan([batch_loss], n_rows, max_iter, 16, 0.05, options or TrainingOptions(), **plan)
    return TrainingRun(network, plan, generator(1), generator(2))


# -- rows ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n_rows", "batch_size"), [(10, 3), (10, 10), (3, 10), (1000, 7)])
def test_every_row_is_used_equally_often(n_rows, batch_size):
    sampler = RowSampler(n_rows, batch_size, generator(), "cpu")
    drawn = torch.cat([sampler.draw() for _ in range(3 * n_rows)])
    counts = torch.bincount(drawn, minlength=n_rows)
    assert counts.max() - counts.min() <= 2
    assert drawn[:n_rows].tolist() != list(range(n_rows))


def test_weighted_rows_are_drawn_in_their_shares():
    weight = torch.tensor([1.0, 2.0, 0.5, 4.5])
    sampler = RowSampler(4, 8, generator(), "cpu", weight)
    counts = torch.bincount(torch.cat([sampler.draw() for _ in range(2000)]), minlength=4)
    torch.testing.assert_close(counts / counts.sum(), weight / 8, rtol=0.1, atol=0)


@pytest.mark.parametrize("equal", [True, False])
def test_every_one_of_two_million_weighted_rows_is_drawn(equal):
    """An epoch holds a row of weight w at least floor(n w / sum) times and at most once more."""
    n = 2_000_000
    weight = torch.ones(n) if equal else torch.randint(1, 4, (n,), generator=generator()).float()
    sampler = RowSampler(n, n, generator(), "cpu", weight)
    counts = torch.bincount(sampler.draw(), minlength=n)
    expected = n * weight.double() / weight.double().sum()
    assert (counts >= (expected - 1e-6).floor()).all()
    assert (counts <= (expected + 1e-6).ceil()).all()


def test_rows_without_weight_are_never_drawn():
    weight = torch.tensor([0.0, 1.0, 0.0, 0.0, 1.0, 0.0])
    sampler = RowSampler(6, 600, generator(), "cpu", weight)
    assert torch.bincount(sampler.draw(), minlength=6).tolist() == [0, 300, 0, 0, 300, 0]


@pytest.mark.slow
def test_weighted_fits_agree_with_repeated_rows_also_under_optimal_transport():
    """Two clusters, one weighted threefold: three quarters of the samples belong to it."""
    rng = np.random.default_rng(0)
    X = np.concatenate([rng.normal(-2, 0.3, size=(100, 1)), rng.normal(2, 0.3, size=(100, 1))])
    weight = np.repeat([3.0, 1.0], 100)
    for coupling in ("independent", "ot"):
        fitted = FlowMatchingGenerator(
            coupling=coupling, max_iter=300, random_state=0, preprocessing="standardize", device="cpu"
        ).fit(X, sample_weight=weight)
        assert np.mean(fitted.sample(2000, random_state=0) < 0) == pytest.approx(0.75, abs=0.06)


# -- steps --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("betas", "weight_decay"), [((0.9, 0.99), 0.0), ((0.8, 0.95), 0.3)])
def test_the_loop_is_plain_adamw_when_nothing_else_is_asked_for(betas, weight_decay):
    """Against a hand-written loop over the same rows."""
    options = TrainingOptions(
        weight_decay, betas, warmup=0.0, schedule="constant", gradient_clipping=None, ema_decay=None
    )
    run = linear_problem(max_iter=20, options=options)
    reference = nn.Linear(3, 1)
    reference.load_state_dict(run.network.state_dict())
    optimizer = torch.optim.AdamW(reference.parameters(), 0.05, betas, weight_decay=weight_decay)
    rows = RowSampler(64, 16, generator(2), "cpu")
    for _ in range(20):
        optimizer.zero_grad()
        run.plan.batch_losses[0](reference, rows.draw(), None).mean().backward()
        optimizer.step()
    trained = train(run)
    for one, other in zip(trained.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(one, other.detach(), rtol=1e-5, atol=1e-6)


def test_accumulated_batches_equal_one_large_batch():
    options = TrainingOptions(gradient_clipping=None)
    large = linear_problem(options=options)
    object.__setattr__(large.plan, "batch_size", 32)
    large.rows.batch_size = 32
    small = linear_problem(options=TrainingOptions(gradient_clipping=None, accumulation=2))
    large.advance()
    small.advance()
    for one, other in zip(large.parameters, small.parameters, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(large.sums, small.sums, rtol=1e-5, atol=1e-6)


def test_gradient_clipping_bounds_the_update_of_plain_descent():
    run = linear_problem(options=TrainingOptions(gradient_clipping=0.01, warmup=0.0))
    run.optimizer = torch.optim.SGD(run.parameters, lr=1.0)
    run.scheduler = torch.optim.lr_scheduler.LambdaLR(run.optimizer, lambda step: 1.0)
    before = [p.detach().clone() for p in run.parameters]
    run.advance()
    moved = math.sqrt(sum((p - q).square().sum().item() for p, q in zip(run.parameters, before, strict=True)))
    assert moved == pytest.approx(0.01, rel=1e-3)
    assert run.sums[1].item() > 0.1  # the history tells the norm before clipping


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant"])
def test_learning_rate_rises_then_follows_its_schedule(schedule):
    factor = learning_rate_factor(TrainingOptions(warmup=0.1, schedule=schedule), 100)
    assert 0 < factor(0) < factor(5) < factor(10) == 1
    assert factor(100) == pytest.approx(1.0 if schedule == "constant" else 0.0)
    assert factor(55) == pytest.approx({"cosine": 0.5, "linear": 1.0, "constant": 1.0}[schedule])


def test_average_follows_its_recursion_with_warm_up():
    network = nn.Linear(1, 1, bias=False)
    average = AveragedWeights(network, decay=0.5, warmup=True)
    expected = network.weight.item()
    for n in range(30):
        with torch.no_grad():
            network.weight.fill_(n)
        average.update()
        kept = min(0.5, (1 + n) / (10 + n))
        expected = kept * expected + (1 - kept) * n
        assert average.module.weight.item() == pytest.approx(expected, rel=1e-5)


def test_average_copies_buffers():
    network = nn.BatchNorm1d(2)
    average = AveragedWeights(network, 0.9, True)
    network(torch.randn(20, 2) + 5)
    average.update()
    torch.testing.assert_close(average.module.running_mean, network.running_mean)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_lower_precision_trains_float32_weights(precision):
    run = linear_problem(max_iter=200, options=TrainingOptions(precision=precision))
    network = train(run)
    assert network.weight.dtype == torch.float32
    torch.testing.assert_close(network.weight[0], torch.tensor([1.0, -2.0, 0.5]), rtol=0.1, atol=0.1)


# -- reports ------------------------------------------------------------------------------------------------------


def test_history_holds_the_mean_loss_between_reports():
    run = linear_problem(max_iter=20, options=TrainingOptions(report_period=5))
    losses = []
    original = run._watch
    run._watch = lambda loss, norm: (losses.append(loss.item()), original(loss, norm))
    train(run)
    assert run.history["step"] == [5, 10, 15, 20]
    np.testing.assert_allclose(run.history["loss"], np.array(losses).reshape(4, 5).mean(1), rtol=1e-5)
    assert run.history["seconds"] == sorted(run.history["seconds"])


def poisoned(at_step, where):
    """A problem whose loss (or only its gradient) turns NaN at a step."""
    run = linear_problem(max_iter=40, options=TrainingOptions(report_period=10))
    clean, calls = run.plan.batch_losses[0], []

    def batch_loss(network, rows, generator):
        calls.append(1)
        losses = clean(network, rows, generator)
        if len(calls) < at_step:
            return losses
        return losses * math.nan if where == "loss" else losses + (0 * network.weight.sum()).sqrt()

    object.__setattr__(run.plan, "batch_losses", [batch_loss])
    return run


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_a_non_finite_step_is_named_and_the_last_good_weights_survive(where):
    run = poisoned(at_step=25, where=where)
    with pytest.raises(NonFiniteTrainingError, match="at step 25") as error:
        train(run)
    assert error.value.step == 25
    good = run.restore_good_weights()
    reference = linear_problem(max_iter=40, options=TrainingOptions(report_period=10))
    for _ in range(20):
        reference.advance()
    for one, other in zip(good.parameters(), reference.averaged_network.parameters(), strict=True):
        torch.testing.assert_close(one, other)


def test_divergence_keeps_good_weights_on_the_estimator_and_tells_what_to_try():
    X = np.random.default_rng(0).normal(size=(60, 2))

    def weight(t):
        weight.calls += 1
        return t * (math.inf if weight.calls > 7 else 1.0)

    weight.calls = 0
    estimator = FlowMatchingGenerator(
        max_iter=20, loss_weight=weight, random_state=0, training=TrainingOptions(report_period=2), device="cpu"
    )
    with pytest.raises(NonFiniteTrainingError, match=r"at step 7.*inputs ranged from -.* to .*learning_rate.*0.005"):
        estimator.fit(X)
    assert np.isfinite(estimator.sample(5)).all()
    assert estimator.history_["step"] == [2, 4, 6]


def test_a_bar_says_what_is_trained(capsys):
    train(
        linear_problem(max_iter=20, options=TrainingOptions(report_period=5)), verbose=True, description="flow 2 of 5"
    )
    shown = capsys.readouterr().err
    assert "flow 2 of 5: 100%" in shown
    assert "20/20" in shown
    assert "loss=" in shown
    train(linear_problem(max_iter=2))
    assert capsys.readouterr().err == ""


def test_notebooks_get_a_bar_of_their_own(monkeypatch):
    made = []
    auto = pytest.importorskip("tqdm.auto")
    monkeypatch.setattr(auto, "tqdm", lambda **settings: made.append(settings) or contextlib.nullcontext(Bar()))
    train(linear_problem(max_iter=4), verbose=True, description="teacher")
    assert made == [{"total": 4, "initial": 0, "desc": "teacher", "unit": "step"}]


class Bar:
    n = 0

    def update(self, n):
        self.n += n

    def set_postfix(self, **shown):
        pass


# -- validation ---------------------------------------------------------------------------------------------------


def test_early_stopping_stops_and_restores_the_best_average():
    values = iter([3.0, 2.0, 1.0, 1.5, 1.6, 1.7, 1.8])
    weights = []

    def validation_loss(network):
        weights.append([p.clone() for p in network.parameters()])
        return torch.tensor(next(values))

    options = TrainingOptions(early_stopping=True, patience=3, report_period=2)
    run = linear_problem(max_iter=100, options=options, validation_loss=validation_loss)
    network = train(run)
    assert run.step == 12
    assert run.history["validation_loss"] == pytest.approx([3.0, 2.0, 1.0, 1.5, 1.6, 1.7])
    for kept, best in zip(network.parameters(), weights[2], strict=True):
        torch.testing.assert_close(kept, best)


def test_validation_bank_is_fixed():
    """With a learning rate of almost nothing, the validation loss stays put while the training loss is noisy."""
    X = np.random.default_rng(0).normal(size=(100, 2))
    fitted = FlowMatchingGenerator(
        learning_rate=1e-12,
        max_iter=20,
        random_state=0,
        device="cpu",
        training=TrainingOptions(validation_fraction=0.3, report_period=2),
    ).fit(X)
    assert np.ptp(fitted.history_["validation_loss"]) < 1e-5
    assert np.ptp(fitted.history_["loss"]) > 1e-3


def test_validation_loss_tells_overfitting_from_learning():
    X = np.random.default_rng(0).normal(size=(200, 2))
    fitted = FlowMatchingGenerator(
        max_iter=200,
        random_state=0,
        device="cpu",
        training=TrainingOptions(early_stopping=True, validation_fraction=0.2),
    ).fit(X)
    assert min(fitted.history_["validation_loss"]) < fitted.history_["validation_loss"][0]
    assert fitted.n_iter_ <= 200


# -- callbacks ----------------------------------------------------------------------------------------------------


class Recorder:
    def __init__(self, stop_at=None):
        self.calls, self.stop_at = [], stop_at

    def setup(self, estimator, context):
        self.calls.append(("setup", context.task_name))

    def on_fit_task_begin(self, estimator, context):
        self.calls.append(("begin", context.task_name))

    def on_fit_task_end(self, estimator, context):
        self.calls.append(("end", context.task_id))
        assert estimator.sample(2).shape == (2, 2)
        assert set(context.report) >= {"loss", "learning_rate"}
        return context.task_id == self.stop_at

    def teardown(self, estimator, context):
        self.calls.append(("teardown", context.estimator_name))


def test_callbacks_are_called_in_order_and_can_stop():
    X = np.random.default_rng(0).normal(size=(60, 2))
    recorder = Recorder(stop_at=6)
    fitted = FlowMatchingGenerator(
        max_iter=20, device="cpu", training=TrainingOptions(report_period=3, callbacks=[recorder])
    ).fit(X)
    assert recorder.calls == [
        ("setup", "fit"),
        ("begin", "report"),
        ("end", 3),
        ("begin", "report"),
        ("end", 6),
        ("teardown", "FlowMatchingGenerator"),
    ]
    assert fitted.n_iter_ == 6


def test_teardown_is_called_when_training_fails():
    recorder = Recorder()
    options = TrainingOptions(callbacks=[recorder], report_period=1)
    estimator = FlowMatchingGenerator(max_iter=5, loss_weight=lambda t: t * math.nan, training=options, device="cpu")
    with pytest.raises(NonFiniteTrainingError):
        estimator.fit(np.random.default_rng(0).normal(size=(60, 2)))
    assert recorder.calls[-1][0] == "teardown"


def test_an_object_without_hooks_is_refused():
    with pytest.raises(ValueError, match=r"has none of the hooks setup"):
        FlowMatchingGenerator(max_iter=2, training=TrainingOptions(callbacks=[print])).fit(np.eye(3))


@pytest.mark.parametrize(("answer", "n_iter"), [(np.float64(2.0) > 1, 3), (True, 3), (None, 6), (np.False_, 6), (1, 6)])
def test_true_of_numpy_stops_training_too(answer, n_iter):
    class Answers:
        def on_fit_task_end(self, estimator, context):
            return answer

    options = TrainingOptions(report_period=3, callbacks=[Answers()])
    X = np.random.default_rng(0).normal(size=(60, 2))
    assert FlowMatchingGenerator(max_iter=6, training=options, device="cpu").fit(X).n_iter_ == n_iter


class AsksForData(Recorder):
    """Written for scikit-learn's estimators."""

    def on_fit_task_end(self, estimator, context, *, X=None, y=None, fitted_estimator=None):
        assert fitted_estimator is None  # and nothing is scored


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ScoringMonitor", "ScoringMonitor cannot be used, because its .* reads data or contexts .*SampleMonitor meas"),
        ("Derived", "Derived cannot be used.*SampleMonitor measures samples"),
        ("ProgressBar", "ProgressBar cannot be used.*verbose=1 of the estimator shows progress"),
    ],
)
def test_callbacks_of_scikit_learn_are_refused_by_name(name, message):
    theirs = pytest.importorskip("sklearn.callback")  # of scikit-learn 1.9

    class Derived(theirs.ScoringMonitor):
        pass

    kind = Derived if name == "Derived" else getattr(theirs, name)
    callback = object.__new__(kind)  # the bar's constructor needs another package
    with pytest.raises(ValueError, match=message):
        FlowMatchingGenerator(max_iter=2, training=TrainingOptions(callbacks=[callback])).fit(np.eye(3))


def test_callbacks_that_ask_for_what_is_not_given_are_refused():
    with pytest.raises(ValueError, match="AsksForData cannot be used, because its on_fit_task_end reads data"):
        FlowMatchingGenerator(max_iter=2, training=TrainingOptions(callbacks=[AsksForData()])).fit(np.eye(3))


# -- checkpoints --------------------------------------------------------------------------------------------------


class Killed(BaseException):
    """Stands for the end of the process."""


def checkpointed(folder, **changes):
    options = {"checkpoint_folder": folder, "checkpoint_period": 4, "report_period": 3} | changes.pop("options", {})
    parameters = {"max_iter": 30, "batch_size": 16, "random_state": 0, "device": "cpu"} | changes
    return FlowMatchingGenerator(training=TrainingOptions(**options), **parameters)


def labelled():
    rng = np.random.default_rng(0)
    return rng.normal(size=(50, 3)), np.arange(50) % 3


def kill_at(monkeypatch, step):
    original = TrainingRun.advance

    def advance(self):
        if self.step == step:
            raise Killed
        original(self)

    monkeypatch.setattr(TrainingRun, "advance", advance)


def interrupt(monkeypatch, estimator, step=10):
    """Fit to labelled() and die at a step."""
    with monkeypatch.context() as patch:
        kill_at(patch, step)
        with pytest.raises(Killed):
            estimator.fit(*labelled())


def recorded_steps(monkeypatch):
    """A list that fills with the number of each step made from now on."""
    steps, original = [], TrainingRun.advance
    monkeypatch.setattr(TrainingRun, "advance", lambda self: (steps.append(self.step), original(self))[1])
    return steps


def same_weights(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.network_.parameters(), other.network_.parameters(), strict=True))


CONFIGURATIONS = {
    "defaults": {},
    "dropout, ot, early stopping": {
        "network": "mlp",
        "network__dropout": 0.3,
        "coupling": "ot",
        "options": {"early_stopping": True, "patience": 50},
    },
    "accumulation, last weights": {"options": {"accumulation": 2, "ema_decay": None}},
}


@pytest.mark.parametrize("step", [4, 13, *(pytest.param(step, marks=pytest.mark.slow) for step in (1, 7, 29))])
@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_a_killed_run_resumes_to_the_very_same_bits(tmp_path, monkeypatch, step, name):
    changes = dict(CONFIGURATIONS[name])
    nested = {key: changes.pop(key) for key in list(changes) if "__" in key}
    X, y = labelled()
    weight = np.linspace(0.5, 2, 50)

    def build(folder):
        return checkpointed(folder, **{**changes, "options": dict(changes.get("options", {}))}).set_params(**nested)

    uninterrupted = build(tmp_path / "a").fit(X, y, weight)
    with monkeypatch.context() as patch:
        kill_at(patch, step)
        with pytest.raises(Killed):
            build(tmp_path / "b").fit(X, y, weight)
    resumed = build(tmp_path / "b").fit(X, y, weight)
    assert same_weights(uninterrupted, resumed)
    for name in ("step", "loss", "gradient_norm", "validation_loss", "learning_rate"):
        np.testing.assert_array_equal(uninterrupted.history_[name], resumed.history_[name])
    assert not list((tmp_path / "b").iterdir()), "the checkpoint outlived the fit"


def test_resuming_starts_from_the_checkpoint_not_from_the_beginning(tmp_path, monkeypatch):
    X, y = labelled()
    interrupt(monkeypatch, checkpointed(tmp_path))
    steps = recorded_steps(monkeypatch)
    checkpointed(tmp_path).fit(X, y)
    assert steps[0] == 8


def written(folder):
    """When the checkpoint in a folder was written, None without one."""
    times = [path.stat().st_mtime_ns for path in folder.glob("checkpoint-*")] if folder.exists() else []
    return max(times, default=None)


@pytest.mark.slow
def test_a_process_killed_for_real_resumes_to_the_very_same_bits(tmp_path):
    """SIGKILL at a moment that the process does not choose, several times over.

    However late that comes, the process is there: it waits after 150 steps if it is to be killed.
    """
    script = tmp_path / "fit.py"
    script.write_text(
        "import sys, time, numpy as np\n"
        "from flowmatch import FlowMatchingGenerator, TrainingOptions\n"
        "class Wait:\n"
        "    first = None\n"
        "    def on_fit_task_end(self, estimator, context):\n"
        "        self.first = self.first or context.task_id\n"
        "        while sys.argv[3] == 'wait' and context.task_id >= self.first + 150:\n"
        "            time.sleep(1)\n"
        "X = np.random.default_rng(0).normal(size=(300, 4))\n"
        "options = TrainingOptions(checkpoint_folder=sys.argv[1], checkpoint_period=20, report_period=10,\n"
        "                          callbacks=[Wait()])\n"
        "FlowMatchingGenerator(max_iter=600, random_state=0, device='cpu', training=options).fit(X).save(sys.argv[2])\n"
    )

    def start(name, then="finish"):
        model = tmp_path / f"{name}.model"
        return subprocess.Popen([sys.executable, str(script), str(tmp_path / name), str(model), then])

    assert start("whole").wait() == 0
    for kill in range(3):
        before = written(tmp_path / "broken")
        process = start("broken", "wait")
        while process.poll() is None and written(tmp_path / "broken") in (None, before):
            time.sleep(0.005)
        time.sleep(0.03 * kill)
        process.kill()
        assert process.wait() != 0
    assert start("broken").wait() == 0
    one, other = (load(tmp_path / f"{name}.model", device="cpu") for name in ("whole", "broken"))
    assert same_weights(one, other)


def test_a_run_without_a_seed_resumes_with_the_seed_it_drew(tmp_path, monkeypatch):
    X, y = labelled()
    interrupt(monkeypatch, checkpointed(tmp_path, random_state=None))
    assert checkpointed(tmp_path, random_state=None).fit(X, y).n_iter_ == 30


def other_weight(t):
    return t


@pytest.mark.parametrize(
    "change",
    [
        {"learning_rate": 1e-4}, {"max_iter": np.int64(40)}, {"data": True}, {"random_state": 3},
        {"loss_weight": other_weight}, {"loss_weight": lambda t: 2 * t}, {"options": {"betas": [0.8, 0.9]}},
    ],
    ids=["rate", "steps", "data", "seed", "function", "lambda", "betas"],
)  # fmt: skip
def test_another_fit_in_the_same_folder_starts_anew_and_leaves_the_checkpoint(tmp_path, monkeypatch, change):
    X, y = labelled()
    interrupt(monkeypatch, checkpointed(tmp_path, loss_weight=lambda t: t, max_iter=np.int64(30)))
    left = set(tmp_path.iterdir())
    change = dict(change)
    data = X[::-1] if change.pop("data", False) else X
    parameters = {"loss_weight": lambda t: t, "max_iter": np.int64(30)} | change
    alone = checkpointed(tmp_path / "alone", **{**parameters}).fit(data, y)
    beside = checkpointed(tmp_path, **{**parameters}).fit(data, y)
    assert same_weights(alone, beside)
    assert left <= set(tmp_path.iterdir())


def test_what_does_not_change_the_fit_does_not_prevent_resuming(tmp_path, monkeypatch):
    X, y = labelled()
    uninterrupted = checkpointed(tmp_path / "whole").fit(X, y)
    interrupt(monkeypatch, checkpointed(tmp_path))
    steps = recorded_steps(monkeypatch)
    resumed = checkpointed(tmp_path, n_steps=3, solver="heun", verbose=0).fit(X, y)
    assert steps[0] == 8
    assert same_weights(uninterrupted, resumed)


def test_a_warm_fit_has_a_checkpoint_of_its_own(tmp_path, monkeypatch):
    """A script that fits twice and dies in the second fit ends, run again, where it would have ended."""
    X, y = labelled()

    def script(folder, kill=False):
        model = checkpointed(folder, warm_start=True).fit(X, y)
        if kill:
            kill_at(monkeypatch, 10)
        return model.fit(X, y)

    whole = script(tmp_path / "whole")
    with monkeypatch.context(), pytest.raises(Killed):
        script(tmp_path / "broken", kill=True)
    monkeypatch.undo()
    assert same_weights(whole, script(tmp_path / "broken"))


def test_a_diverged_fit_leaves_no_checkpoint(tmp_path):
    def weight(t):
        weight.calls += 1
        return t * (math.nan if weight.calls > 7 else 1.0)

    weight.calls = 0
    X, y = labelled()
    with pytest.raises(NonFiniteTrainingError, match="at step 7"):
        checkpointed(tmp_path, loss_weight=weight, options={"report_period": 20, "checkpoint_period": 5}).fit(X, y)
    assert not list(tmp_path.iterdir())


def test_a_foreign_file_in_the_checkpoints_place_is_named(tmp_path, monkeypatch):
    X, y = labelled()
    interrupt(monkeypatch, checkpointed(tmp_path))
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match="not a complete safetensors file"):
        checkpointed(tmp_path).fit(X, y)


def test_frozen_parameters_of_a_factorys_network_stay(tmp_path):
    class Field(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(2, 2)
            self.scale = nn.Parameter(torch.ones(1), requires_grad=False)

        def forward(self, x, t, condition=None):
            return self.scale * self.layer(x)

    X = np.random.default_rng(0).normal(size=(60, 2))
    model = FlowMatchingGenerator(network=lambda *shape: Field(), max_iter=5, device="cpu").fit(X).partial_fit(X)
    assert model.network_.network.scale.item() == 1


def test_buffers_go_with_their_weights():
    class Normalised(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.layer = nn.BatchNorm1d(3), nn.Linear(3, 1)

        def forward(self, x):
            return self.layer(self.norm(x))

    values = iter([2.0, 1.0, 3.0, 3.0])
    options = TrainingOptions(early_stopping=True, patience=2, report_period=5)
    run = linear_problem(
        20, options=options, network=Normalised(), validation_loss=lambda _: torch.tensor(next(values))
    )
    assert train(run).norm.num_batches_tracked == 10


@pytest.mark.parametrize("most", [None, 0.5, 100.0])
@pytest.mark.parametrize("unused", [False, True])
def test_gradients_are_clipped_as_torch_does(most, unused):
    ours, theirs = (nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)) for _ in range(2))
    theirs.load_state_dict(ours.state_dict())
    for network in (ours, theirs):
        (7 * network(torch.ones(5, 3))).square().sum().backward()
        if unused:
            network[0].bias.grad = None
    norm = clip_gradients(ours.parameters(), most)
    assert norm == nn.utils.clip_grad_norm_(theirs.parameters(), math.inf if most is None else most)
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert (mine.grad is None and other.grad is None) or torch.equal(mine.grad, other.grad)


def test_couplings_see_full_precision_under_autocast():
    seen = []

    class Spy(IndependentCoupling):
        def pair(self, x0, x1, groups=None):
            seen.append((x1 @ x0.T).dtype)
            return x0

    X = np.random.default_rng(0).normal(size=(60, 2))
    options = TrainingOptions(precision="bf16")
    FlowMatchingGenerator(coupling=Spy(), max_iter=2, training=options, device="cpu").fit(X)
    assert set(seen) == {torch.float32}


@pytest.mark.parametrize(
    "bad",
    [
        {"schedule": "step"}, {"precision": "int8"}, {"weight_decay": -1}, {"warmup": 1.0}, {"betas": (0.9, 1.0)},
        {"accumulation": 0}, {"patience": 0}, {"checkpoint_period": 0}, {"report_period": 0},
        {"gradient_clipping": 0}, {"ema_decay": 1.0}, {"validation_fraction": 1.0},
        {"early_stopping": True, "validation_fraction": 0},
    ],
    ids=str,
)  # fmt: skip
def test_bad_options_are_named_before_training(bad):
    name = "validation_fraction" if "early_stopping" in bad else next(iter(bad))
    with pytest.raises(ValueError, match=name):
        FlowMatchingGenerator(max_iter=1, training=TrainingOptions(**bad)).fit(np.eye(4))


@pytest.mark.slow
def test_training_through_the_compiler_gives_the_same_losses():
    X = np.random.default_rng(0).normal(size=(60, 2))
    losses = [
        FlowMatchingGenerator(max_iter=10, random_state=0, device="cpu", training=TrainingOptions(compile=flag))
        .fit(X)
        .history_["loss"]
        for flag in (False, True)
    ]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-4)
