"""What a call wants of the entries of rows: known ones, missing ones, and ranges, sets or functions for others."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowmatch.core.checks import listed
from flowmatch.model.flow_model import FlowModel
from flowmatch.model.rejection import Rejection
from flowmatch.preprocessing import Container, TableContainer, check_readable

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]


def require_masked_training(model: FlowModel, what: str) -> None:
    """Raise a ValueError unless the model is one of a table, and has learned to fill entries."""
    require_table(model, what)
    if model.missing is None or model.missing.masked_share == 0:
        raise ValueError(f"{what} entries, which this model has not learned: fit with masked_share > 0, such as 0.3.")


def require_table(model: FlowModel, what: str) -> None:
    """Raise a ValueError unless the model is one of a table."""
    if not model.encoder.is_table:
        raise ValueError(
            f"{what} entries of tables, but this model was fitted to samples of shape {model.encoder.sample_shape}."
        )


@dataclass(frozen=True)
class ColumnTest:
    """What the entries of a column are to satisfy.

    Attributes
    ----------
    column : int
    allows : callable
        Which of its numbers (n,) are allowed; none of them is NaN.
    text : str
        It in words.
    """

    column: int
    allows: Callable[[Array], Mask]
    text: str

    def violated(self, values: Array) -> Mask:
        """Which rows (n, d) are not as asked; those that miss the entry are not."""
        numbers = values[:, self.column]
        violated = np.isnan(numbers)
        violated[~violated] = ~self.allows(numbers[~violated])
        return violated


@dataclass(frozen=True)
class Given:
    """What a call wants of the rows to be drawn.

    Attributes
    ----------
    container : Container
    n_samples : int
    entries : ndarray of shape (n_samples or 1, n_columns) or None
        Known entries, NaN elsewhere.
    missing : ndarray of bool, shape (n_columns,)
        Entries that are to be missing.
    tests : tuple of ColumnTest
        What other entries are to satisfy.
    """

    container: Container
    n_samples: int
    entries: Array | None
    missing: Mask
    tests: tuple[ColumnTest, ...] = ()

    @classmethod
    def read(cls, model: FlowModel, given: Any, n_samples: int | None) -> Given:
        """What the `given` of a call means; without `n_samples`, as many rows as it has.

        Raises
        ------
        ValueError
            For columns that there are not, and what training has not come near.
        """
        check_readable(given, "given")
        d, container = model.n_features, model.encoder.container
        if given is None or (hasattr(given, "__len__") and len(given) == 0):
            return cls(container, 1 if n_samples is None else n_samples, None, np.zeros(d, dtype=bool))
        require_table(model, "given fixes")
        if not isinstance(given, Mapping) and not hasattr(given, "columns"):
            raise ValueError(
                f"given must be a dict of columns and their values, such as {{'age': 40}}, or a table of them, got "
                f"{type(given).__name__}."
            )
        known: list[tuple[_Column, Array]] = []
        missing, tests = np.zeros(d, dtype=bool), []
        for name in given.keys() if isinstance(given, Mapping) else given.columns:
            column, wanted = _Column.of(model, name), given[name]
            if isinstance(wanted, (slice, set, frozenset)) or callable(wanted) or _is_pair(wanted):
                tests.append(column.test(wanted))
                continue
            numbers = column.container.numbers_of(column.position, wanted)
            if len(numbers) == 1 and np.isnan(numbers[0]):
                column.check_is_missed()
                missing[column.position] = True
            else:
                known.append((column, numbers))
        most = max([1, *(len(numbers) for _, numbers in known)])
        n_samples = most if n_samples is None else n_samples
        if not known:
            return cls(container, n_samples, None, missing, tuple(tests))
        require_masked_training(model, "given fixes")
        for column, numbers in known:
            column.check(numbers, n_samples)
        entries = np.full((most, d), np.nan)
        for column, numbers in known:
            entries[:, column.position] = numbers
        return cls(container, n_samples, entries, missing, tuple(tests))

    @property
    def is_empty(self) -> bool:
        """Whether nothing is asked for."""
        return self.entries is None and not self.tests and not self.missing.any()

    @property
    def present(self) -> Mask:
        """Entries (n_columns,) that are known."""
        return np.zeros_like(self.missing) if self.entries is None else ~np.isnan(self.entries[0])

    @property
    def rejection(self) -> Rejection | None:
        """Which of the rows drawn are not as asked; None if all are."""
        if not self.tests:
            return None
        return Rejection(self._violates, "given: " + ", ".join(test.text for test in self.tests))

    def _violates(self, values: Array) -> Mask:
        held = self.container.read(self.container.wrap(values))  # type: ignore[attr-defined]  # as they are given out
        return np.any([test.violated(held) for test in self.tests], axis=0)


@dataclass(frozen=True)
class _Column:
    """A column of which something is given.

    Attributes
    ----------
    model : FlowModel
    container : TableContainer
    name : Any
    position : int
    """

    model: FlowModel
    container: TableContainer
    name: Any
    position: int

    @classmethod
    def of(cls, model: FlowModel, name: Any) -> _Column:
        container = model.encoder.container
        assert isinstance(container, TableContainer)
        position = container.position(name)
        if model.encoder.empty[position]:
            raise ValueError(f"given[{name!r}]: the column held no value in training, so that nothing is known of it.")
        return cls(model, container, name, position)

    @property
    def label(self) -> str:
        """What errors call it."""
        return f"given[{self.name!r}]"

    def shown(self, number: float) -> Any:
        """A number of the column as the user writes it."""
        return self.container.entry(self.position, number)

    @property
    def seen(self) -> str:
        """The range of the training data in words."""
        low, high = self.model.encoder.limits[:, self.position]
        return f"{self.shown(low)} to {self.shown(high)}"

    @property
    def is_category(self) -> bool:
        return bool(self.model.encoder.is_category[self.position])

    def check(self, entries: Array, n_samples: int) -> None:
        """Raise a ValueError for values that training has not come near, or another number of them."""
        if len(entries) not in (1, n_samples):
            raise ValueError(
                f"{self.label} has {len(entries)} values; expected one, or one for each of {n_samples} samples."
            )
        self.check_values(entries)

    def check_values(self, entries: Array) -> None:
        """Raise a ValueError for values that training has not come near."""
        if np.isnan(entries).any():
            raise ValueError(
                f"{self.label} has a missing value beside others; leave the column out to have it generated, or give "
                "None alone for rows that miss it."
            )
        if self.is_category:
            shares = self.model.encoder.category_shares(self.position)
            lacking = entries[shares[entries.astype(np.intp)] == 0]
            if len(lacking):
                raise ValueError(
                    f"{self.label} is {self.shown(lacking[0])!r}, which does not occur in the training data."
                )
            return
        n_columns = len(self.container.kinds)
        table = np.zeros((len(entries), n_columns))
        table[:, self.position] = entries
        kept = self.container.read(self.container.wrap(table))[:, self.position]
        lost = np.abs(kept - entries) > self.container.tolerance(n_columns)[self.position] * np.abs(entries)
        if lost.any():
            raise ValueError(
                f"{self.label} is {self.shown(entries[lost][0])}, which the column cannot hold: "
                f"{self.shown(kept[lost][0])} would come back."
            )
        low, high = self.model.encoder.limits[:, self.position]
        beyond = entries[(entries < low) | (entries > high)]
        if len(beyond):
            raise ValueError(
                f"{self.label} is {self.shown(beyond[0])}, outside the range of the training data, {self.seen}."
            )

    def check_is_missed(self) -> None:
        """Raise a ValueError unless training rows miss the column's entry."""
        missing, mine = self.model.missing, self.model.encoder.code_columns == self.position
        if missing is None or missing.patterns is None or not missing.patterns.patterns[:, mine].any():
            raise ValueError(
                f"{self.label} is a missing value, but no training row misses it; leave the column out to have it "
                "generated."
            )

    def test(self, wanted: Any) -> ColumnTest:
        """What a range, a set or a function asks of the column's entries."""
        if callable(wanted):
            name = getattr(wanted, "__name__", type(wanted).__name__)
            return ColumnTest(self.position, lambda numbers: self._call(wanted, numbers), f"{self.name!r} by {name}")
        if isinstance(wanted, (set, frozenset)):
            return self._one_of(sorted(wanted, key=repr))
        if isinstance(wanted, slice) and wanted.step is not None:
            raise ValueError(f"{self.label} is {wanted}; a range has no step: give slice(low, high), or a set.")
        ends = (wanted.start, wanted.stop) if isinstance(wanted, slice) else wanted
        return self._between(*ends)

    def _one_of(self, values: list[Any]) -> ColumnTest:
        if not values:
            raise ValueError(f"{self.label} is an empty set, which no row can satisfy.")
        allowed = self.container.numbers_of(self.position, values)
        self.check_values(allowed)
        return ColumnTest(
            self.position, lambda numbers: np.isin(numbers, allowed), f"{self.name!r} in {listed(values)}"
        )

    def _between(self, low: Any, high: Any) -> ColumnTest:
        if self.is_category:
            raise ValueError(
                f"{self.label} is a range, but the column holds categories: give a set, such as {{{low!r}}}, or a list "
                "of one each."
            )
        ends = [-np.inf if low is None else self._end(low), np.inf if high is None else self._end(high)]
        if ends[0] > ends[1]:
            raise ValueError(f"{self.label} is a range from {low} to {high}, which holds nothing.")
        least, most = self.model.encoder.limits[:, self.position]
        if ends[0] > most or ends[1] < least:
            raise ValueError(
                f"{self.label} is a range from {low} to {high}, outside the range of the training data, {self.seen}."
            )
        text = f"{self.name!r} from {low} to {high} (training data: {self.seen})"
        return ColumnTest(self.position, lambda numbers: (numbers >= ends[0]) & (numbers <= ends[1]), text)

    def _end(self, value: Any) -> float:
        number = self.container.numbers_of(self.position, value)
        if number.shape != (1,) or np.isnan(number[0]):
            raise ValueError(f"{self.label} has {value!r} as an end of a range; expected one value, or None.")
        return float(number[0])

    def _call(self, function: Callable[[Any], Any], numbers: Array) -> Mask:
        allowed = np.asarray(function(self.container.entries(self.position, numbers)))
        if allowed.shape != numbers.shape or allowed.dtype.kind != "b":
            raise ValueError(
                f"{self.label} returned {allowed.dtype} of shape {allowed.shape}; a function takes an array of the "
                f"column's entries and says of each whether it is allowed: bool of shape {numbers.shape}."
            )
        return allowed


def _is_pair(wanted: Any) -> bool:
    """Whether these are the two ends of a range."""
    return isinstance(wanted, tuple) and len(wanted) == 2
