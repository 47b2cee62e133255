"""What a student offers: the methods of its teacher, in few evaluations."""

from __future__ import annotations

from typing import Any

from sklearn.utils import get_tags
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted


def _student_has(name: str) -> Any:
    """Whether the teacher, or the estimator that is to become one, offers a method."""

    def check(self: StudentMethods) -> bool:
        getattr(_known(self), name)
        return True

    return check


def _forecasts(self: StudentMethods) -> bool:
    """Whether the teacher is a forecaster."""
    return hasattr(_known(self), "rollout")


def _known(self: Any) -> Any:
    return vars(self).get("student_", self.estimator)


class StudentMethods:
    """Methods that `DistilledFlowMap` has where its teacher has them. `student_` makes `n_steps` evaluations a draw."""

    student_: Any
    estimator: Any
    n_steps: int

    @available_if(_student_has("sample"))
    def sample(self, *arguments: Any, n_steps: int | None = None, **named: Any) -> Any:
        """Draw in `n_steps` evaluations each.

        Parameters
        ----------
        *arguments, **named
            As in the teacher's `sample`: ``(n_samples, y, random_state)`` of a `FlowMatchingGenerator`,
            ``(X, n_samples, random_state)`` of a `ConditionalForecaster`. The same `random_state` draws the same noise
            as there.
        n_steps : int, optional
            In place of the estimator's own. More always work; fewer than it was distilled for are jumps not seen.

        Returns
        -------
        As the teacher's `sample`.
        """
        return self._student().sample(*arguments, n_steps=self.n_steps if n_steps is None else n_steps, **named)

    @available_if(_student_has("impute"))
    def impute(self, X: Any, *arguments: Any, n_steps: int | None = None, **named: Any) -> Any:
        """Fill missing cells in `n_steps` evaluations each; see `FlowMatchingGenerator.impute`.

        Parameters
        ----------
        X, *arguments, **named
            As there: ``(X, y, n_imputations, random_state)``.
        n_steps : int, optional
            In place of the estimator's own.
        """
        return self._student().impute(X, *arguments, n_steps=self.n_steps if n_steps is None else n_steps, **named)

    @available_if(_student_has("decode"))
    def decode(self, Z: Any, y: Any = None, *, n_steps: int | None = None) -> Any:
        """Samples of latent codes, in `n_steps` evaluations; see `FlowMatchingGenerator.decode`.

        Parameters
        ----------
        Z : array-like of shape (n_samples, *code_shape)
        y : array-like, optional
        n_steps : int, optional

        Returns
        -------
        X : as in `fit`, of shape (n_samples, *sample_shape)
        """
        n_steps = self.n_steps if n_steps is None else n_steps
        return self._student().decode(Z, y, n_steps=n_steps, solver=self._solver)

    @available_if(_student_has("encode"))
    def encode(self, X: Any, y: Any = None, *, n_steps: int | None = None) -> Any:
        """Latent codes of X in `n_steps` evaluations; needs ``inverse=True`` or ``method="reflow"``.

        `decode` undoes it as well as the student knows its teacher.

        Parameters
        ----------
        X : as in `fit`, of shape (n_samples, *sample_shape)
        y : array-like, optional
        n_steps : int, optional

        Returns
        -------
        Z : ndarray of shape (n_samples, *code_shape)

        Raises
        ------
        ValueError
            If the student has not learned the way back.
        """
        student = self._student()
        if student._predicts_jumps and not student._jumps_back:
            raise ValueError("this student has not learned the way from data to noise: fit it with inverse=True.")
        return student.encode(X, y, n_steps=self.n_steps if n_steps is None else n_steps, solver=self._solver)

    @available_if(_student_has("export"))
    def export(
        self, path: Any, *, format: str = "torch_export", n_steps: int | None = None, quantize: str | None = None
    ) -> None:
        """Write a sampler that runs without flowmatch; see `FlowMatchingGenerator.export`.

        Parameters
        ----------
        path, format, quantize
            As there.
        n_steps : int, optional
            In place of the estimator's own.
        """
        n_steps = self.n_steps if n_steps is None else n_steps
        self._student().export(path, format=format, n_steps=n_steps, quantize=quantize)

    # -- students of forecasters ----------------------------------------------------------------------------------

    @available_if(_forecasts)
    def predict(self, X: Any, **named: Any) -> Any:
        """The conditional mean; see `ConditionalForecaster.predict`."""
        return self._student().predict(X, **named)

    @available_if(_forecasts)
    def predict_quantiles(self, X: Any, quantiles: Any = (0.05, 0.5, 0.95), **named: Any) -> Any:
        """Quantiles of the forecast; see `ConditionalForecaster.predict_quantiles`."""
        return self._student().predict_quantiles(X, quantiles, **named)

    @available_if(_forecasts)
    def predict_interval(self, X: Any, coverage: float = 0.9, **named: Any) -> Any:
        """Central intervals of the forecast; see `ConditionalForecaster.predict_interval`."""
        return self._student().predict_interval(X, coverage, **named)

    @available_if(_forecasts)
    def rollout(self, X: Any, n_steps: int, n_samples: int = 1, random_state: Any = None, **named: Any) -> Any:
        """Carry forecasts on for `n_steps` states; see `ConditionalForecaster.rollout`."""
        return self._student().rollout(X, n_steps, n_samples, random_state, **named)

    @available_if(_forecasts)
    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """R2 of the mean; see `ConditionalForecaster.score`."""
        return self._student().score(X, y, sample_weight)

    @available_if(_forecasts)
    def crps(self, X: Any, y: Any = None) -> float:
        """Fair continuous ranked probability score; see `ConditionalForecaster.crps`."""
        return self._student().crps(X, y)

    @available_if(_forecasts)
    def energy_score(self, X: Any, y: Any = None) -> float:
        """Fair energy score; see `ConditionalForecaster.energy_score`."""
        return self._student().energy_score(X, y)

    def _student(self) -> Any:
        """The student, set to make as many evaluations as `n_steps` says now."""
        check_is_fitted(self)
        self.student_.n_steps = self.n_steps
        return self.student_

    @property
    def _solver(self) -> str:
        return "flow_map" if self.student_._predicts_jumps else "euler"

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()  # type: ignore[misc]
        if not hasattr(_known(self), "__sklearn_tags__"):  # no estimator; `fit` will say so
            return tags
        known = get_tags(_known(self))
        inputs = known.input_tags
        tags.input_tags.allow_nan, tags.input_tags.string = inputs.allow_nan, inputs.string
        tags.input_tags.categorical = inputs.categorical
        if _forecasts(self):
            tags.estimator_type, tags.regressor_tags = known.estimator_type, known.regressor_tags
            tags.target_tags = known.target_tags
        return tags
