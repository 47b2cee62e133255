"""Callbacks that watch a fit: the quality of its samples, and TensorBoard."""

import copy
import math
import pickle
import sys
import types

import numpy as np
import pytest
import torch
from sklearn.base import clone

import flowmatch
from flowmatch import MLP, FlowMatchingGenerator, TrainingOptions
from flowmatch.metrics import sliced_wasserstein
from flowmatch.training import SampleMonitor, TensorBoardWriter

X = np.random.default_rng(0).normal(size=(120, 2)) * 0.1 + np.where(np.arange(120) % 2, 3.0, -3.0)[:, None]
LABELS = np.arange(120) % 3


def far_from_the_data(samples):
    return sliced_wasserstein(X, samples, random_state=0)


class Script:
    """A metric that returns given numbers."""

    def __init__(self, *values):
        self.values, self.looks = values, 0

    def __call__(self, samples):
        self.looks += 1
        return self.values[self.looks - 1]


class WeightsSeen:
    """What the averaged network was at every report."""

    def setup(self, estimator, context):
        self.at = {}

    def on_fit_task_end(self, estimator, context):
        self.at[context.task_id] = copy.deepcopy(estimator.network_.state_dict())


def fit(*callbacks, max_iter=20, y=None, **parameters):
    options = TrainingOptions(report_period=2, callbacks=callbacks, **parameters.pop("options", {}))
    generator = FlowMatchingGenerator(
        network=MLP(width=16, dropout=0.1),
        max_iter=max_iter,
        batch_size=32,
        random_state=0,
        device="cpu",
        preprocessing="standardize",
        training=options,
        **parameters,
    )
    return generator.fit(X, y)


def assert_same_weights(one, other):
    one = one if isinstance(one, dict) else one.network_.state_dict()
    other = other if isinstance(other, dict) else other.network_.state_dict()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


# -- looking ------------------------------------------------------------------------------------------------------


def test_a_monitor_looks_every_period_and_at_the_last_step():
    monitor = SampleMonitor(far_from_the_data, n_samples=50, period=3)
    fitted = fit(monitor)
    assert monitor.history_["step"] == [6, 12, 18, 20]
    column = np.array(fitted.history_["quality"])
    assert len(column) == len(fitted.history_["step"]) == 10
    assert np.array(fitted.history_["step"])[np.isfinite(column)].tolist() == monitor.history_["step"]
    assert column[np.isfinite(column)].tolist() == monitor.history_["value"]


def test_the_samples_get_better_as_training_goes_on():
    monitor = SampleMonitor(far_from_the_data, n_samples=500)
    fit(monitor, max_iter=300, masked_share=0.0)  # of so few steps, all go to whole rows
    values = monitor.history_["value"]
    assert min(values) < 0.5 * values[0]
    assert monitor.best_value_ == min(values)
    assert monitor.best_step_ == monitor.history_["step"][int(np.argmin(values))]


def test_a_look_is_what_the_estimator_at_that_step_gives():
    """The last look, from the weights that are handed out."""
    monitor = SampleMonitor(far_from_the_data, 40, period=100, random_state=3, sample_params={"n_steps": 2})
    fitted = fit(monitor)
    samples = fitted.sample(40, random_state=3, n_steps=2)
    assert monitor.history_ == {"step": [20], "value": [far_from_the_data(samples)]}


def test_conditions_reach_the_samples():
    seen = []
    monitor = SampleMonitor(lambda samples: seen.append(samples) or 0.0, 6, y=[0, 0, 1, 1, 2, 2], period=100)
    fitted = fit(monitor, y=LABELS)
    np.testing.assert_array_equal(seen[0], fitted.sample(6, [0, 0, 1, 1, 2, 2], random_state=0))


@pytest.mark.parametrize("metric", [far_from_the_data, lambda samples: float(torch.rand(7).sum())])
def test_a_monitor_that_never_stops_leaves_the_fit_bit_identical(metric):
    plain = fit()
    watched = fit(SampleMonitor(metric, n_samples=30, period=1, restore_best=False))
    assert_same_weights(plain, watched)
    assert plain.history_["loss"] == watched.history_["loss"]


def test_a_metric_that_draws_from_torch_sees_the_same_numbers_at_every_look():
    monitor = SampleMonitor(lambda samples: float(torch.rand(())), n_samples=5, period=1)
    fit(monitor)
    assert len(set(monitor.history_["value"])) == 1


