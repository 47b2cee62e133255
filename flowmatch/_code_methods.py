"""What a fitted generator says of rows: their densities and latent codes."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import DensityMixin
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from flowmatch import preprocessing
from flowmatch._base import FlowEstimator
from flowmatch.core.checks import check_count
from flowmatch.core.entries import with_entries
from flowmatch.fitting.parameters import resolve_path, resolve_source
from flowmatch.model.density import CodeDensity, mixture_density
from flowmatch.preprocessing.validation import check_codes, check_samples


class CodeMethods(DensityMixin, FlowEstimator):
    """Densities and latent codes of rows, methods of `FlowMatchingGenerator`."""

    # -- densities ----------------------------------------------------------------------------------------------

    def score_samples(
        self,
        X: Any,
        y: Any = None,
        *,
        n_steps: int | None = None,
        solver: str | None = None,
        n_probes: int | None = None,
        return_error: bool = False,
    ) -> Any:
        """Log-density of each row of X, in X's own units.

        The change of variables along the flow (Chen et al., 2018) plus the log-Jacobian of the preprocessing, in
        double precision. A row's result does not depend on the other rows.

        Parameters
        ----------
        X : as in `fit`, of shape (n_samples, *sample_shape)
        y : array-like, optional
            Conditions, one for all rows or one each: the density of X given y. Without them, a model of labels gives
            the density of the mixture over its classes, and a model of numbers its unconditional density (which needs
            ``condition_dropout > 0``).
        n_steps, solver : optional
            In place of the estimator's own.
        n_probes : int, optional
            Estimate the divergence by so many Hutchinson probes (the same for every call and row). By default it is
            exact up to 64 numbers a sample, and estimated with 32 probes beyond.
        return_error : bool, default=False
            Return the standard error of the estimate too: 0 where exact, NaN with one probe.

        Returns
        -------
        log_density : ndarray of shape (n_samples,)
            Numbers add to it in log-densities, categories approximately in log-probabilities (by some tenths of a nat
            each), and missing cells nothing: the density is that of the cells that are there, among rows that miss the
            others. Minus infinity where a column that was
            constant in training has another value.
        standard_error : ndarray of shape (n_samples,), only with `return_error`
        """
        check_is_fitted(self)
        samples = self._checked(X)
        if n_probes is not None:
            check_count("n_probes", n_probes)
        steps, method = self._steps_and_solver(n_steps, solver, velocity=True)
        density = CodeDensity(
            self._inspection_velocity(),
            resolve_source(self._as_fitted),
            self._source_scale,
            resolve_path(self._as_fitted).first_time,
            steps,
            method,
            n_probes,
            self._is_masked,
        )
        mixture = y is None and isinstance(self._conditions, preprocessing.LabelEncoder)
        known = None if mixture else self._known_condition(y, len(samples))
        parts = []
        for start, chunk in samples.chunks():
            codes = self._encoder.encode(chunk)
            if known is None:
                labels = self._conditions
                assert isinstance(labels, preprocessing.LabelEncoder)
                value, error = mixture_density(density, labels, codes)
            else:
                value, error = density(codes, known(slice(start, start + len(chunk))))
            parts.append((value + self._encoder.log_jacobian(chunk), error))
        log_density, errors = (np.concatenate(column) for column in zip(*parts, strict=True))
        return (log_density, errors) if return_error else log_density

    def score(self, X: Any, y: Any = None) -> float:
        """Mean log-density of X, see `score_samples`."""
        return float(np.mean(self.score_samples(X, y)))

    # -- codes --------------------------------------------------------------------------------------------------

    def encode(self, X: Any, y: Any = None, *, n_steps: int | None = None, solver: str | None = None) -> Any:
        """Latent codes of X: where the flow, run backwards, takes each row.

        Parameters
        ----------
        X : as in `fit`, of shape (n_samples, *sample_shape)
        y : array-like, optional
            Conditions; a conditional model needs them unless it was trained with ``condition_dropout > 0``.
        n_steps, solver : optional
            In place of the estimator's own.

        Returns
        -------
        Z : ndarray of shape (n_samples, *code_shape)
            For data like those of `fit` they follow the source, a standard normal by default. Constant columns have no
            code, a category has as many as it has values (two values have one); those of missing cells are NaN.
        """
        check_is_fitted(self)
        samples = self._checked(X)
        condition = self._known_condition(y, len(samples))
        parts = []
        for start, chunk in samples.chunks():
            known = condition(slice(start, start + len(chunk)))
            parts.append(self._carry(self._encoder.encode(chunk), known, n_steps, solver, backward=True))
        return np.concatenate(parts)

    def decode(self, Z: Any, y: Any = None, *, n_steps: int | None = None, solver: str | None = None) -> Any:
        """Samples of latent codes, the inverse of `encode` to the accuracy of the solver.

        Parameters
        ----------
        Z : array-like of shape (n_samples, *code_shape)
        y, n_steps, solver
            As in `encode`.

        Returns
        -------
        X : as in `fit`, of shape (n_samples, *sample_shape)
            Unlike `sample`, floating point columns are not put on the grid of the training values.
        """
        check_is_fitted(self)
        codes = check_codes(Z, self._encoder.code_shape, missing=self._is_masked)
        condition = self._known_condition(y, len(codes))(slice(0, len(codes)))
        carried = self._carry(codes, condition, n_steps, solver, backward=False)
        return self._encoder.container.wrap(self._encoder.decode(carried))

    # -- how they share their work ------------------------------------------------------------------------------

    def _checked(self, X: Any, min_samples: int = 1) -> preprocessing.SampleRows:
        """Rows like those of `fit`, checked; cells of tables may be missing if the model knows what that means."""
        container, missing = self._encoder.container, self._is_masked
        return check_samples(self, X, reset=False, min_samples=min_samples, container=container, missing=missing)

    def _samples(self, codes: Tensor) -> NDArray[Any]:
        """Codes (n, *code_shape) in the data's units, ranges and precision."""
        return self._encoder.container.narrow(self._encoder.restore(to_numpy(codes)))

    def _states(self, codes: Tensor) -> NDArray[np.float64]:
        """States (n_steps + 1, n, *code_shape) in the data's units."""
        states = self._encoder.decode(to_numpy(codes.flatten(0, 1)))
        return states.reshape(*codes.shape[:2], *self.sample_shape_)

    def _carry(
        self,
        codes: NDArray[np.float64],
        condition: Tensor | None,
        n_steps: int | None,
        solver: str | None,
        *,
        backward: bool,
    ) -> NDArray[np.float64]:
        """Integrate codes forwards or backwards in double precision."""
        # the two directions undo each other: by the velocity, unless jumps were learned both ways
        jumps = self._jumps_back or (solver == "flow_map" and not backward)
        steps, method = self._steps_and_solver(n_steps, solver, velocity=not jumps)
        network = self._inspection_network()
        dtype = next(network.parameters()).dtype
        x = torch.as_tensor(codes, dtype=dtype, device=self._fitted_device)
        condition, absent = None if condition is None else condition.to(dtype), x.isnan()
        if self._is_masked and bool(absent.any()):
            x = x.nan_to_num(0.0)
            condition = with_entries(condition, x, torch.zeros_like(x), absent.to(dtype))
        carried = self._integrate(x, condition, n_steps=steps, solver=method, backward=backward, network=network)
        return to_numpy(carried.masked_fill(absent, torch.nan))


def to_numpy(tensor: Tensor) -> NDArray[np.float64]:
    """A tensor as an array in double precision."""
    return tensor.detach().cpu().double().numpy()
