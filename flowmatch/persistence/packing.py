"""Parameters, arrays and encoders as JSON and tensors, and back."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flowmatch import anomaly, flow, networks, objectives, preprocessing, training
from flowmatch.core.component import Component
from flowmatch.core.user_warnings import warn
from flowmatch.forecasting.layout import Layout
from flowmatch.forecasting.tables import TableReader

COMPONENTS: dict[str, type[Any]] = {
    name: value
    for room in (anomaly, flow, networks, objectives, preprocessing, training)
    for name, value in vars(room).items()
    if isinstance(value, type) and issubclass(value, Component)
}
_TABLE = tuple(
    field.name
    for field in fields(preprocessing.TableContainer)
    if field.name not in {field.name for field in fields(preprocessing.Container)}
)
"""What a table knows of its columns, beside what any container knows."""

_TRAINING_ONLY = ("loss", "loss_weight", "phases", "callbacks")
_LEFT_OUT = {"left_out": True}
"""Stands for a parameter that a file cannot hold; it loads as the default."""


def require(condition: bool, what: str) -> None:
    if not condition:
        raise ValueError(f"the file is damaged: its {what} does not fit the rest.")


class Packer:
    """Python values to JSON; arrays go to `tensors` and leave their name."""

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        self.tensors = tensors

    def array(self, name: str, value: Any) -> dict[str, Any]:
        array = np.asarray(value)
        if array.dtype.kind not in "biuf":
            if not all(isinstance(entry, (str, bool, int, float)) for entry in array.ravel().tolist()):
                raise ValueError(
                    f"{name} of dtype {array.dtype} cannot be written to a file; save with pickle or joblib."
                )
            return {"list": array.tolist(), "dtype": "object" if array.dtype.kind == "O" else str(array.dtype)}
        self.tensors[name] = torch.from_numpy(np.array(array, order="C"))  # a file takes no memory twice
        return {"tensor": name}

    def container(self, value: preprocessing.Container, prefix: str = "") -> dict[str, Any]:
        packed: dict[str, Any] = {
            "kind": value.kind,
            "dtypes": list(value.dtypes),
            "columns": [_plain(name) for name in value.columns],
        }
        if isinstance(value, preprocessing.TableContainer):
            packed["table"] = {name: self._of_table(f"{prefix}{name}", getattr(value, name)) for name in _TABLE}
        return packed

    def _of_table(self, name: str, value: Any) -> Any:
        """What a table knows of its columns: arrays, and tuples of text or of arrays."""
        if isinstance(value, np.ndarray):
            return self.array(name, value)
        return [self.array(f"{name}.{i}", v) if isinstance(v, np.ndarray) else v for i, v in enumerate(value)]

    def field(self, name: str, value: Any) -> dict[str, Any]:
        if isinstance(value, preprocessing.Container):
            return {"container": self.container(value)}
        if isinstance(value, tuple):
            return {"arrays": [self.array(f"{name}.{i}", entry) for i, entry in enumerate(value)]}
        return self.array(name, value) if isinstance(value, np.ndarray) else {"value": value}

    def parameter(self, name: str, value: Any) -> Any:
        if isinstance(value, Component):
            if not _fits_in_a_file(value):
                return self._left_out(name, value)
            return {
                "component": type(value).__name__,
                "parameters": {key: self.parameter(key, inner) for key, inner in value.get_params(deep=False).items()},
            }
        if isinstance(value, (tuple, list)):
            unfit = any(isinstance(entry, Component) and not _fits_in_a_file(entry) for entry in value)
            if unfit or (name == "callbacks" and value):
                return self._left_out(name, value)
            return [self.parameter(name, entry) for entry in value]
        if isinstance(value, np.ndarray):
            return value.tolist()
        if isinstance(value, (str, bool, int, float, type(None))):
            return value
        if isinstance(value, (np.integer, np.floating, np.bool_)):
            return value.item()
        if isinstance(value, (os.PathLike, torch.device)):
            return str(value)
        return self._left_out(name, value)

    def _left_out(self, name: str, value: Any) -> dict[str, Any]:
        if name == "random_state":
            return _LEFT_OUT
        if name != "network" and name not in _TRAINING_ONLY:
            raise ValueError(f"parameter {name}={value!r} cannot be written to a file; save with pickle or joblib.")
        hint = "pass it to load(path, network=...)" if name == "network" else "set it again before another fit"
        warn(f"parameter {name}={value!r} cannot be written to a file: {hint}.")
        return _LEFT_OUT


class Unpacker:
    """Undo `Packer`."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self.tensors = tensors

    def array(self, saved: Mapping[str, Any]) -> NDArray[Any]:
        if "tensor" in saved:
            return self.tensors[saved["tensor"]].numpy()
        return np.asarray(saved["list"], dtype=saved["dtype"])

    def container(self, saved: Mapping[str, Any]) -> preprocessing.Container:
        columns = tuple(tuple(name) if isinstance(name, list) else name for name in saved["columns"])
        plain = preprocessing.Container(saved["kind"], tuple(saved["dtypes"]), columns)
        if "table" not in saved:
            return plain
        table = {name: self._of_table(value) for name, value in saved["table"].items()}
        require(set(table) == set(_TABLE), "table")
        n_columns = len(table["kinds"])
        require(all(len(value) == n_columns for value in table.values()), "table")
        require(set(table["kinds"]) <= {"number", "category", "boolean", "datetime", "timedelta"}, "table")
        return preprocessing.TableContainer(plain.kind, plain.dtypes, plain.columns, **table)

    def _of_table(self, saved: Any) -> Any:
        if isinstance(saved, dict):
            return self.array(saved)
        return tuple(self.array(entry) if isinstance(entry, dict) else entry for entry in saved)

    def field(self, saved: Mapping[str, Any]) -> Any:
        if "container" in saved:
            return self.container(saved["container"])
        if "arrays" in saved:
            return tuple(self.array(entry) for entry in saved["arrays"])
        return saved["value"] if "value" in saved else self.array(saved)

    def parameter(self, saved: Any) -> Any:
        if isinstance(saved, list):
            return tuple(map(self.parameter, saved))
        if not isinstance(saved, dict):
            return saved
        if str(saved["component"]) not in COMPONENTS:
            raise ValueError(f"the file names an unknown component {saved['component']!r}.")
        return COMPONENTS[saved["component"]](**self.parameters(saved["parameters"]))

    def parameters(self, saved: Mapping[str, Any]) -> dict[str, Any]:
        return {name: self.parameter(value) for name, value in saved.items() if value != _LEFT_OUT}


