"""Checkpoints: of whom they are, what damage does to them, and what is left of a fit that ends badly."""

import functools
import json
import os
import subprocess
import sys

import kill_fits
import numpy as np
import pytest
import torch
from damaged_files import put_together, take_apart

from flowmatch import (
    ConditionalForecaster,
    DistilledFlowMap,
    FlowAnomalyDetector,
    FlowMatchingGenerator,
    NonFiniteTrainingError,
    TrainingOptions,
)
from flowmatch.core import files
from flowmatch.core.descriptions import UNLIKE_ANY_OTHER, describe_value
from flowmatch.objectives import ChannelWeighted
from flowmatch.training import Checkpointer

X = np.random.default_rng(0).normal(size=(60, 2))

pytestmark = pytest.mark.filterwarnings(
    "ignore:the fit was interrupted", "ignore:this fit has no checkpoint", "ignore:.*rows. too few"
)


class KilledError(BaseException):
    """In place of a signal."""


class Kill:
    """Ends a fit after some steps."""

    def __init__(self, step):
        self.step = step

    def on_fit_task_end(self, estimator, context):
        if context.task_id >= self.step:
            raise KilledError


class Steps:
    """Notes the steps of the reports."""

    def __init__(self):
        self.seen = []

    def on_fit_task_end(self, estimator, context):
        self.seen.append(context.task_id)


def small(folder, *callbacks, random_state=0, **changes):
    options = TrainingOptions(checkpoint_folder=folder, checkpoint_period=2, report_period=2, callbacks=callbacks)
    given = {"max_iter": 12, "network": "mlp", "random_state": random_state, "device": "cpu", **changes}
    return FlowMatchingGenerator(training=options, **given).set_params(network__width=8, network__depth=1)


def leave(folder, **changes):
    """A checkpoint after four steps, of a fit that ended after six."""
    with pytest.raises(KilledError):
        small(folder, Kill(6), **changes).fit(X)


def first_report(folder, **changes):
    steps = Steps()
    small(folder, steps, **changes).fit(X)
    return steps.seen[0]


# -- of whom they are -------------------------------------------------------------------------------------------------


def scaled_by(factor):
    return lambda t: factor * torch.ones_like(t)


class Scaled:
    def __init__(self, factor):
        self.factor = factor

    def __call__(self, t):
        return self.factor * torch.ones_like(t)

    def weight(self, t):
        return self(t)


FACTOR = 2.0


def of_this_module(t):
    return FACTOR * torch.ones_like(t)


def test_a_fit_resumes_its_own_checkpoint(tmp_path):
    leave(tmp_path)
    assert first_report(tmp_path) == 6


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (scaled_by(1.0), scaled_by(2.0)),
        (functools.partial(scaled_by(1.0)), functools.partial(scaled_by(2.0))),
        (lambda t, factor=1.0: factor + 0 * t, lambda t, factor=2.0: factor + 0 * t),
    ],
    ids=["closure", "partial", "default"],
)
def test_functions_that_take_other_values_from_outside_are_other_fits(tmp_path, one, other):
    leave(tmp_path, loss_weight=one)
    assert first_report(tmp_path, loss_weight=other) == 2
    assert first_report(tmp_path, loss_weight=one) == 6


def test_a_global_value_of_a_function_counts(tmp_path, monkeypatch):
    leave(tmp_path, loss_weight=of_this_module)
    monkeypatch.setattr(sys.modules[__name__], "FACTOR", 1.0)
    assert first_report(tmp_path, loss_weight=of_this_module) == 2


def test_arrays_of_components_count_by_their_values():
    one, other = (describe_value(ChannelWeighted(weights=np.array([1.0, w]))) for w in (1.0, 2.0))
    assert one != other
    assert one == describe_value(ChannelWeighted(weights=np.array([1.0, 1.0])))
    assert describe_value(torch.ones(3)) != describe_value(torch.zeros(3))


