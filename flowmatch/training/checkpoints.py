"""Checkpoints of a running fit: everything that the next step depends on, in one file that is replaced atomically."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from flowmatch.core.descriptions import UNLIKE_ANY_OTHER
from flowmatch.core.files import checked_path, is_being_written, name_of_writer, remove_abandoned
from flowmatch.core.storable import MISFITS, require
from flowmatch.core.tensor_file import read_tensors, write_tensors
from flowmatch.core.user_warnings import warn
from flowmatch.training.budgets import TimeBudget
from flowmatch.training.loop import TrainingRun
from flowmatch.training.options import TrainingOptions

FORMAT = "flowmatch-checkpoint-3"
_SCALARS = ("step", "good_step", "seconds", "steps_since_report", "best_loss", "reports_since_best")

_IN_USE: set[Path] = set()
"""Checkpoints of fits that are running in this process."""


class Checkpointer:
    """Writes a run's checkpoint every `period` steps, and resumes a run from it.

    Parameters
    ----------
    folder : path-like
        Where to write; made if it is not there.
    period : int
        Steps between two checkpoints.
    fingerprint : str
        Of data, parameters and start. It names the file, so that several fits may share a folder.
    seeded : bool, default=True
        Whether fits of one fingerprint are the same, so that one may go on with the checkpoint of any other. Those that
        are not take over the checkpoint of one whose process has ended, and otherwise have their own.
    budget : TimeBudget, optional
        What decides the number of steps, which checkpoints then hold.

    Raises
    ------
    ValueError
        If the folder cannot be made or written to.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        period: int,
        fingerprint: str,
        *,
        seeded: bool = True,
        budget: TimeBudget | None = None,
    ) -> None:
        folder, name = checked_path(folder), f"checkpoint-{fingerprint[:16]}"
        self.period, self.fingerprint, self.budget, self._has_warned = period, fingerprint, budget, False
        if budget is not None:
            if budget.first_run is None:
                budget.first_run = fingerprint
            elif budget.first_run != fingerprint:
                name += _of_fit(budget.first_run)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(f"checkpoint_folder {str(folder)!r} cannot be made: {error.strerror or error}.") from error
        if not os.access(folder, os.W_OK):
            raise ValueError(f"checkpoint_folder {str(folder)!r} is not writable.")
        remove_abandoned(folder)
        self.path = folder / f"{name}.safetensors"
        if not seeded:
            self.path = folder / f"{name}-{name_of_writer()}.safetensors"
            _take_over(folder.glob(f"{name}-*.safetensors"), self.path)
        _IN_USE.add(self.path)

    def saved_seed(self) -> int | None:
        """The seed of the interrupted run whose checkpoint is there.

        Returns
        -------
        int or None
            None without one.
        """
        return self._read(self.path)[1]["seed"] if self.path.exists() else None

    def saved_steps(self) -> int | None:
        """The number of steps that a time budget came to in the interrupted fit, of which this is the first run.

        Returns
        -------
        int or None
            None without a checkpoint of this run or a later one.
        """
        if self.budget is not None and self.budget.n_steps is not None:
            return self.budget.n_steps
        of_later_runs = self.path.parent.glob(f"checkpoint-*{_of_fit(self.fingerprint)}.safetensors")
        for path in filter(Path.exists, (self.path, *of_later_runs)):
            n_steps = self._read(path)[1].get("n_steps")
            if type(n_steps) is not int or n_steps < 1:
                raise ValueError(self._refusal("it does not say how many steps there are", path))
            return n_steps
        return None

    def save_when_due(self, run: TrainingRun, seed: int) -> None:
        """Write a checkpoint if `period` divides the number of steps made.

        A checkpoint that cannot be written, as when the disk is full, is warned of once: the fit goes on.

        Parameters
        ----------
        run : TrainingRun
            Its state is written, unless it has ended or diverged.
        seed : int
            What the run's generators were seeded with.
        """
        if run.step % self.period == 0 and not run.finished and not run.diverged:
            tensors, scalars = run_state(run)
            header = {"format": FORMAT, "fingerprint": self.fingerprint, "seed": seed, "state": scalars}
            if self.budget is not None:
                header["n_steps"] = self.budget.n_steps
            try:
                write_tensors(self.path, tensors, header)
            except ValueError as error:
                if not self._has_warned:
                    warn(f"no checkpoint of step {run.step}: {error} The fit goes on without.")
                self._has_warned = True

    def resume(self, run: TrainingRun) -> None:
        """Bring a fresh run to the state of the checkpoint, if there is one.

        Parameters
        ----------
        run : TrainingRun
            Of the same plan as the one that was interrupted.

        Raises
        ------
        ValueError
            If the file is damaged or of another version.
        """
        if self.path.exists():
            tensors, header = self._read(self.path)
            try:
                load_run_state(run, tensors, header["state"])
            except (ValueError, *MISFITS) as error:
                raise ValueError(self._refusal(f"it does not fit this fit ({error!r})", self.path)) from error

    def _read(self, path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
        try:
            tensors, header = read_tensors(path)
        except ValueError as error:
            raise ValueError(self._refusal(str(error), path)) from error
        is_own = path != self.path or header.get("fingerprint") == self.fingerprint
        is_current = header.get("format") == FORMAT and "checksum" in header
        if not is_own or not is_current or type(header.get("seed")) is not int:
            raise ValueError(self._refusal("it is of another fit or another version", path))
        return tensors, header

    def _refusal(self, why: str, path: Path) -> str:
        return f"{str(path)!r} is not the checkpoint of this fit: {why}. Delete it to start anew."

    def discard(self) -> None:
        """Remove the checkpoint of a run that has ended."""
        self.path.unlink(missing_ok=True)
        self.release()

    def release(self) -> None:
        """Leave the checkpoint to a later fit."""
        _IN_USE.discard(self.path)


def make_checkpointer(
    options: TrainingOptions,
    arrays: Mapping[str, Tensor | None],
    description: str,
    *,
    seeded: bool = True,
    budget: TimeBudget | None = None,
) -> Checkpointer | None:
    """Make what writes a fit's checkpoints, if any are asked for.

    Parameters
    ----------
    options : TrainingOptions
        Say where and when.
    arrays : mapping of str to Tensor or None
        What the fit depends on: data and weights.
    description : str
        Everything else, as `flowmatch.core.descriptions.describe_value` has it.
    seeded : bool, default=True
        Whether the description decides all random numbers.
    budget : TimeBudget, optional
        Decides the number of steps; until it has, only its seconds are part of what the fit depends on.

    Returns
    -------
    Checkpointer or None
        None also for a fit that cannot be told from others, with a warning.
    """
    if options.checkpoint_folder is None:
        return None
    if UNLIKE_ANY_OTHER in description:
        value = description.partition(UNLIKE_ANY_OTHER)[2].partition(">")[0]
        warn(
            f"this fit has no checkpoint, since others could not be told from it: {value}> may have a state of its "
            "own. Take a function, or a component with parameters, instead."
        )
        return None
    if budget is not None:
        description += f" max_time={budget.seconds} n_steps={budget.n_steps}"
    print_of = fingerprint(arrays, description)
    return Checkpointer(options.checkpoint_folder, options.checkpoint_period, print_of, seeded=seeded, budget=budget)


def _of_fit(first_run: str) -> str:
    """What the names of checkpoints of a fit's later runs end in, where its first has to find them."""
    return f"-of-{first_run[:16]}"


def _take_over(candidates: Iterable[Path], path: Path) -> None:
    """Rename the first checkpoint whose fit has ended without removing it."""
    for candidate in candidates:
        if candidate not in _IN_USE and not is_being_written(candidate.stem):
            with contextlib.suppress(OSError):  # another fit was faster
                os.replace(candidate, path)
                return


def fingerprint(arrays: Mapping[str, Tensor | None], parameters: str) -> str:
    """Hash of what a fit depends on.

    Parameters
    ----------
    arrays : mapping of str to Tensor or None
        Their shapes and bytes count.
    parameters : str
        A description of the parameters; the version of torch counts, too.

    Returns
    -------
    str
        Hexadecimal.

    Examples
    --------
    >>> import torch
    >>> from flowmatch.training import fingerprint
    >>> fingerprint({"X": torch.zeros(3)}, "") == fingerprint({"X": torch.ones(3)}, "")
    False
    """
    digest = hashlib.sha256(json.dumps([parameters, torch.__version__]).encode())
    for name, tensor in sorted(arrays.items()):
        if tensor is not None:
            digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def run_state(run: TrainingRun) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Everything that the next step of `run` depends on, as tensors and JSON."""
    sections: dict[str, Mapping[str, Tensor]] = {
        "network": run.network.state_dict(),
        "average": run.averaged_network.state_dict(),
        "good": _numbered(run.good_weights),
        "best": _numbered(run.best_weights or []),
        "memory": run.memory,
        "optimizer": {
            f"{index}.{name}": value
            for index, state in run.optimizer.state_dict()["state"].items()
            for name, value in state.items()
        },
        "random": {name: generator.get_state() for name, generator in _generators(run).items()},
        "global": _numbered(run.global_draws.state),
        "run": {"rows": run.rows.stream, "sums": run.sums},
    }
    scalars = {name: getattr(run, name) for name in _SCALARS} | {
        "row_position": run.rows.position,
        "history": run.history,
        "scaler": run.scaler.state_dict(),
        "scheduler": run.scheduler.state_dict(),
        "n_averaged": run.average.n_updates,
    }
    return {f"{section}.{name}": t for section, named in sections.items() for name, t in named.items()}, scalars


def load_run_state(run: TrainingRun, tensors: dict[str, Tensor], scalars: dict[str, Any]) -> None:
    """Undo `run_state` on a fresh run of the same plan."""

    def section(prefix: str) -> dict[str, Tensor]:
        return {name[len(prefix) + 1 :]: value for name, value in tensors.items() if name.startswith(f"{prefix}.")}

    def listed(prefix: str, device: torch.device) -> list[Tensor]:
        named = section(prefix)
        return [named[name].to(device) for name in sorted(named, key=int)]

    _check_state(run, tensors, scalars)
    run.network.load_state_dict(section("network"))
    run.averaged_network.load_state_dict(section("average"))
    run.good_weights, run.best_weights = listed("good", run.device), listed("best", run.device) or None
    run.memory = {name: value.to(run.device) for name, value in section("memory").items()}
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in section("optimizer").items():
        index, name = key.split(".")
        state.setdefault(int(index), {})[name] = value
    run.optimizer.load_state_dict({"state": state, "param_groups": run.optimizer.state_dict()["param_groups"]})
    for name, generator in _generators(run).items():
        generator.set_state(tensors[f"random.{name}"])
    run.global_draws.state = listed("global", torch.device("cpu"))
    run.rows.stream, run.sums = tensors["run.rows"].to(run.rows.device), tensors["run.sums"].to(run.device)
    for name in _SCALARS:
        setattr(run, name, scalars[name])
    run.rows.position, run.history = scalars["row_position"], scalars["history"]
    run.average.n_updates = scalars["n_averaged"]
    run.scaler.load_state_dict(scalars["scaler"])
    run.scheduler.load_state_dict(scalars["scheduler"])
    for group in run.optimizer.param_groups:
        group["lr"] = run.scheduler.get_last_lr()[0]


def _check_state(run: TrainingRun, tensors: Mapping[str, Tensor], scalars: Mapping[str, Any]) -> None:
    """Raise a ValueError for a state of another form than the run's own."""
    expected, own = run_state(run)
    for name, tensor in expected.items():
        require(name in tensors and tensors[name].dtype == tensor.dtype, name)
        require(name == "run.rows" or tensors[name].shape == tensor.shape, name)
    for name, value in own.items():
        require(type(scalars[name]) is type(value), name)
    n_reports = {len(values) for values in scalars["history"].values()}
    require(0 < scalars["step"] <= run.plan.max_iter and scalars["n_averaged"] == scalars["step"], "step")
    require(own["history"].keys() <= scalars["history"].keys() and len(n_reports) == 1, "history")
    require(0 <= scalars["good_step"] <= scalars["step"], "good_step")
    require(0 <= scalars["row_position"] <= len(tensors["run.rows"]), "row_position")
    require(bool(((tensors["run.rows"] >= 0) & (tensors["run.rows"] < run.plan.n_rows)).all()), "rows")
    moments = {name.split(".")[1] for name in tensors if name.startswith("optimizer.")}
    require(moments == set(map(str, range(len(run.parameters)))), "optimizer")


def _numbered(tensors: list[Tensor]) -> dict[str, Tensor]:
    return {str(index): tensor for index, tensor in enumerate(tensors)}


def _generators(run: TrainingRun) -> dict[str, torch.Generator]:
    named = {"noise": run.noise, "shuffle": run.rows.generator, "dropout": run.dropout}
    return {name: generator for name, generator in named.items() if generator is not None}