def _fits_in_a_file(component: Component) -> bool:
    """Whether a component is flowmatch's own and holds no function, nor do those inside it."""
    if COMPONENTS.get(type(component).__name__) is not type(component):
        return False
    return all(
        _fits_in_a_file(value) if isinstance(value, Component) else not callable(value)
        for value in component.get_params(deep=False).values()
    )


def _plain(value: Any) -> Any:
    """A column name as JSON can hold it."""
    if isinstance(value, tuple):
        return [_plain(part) for part in value]
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, (str, int, float, type(None))):
        return value
    raise ValueError(f"the column name {value!r} cannot be written to a file; save with pickle or joblib.")


def pack_encoder(pack: Packer, prefix: str, encoder: preprocessing.SampleEncoder) -> dict[str, Any]:
    state, categories = encoder.transform.get_state(), encoder.categories
    return {
        "container": pack.container(encoder.container, f"{prefix}container."),
        "categories": None
        if categories is None
        else {
            "n_levels": list(categories.n_levels),
            "shares": pack.array(f"{prefix}categories.shares", categories.shares_),
        },
        "is_category": pack.array(f"{prefix}encoder.is_category", encoder.is_category),
        "transform": pack.parameter("preprocessing", encoder.transform),
        "state": {name: pack.array(f"{prefix}transform.{name}", value) for name, value in state.items()},
        "varying": pack.array(f"{prefix}encoder.varying", encoder.varying),
        "constants": pack.array(f"{prefix}encoder.constants", encoder.constants),
        "levels": [pack.array(f"{prefix}encoder.levels.{i}", levels) for i, levels in enumerate(encoder.levels)],
        "limits": pack.array(f"{prefix}encoder.limits", encoder.limits),
        "sample_shape": list(encoder.sample_shape),
    }