# -- stopping and restoring ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("sign", [1, -1])
def test_training_stops_after_patience_looks_and_the_best_weights_come_back(sign):
    values = [sign * value for value in (3.0, 1.0, 2.0, 1.0, 5.0)]
    monitor, seen = SampleMonitor(Script(*values), period=1, patience=3, greater_is_better=sign < 0), WeightsSeen()
    fitted = fit(monitor, seen)
    assert fitted.n_iter_ == 10
    assert monitor.history_ == {"step": [2, 4, 6, 8, 10], "value": values}
    assert (monitor.best_step_, monitor.best_value_) == (4, values[1])
    assert_same_weights(fitted, seen.at[4])
    with pytest.raises(AssertionError):
        assert_same_weights(fitted, seen.at[10])


def test_without_restore_best_the_last_weights_are_handed_out():
    monitor, seen = SampleMonitor(Script(1.0, 2.0, 3.0), period=1, patience=2, restore_best=False), WeightsSeen()
    assert_same_weights(fit(monitor, seen), seen.at[6])


def test_the_best_weights_come_back_without_patience_too():
    monitor, seen = SampleMonitor(Script(2.0, 1.0, 3.0), period=4), WeightsSeen()
    fitted = fit(monitor, seen)
    assert fitted.n_iter_ == 20
    assert_same_weights(fitted, seen.at[16])


def test_the_monitors_best_takes_precedence_over_the_best_validation_loss():
    monitor, seen = SampleMonitor(Script(*range(10)), period=1), WeightsSeen()
    fitted = fit(monitor, seen, options={"early_stopping": True})
    assert_same_weights(fitted, seen.at[2])


def test_the_best_weights_come_back_when_training_diverges():
    def loss_weight(t):
        loss_weight.calls += 1
        return t * (math.nan if loss_weight.calls > 9 else 1.0)

    loss_weight.calls = 0
    monitor, seen = SampleMonitor(Script(1.0, 2.0, 3.0, 4.0), period=1), WeightsSeen()
    generator = FlowMatchingGenerator(
        max_iter=20,
        device="cpu",
        loss_weight=loss_weight,
        training=TrainingOptions(report_period=2, callbacks=[monitor, seen]),
    )
    with pytest.raises(flowmatch.NonFiniteTrainingError):
        generator.fit(X)
    assert_same_weights(generator, seen.at[2])


# -- several fits, copies, checkpoints ----------------------------------------------------------------------------


def test_a_monitor_serves_several_fits_and_pickles():
    monitor = SampleMonitor(far_from_the_data, n_samples=30, period=2)
    first = fit(monitor)
    history = copy.deepcopy(monitor.history_)
    second = fit(monitor)
    assert monitor.history_ == history
    assert_same_weights(first, second)
    assert pickle.loads(pickle.dumps(monitor)).history_ == history
    assert_same_weights(pickle.loads(pickle.dumps(second)), second)


def test_clone_gives_a_fresh_monitor_with_the_same_parameters():
    monitor = SampleMonitor(far_from_the_data, n_samples=30, y=np.arange(30) % 3, patience=4, name="w1")
    fitted = fit(monitor, y=LABELS)
    copied = clone(fitted).training.callbacks[0]
    assert copied is not monitor
    assert not hasattr(copied, "history_")
    assert {name: value for name, value in copied.get_params().items() if name != "y"} == {
        name: value for name, value in monitor.get_params().items() if name != "y"
    }


def test_a_second_fit_counts_steps_on_and_columns_stay_aligned():
    monitor = SampleMonitor(far_from_the_data, n_samples=30, period=10)
    generator = fit(monitor)
    generator.set_params(training__callbacks=()).partial_fit(X)
    generator.set_params(training__callbacks=[monitor]).partial_fit(X)
    assert monitor.history_["step"] == [60]
    assert generator.history_["step"] == list(range(2, 61, 2))
    assert {len(column) for column in generator.history_.values()} == {30}
    column = np.array(generator.history_["quality"])
    assert np.flatnonzero(np.isfinite(column)).tolist() == [9, 29]


@pytest.mark.filterwarnings("ignore:parameter callbacks")
def test_columns_of_callbacks_survive_the_file(tmp_path):
    fitted = fit(SampleMonitor(far_from_the_data, n_samples=30, period=5))
    fitted.save(tmp_path / "model.safetensors")
    loaded = flowmatch.load(tmp_path / "model.safetensors", device="cpu")
    np.testing.assert_array_equal(loaded.history_["quality"], fitted.history_["quality"])


class Killed(BaseException):
    """Stands for the end of the process."""


class KillAt:
    def __init__(self, step):
        self.step = step

    def on_fit_task_end(self, estimator, context):
        if context.task_id == self.step:
            raise Killed


