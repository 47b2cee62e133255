"""What the estimators share: validate -> encode -> train -> sample -> decode."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from flowmatch import flow, objectives, preprocessing, training
from flowmatch._component import Component, resolve_component, unknown_option
from flowmatch._validation import (
    check_choice,
    check_count,
    check_number,
    generator_on,
    isolated_rng,
    resolve_device,
    seed_from,
)
from flowmatch.networks import MLP

NETWORKS: dict[str, Callable[[], Component]] = {"auto": MLP, "mlp": MLP}
SOLVERS = (*flow.FIXED_STEP, *flow.ADAPTIVE)

NetworkFactory = Callable[[tuple[int, ...], int, bool], nn.Module]


@dataclass(frozen=True)
class Components:
    """The estimator's parameters, each turned into the object that does the work."""

    path: flow.Path
    source: flow.Source
    coupling: flow.Coupling
    time_sampler: flow.TimeSampler
    loss: objectives.ResidualLoss
    loss_weight: objectives.LossWeight
    network: NetworkFactory
    options: training.TrainingOptions


class FlowEstimator(BaseEstimator):
    """Base of the estimators: parameters to components, training, and integration of the fitted field.

    A subclass declares its parameters in its own ``__init__`` and has at least those that are read here.
    """

    network_: nn.Module
    n_iter_: int
    history_: dict[str, list[float]]
    n_parameters_: int
    sample_shape_: tuple[int, ...]
    _encoder: preprocessing.SampleEncoder
    _conditions: preprocessing.ConditionEncoder | None
    _source_scale: Tensor

    def set_params(self, **params: Any) -> Self:
        """Set parameters; ``training__ema_decay=...`` also works while `training` is None, and names become components.

        Returns
        -------
        self
        """
        for name in {key.partition("__")[0] for key in params if "__" in key}:
            value = params.get(name, getattr(self, name, None))
            if name == "training" and value is None:
                params[name] = training.TrainingOptions()
            elif isinstance(value, str) and value in ALIASES.get(name, {}):
                params[name] = ALIASES[name][value]()
        return super().set_params(**params)

    # -- parameters ---------------------------------------------------------------------------------------------

    def _resolve(self) -> Components:
        """Check all parameters and turn them into components, before any data are touched."""
        check_count("max_iter", self.max_iter)
        check_count("batch_size", self.batch_size)
        check_number("learning_rate", self.learning_rate, 0.0, open_low=True)
        check_count("n_steps", self.n_steps)
        check_choice("solver", self.solver, SOLVERS)
        options = self.training if self.training is not None else training.TrainingOptions()
        if not isinstance(options, training.TrainingOptions):
            raise ValueError(f"training must be None or TrainingOptions, got {options!r}.")
        options.validate()
        resolve_device(self.device)
        return Components(
            resolve_component("path", self.path, flow.Path, flow.PATHS),
            resolve_component("source", self.source, flow.Source, flow.SOURCES),
            resolve_component("coupling", self.coupling, flow.Coupling, flow.COUPLINGS),
            resolve_component("time_sampler", self.time_sampler, flow.TimeSampler, flow.TIME_SAMPLERS),
            resolve_component("loss", self.loss, objectives.ResidualLoss, objectives.LOSSES),
            self._resolve_weight(),
            self._resolve_network(),
            options,
        )

    def _resolve_weight(self) -> objectives.LossWeight:
        weight = self.loss_weight
        if callable(weight) and not isinstance(weight, objectives.LossWeight):
            return objectives.CallableWeight(weight)
        return resolve_component("loss_weight", weight, objectives.LossWeight, objectives.LOSS_WEIGHTS)

    def _resolve_network(self) -> NetworkFactory:
        network = self.network
        if isinstance(network, str) and network in NETWORKS:
            return NETWORKS[network]()  # type: ignore[return-value]
        if callable(network) and not isinstance(network, nn.Module):
            return network
        raise unknown_option("network", network, NETWORKS, "pass a component such as MLP(width=256), or a factory")

    def _resolve_transform(self, sample_shape: tuple[int, ...]) -> preprocessing.ColumnTransform:
        """An unfitted transform, "auto" resolved by the data's shape."""
        if self.preprocessing == "auto":
            return preprocessing.choose_transform(sample_shape)
        names = {**preprocessing.TRANSFORMS, "auto": preprocessing.Identity}
        return copy.copy(resolve_component("preprocessing", self.preprocessing, preprocessing.ColumnTransform, names))

    # -- training -----------------------------------------------------------------------------------------------

    def _train(
        self,
        X: NDArray[np.float64],
        condition: NDArray[np.float32] | None,
        weight: NDArray[np.float64] | None,
        components: Components,
        *,
        fresh: bool,
    ) -> None:
        """Train on encoded data and set `network_`, `n_iter_` and `history_`; go on from `network_` unless `fresh`."""
        options, device = components.options, resolve_device(self.device)
        data = self._encoder.training_codes(X, device)
        tensors = TrainingTensors(
            data,
            None if condition is None else torch.as_tensor(condition, device=device),
            None if weight is None else torch.as_tensor(weight, dtype=torch.float32, device=device),
        )
        checkpointer = self._checkpointer(options, tensors)
        seed = seed_from(self.random_state)
        if checkpointer is not None:
            saved = checkpointer.saved_seed()
            seed = seed if saved is None else saved
        seeds = np.random.RandomState(seed).randint(2**31 - 1, size=5).tolist()
        with isolated_rng(device, seeds[0]):
            if fresh:
                size = 0 if condition is None else condition.shape[1]
                self.network_ = build_network(components.network, self._encoder.code_shape, size).to(device)
                import os
                if os.environ.get("SKIP"):
                    from flowmatch.networks.baseline import BaselineCorrection
                    self.network_ = BaselineCorrection(self.network_, components.path.normal_rate)
                self._source_scale = components.source.fit_scale(
                    torch.as_tensor(self._encoder.encode(X), dtype=torch.float32, device=device)
                )
                self.n_iter_, self.history_ = 0, {}
            network = copy.deepcopy(self.network_).to(device).requires_grad_(True)
            self._source_scale = self._source_scale.to(device)
            plan = self._plan(components, tensors, device, seeds)
            run = training.TrainingRun(
                network, plan, generator_on(device, seeds[1]), generator_on(plan.data_device, seeds[2])
            )
            if checkpointer is not None:
                checkpointer.resume(run)
            self._run_training(run, components.options, tensors.codes, checkpointer, seed)

    def _run_training(
        self,
        run: training.TrainingRun,
        options: training.TrainingOptions,
        codes: preprocessing.TrainingCodes,
        checkpointer: training.Checkpointer | None,
        seed: int,
    ) -> None:
        """Carry the run to its end, with callbacks and checkpoints around it."""
        callbacks = training.CallbackList(options.callbacks, self, self.max_iter)
        self.network_ = run.averaged_network
        callbacks.call("setup")
        try:
            callbacks.call("on_fit_task_begin", "report")
            training.train(
                run,
                on_report=lambda entry: callbacks.call("on_fit_task_end", "report", entry),
                on_step=None if checkpointer is None else lambda run: checkpointer.save_when_due(run, seed),
                verbose=bool(self.verbose),
            )
            if checkpointer is not None:
                checkpointer.discard()
        except training.NonFiniteTrainingError as error:
            run.restore_good_weights()
            raise self._explain_divergence(error, codes) from error
        finally:
            self.network_ = run.averaged_network.eval()
            self.n_parameters_ = sum(p.numel() for p in self.network_.parameters())
            self._append_history(run.history)
            self.n_iter_ += run.step
            callbacks.call("teardown")

    def _plan(
        self, components: Components, tensors: TrainingTensors, device: torch.device, seeds: list[int]
    ) -> training.TrainingPlan:
        """What the loop needs: the loss of a batch of rows, and of the rows held out."""
        objective = objectives.VelocityObjective(
            components.path,
            components.source,
            components.coupling,
            components.time_sampler,
            self._source_scale,
            components.loss,
            components.loss_weight,
            self.condition_dropout if tensors.condition is not None else 0.0,
            isinstance(self._conditions, preprocessing.LabelEncoder),
        )

        def batch_loss(network: nn.Module, rows: Tensor, generator: torch.Generator | None) -> Tensor:
            condition = None if tensors.condition is None else tensors.condition[rows]
            return objective(network, tensors.codes.draw(rows, generator), condition, generator)

        n_rows = len(tensors.codes)
        n_held_out = round(components.options.held_out * n_rows)
        if components.options.held_out > 0 and not 1 <= n_held_out <= n_rows - 2:
            raise ValueError(
                f"validation_fraction={components.options.held_out:g} of {n_rows} rows leaves {n_rows - n_held_out} to train on and "
                f"{n_held_out} to validate; both need some (2 and 1)."
            )
        if n_held_out == 0:
            return training.TrainingPlan(
                batch_loss, n_rows, self.max_iter, self.batch_size, self.learning_rate, components.options,
                tensors.weight, None, device,
            )  # fmt: skip
        order = torch.randperm(n_rows, generator=generator_on(device, seeds[3]), device=device)
        held_out, kept = order[:n_held_out], order[n_held_out:]
        bank = held_out.repeat(-(-1024 // n_held_out)) if n_held_out < 1024 else held_out

        def validation_loss(network: nn.Module) -> Tensor:
            losses = batch_loss(network, bank, generator_on(device, seeds[4]))  # the same noise and times every time
            return losses.mean() if tensors.weight is None else (losses * tensors.weight[bank]).mean()

        return training.TrainingPlan(
            lambda network, rows, generator: batch_loss(network, kept[rows], generator),
            len(kept), self.max_iter, self.batch_size, self.learning_rate, components.options,
            None if tensors.weight is None else tensors.weight[kept], validation_loss, device,
        )  # fmt: skip

    def _checkpointer(
        self, options: training.TrainingOptions, tensors: TrainingTensors
    ) -> training.Checkpointer | None:
        if options.checkpoint_folder is None:
            return None
        arrays = {"low": tensors.codes.low, "high": tensors.codes.high, "condition": tensors.condition, "weight": tensors.weight}
        ignored = ("random_state", "verbose", "device", "training", "warm_start")
        kept = {name: value for name, value in self.get_params(deep=False).items() if name not in ignored}
        kept |= {name: value for name, value in options.get_params().items() if not name.startswith(("checkpoint", "callbacks"))}
        description = repr(sorted(kept.items()))
        return training.Checkpointer(
            options.checkpoint_folder, options.checkpoint_period, training.fingerprint(arrays, description)
        )

    def _append_history(self, history: dict[str, list[float]]) -> None:
        """Add a run's history to that of earlier ones, steps counted on."""
        earlier, steps = self.history_, self.n_iter_
        shifted = {**history, "step": [step + steps for step in history["step"]]}
        self.history_ = {name: [*earlier.get(name, []), *values] for name, values in shifted.items()}

    def _explain_divergence(
        self, error: training.NonFiniteTrainingError, codes: preprocessing.TrainingCodes
    ) -> training.NonFiniteTrainingError:
        drawn = codes.draw(torch.arange(len(codes), device=codes.low.device))
        return training.NonFiniteTrainingError(
            f"{error}. The encoded inputs ranged from {float(drawn.min()):.4g} to {float(drawn.max()):.4g}. Try a smaller learning_rate (now "
            f"{self.learning_rate:g}), gradient clipping, precision='float32', or preprocessing='standardize' or 'quantile' "
            "if that range is wide. The last good weights are kept on the estimator.",
            error.step,
        )

    # -- the fitted field ---------------------------------------------------------------------------------------

    @property
    def _fitted_device(self) -> torch.device:
        return next(self.network_.parameters()).device

    def _integrate(
        self,
        x: Tensor,
        condition: Tensor | None,
        *,
        n_steps: int | None,
        solver: str | None,
        guidance_scale: float = 1.0,
        backward: bool = False,
        network: nn.Module | None = None,
        batch_size: int | None = None,
    ) -> Tensor:
        """Carry noise to data (or back) in batches; a row's result does not depend on the batches."""
        solver = self.solver if solver is None else check_choice("solver", solver, SOLVERS)
        n_steps = check_count("n_steps", self.n_steps if n_steps is None else n_steps)
        path = resolve_component("path", self.path, flow.Path, flow.PATHS)
        times = flow.time_grid(n_steps, path.first_time, device=x.device, dtype=x.dtype)
        times = times.flip(0) if backward else times
        network = self.network_ if network is None else network
        rows = batch_size or rows_per_batch(x[0].numel())
        conditions = [None] * -(-len(x) // rows) if condition is None else condition.split(rows)
        with torch.no_grad():
            parts = [
                flow.integrate(flow.guide(network, c, guidance_scale), part, times, solver)
                for part, c in zip(x.split(rows), conditions, strict=True)
            ]
        return torch.cat(parts)

    def _inspection_network(self) -> nn.Module:
        """The network in double precision where the device has it: densities and codes should be exact to the solver."""
        device = self._fitted_device
        return self.network_ if device.type == "mps" else copy.deepcopy(self.network_).double()

    # -- scikit-learn, pickle, files ----------------------------------------------------------------------------

    def save(self, path: Any) -> None:
        """Write the fitted estimator to one ``.safetensors`` file; `flowmatch.load` reads it.

        Parameters
        ----------
        path : path-like

        Raises
        ------
        ValueError
            If the path cannot be written.
        sklearn.exceptions.NotFittedError
            If the estimator is not fitted.
        """
        from flowmatch.persistence import save

        check_is_fitted(self)
        save(self, path)

    def __getstate__(self) -> dict[str, Any]:
        """Pickles hold CPU tensors, so that they load on machines without the device."""
        state = dict(super().__getstate__())
        if "network_" in state:
            state["network_"] = copy.deepcopy(state["network_"]).cpu()
            state["_source_scale"] = state["_source_scale"].cpu()
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
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


@dataclass(frozen=True)
class TrainingTensors:
    """The encoded training set on the device."""

    codes: preprocessing.TrainingCodes
    condition: Tensor | None
    weight: Tensor | None


ALIASES: dict[str, dict[str, Callable[[], Any]]] = {
    "network": {"mlp": MLP},
    "path": dict(flow.PATHS),
    "source": dict(flow.SOURCES),
    "coupling": dict(flow.COUPLINGS),
    "time_sampler": dict(flow.TIME_SAMPLERS),
    "loss": dict(objectives.LOSSES),
    "loss_weight": dict(objectives.LOSS_WEIGHTS),
    "preprocessing": dict(preprocessing.TRANSFORMS),
}


def build_network(factory: NetworkFactory, code_shape: tuple[int, ...], condition_size: int) -> nn.Module:
    """Call a factory and check what it gives."""
    network = factory(code_shape, condition_size, False)
    if not isinstance(network, nn.Module):
        raise ValueError(f"the network factory returned {type(network).__name__}; expected a torch.nn.Module.")
    if not any(p.requires_grad for p in network.parameters()):
        raise ValueError("the network has no parameters to train.")
    return network


def rows_per_batch(sample_size: int) -> int:
    """Samples that are carried together: about four million numbers, at most 16,384 rows."""
    return max(1, min(16_384, 2**22 // max(1, sample_size)))
