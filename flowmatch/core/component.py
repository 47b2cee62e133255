"""What every swappable component shares: scikit-learn's parameter protocol on a frozen dataclass."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, Self, TypeVar

from flowmatch.core.storable import STORABLE


class Component:
    """A frozen dataclass that scikit-learn can clone, print and search over.

    Subclasses are declared with ``@dataclass(frozen=True)``; the fields of their constructor are their parameters.
    The only way to change one is `set_params`, which is what `sklearn.base.BaseEstimator.set_params` calls for a
    nested name such as ``network__width``.

    Examples
    --------
    >>> from flowmatch.networks import MLP
    >>> MLP(width=64).get_params()["width"]
    64
    """

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        STORABLE.setdefault(cls.__name__, cls)  # a file may name it

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Parameters by name; with `deep` those of components inside it too, as ``loss__beta``."""
        names = [field.name for field in fields(self) if field.init]  # type: ignore[arg-type]
        own = {name: getattr(self, name) for name in names}
        if not deep:
            return own
        nested = {
            f"{name}__{key}": inner
            for name, value in own.items()
            if isinstance(value, Component)
            for key, inner in value.get_params().items()
        }
        return {**own, **nested}

    def validate(self) -> None:
        """Raise a ValueError that names the first parameter out of its range; nothing by default."""

    def set_params(self, **params: Any) -> Self:
        """Set parameters by name, ``loss__beta`` for one of a component inside, and return the component.

        Raises
        ------
        ValueError
            If a name is not a parameter; the message lists those there are.
        """
        known = self.get_params(deep=False)
        for key in params:
            if key.partition("__")[0] not in known:
                raise ValueError(
                    f"{type(self).__name__} has no parameter {key!r}. Its parameters are {', '.join(known)}."
                )
        for name in [key for key in params if "__" not in key]:
            object.__setattr__(self, name, params[name])
        for key, value in params.items():  # after those: they may have replaced the component inside
            name, nested, inner = key.partition("__")
            if nested:
                component = getattr(self, name)
                if not isinstance(component, Component):
                    raise ValueError(
                        f"{type(self).__name__} has no parameter {key!r}: its {name} is {component!r}, and only a "
                        "component has parameters of its own."
                    )
                component.set_params(**{inner: value})
        return self


C = TypeVar("C", bound=Component)


def resolve_component(parameter: str, value: Any, base: type[C], aliases: Mapping[str, Callable[[], C]]) -> C:
    """Turn a string alias into its component and let a component pass.

    Raises
    ------
    ValueError
        If `value` is neither, or a parameter of it is out of range; the message names the parameter.
    """
    if isinstance(value, base):
        value.validate()
        return value
    if isinstance(value, str) and value in aliases:
        return aliases[value]()
    raise unknown_option(parameter, value, aliases, f"pass a {base.__name__}")


def unknown_option(parameter: str, value: Any, known: Any, otherwise: str = "") -> ValueError:
    """Error for a parameter value outside the `known` names, which the message lists."""
    names = ", ".join(repr(name) for name in known)
    return ValueError(
        f"unknown {parameter} {value!r}. Choose one of {names}{', or ' + otherwise if otherwise else ''}."
    )
