"""What all estimators are: scikit-learn's protocol with components as parameters, one fitted value, files."""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable
from typing import Any, Self

from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from flowmatch import training
from flowmatch.core.devices import available_device
from flowmatch.core.documentation import with_shared_parameters
from flowmatch.core.storable import ESTIMATORS
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

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        ESTIMATORS.setdefault(cls.__name__, cls)
        cls.__doc__ = with_shared_parameters(cls.__doc__)

    def check_parameters(self) -> None:
        """Raise a ValueError that names the first parameter which is out of its range."""

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
        """Set parameters; ``training__ema_decay=...`` also works while `training` is None, and names become components.

        Returns
        -------
        self
        """
        for name in {key.partition("__")[0] for key in params if "__" in key}:
            value = params.get(name, self.get_params(deep=False).get(name))
            if name == "training" and value is None:
                params[name] = training.TrainingOptions()
            elif value == "auto" and name in AUTO_MEANS:
                raise ValueError(
                    f"{name}='auto' has no parameters of its own ({', '.join(n for n in params if '__' in n)}); choose "
                    f"{AUTO_MEANS[name]}."
                )
            elif isinstance(value, str) and value in ALIASES.get(name, {}):
                component = ALIASES[name][value]()
                for key, nested in params.items():
                    if key.startswith(f"{name}__"):
                        component.set_params(**{key.partition("__")[2]: nested})  # a wrong name changes nothing here
                params[name] = component
        return super().set_params(**params)

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

    def __setstate__(self, state: dict[str, Any]) -> None:
        known = inspect.signature(type(self).__init__).parameters
        defaults = {name: p.default for name, p in known.items() if p.default is not inspect.Parameter.empty}
        super().__setstate__({**defaults, **state})  # a pickle of an earlier version lacks parameters that came later
        if "fitted_" in state:
            self.fitted_ = self.fitted_.to(available_device(state.get("device", "cpu")))