@pytest.mark.parametrize("weight", [Scaled(2.0), Scaled(2.0).weight, functools.partial(Scaled.weight, Scaled(1.0))])
def test_what_cannot_be_described_has_no_checkpoint_and_says_so(tmp_path, weight):
    assert UNLIKE_ANY_OTHER in repr(describe_value(weight))
    with pytest.warns(UserWarning, match=r"no checkpoint.*Scaled") as caught:
        small(tmp_path, loss_weight=weight).fit(X)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    with pytest.raises(KilledError):
        small(tmp_path, Kill(6), loss_weight=weight).fit(X)
    assert not list(tmp_path.iterdir())


def test_a_description_has_no_addresses_in_it():
    def nested(t):
        return (lambda u: u + 1)(t)

    def repeats(n):
        return repeats(n - 1) if n else 0

    for value in (nested, repeats, Scaled, scaled_by(1.0), [1, {"a": np.ones(2)}], np.random.default_rng(0)):
        assert " at 0x" not in repr(describe_value(value))
        assert UNLIKE_ANY_OTHER not in repr(describe_value(value))


def test_unseeded_fits_do_not_go_on_from_one_that_is_running(tmp_path):
    class Inner:
        """Fits another one like it halfway through the first."""

        def on_fit_task_end(self, estimator, context):
            if context.task_id >= 6 and not hasattr(self, "first"):
                self.first = first_report(tmp_path, random_state=None)

    inner = Inner()
    small(tmp_path, inner, random_state=None).fit(X)
    assert inner.first == 2
    assert not list(tmp_path.iterdir())


def test_an_unseeded_fit_takes_over_what_a_dead_process_has_left(tmp_path):
    leave(tmp_path, random_state=None)
    (path,) = tmp_path.iterdir()
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    path.rename(tmp_path / path.name.replace(f"-{os.getpid()}-", f"-{dead.pid}-"))
    assert first_report(tmp_path, random_state=None) == 6


@pytest.mark.skipif(os.name != "posix", reason="processes of POSIX")
def test_an_unseeded_fit_leaves_the_checkpoint_of_a_running_process(tmp_path):
    leave(tmp_path, random_state=None)
    (path,) = tmp_path.iterdir()
    path.rename(tmp_path / path.name.replace(f"-{os.getpid()}-", f"-{os.getppid()}-"))
    assert first_report(tmp_path, random_state=None) == 2
    assert len(list(tmp_path.iterdir())) == 1


# -- damage -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.999])
def test_a_flipped_bit_is_an_error_that_says_how_to_start_anew(tmp_path, share):
    leave(tmp_path)
    (path,) = tmp_path.iterdir()
    content = bytearray(path.read_bytes())
    content[int(share * len(content))] ^= 4
    path.write_bytes(content)
    with pytest.raises(ValueError, match="Delete it to start anew"):
        small(tmp_path).fit(X)
    path.unlink()
    assert first_report(tmp_path) == 2


def _change(*keys, to):
    def change(header, tensors):
        at = header
        for key in keys[:-1]:
            at = at[key]
        at[keys[-1]] = to

    return change


@pytest.mark.parametrize(
    "change",
    [
        _change("state", to=None),
        _change("state", "step", to="six"),
        _change("state", "step", to=10**9),
        _change("state", "row_position", to=-5),
        _change("state", "row_position", to=None),
        _change("state", "history", to={"step": []}),
        _change("state", "scheduler", to={}),
        _change("state", "n_averaged", to=1.5),
        _change("seed", to="none"),
        lambda header, tensors: header["state"].pop("step"),
        lambda header, tensors: tensors.pop("run.sums"),
        lambda header, tensors: tensors.update({"run.rows": tensors["run.rows"][:3].clone()}),
        lambda header, tensors: tensors.update({"run.rows": tensors["run.rows"] + 1000}),
        lambda header, tensors: tensors.update({"random.noise": torch.zeros(7)}),
        lambda header, tensors: tensors.update({"optimizer.0": torch.zeros(7)}),
        lambda header, tensors: [tensors.pop(name) for name in list(tensors) if name.startswith("optimizer")],
        lambda header, tensors: [tensors.pop(name) for name in list(tensors) if name.startswith("good")],
    ],
)  # fmt: skip
def test_a_checkpoint_that_does_not_fit_is_an_error_that_says_how_to_start_anew(tmp_path, change):
    leave(tmp_path)
    (path,) = tmp_path.iterdir()
    header, tensors = take_apart(path.read_bytes())
    change(header, tensors)
    path.write_bytes(put_together(header, tensors))
    with pytest.raises(ValueError, match="Delete it to start anew"):
        small(tmp_path).fit(X)