def test_an_interrupted_fit_stops_where_it_would_have_stopped_and_restores_the_same_weights(tmp_path):
    values = [5.0, 1.0, 2.0, 3.0, 4.0, 6.0, 7.0]
    whole_monitor = SampleMonitor(Script(*values), period=1, patience=4)
    whole = fit(whole_monitor)
    checkpoints = {"checkpoint_folder": tmp_path, "checkpoint_period": 4}
    with pytest.raises(Killed):
        fit(SampleMonitor(Script(*values), period=1, patience=4), KillAt(10), options=checkpoints)
    # the checkpoint was written at step 8, after four looks
    monitor = SampleMonitor(Script(*values[4:]), period=1, patience=4)
    resumed = fit(monitor, options=checkpoints)
    assert monitor.history_ == whole_monitor.history_
    assert (resumed.n_iter_, monitor.best_step_) == (whole.n_iter_, 4) == (12, 4)
    assert_same_weights(resumed, whole)
    assert resumed.history_["quality"] == whole.history_["quality"] == values[:6]
    assert list(tmp_path.iterdir()) == []


# -- errors -------------------------------------------------------------------------------------------------------


def test_a_metric_that_raises_is_named():
    def metric(samples):
        raise KeyError("column")

    with pytest.raises(ValueError, match=r"SampleMonitor 'w1': at step 2 the metric raised KeyError: 'column'"):
        fit(SampleMonitor(metric, period=1, name="w1"))


def test_a_metric_that_is_not_finite_is_named():
    with pytest.raises(ValueError, match=r"SampleMonitor 'quality': at step 4 the metric returned nan; expected a fin"):
        fit(SampleMonitor(Script(1.0, math.nan), period=1))


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"metric": 3}, "metric must be a function"),
        ({"n_samples": 0}, "n_samples must be an integer >= 1, got 0"),
        ({"period": 1.5}, "period must be an integer >= 1, got 1.5"),
        ({"patience": 0}, "patience must be an integer >= 1, got 0"),
        ({"random_state": None}, "random_state must be an integer from 0 to 4294967295, got None"),
        ({"restore_best": 1}, "restore_best must be True or False, got 1"),
        ({"name": "loss"}, "name must be a string other than step, loss"),
        ({"sample_params": 4}, "sample_params must be a mapping"),
    ],
)
def test_bad_parameters_of_a_monitor_are_refused_before_training(parameters, message):
    with pytest.raises(ValueError, match=message):
        fit(SampleMonitor(**{"metric": far_from_the_data, **parameters}))


def test_two_monitors_need_two_names():
    with pytest.raises(ValueError, match="2 of them are called 'quality'"):
        fit(SampleMonitor(far_from_the_data), SampleMonitor(far_from_the_data))


# -- TensorBoard --------------------------------------------------------------------------------------------------


class FakeWriter:
    """Stands for torch.utils.tensorboard.SummaryWriter and remembers what it was told."""

    made: list = []

    def __init__(self, log_dir, purge_step=None):
        self.log_dir, self.purge_step, self.scalars, self.pictures, self.closed = log_dir, purge_step, {}, {}, False
        FakeWriter.made.append(self)

    def add_scalar(self, name, value, step):
        self.scalars.setdefault(name, {})[step] = value

    def add_images(self, name, pictures, step):
        self.pictures[step] = pictures

    def close(self):
        self.closed = True


@pytest.fixture
def written(monkeypatch):
    """The fake writers that a test has made."""
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", types.SimpleNamespace(SummaryWriter=FakeWriter))
    monkeypatch.setattr(FakeWriter, "made", [])
    return FakeWriter.made


@pytest.mark.parametrize("order", [1, -1], ids=["monitor_first", "writer_first"])
def test_tensorboard_gets_every_report_and_the_monitors_values(written, order):
    monitor = SampleMonitor(far_from_the_data, n_samples=30, period=4)
    fitted = fit(*[monitor, TensorBoardWriter("runs")][::order])
    (writer,) = written
    assert (writer.log_dir, writer.closed, writer.purge_step) == ("runs", True, 1)
    steps = fitted.history_["step"]
    for name in ("loss", "gradient_norm", "learning_rate"):
        assert writer.scalars[name] == dict(zip(steps, fitted.history_[name], strict=True))
    assert writer.scalars["quality"] == dict(zip(*monitor.history_.values(), strict=True))
    assert set(writer.scalars) == {"loss", "gradient_norm", "learning_rate", "quality"}  # nothing was held out


