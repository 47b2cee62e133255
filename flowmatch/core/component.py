"""What every swappable component shares: scikit-learn's parameter protocol on a frozen dataclass."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Self, TypeVar

from sklearn import get_config

from flowmatch.core.storable import STORABLE, register


class Component:
    """A frozen dataclass that scikit-learn can clone, print and search over.

    Subclasses are declared with ``@dataclass(frozen=True)``; the fields of their constructor are their parameters. A
    component never changes: `replace` gives another one, and ``set_params`` of an estimator puts that in its place
    for a nested name such as ``network__width``, so that estimators may share components.

    Examples
    --------
    >>> from flowmatch.networks import MLP
    >>> MLP(width=64).get_params()["width"]
    64
    """

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        register(STORABLE, cls)  # a file may name it
        if "__repr__" not in vars(cls):
            cls.__repr__ = Component.__repr__  # type: ignore[method-assign]  # else `dataclass` writes one of its own

    def __repr__(self) -> str:
        """The class and its parameters, those with their default values left out as scikit-learn is configured to."""
        params = self.get_params(deep=False)
        if get_config()["print_changed_only"]:
            defaults = {field.name: repr(_default(field)) for field in _parameters(self)}
            params = {name: value for name, value in params.items() if repr(value) != defaults.get(name)}
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in params.items())})"

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Parameters by name.

        Parameters
        ----------
        deep : bool, default=True
            Also those of components inside it, as ``loss__beta``.

        Returns
        -------
        dict
        """
        own = {field.name: getattr(self, field.name) for field in _parameters(self)}
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
        """Check the parameters that are declared by `flowmatch.core.checks.checked`; subclasses may check more.

        Raises
        ------
        ValueError
            That names the first parameter out of its range.
        """
        for field in _parameters(self):
            if "check" in field.metadata:
                field.metadata["check"](field.name, getattr(self, field.name))

    def replace(self, **params: Any) -> Self:
        """The same component with other parameters.

        Parameters
        ----------
        **params : dict
            New values by name, ``loss__beta`` for one of a component inside.

        Returns
        -------
        Component
            Of the same class.

        Raises
        ------
        ValueError
            If a name is not a parameter; the message lists those there are.

        Examples
        --------
        >>> from flowmatch.objectives import MultiScale, Sobolev
        >>> MultiScale(loss=Sobolev()).replace(loss__beta=0.5).loss.beta
        0.5
        """
        known = self.get_params(deep=False)
        for key in params:
            if key.partition("__")[0] not in known:
                raise ValueError(
                    f"{type(self).__name__} has no parameter {key!r}. Its parameters are {', '.join(known)}."
                )
        own, nested = split_nested(params)
        for name, inner in nested.items():
            component = own.get(name, known[name])
            if not isinstance(component, Component):
                raise ValueError(
                    f"{type(self).__name__} has no parameter {f'{name}__{next(iter(inner))}'!r}: its {name} is "
                    f"{component!r}, and only a component has parameters of its own."
                )
            own[name] = component.replace(**inner)
        return dataclasses.replace(self, **own)  # type: ignore[type-var]


def split_nested(params: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Parameters of one's own by name, and those of what is inside by its name and theirs: ``loss__beta`` is nested."""
    own = {key: value for key, value in params.items() if "__" not in key}
    nested: dict[str, dict[str, Any]] = {}
    for key, value in params.items():
        name, is_nested, inner = key.partition("__")
        if is_nested:
            nested.setdefault(name, {})[inner] = value
    return own, nested


def _parameters(component: Component) -> list[dataclasses.Field[Any]]:
    """Fields that the constructor takes; what a fit learns is none of them, and a class of another kind has none."""
    return [f for f in dataclasses.fields(component) if f.init] if dataclasses.is_dataclass(component) else []


def _default(field: dataclasses.Field[Any]) -> Any:
    """A field's default value; of one that must be given, a mark that no value is like."""
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


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


def shown(value: Any) -> str:
    """A value as an error message shows it, also where Python prints no integer of so many digits."""
    try:
        return repr(value)
    except ValueError:
        return f"a value of type {type(value).__name__} with more digits than Python prints"


def unknown_option(parameter: str, value: Any, known: Any, otherwise: str = "") -> ValueError:
    """Error for a parameter value outside the `known` names, which the message lists."""
    names = ", ".join(repr(name) for name in known)
    return ValueError(
        f"unknown {parameter} {shown(value)}. Choose one of {names}{', or ' + otherwise if otherwise else ''}."
    )