def pack_conditions(pack: Packer, conditions: preprocessing.ConditionEncoder) -> dict[str, Any]:
    packed: dict[str, Any] = {"kind": type(conditions).__name__}
    for name, value in vars(conditions).items():
        if name.startswith("_"):
            continue
        if isinstance(value, preprocessing.SampleEncoder):
            packed[name] = {"encoder": pack_encoder(pack, f"conditions.{name}.", value)}
        else:
            packed[name] = pack.field(f"conditions.{name}", value)
    return packed


def rebuild_encoder(saved: Mapping[str, Any], unpack: Unpacker) -> preprocessing.SampleEncoder:
    sample_shape = tuple(saved["sample_shape"])
    require(all(type(size) is int and size > 0 for size in sample_shape), "sample_shape")
    transform = unpack.parameter(saved["transform"])
    require(isinstance(transform, preprocessing.ColumnTransform), "transform")
    state = {name: unpack.array(value) for name, value in saved["state"].items()}
    require(set(state) == {field.name for field in fields(transform) if not field.init}, "state")
    transform.set_state(state)
    encoder = preprocessing.SampleEncoder(
        unpack.container(saved["container"]),
        transform,
        unpack.array(saved["varying"]),
        unpack.array(saved["constants"]),
        sample_shape,
        tuple(unpack.array(levels) for levels in saved["levels"]),
        unpack.array(saved["limits"]),
        _rebuild_categories(saved["categories"], unpack),
        unpack.array(saved["is_category"]),
    )
    require(encoder.limits.shape == (2, sample_shape[0]), "limits")
    require(encoder.varying.shape == sample_shape[:1] and encoder.varying.dtype == bool, "varying")
    _check_categories(encoder)
    for levels in encoder.levels:
        require(levels.ndim == 1 and bool((np.diff(levels) > 0).all()), "levels")
    n_dtypes = len(encoder.container.dtypes)
    require(n_dtypes == (sample_shape[0] if encoder.container.kind in ("dataframe", "polars") else 1), "dtypes")
    require(len(encoder.levels) == (0 if encoder.is_table else sample_shape[0]), "levels")
    require(encoder.constants.shape == sample_shape[:1], "constants")
    codes = np.zeros((1, *encoder.code_shape))
    require(encoder.encode(encoder.decode(codes)).shape == codes.shape, "state")
    return encoder


def _rebuild_categories(saved: Mapping[str, Any] | None, unpack: Unpacker) -> preprocessing.CategoryCodes | None:
    if saved is None:
        return None
    n_levels, shares = tuple(saved["n_levels"]), unpack.array(saved["shares"])
    require(all(type(n) is int and n > 1 for n in n_levels), "categories")
    require(shares.shape == (sum(n_levels),) and bool((shares >= 0).all()), "categories")
    categories = preprocessing.CategoryCodes(n_levels)
    categories.set_state({"shares_": shares})
    return categories


def _check_categories(encoder: preprocessing.SampleEncoder) -> None:
    """Raise a ValueError if what an encoder knows of categories does not fit its columns."""
    if not encoder.is_table:
        require(encoder.categories is None, "categories")
        return
    is_category, container = encoder.is_category, encoder.container
    require(is_category.shape == encoder.sample_shape and is_category.dtype == bool, "categories")
    n_coded = int((is_category & encoder.varying).sum())
    require(n_coded == (0 if encoder.categories is None else len(encoder.categories.n_levels)), "categories")
    require(isinstance(container, preprocessing.TableContainer) or not is_category.any(), "table")
    if isinstance(container, preprocessing.TableContainer):
        require(len(container.kinds) == encoder.sample_shape[0], "table")
        require(bool((container.categorical == is_category).all()), "categories")
        counts = tuple(container.n_levels(int(j)) for j in np.flatnonzero(is_category & encoder.varying))
        require(counts == (() if encoder.categories is None else encoder.categories.n_levels), "categories")


