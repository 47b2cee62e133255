"""What all estimators are: scikit-learn's protocol with parts that have parameters, fits that fail safely, files."""

from __future__ import annotations

from typing import Any, Self

from sklearn.base import BaseEstimator, clone
from sklearn.utils.validation import check_is_fitted

from flowmatch import training
from flowmatch.core.component import Component, split_nested
from flowmatch.fitting.parameters import ALIASES

AUTO_MEANS = {
    "network": "network='mlp' for tables, 'unet' or 'transformer' for grids",
    "preprocessing": "a transform by name, such as 'quantile'",
    "time_sampler": "a sampler by name, such as 'logit_normal'",
}
"""What to set before parameters inside "auto" can be."""


class Estimator(BaseEstimator):
    """Base of everything public that has a `fit`.

    A subclass declares its parameters in its own ``__init__``, has a method ``_fit_in_place(X, y, sample_weight,
    fresh)``, and a `network_` once it is fitted.
    """

    _fitted_parameters: dict[str, Any]

    def set_params(self, **params: Any) -> Self:
        """Set parameters; those of a component, ``network__width=...``, replace it on this estimator.

        Other estimators that were given the same component keep it as it was, and a call that raises changes nothing.

        Parameters
        ----------
        **params : dict
            New values by name. Nested names also work where the component is given by its name or, for `training`,
            where it is None.

        Returns
        -------
        self : estimator instance

        Raises
        ------
        ValueError
            If a name is not a parameter.
        """
        known = self.get_params(deep=False)
        unknown = [key for key in params if key.partition("__")[0] not in known]
        if unknown:
            super().set_params(**{unknown[0]: params[unknown[0]]})  # raises, in scikit-learn's words
        own, nested = split_nested(params)
        estimators = []
        for name, changes in nested.items():
            value = self._component(name, own.get(name, known[name]), changes)
            if isinstance(value, BaseEstimator):
                clone(value).set_params(**changes)  # raises if that is wrong, before anything has changed
                estimators.append((value, changes))
            else:
                own[name] = value.replace(**changes)
        for estimator, changes in estimators:
            estimator.set_params(**changes)
        return super().set_params(**own)

    @staticmethod
    def _component(name: str, value: Any, changes: dict[str, Any]) -> Any:
        """What a parameter's value stands for, if parameters of its own are to change."""
        if isinstance(value, Component | BaseEstimator):
            return value
        if name == "training" and value is None:
            return training.TrainingOptions()
        nested = ", ".join(f"{name}__{inner}" for inner in changes)
        if isinstance(value, str) and value == "auto" and name in AUTO_MEANS:
            raise ValueError(f"{name}='auto' has no parameters of its own ({nested}); choose {AUTO_MEANS[name]}.")
        if isinstance(value, str) and value in ALIASES.get(name, {}):
            return ALIASES[name][value]()
        raise ValueError(f"there is no parameter {nested}: {name} is {value!r}, and only a component has parameters.")

    def _fit(self, X: Any, y: Any, sample_weight: Any, *, go_on: bool) -> Self:
        """Fit a copy and take over what it learned, so that an error leaves the estimator as it was."""
        go_on = go_on and hasattr(self, "network_")
        fitted = object.__new__(type(self))
        fitted.__dict__ = {name: value for name, value in vars(self).items() if go_on or not name.endswith("_")}
        try:
            fitted._fit_in_place(X, y, sample_weight, fresh=not go_on)
        except training.NonFiniteTrainingError:
            if "network_" in vars(fitted):  # the last good weights; a detector stays as it was
                self.__dict__ = dict(fitted.__dict__)
            raise
        self.__dict__ = dict(fitted.__dict__)
        return self

    def _fit_in_place(self, X: Any, y: Any, sample_weight: Any, *, fresh: bool) -> None:
        raise TypeError(f"{type(self).__name__} must define _fit_in_place.")

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
