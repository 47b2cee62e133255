"""What all estimators are: scikit-learn's protocol with parts that have parameters, fits that fail safely, files."""

from __future__ import annotations

from typing import Any, Self

from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from flowmatch import training
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
