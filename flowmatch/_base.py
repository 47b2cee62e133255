"""What the estimators share: validate -> encode -> train -> sample -> decode."""

from __future__ import annotations

import copy
import functools
import inspect
import math
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from flowmatch import flow, networks, objectives, preprocessing, training
from flowmatch.base import Estimator
from flowmatch.core.batches import rows_per_batch
from flowmatch.core.checks import check_choice, check_count
from flowmatch.core.devices import resolve_device
from flowmatch.core.entries import BLOCKS
from flowmatch.core.randomness import generator_on, isolated_rng, seed_from
from flowmatch.fitting.parameters import (
    SOLVERS,
    Components,
    NetworkFactory,
    PhaseComponents,
    build_network,
    describe_parameters,
    resolve_network,
    resolve_path,
)
from flowmatch.fitting.phases import check_phases
from flowmatch.fitting.schedule import Schedule, measured_times, schedule_of
from flowmatch.fitting.training_data import EntryMasks, RowData, TrainingData

JUMPS = 1
"""Jumps of a flow map where the user does not say."""


class FlowEstimator(Estimator):
    """Base of the estimators: training, integration of the fitted field, files and pickles.

    A subclass declares its parameters in its own ``__init__``, at least those that `flowmatch.fitting.parameters` and the
    methods here read, and has a method ``_fit_in_place(X, y, sample_weight, fresh)``.
    """

    _after_divergence = "The last good weights are kept on the estimator."
    network_: nn.Module
    n_iter_: int
    history_: dict[str, list[float]]
    n_parameters_: int
    sample_shape_: tuple[int, ...]
    _encoder: preprocessing.SampleEncoder
    _conditions: preprocessing.ConditionEncoder | None
    _source_scale: Tensor
    _factors: preprocessing.FactorModel | None = None
    _fitted_parameters: dict[str, Any]
    _trainable: list[bool]
    _predicts_jumps = False
    """Whether the network is a flow map."""
    _jumps_back = False
    """Whether that has learned jumps from data to noise, too."""
    _dyadic_jumps = False
    """Whether it knows jumps of halves of halves of the way only."""
    _frozen: tuple[str, ...] = ("network", "path", "source", "condition_dropout", "objective")
    """Parameters that belong to the fitted weights; of flow maps the guidance scale, too."""
    _default_steps = 10
    """Steps of the solvers where the user does not say; flow maps make one jump."""
    _is_masked = False
    """Whether the network is told which cells of a table's row are given or absent."""
    _few_steps = False
    """Whether `solver` and `n_steps` are those of a student's samples, which are too few for other things."""

    # -- fitting ------------------------------------------------------------------------------------------------

    @property
    def _as_fitted(self) -> SimpleNamespace:
        """The parameters that the fitted weights belong to; `set_params` after a fit does not reach them."""
        return SimpleNamespace(**self._fitted_parameters)

    def _freeze_parameters(self, *, fresh: bool, jumps: bool = False) -> None:
        """Keep what the weights will belong to, a velocity's or those of jumps; refuse to go on with other parts.

        Raises
        ------
        ValueError
            That names the parameter that has changed since the first fit.
        """
        present = {name: copy.copy(getattr(self, name)) for name in self._frozen if hasattr(self, name)}
        if jumps:
            present["guidance_scale"] = self.guidance_scale
        if not fresh:
            for name, value in self._fitted_parameters.items():
                changed = _differ(present.get(name, value), value)
                if name == "objective":  # what one holds concerns training alone; which of them it is, the weights
                    changed = jumps != objectives.is_flow_map(value)
                if name != "condition_dropout" and changed:
                    raise ValueError(
                        f"{name} was {value!r} in the fit that this one goes on from, and is {present[name]!r} "
                        "now. Set it back, or fit anew with warm_start=False."
                    )
            if self._predicts_jumps and not jumps:
                raise ValueError(
                    "this model's jumps were distilled from a velocity, which fits to data cannot go on with: go on "
                    "with the teacher, and distil it anew."
                )
        else:
            self._predicts_jumps, self._few_steps = jumps, False
        self._jumps_back = self._dyadic_jumps = False  # training on data teaches neither
        self._fitted_parameters = present

    def _train(
        self,
        data: TrainingData,
        some_codes: Callable[[], NDArray[np.float64]],
        components: Components,
        *,
        fresh: bool,
    ) -> None:
        """Train and set `network_`, `n_iter_` and `history_`; go on from `network_` unless `fresh`.

        `some_codes` gives the codes that the source is fitted to.
        """
        options, device = components.options, resolve_device(self.device)
        schedule = self._schedule(len(data))
        checkpointer = self._checkpointer(options, data, device, fresh=fresh)
        seed = seed_from(self.random_state)
        if checkpointer is not None:
            saved = checkpointer.saved_seed()
            seed = seed if saved is None else saved
        steps_before = 0 if fresh else self.n_iter_  # a fit that goes on draws other noise than the one before it
        seeds = np.random.RandomState([seed, steps_before]).randint(2**31 - 1, size=5).tolist()
        with isolated_rng(device, seeds[0]):
            if fresh:
                jumps = components.objective.flow_map
                factory, shape = self._network_factory(), self._encoder.code_shape
                network = build_network(factory, shape, self._conditions, flow_map=jumps, is_masked=self._is_masked)
                self.network_ = network.to(device)
                self._source_scale = components.source.fit_scale(
                    torch.as_tensor(_without_gaps(some_codes()), dtype=torch.float32, device=device)
                )
                self.n_iter_, self.history_ = 0, {}
                network = self.network_
                self._trainable = [p.requires_grad for p in network.parameters()]
            else:
                network = copy.deepcopy(self.network_).to(device)
                for parameter, trainable in zip(network.parameters(), self._trainable, strict=True):
                    parameter.requires_grad_(trainable)
            self._source_scale = self._source_scale.to(device)
            check_phases(components, network, self._source_scale, self._conditions)
            if components.objective.flow_map:
                size = 0 if self._conditions is None else self._conditions.size
                objectives.check_forward_derivative(network, self._source_scale, size, "objective='mean_flow'")
            plan = self._plan(components, data, schedule, device, seeds, fresh=fresh)
            run = training.TrainingRun(
                network, plan, generator_on(device, seeds[1]), generator_on(data.device, seeds[2])
            )
            if checkpointer is not None:
                checkpointer.resume(run)
            self._run_training(run, options, data, checkpointer, seed)

    def _network_factory(self) -> NetworkFactory:
        """What builds the network of the fitted weights."""
        return resolve_network(self._as_fitted)

    def _disturbed(self, data: TrainingData) -> TrainingData:
        """The rows that are trained on, once others are held out."""
        return data

    def _schedule(self, n_rows: int) -> Schedule:
        """How long and how fast to train on so many rows."""
        return schedule_of(self, self._encoder.code_shape, n_rows)

    def _encoded(
        self,
        X: preprocessing.SampleRows,
        y: Any,
        weight: NDArray[np.float64] | None,
        device: torch.device | None = None,
    ) -> TrainingData:
        """Codes, vectors of conditions and weights of rows, as training wants them."""
        codes = self._encoder.training_codes(X, self._fitted_device if device is None else device)
        return RowData(
            codes,
            None if self._conditions is None else self._conditions.training_vectors(y, codes.device),
            None if weight is None else torch.as_tensor(weight, dtype=torch.float32, device=codes.device),
            self._masks(self._fitted_device if device is None else device),
        )

    def _masks(self, device: torch.device) -> EntryMasks | None:
        """What hides cells of a table's rows in training."""
        if not self._is_masked:
            return None
        groups = np.unique(self._encoder.code_columns, return_inverse=True)[1]
        share = float(getattr(self, "masked_share", 0.0))
        factors = None if self._factors is None else self._factors.to(device)
        return EntryMasks(share, torch.as_tensor(groups, device=device), factors)

    def _run_training(
        self,
        run: training.TrainingRun,
        options: training.TrainingOptions,
        data: TrainingData | None,
        checkpointer: training.Checkpointer | None,
        seed: int,
    ) -> None:
        """Carry the run to its end, with callbacks and checkpoints around it."""
        callbacks = training.CallbackList(options.callbacks, self, run.plan.max_iter, run.history, run.memory)
        self.network_ = run.averaged_network
        self.n_parameters_ = sum(p.numel() for p in self.network_.parameters())
        try:
            callbacks.call("setup")
            callbacks.call("on_fit_task_begin", "report")
            training.train(
                run,
                on_report=callbacks.report,
                on_step=None if checkpointer is None else lambda run: checkpointer.save_when_due(run, seed),
                verbose=bool(self.verbose),
            )
            if checkpointer is not None:
                checkpointer.discard()
        except training.NonFiniteTrainingError as error:
            if checkpointer is not None:
                checkpointer.discard()
            run.restore_good_weights()
            raise self._explain_divergence(error, data, run.plan.learning_rate) from error
        finally:
            self.network_ = run.averaged_network.eval()
            self._append_history(run.history)
            self.n_iter_ += run.step
            callbacks.call("teardown")

    def _plan(
        self,
        components: Components,
        data: TrainingData,
        schedule: Schedule,
        device: torch.device,
        seeds: list[int],
        *,
        fresh: bool,
    ) -> training.TrainingPlan:
        """What the loop needs: the loss of a batch of rows, and the loss on the rows held out."""
        has_conditions = self._conditions is not None

        def objective(phase: PhaseComponents, kind: Any = objectives.VelocityObjective, **more: Any) -> Any:
            dropout = self.condition_dropout if phase.conditioned else 1.0
            return kind(
                components.path,
                components.source,
                components.coupling,
                components.time_sampler or measured_times(self._encoder.code_shape),
                self._source_scale,
                phase.loss,
                phase.loss_weight,
                dropout if has_conditions else 0.0,
                isinstance(self._conditions, preprocessing.LabelEncoder),
                phase.crop,
                is_masked=self._is_masked,
                **more,
            )

        warmup = 0.0
        options, plain = components.options, PhaseComponents(components.loss, components.loss_weight)
        whole, parts = objective(plain), [objective(phase) for phase in components.phases]
        if isinstance(components.objective, objectives.MeanFlow):
            settings = {"settings": components.objective, "guidance_scale": self.guidance_scale}
            whole = objective(plain, objectives.MeanFlowObjective, **settings)
            parts, options = [whole], components.options
            if components.objective.warmup > 0 and fresh:  # a fit that goes on knows the velocity
                parts = [objective(plain, objectives.InstantVelocityObjective, **settings), whole]
                shares = (components.objective.warmup, 1 - components.objective.warmup)
                options = replace(options, phases=tuple(map(training.Phase, shares)))
                warmup = components.objective.warmup
        kept, held_out = data.split(components.options.held_out, generator_on(device, seeds[3]))
        kept = self._disturbed(kept)
        return training.TrainingPlan(
            batch_losses=[kept.loss_of(part) for part in parts],
            n_rows=len(kept),
            max_iter=schedule.max_iter,
            batch_size=schedule.batch_size,
            learning_rate=schedule.learning_rate,
            options=options,
            sample_weight=kept.weight,
            validation_loss=None if held_out is None else held_out.bank_loss(whole, device, seeds[4]),
            validate_from=round(warmup * schedule.max_iter),
            data_device=data.device,
        )

    def _checkpointer(
        self, options: training.TrainingOptions, data: TrainingData, device: torch.device, *, fresh: bool
    ) -> training.Checkpointer | None:
        if options.checkpoint_folder is None:
            return None
        start = {} if fresh else {f"start.{name}": value for name, value in self.network_.state_dict().items()}
        description = f"{describe_parameters(self, options)} {device.type} {0 if fresh else self.n_iter_}"
        if "guidance_scale" in self._fitted_parameters:  # jumps are trained with it
            description += f" guidance_scale {self.guidance_scale}"
        fingerprint = training.fingerprint({**data.tensors(), **start}, description)
        return training.Checkpointer(options.checkpoint_folder, options.checkpoint_period, fingerprint)

    def _append_history(self, history: dict[str, list[float]]) -> None:
        """Add a run's history to that of earlier ones, steps counted on."""
        earlier, steps = self.history_, self.n_iter_
        seconds = earlier["seconds"][-1] if earlier.get("seconds") else 0.0
        shifted = {
            **history,
            "step": [step + steps for step in history["step"]],
            "seconds": [second + seconds for second in history["seconds"]],
        }
        # a callback's column may be in one of the two runs only
        lengths = [len(part.get("step", [])) for part in (earlier, shifted)]
        self.history_ = {
            name: [*earlier.get(name, [math.nan] * lengths[0]), *shifted.get(name, [math.nan] * lengths[1])]
            for name in {**shifted, **earlier}
        }

    def _explain_divergence(
        self,
        error: training.NonFiniteTrainingError,
        data: TrainingData | None,
        learning_rate: float,
    ) -> training.NonFiniteTrainingError:
        if data is None:
            return training.NonFiniteTrainingError(
                f"{error}. Try a smaller learning_rate (now {learning_rate:g}) or gradient clipping. "
                f"{self._after_divergence}",
                error.step,
            )
        some = max(1, 2**20 // math.prod(self._encoder.code_shape))
        drawn = data.draw(torch.arange(min(len(data), some), device=data.device))[0]
        return training.NonFiniteTrainingError(
            f"{error}. The encoded inputs ranged from {float(drawn.min()):.4g} to {float(drawn.max()):.4g}. "
            f"Try a smaller learning_rate (now {learning_rate:g}), gradient clipping, precision='float32', or "
            f"preprocessing='standardize' or 'quantile' if that range is wide. {self._after_divergence}",
            error.step,
        )

    # -- the fitted field ---------------------------------------------------------------------------------------

    @property
    def _fitted_device(self) -> torch.device:
        return next(self.network_.parameters()).device

    def _steps_and_solver(self, n_steps: int | None, solver: str | None, *, velocity: bool = False) -> tuple[int, str]:
        """What a method's arguments, or the estimator's own parameters, come to.

        Parameters
        ----------
        velocity : bool
            The method needs a velocity. A flow map has one, so parameters that ask for jumps count as "auto".

        Raises
        ------
        ValueError
            For values out of range, and jumps where there is no flow map or no use for them.
        """
        chosen = self.solver if solver is None else check_choice("solver", solver, SOLVERS)
        steps = self.n_steps if n_steps is None else n_steps
        if self._few_steps and velocity and solver is None:
            chosen, steps = "auto", n_steps
        asked = solver == "flow_map" if velocity else chosen == "flow_map"
        if asked and (velocity or not self._predicts_jumps):
            reason = "this method integrates a velocity" if velocity else "this model predicts a velocity"
            raise ValueError(f"solver='flow_map' makes the jumps of a flow map, but {reason}; take solver='midpoint'.")
        if chosen == "auto" or (velocity and chosen == "flow_map"):
            chosen = "flow_map" if self._predicts_jumps and not velocity else "midpoint"
            steps = n_steps if self._predicts_jumps and velocity else steps  # those for jumps are too few for it
        measured = JUMPS if chosen == "flow_map" else self._default_steps
        return check_count("n_steps", measured if steps is None else steps), chosen

    def _times(self, n_steps: int, solver: str, like: Tensor | None = None) -> Tensor:
        """Times (n_steps + 1,) of the steps from noise to data, on the device and in the dtype of `like`."""
        grid = flow.jump_grid if solver == "flow_map" and self._dyadic_jumps else flow.time_grid
        place = {} if like is None else {"device": like.device, "dtype": like.dtype}
        return grid(n_steps, resolve_path(self._as_fitted).first_time, **place)  # type: ignore[arg-type]

    def _integrate(
        self,
        x: Tensor,
        condition: Tensor | None,
        *,
        n_steps: int,
        solver: str,
        guidance_scale: float = 1.0,
        backward: bool = False,
        network: nn.Module | None = None,
        batch_size: int | None = None,
        return_trajectory: bool = False,
    ) -> Tensor:
        """Carry noise to data (or back) in batches; a row's result does not depend on the batches.

        With `return_trajectory`, the states at all times, (n_steps + 1, B, *code_shape).
        """
        times = self._times(n_steps, solver, x)
        times = times.flip(0) if backward else times
        network = self.network_ if network is None else network
        if self._predicts_jumps and solver != "flow_map":
            network, guidance_scale = networks.InstantVelocity(network), 1.0  # guided already

        n_conditions = 0 if self._conditions is None else self._conditions.size
        n_kept = 0 if condition is None else condition.shape[1] - n_conditions  # cells of the rows

        def carry(part: Tensor, known: Tensor | None) -> Tensor:
            if solver == "flow_map":
                jumps = functools.partial(_jump_of, network, known)
                return flow.follow(jumps, part, times, return_trajectory=return_trajectory)
            velocity = flow.guide(network, known, guidance_scale, n_kept)
            return flow.integrate(velocity, part, times, solver, return_trajectory=return_trajectory)

        rows = batch_size or rows_per_batch(tuple(x.shape[1:]), x.device)
        conditions = [None] * -(-len(x) // rows) if condition is None else condition.split(rows)
        with torch.no_grad():
            parts = [carry(part, c) for part, c in zip(x.split(rows), conditions, strict=True)]
        return torch.cat(parts, dim=1 if return_trajectory else 0)

    def _inspection_network(self) -> nn.Module:
        """The network in double precision where the device has it: codes should be exact to the solver."""
        device = self._fitted_device
        return self.network_ if device.type == "mps" else copy.deepcopy(self.network_).double()

    def _inspection_velocity(self) -> nn.Module:
        """The velocity in that precision; of a flow map, that of increments of 0."""
        network = self._inspection_network()
        return networks.InstantVelocity(network) if self._predicts_jumps else network

    def _check_guidance(self, scale: float) -> None:
        if self._predicts_jumps and scale != self._as_fitted.guidance_scale:
            raise ValueError(
                f"guidance_scale={scale:g}, but this model's jumps were learned with "
                f"guidance_scale={self._as_fitted.guidance_scale:g}, which cannot be changed afterwards: fit or distil "
                "it anew."
            )
        if scale == 1.0:
            return
        if self._conditions is None:
            raise ValueError(f"guidance_scale={scale:g} needs conditions, but the model has none: fit with y.")
        if self._as_fitted.condition_dropout == 0:
            raise ValueError(
                f"guidance_scale={scale:g} needs a model that also learned the unconditional distribution: fit with "
                "condition_dropout > 0, such as 0.1."
            )

    # -- conditions ---------------------------------------------------------------------------------------------

    def _require_conditions(self, y: Any) -> None:
        """Raise a ValueError unless there are conditions exactly if the model has learned any."""
        if self._conditions is None and y is not None:
            raise ValueError("y was given, but this model was fitted without conditions.")
        if self._conditions is not None and y is None:
            raise ValueError("this model was fitted with conditions y; pass them here too.")
        known = () if self._conditions is None else self._conditions.container.columns
        names = tuple(getattr(y, "columns", known))
        if known and names != known:
            raise ValueError(f"y has the columns {list(names)}, but in training they were {list(known)}.")

    def _condition_pieces(self, y: Any, n_samples: int) -> Callable[[slice], Tensor | None]:
        """Vectors of the conditions on the fitted device, a piece at a time."""
        self._require_conditions(y)
        if self._conditions is None:
            return lambda part: None
        pieces = self._conditions.pieces(preprocessing.plain_conditions(y), n_samples)
        return lambda part: torch.as_tensor(pieces(part), device=self._fitted_device)

    def _known_condition(self, y: Any, n_samples: int) -> Callable[[slice], Tensor | None]:
        """Conditions of given rows; without `y`, "no condition" if the model has learned what that means."""
        conditions = self._conditions
        if y is not None or conditions is None:
            return self._condition_pieces(y, n_samples)
        if self._as_fitted.condition_dropout == 0:
            raise ValueError(
                "this model was fitted with conditions y; pass them here too, or fit with condition_dropout > 0 to "
                "learn the unconditional distribution as well."
            )
        return lambda part: torch.zeros(part.stop - part.start, conditions.size, device=self._fitted_device)

    def _wrap_condition(self, y: Any, n_samples: int) -> Any:
        """Conditions in the container that `fit` got them in."""
        if self._conditions is None:
            return None
        return self._conditions.container.wrap(self._conditions.expand(preprocessing.plain_conditions(y), n_samples))

    # -- scikit-learn, pickle, files ----------------------------------------------------------------------------

    def __getstate__(self) -> dict[str, Any]:
        """Pickles hold CPU tensors, so that they load on machines without the device."""
        state = dict(super().__getstate__())
        if "network_" in state:
            state["network_"] = copy.deepcopy(state["network_"]).cpu()
            state["_source_scale"] = state["_source_scale"].cpu()
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        known = inspect.signature(type(self).__init__).parameters
        defaults = {name: p.default for name, p in known.items() if p.default is not inspect.Parameter.empty}
        super().__setstate__({**defaults, **state})  # a pickle of an earlier version lacks parameters that came later
        if "network_" in state:
            self._to_device(self.device)

    def _to_device(self, device: Any) -> None:
        """Move the fitted tensors; to the CPU if the device is not on this machine."""
        try:
            target = resolve_device(device)
        except ValueError:
            target = torch.device("cpu")
        self.network_ = self.network_.to(target)
        self._source_scale = self._source_scale.to(target)


def _differ(one: Any, other: Any) -> bool:
    """Whether two values of a parameter differ; lists and arrays of the same entries do not."""
    if np.ndim(one) and np.ndim(other):
        return list(one) != list(other)
    return bool(np.ndim(one) or np.ndim(other) or one != other)


def kept_numbers(estimator: FlowEstimator) -> int:
    """Numbers at the end of a condition that tell of a row's cells."""
    return BLOCKS * estimator._encoder.code_shape[0] if estimator._is_masked else 0


def _without_gaps(codes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Codes with their columns' means where they are missing."""
    gaps = np.isnan(codes)
    return np.where(gaps, np.nanmean(codes, axis=0), codes) if gaps.any() else codes


def _jump_of(network: nn.Module, condition: Tensor | None, x: Tensor, t: Tensor, step: Tensor) -> Tensor:
    return network(x, t, condition, step)
