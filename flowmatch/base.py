"""What all estimators are: scikit-learn's protocol with components as parameters, one fitted value, files."""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable, Mapping
from typing import Any, Self

from sklearn.base import BaseEstimator, clone
from sklearn.utils.validation import check_is_fitted

from flowmatch import training
from flowmatch.core.component import Component, split_nested
from flowmatch.core.devices import available_device
from flowmatch.core.documentation import with_shared_parameters
from flowmatch.core.storable import ESTIMATORS, declared_types, is_a, register, require
from flowmatch.fitting import ALIASES
from flowmatch.persistence import save

AUTO_MEANS = {
    "network": "network='mlp' for tables, 'unet' or 'transformer' for grids",
    "preprocessing": "a transform by name, such as 'quantile'",
    "time_sampler": "a sampler by name, such as 'logit_normal'",
}
"""What to set before parameters inside "auto" can be."""


class Fitted:
    """An attribute that an estimator has once it is fitted, read off what its fit found.

    Parameters
    ----------
    path : str
        Where in `fitted_`, such as "model.network".
    """

    def __init__(self, path: str) -> None:
        self.read: Callable[[Any], Any] = operator.attrgetter(path)

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, estimator: Any, owner: type) -> Any:
        if estimator is None:
            return self
        try:
            return self.read(vars(estimator)["fitted_"])
        except (KeyError, AttributeError):
            raise AttributeError(f"{type(estimator).__name__!r} object has no attribute {self.name!r}") from None


class Estimator(BaseEstimator):
    """Base of everything public that has a `fit` and trains a flow.

    A subclass declares its parameters in its own ``__init__``. Its `fit` makes one value, which says all that was
    learned, and assigns it to `fitted_` in the end; what a fit refuses therefore changes nothing.
    """

    fitted_: Any
    component_names: Mapping[str, Mapping[str, Callable[[], Any]]] = ALIASES
    """What each string means, parameter by parameter."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        register(ESTIMATORS, cls)
        cls.__doc__ = with_shared_parameters(cls.__doc__)

    def check_parameters(self) -> Any:
        """Check the parameters, before any data are touched.

        Returns
        -------
        object
            The parameters as the objects that do the work, where a fit of one flow is all there is to do; else None.

        Raises
        ------
        ValueError
            That names the first parameter which is out of its range.
        """

    def check_fitted(self) -> None:
        """Raise a ValueError unless what a file holds as fitted is what the estimator's fit makes."""
        require(is_a(self.fitted_, declared_types(type(self))["fitted_"]), "fitted")

    @classmethod
    def from_fitted(cls, fitted: Any, **parameters: Any) -> Self:
        """An estimator that knows what another has learned.

        Parameters
        ----------
        fitted : object
            The `fitted_` of an estimator of the same class.
        **parameters
            Of the new estimator.

        Returns
        -------
        Estimator
        """
        estimator = cls(**parameters)
        estimator.fitted_ = fitted
        return estimator

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

    @classmethod
    def _component(cls, name: str, value: Any, changes: dict[str, Any]) -> Any:
        """What a parameter's value stands for, if parameters of its own are to change."""
        if isinstance(value, Component | BaseEstimator):
            return value
        if name == "training" and value is None:
            return training.TrainingOptions()
        nested = ", ".join(f"{name}__{inner}" for inner in changes)
        if isinstance(value, str) and value == "auto" and name in AUTO_MEANS:
            raise ValueError(f"{name}='auto' has no parameters of its own ({nested}); choose {AUTO_MEANS[name]}.")
        if isinstance(value, str) and value in cls.component_names.get(name, {}):
            return cls.component_names[name][value]()
        raise ValueError(f"there is no parameter {nested}: {name} is {value!r}, and only a component has parameters.")

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
        check_is_fitted(self)
        save(self, path)

    @property
    def working_device(self) -> Any:
        """The device that parameters ask for."""
        return getattr(self, "device", "cpu")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = tags.input_tags.string = tags.input_tags.categorical = True
        return tags

    def __setstate__(self, state: dict[str, Any]) -> None:
        known = inspect.signature(type(self).__init__).parameters
        defaults = {name: p.default for name, p in known.items() if p.default is not inspect.Parameter.empty}
        super().__setstate__({**defaults, **state})  # a pickle of an earlier version lacks parameters that came later
        if "fitted_" in state:
            self.fitted_ = self.fitted_.to(available_device(self.working_device))