# -- folders ----------------------------------------------------------------------------------------------------------


def test_temporary_files_of_dead_writers_are_removed_and_others_stay(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    names = [f".{files._host()}-{pid}-abc{files._TEMPORARY}" for pid in (dead.pid, os.getpid(), os.getppid())]
    for name in [*names, f".elsewhere-{dead.pid}-abc{files._TEMPORARY}", ".other"]:
        (tmp_path / name).touch()
    Checkpointer(tmp_path, 1, "0" * 64)
    assert {path.name for path in tmp_path.iterdir()} == {
        *names[1:],
        f".elsewhere-{dead.pid}-abc{files._TEMPORARY}",
        ".other",
    }


def test_a_disk_that_fills_is_warned_of_once_and_ends_no_fit(tmp_path, monkeypatch):
    def disk_full(*_):
        raise OSError(28, "No space left on device")

    alone = small(None).fit(X)
    monkeypatch.setattr(os, "fsync", disk_full)
    with pytest.warns(UserWarning, match=r"no checkpoint of step 2.*No space left") as caught:
        model = small(tmp_path).fit(X)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    np.testing.assert_array_equal(model.sample(5, random_state=0), alone.sample(5, random_state=0))
    assert not list(tmp_path.iterdir())


# -- fits that end badly ----------------------------------------------------------------------------------------------


SERIES = np.cumsum(np.random.default_rng(0).normal(size=(60, 2)), axis=0)
ROWS = {
    "generator": (lambda **p: FlowMatchingGenerator(**p), X),
    "forecaster": (lambda **p: ConditionalForecaster(**p), SERIES),
    "detector": (lambda **p: FlowAnomalyDetector(**p), X),
}


@pytest.mark.parametrize("max_iter", [1, 2, 3, 7])
@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("rate", [1e4, 1e30, 1e38])
def test_a_fit_that_diverges_is_an_error_however_short_it_is(name, max_iter, rate):
    make, rows = ROWS[name]
    model = make(max_iter=max_iter, learning_rate=rate, training=TrainingOptions(warmup=0.0), random_state=0)
    with pytest.raises(NonFiniteTrainingError):
        model.fit(rows)


@pytest.mark.parametrize("max_iter", [1, 2, 7])
def test_a_student_that_diverges_is_an_error_however_short(max_iter):
    teacher = FlowMatchingGenerator(max_iter=5, random_state=0).fit(X)
    student = DistilledFlowMap(
        teacher, max_iter=max_iter, learning_rate=1e38, training=TrainingOptions(warmup=0.0), random_state=0
    )
    with pytest.raises(NonFiniteTrainingError):
        student.fit(X)


def test_n_iter_is_the_step_of_the_weights_that_are_kept():
    def weight(t):
        weight.calls += 1
        return t * (np.nan if weight.calls > 7 else 1.0)

    weight.calls = 0
    model = small(None, loss_weight=weight)
    with pytest.raises(NonFiniteTrainingError):
        model.fit(X)
    assert model.n_iter_ == 6
    assert model.history_["step"][-1] == 6
    six = small(None, Kill(6), loss_weight=lambda t: t)
    with pytest.raises(KilledError):
        six.fit(X)
    np.testing.assert_array_equal(model.sample(4, random_state=0), six.sample(4, random_state=0))


def test_a_header_of_a_checkpoint_is_json(tmp_path):
    leave(tmp_path)
    (path,) = tmp_path.iterdir()
    header, _ = take_apart(path.read_bytes())
    assert json.loads(json.dumps(header))["format"] == "flowmatch-checkpoint-3"


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="SIGKILL of POSIX")
def test_fits_killed_at_any_moment_resume_to_the_same_bits():
    ends = kill_fits.run(3, kinds=("table", "images", "progressive"), share=0.3)
    assert {end for end, _ in ends} == {"the same"}, ends
