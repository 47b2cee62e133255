"""Checkpoints of a running fit: everything that the next step depends on, in one file that is replaced atomically."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from flowmatch.core.tensor_file import read_tensors, write_tensors
from flowmatch.training.loop import TrainingRun

FORMAT = "flowmatch-checkpoint-2"
_SCALARS = ("step", "seconds", "steps_since_report", "best_loss", "reports_since_best")


class Checkpointer:
    """Writes a run's checkpoint every `period` steps, and resumes a run from it.

    Parameters
    ----------
    folder : path-like
        Made if it is not there.
    period : int
        Steps between two checkpoints.
    fingerprint : str
        Of data, parameters and start. It names the file, so that several fits may share a folder.
    """

    def __init__(self, folder: str | os.PathLike[str], period: int, fingerprint: str) -> None:
        self.path = Path(folder) / f"checkpoint-{fingerprint[:16]}.safetensors"
        self.period, self.fingerprint = period, fingerprint
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(f"checkpoint_folder {str(folder)!r} cannot be made: {error.strerror or error}.") from error
        if not os.access(self.path.parent, os.W_OK):
            raise ValueError(f"checkpoint_folder {str(folder)!r} is not writable.")

    def saved_seed(self) -> int | None:
        """The seed of the interrupted run whose checkpoint is there, None without one."""
        return int(self._read()[1]["seed"]) if self.path.exists() else None

    def save_when_due(self, run: TrainingRun, seed: int) -> None:
        """Write a checkpoint if `period` divides the number of steps made."""
        if run.step % self.period == 0 and not run.finished and not run.diverged:
            tensors, scalars = run_state(run)
            header = {"format": FORMAT, "fingerprint": self.fingerprint, "seed": seed, "state": scalars}
            write_tensors(self.path, tensors, header)

    def resume(self, run: TrainingRun) -> None:
        """Bring a fresh run to the state of the checkpoint, if there is one.

        Raises
        ------
        ValueError
            If the file is damaged or of another version.
        """
        if self.path.exists():
            tensors, header = self._read()
            load_run_state(run, tensors, header["state"])

    def _read(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        tensors, header = read_tensors(self.path)
        if header.get("format") != FORMAT or header.get("fingerprint") != self.fingerprint:
            raise ValueError(f"{str(self.path)!r} is not the checkpoint of this fit. Delete it to start anew.")
        return tensors, header

    def discard(self) -> None:
        """Remove the checkpoint of a run that has ended."""
        self.path.unlink(missing_ok=True)


def fingerprint(arrays: Mapping[str, Tensor | None], parameters: str) -> str:
    """Hash of tensors' shapes and bytes, a description of the parameters, and the version of torch."""
    digest = hashlib.sha256(json.dumps([parameters, torch.__version__]).encode())
    for name, tensor in sorted(arrays.items()):
        if tensor is not None:
            digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def run_state(run: TrainingRun) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Everything that the next step of `run` depends on, as tensors and JSON."""
    tensors = {
        **{f"network.{name}": value for name, value in run.network.state_dict().items()},
        **{f"average.{name}": value for name, value in run.averaged_network.state_dict().items()},
        **{f"good.{i}": value for i, value in enumerate(run.good_weights)},
        **{f"best.{i}": value for i, value in enumerate(run.best_weights or ())},
        **{f"memory.{name}": value for name, value in run.memory.items()},
        "rows": run.rows.stream,
        **{f"global.{i}": state for i, state in enumerate(run.global_draws.state)},
        "sums": run.sums,
    }
    for index, state in run.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": value for name, value in state.items()}
    for name, generator in _generators(run).items():
        tensors[f"random.{name}"] = generator.get_state()
    scalars = {name: getattr(run, name) for name in _SCALARS}
    scalars |= {
        "row_position": run.rows.position,
        "history": run.history,
        "scaler": run.scaler.state_dict(),
        "n_averaged": run.average.n_updates,
    }
    # shared storage is not allowed in the file
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}, scalars


def load_run_state(run: TrainingRun, tensors: dict[str, Tensor], scalars: dict[str, Any]) -> None:
    """Undo `run_state` on a fresh run of the same plan."""
    run.network.load_state_dict(_section(tensors, "network"))
    run.averaged_network.load_state_dict(_section(tensors, "average"))
    run.good_weights = _weights(_section(tensors, "good"), run.device)
    run.best_weights = _weights(_section(tensors, "best"), run.device) or None
    run.memory = {name: value.to(run.device) for name, value in _section(tensors, "memory").items()}
    run.rows.stream = tensors["rows"].to(run.rows.device)
    run.sums = tensors["sums"].to(run.device)
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in _section(tensors, "optimizer").items():
        index, name = key.split(".")
        state.setdefault(int(index), {})[name] = value
    run.optimizer.load_state_dict({"state": state, "param_groups": run.optimizer.state_dict()["param_groups"]})
    for name in _SCALARS:
        setattr(run, name, scalars[name])
    run.rows.position = scalars["row_position"]
    run.history = scalars["history"]
    run.average.n_updates = scalars["n_averaged"]
    run.scaler.load_state_dict(scalars["scaler"])
    _set_schedule(run)
    run.global_draws.state = _weights(_section(tensors, "global"), torch.device("cpu"))
    for name, generator in _generators(run).items():
        generator.set_state(tensors[f"random.{name}"])


def _set_schedule(run: TrainingRun) -> None:
    """Put the learning rate where it stood after `run.step` steps."""
    rate = run.plan.learning_rate * run.scheduler.lr_lambdas[0](run.step)
    for group in run.optimizer.param_groups:
        group["lr"] = rate
    run.scheduler.load_state_dict({**run.scheduler.state_dict(), "last_epoch": run.step, "_last_lr": [rate]})


def _generators(run: TrainingRun) -> dict[str, torch.Generator]:
    named = {"noise": run.noise, "shuffle": run.rows.generator, "dropout": run.dropout}
    return {name: generator for name, generator in named.items() if generator is not None}


def _section(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name[len(prefix) + 1 :]: value for name, value in tensors.items() if name.startswith(f"{prefix}.")}


def _weights(section: dict[str, Tensor], device: torch.device) -> list[Tensor]:
    return [section[name].to(device) for name in sorted(section, key=int)]
