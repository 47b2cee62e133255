"""What every swappable component shares: scikit-learn's parameter protocol on a frozen dataclass."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, Self, TypeVar


class Component:
    """A frozen dataclass that scikit-learn can clone, print and search over.

    Subclasses are declared with ``@dataclass(frozen=True)``; their fields are their parameters. The only way to
    change one is `set_params`, which is what `sklearn.base.BaseEstimator.set_params` calls for a nested name such
    as ``network__width``.

    Examples
    --------
    >>> from flowmatch.networks import MLP
    >>> MLP(width=64).get_params()["width"]
    64
    """

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Parameters by name; `deep` is accepted for scikit-learn's sake (components do not nest)."""
        return {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type]

    def validate(self) -> None:
        """Raise a ValueError that names the first parameter out of its range; nothing by default."""

    def set_params(self, **params: Any) -> Self:
        """Set parameters by name and return the component.

        Raises
        ------
        ValueError
            If a name is not a parameter; the message lists those there are.
        """
        known = self.get_params()
        for name, value in params.items():
            if name not in known:
                raise ValueError(
                    f"{type(self).__name__} has no parameter {name!r}. Its parameters are {', '.join(known)}."
                )
            object.__setattr__(self, name, value)
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