def pack_factors(pack: Packer, factors: preprocessing.FactorModel) -> dict[str, Any]:
    """Where the noise of rows starts of which cells are given."""
    parts = {field.name: getattr(factors, field.name).cpu() for field in fields(factors)}
    return {name: pack.array(f"factors.{name}", part) for name, part in parts.items()}


def rebuild_factors(saved: Mapping[str, Any], unpack: Unpacker, n_codes: int) -> preprocessing.FactorModel:
    parts = {name: torch.from_numpy(unpack.array(value)) for name, value in saved.items()}
    factors = preprocessing.FactorModel(**parts)
    require(factors.mean.shape == factors.noise.shape == (n_codes,), "factors")
    require(factors.loadings.ndim == 2 and len(factors.loadings) == n_codes, "factors")
    require(all(part.dtype == torch.float32 for part in parts.values()) and bool((factors.noise > 0).all()), "factors")
    return factors


def pack_patterns(pack: Packer, patterns: preprocessing.MissingPatterns | None) -> dict[str, Any] | None:
    """Which cells are missing together."""
    if patterns is None:
        return None
    return {
        field.name: pack.array(f"patterns.{field.name}", getattr(patterns, field.name)) for field in fields(patterns)
    }


def rebuild_patterns(
    saved: Mapping[str, Any] | None, unpack: Unpacker, n_codes: int, size: int
) -> preprocessing.MissingPatterns | None:
    if saved is None:
        return None
    patterns = preprocessing.MissingPatterns(**{name: unpack.array(value) for name, value in saved.items()})
    n_rows = len(patterns.rows)
    require(patterns.patterns.ndim == 2 and patterns.patterns.shape[1] == n_codes, "patterns of missing cells")
    require(patterns.rows.ndim == 1 and patterns.shares.shape == (n_rows,), "patterns of missing cells")
    require(bool((patterns.shares >= 0).all()) and 0 < patterns.shares.sum() < np.inf, "patterns of missing cells")
    require(patterns.vectors.shape == (n_rows, size), "patterns of missing cells")
    known = n_rows > 0 and 0 <= patterns.rows.min() <= patterns.rows.max() < len(patterns.patterns)
    require(patterns.patterns.dtype == bool and patterns.rows.dtype == np.int64 and bool(known), "patterns")
    return patterns


def rebuild_conditions(saved: Mapping[str, Any] | None, size: Any, unpack: Unpacker) -> Any:
    if saved is None:
        require(size == 0, "condition_size")
        return None
    kinds = ("LabelEncoder", "NumberEncoder", "MixedEncoder", "GridEncoder", "WindowEncoder")
    require(saved["kind"] in kinds, "kind of conditions")
    values = {
        name: rebuild_encoder(value["encoder"], unpack) if "encoder" in value else unpack.field(value)
        for name, value in saved.items()
        if name != "kind"
    }
    conditions = getattr(preprocessing, saved["kind"])(**values)
    require(conditions.size == size, "condition_size")
    if isinstance(conditions, preprocessing.GridEncoder):
        return conditions
    if isinstance(conditions, preprocessing.WindowEncoder):
        _check_window_encoder(conditions)
        return conditions
    entries = conditions.classes if isinstance(conditions, preprocessing.LabelEncoder) else conditions.rows
    require(conditions.shares.shape == entries.shape[:1], "shares")
    require(conditions.encode(conditions.draw(1, np.random.RandomState(0)), 1).shape == (1, size), "conditions")
    return conditions