def test_tensorboard_gets_the_validation_loss_and_goes_on_with_a_second_fit(written):
    generator = fit(TensorBoardWriter("runs"), options={"validation_fraction": 0.2})
    generator.partial_fit(X)
    assert written[1].purge_step == 21
    steps = [step for writer in written for step in writer.scalars["validation_loss"]]
    assert steps == generator.history_["step"] == list(range(2, 41, 2))
    assert pickle.loads(pickle.dumps(generator)).n_iter_ == 40


def test_tensorboard_gets_the_last_report_of_a_stopped_fit(written):
    fit(SampleMonitor(Script(1.0, 2.0), period=1, patience=1), TensorBoardWriter("runs"))
    assert written[0].scalars["quality"] == {2: 1.0, 4: 2.0}


def test_tensorboard_gets_pictures_between_0_and_1(written):
    images = np.random.default_rng(0).integers(0, 17, size=(40, 1, 4, 4)).astype(np.uint8)
    options = TrainingOptions(report_period=2, callbacks=[TensorBoardWriter("runs", images=5, image_period=3)])
    network = MLP(width=16)
    FlowMatchingGenerator(network, max_iter=10, device="cpu", training=options, random_state=0).fit(images)
    assert list(written[0].pictures) == [6, 10]
    for pictures in written[0].pictures.values():
        assert pictures.shape == (5, 1, 4, 4)
        assert (pictures.min(), pictures.max()) == (0.0, 1.0)


def test_pictures_of_tables_are_refused(written):
    with pytest.raises(ValueError, match=r"images=3 shows samples of shape \(1 or 3, height, width\), got \(2,\)"):
        fit(TensorBoardWriter("runs", images=3))


def test_a_missing_tensorboard_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ImportError, match=r"pip install 'flowmatch\[tensorboard\]'"):
        fit(TensorBoardWriter("runs"))


@pytest.mark.parametrize(
    ("parameters", "message"),
    [({"log_dir": 3}, "log_dir must be a path"), ({"images": 0}, "images must"), ({"image_period": 0}, "image_period")],
)
def test_bad_parameters_of_the_writer_are_refused(parameters, message, written):
    with pytest.raises(ValueError, match=message):
        fit(TensorBoardWriter(**{"log_dir": "runs", **parameters}))
    assert not written


def test_what_tensorboard_reads_back_is_the_history(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    fitted = fit(TensorBoardWriter(tmp_path))
    fitted = fit(TensorBoardWriter(tmp_path))  # replaces the first
    events = EventAccumulator(str(tmp_path)).Reload().Scalars("loss")
    assert [event.step for event in events] == fitted.history_["step"]
    assert [event.value for event in events] == pytest.approx(fitted.history_["loss"])


def test_a_failing_setup_tears_down_those_that_were_set_up():
    calls = []

    class Watch:
        def __init__(self, name):
            self.name = name

        def setup(self, estimator, context):
            if self.name == "bad":
                raise RuntimeError("no")
            calls.append(f"setup {self.name}")

        def teardown(self, estimator, context):
            calls.append(f"teardown {self.name}")

    with pytest.raises(RuntimeError, match="no"):
        fit(Watch("good"), Watch("bad"), Watch("never"))
    assert calls == ["setup good", "teardown good"]


@pytest.mark.parametrize(
    ("monitor", "message"),
    [
        (SampleMonitor(far_from_the_data, sample_params={"n_step": 3}), "n_step"),
        (SampleMonitor(far_from_the_data, n_samples=5, y=[0, 1]), "y was given, but this model was fitted without"),
        (SampleMonitor(far_from_the_data, sample_params={"guidance_scale": 2.0}), "guidance_scale=2 needs conditions"),
    ],
    ids=["unknown argument", "conditions", "guidance"],
)
def test_a_monitor_that_cannot_sample_says_so_before_training(monitor, message):
    seen = WeightsSeen()
    with pytest.raises(ValueError, match=f"SampleMonitor 'quality' cannot draw samples: .*{message}"):
        fit(seen, monitor)
    assert seen.at == {}


def test_columns_of_an_interrupted_fit_stay_aligned():
    class Interrupts(SampleMonitor):
        def on_fit_task_end(self, estimator, context):
            super().on_fit_task_end(estimator, context)
            if context.task_id == 6:
                raise KeyboardInterrupt

    model = FlowMatchingGenerator(
        network=MLP(width=8),
        max_iter=20,
        random_state=0,
        device="cpu",
        training=TrainingOptions(report_period=2, callbacks=(Interrupts(far_from_the_data, period=1),)),
    )
    with pytest.warns(UserWarning, match="weights so far"), pytest.raises(KeyboardInterrupt):
        model.fit(X)
    assert len({len(column) for column in model.history_.values()}) == 1