def pack_layout(layout: Layout) -> dict[str, Any]:
    """What a forecaster's states look like."""
    values = {field.name: getattr(layout, field.name) for field in fields(layout)}
    columns = [_plain(name) for name in layout.columns]
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()} | {
        "columns": columns
    }


def pack_reader(pack: Packer, reader: TableReader | None) -> dict[str, Any] | None:
    """How a forecaster reads mixed tables and series."""
    if reader is None:
        return None
    numbers = reader.numbers
    return {
        "container": pack.container(numbers.container, "reader."),
        "means": pack.array("reader.means", numbers.means),
        "holed": pack.array("reader.holed", numbers.holed),
        "exogenous": list(reader.exogenous),
        "known": list(reader.known),
    }


def rebuild_reader(saved: Mapping[str, Any] | None, unpack: Unpacker) -> TableReader | None:
    if saved is None:
        return None
    container, means, holed = (
        unpack.container(saved["container"]),
        unpack.array(saved["means"]),
        unpack.array(saved["holed"]),
    )
    require(isinstance(container, preprocessing.TableContainer), "table")
    assert isinstance(container, preprocessing.TableContainer)
    d = len(container.kinds)
    require(means.shape == (d,) and means.dtype == np.float64 and bool(np.isfinite(means).all()), "table")
    require(holed.shape == (d,) and holed.dtype == bool, "table")
    exogenous, known = tuple(saved["exogenous"]), tuple(saved["known"])
    require(all(type(j) is int and 0 <= j < d for j in (*exogenous, *known)), "table")
    return TableReader(preprocessing.TableNumbers(container, means, holed), exogenous, known)


def rebuild_layout(saved: Mapping[str, Any]) -> Layout:
    known = {field.name for field in fields(Layout)}
    require(set(saved) == known, "layout")
    values: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in saved.items()}
    values["columns"] = tuple(tuple(name) if isinstance(name, list) else name for name in values["columns"])
    layout = Layout(**values)
    shapes = (*layout.state_shape, *layout.forecast_shape, layout.n_lags, layout.horizon)
    require(all(type(size) is int and size > 0 for size in shapes), "layout")
    columns = (*layout.targets, *layout.known)
    require(all(type(j) is int and 0 <= j < layout.state_shape[0] for j in columns), "layout")
    require(set(layout.cycles) <= set(preprocessing.CYCLES) and isinstance(layout.is_table, bool), "layout")
    require(len(layout.columns) in (0, layout.state_shape[0]) and type(layout.spacing) in (str, float, int), "layout")
    return layout


def _check_window_encoder(encoder: preprocessing.WindowEncoder) -> None:
    """Raise a ValueError if the arrays of a forecaster's encoder do not fit each other."""
    for count in (encoder.n_lags, encoder.horizon, encoder.n_calendar + 1, encoder.n_windows):
        require(type(count) is int and count > 0, "windows")
    vectors = (encoder.mean, encoder.scale, encoder.target_mean, encoder.target_scale, encoder.intercept)
    require(all(vector.ndim == 1 for vector in vectors) and len(encoder.mean) > 0, "windows")
    require(encoder.mean.shape == encoder.scale.shape, "windows")
    require(encoder.target_mean.shape == encoder.target_scale.shape, "windows")
    require(encoder.grid.ndim == 1 and len(encoder.grid) <= 3 and bool((encoder.grid > 0).all()), "windows")
    for columns in (encoder.targets, encoder.known):
        require(columns.ndim == 1 and columns.dtype.kind == "i", "windows")
        require(bool(((columns >= 0) & (columns < len(encoder.mean))).all()), "windows")
    shape = (encoder.n_columns, encoder.horizon * len(encoder.target_mean))
    require(encoder.weights.shape == shape and encoder.intercept.shape == shape[1:], "windows")
    require(all(bool(np.isfinite(values).all()) for values in (*vectors, encoder.weights)), "windows")
    require(bool((encoder.scale > 0).all()) and bool((encoder.target_scale > 0).all()), "windows")
