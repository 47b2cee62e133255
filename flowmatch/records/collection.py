"""Records: recordings of one machine or many, with one sampling rate and the same channels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Self

import numpy as np

from flowmatch.core.checks import check_count, check_number
from flowmatch.core.randomness import seed_from
from flowmatch.core.types import AnyArray, Array, Index, Mask
from flowmatch.records.record import NUMBERS, TEXTS, Record
from flowmatch.records.splits import check_share, choose_groups, warn_of_leaks
from flowmatch.records.windows import DenseWindows, check_hop, conditions_frame, cut_windows, window_starts

_SAME_RATE = 1e-6  # of itself, by which sampling rates that are one may differ


class Records(Sequence[Record]):
    """Recordings with one sampling rate and the same channels, to be filtered, cut and split.

    ``records[3]`` is one `Record`; slices, masks and arrays of integers give `Records`, ``a + b`` joins two.

    Parameters
    ----------
    records : iterable of Record
        At least one.

    Raises
    ------
    ValueError
        If there is none, or sampling rates or channels differ.

    See Also
    --------
    read_records : Read them from files.
    make_bearing_records : Simulate some.

    Examples
    --------
    >>> import numpy as np
    >>> from flowmatch.datasets import Record, Records
    >>> rng = np.random.default_rng(0)
    >>> records = Records(
    ...     Record(rng.normal(size=3000), fs=1000, label=label, bearing=bearing)
    ...     for bearing, label in (("A", "normal"), ("B", "normal"), ("C", "inner"), ("D", "inner"))
    ... )
    >>> records
    <Records: 4 of 1 channel (0) at 1000 Hz, 12 s in all; label: inner 2, normal 2>
    >>> records[records.label == "inner"].bearing
    array(['C', 'D'], dtype='<U1')
    >>> train, test = records.split(by="bearing", test=["B", "D"])
    >>> X, conditions = train.windows(1000)
    >>> X.shape, conditions["label"].tolist()
    ((6, 1, 1000), ['normal', 'normal', 'normal', 'inner', 'inner', 'inner'])
    """

    def __init__(self, records: Iterable[Record]) -> None:
        self._records = tuple(records)
        wrong = next((record for record in self._records if not isinstance(record, Record)), None)
        if wrong is not None:
            raise ValueError(f"records must be Record objects, got {type(wrong).__name__}: Record(signal, fs, ...).")
        if not self._records:
            raise ValueError("there is no record left, but Records hold at least one.")
        first = self._records[0]
        for record in self._records:
            if abs(record.fs / first.fs - 1) > _SAME_RATE:
                raise ValueError(
                    f"{record.id!r} has a sampling rate of {record.fs:g} Hz, {first.id!r} of {first.fs:g}: resample "
                    "them to one, record.resample(fs), or keep them apart."
                )
            if record.channels != first.channels:
                raise ValueError(
                    f"{record.id!r} has channels {record.channels}, {first.id!r} has {first.channels}; pass equal ones."
                )

    def __len__(self) -> int:
        return len(self._records)

    def __iter__(self) -> Iterator[Record]:
        return iter(self._records)

    def __getitem__(self, key: Any) -> Any:
        rows = np.arange(len(self))[key]
        return self._records[rows] if rows.ndim == 0 else type(self)(self._records[row] for row in rows)

    def __add__(self, other: Any) -> Self:
        return type(self)([*self, *other]) if isinstance(other, Records) else NotImplemented

    def __repr__(self) -> str:
        n, seconds = len(self.channels), self.n_samples.sum() / self.fs
        counts = ", ".join(f"{label} {count}" for label, count in sorted(Counter(self.label.tolist()).items()) if label)
        return (
            f"<Records: {len(self)} of {n} channel{'s' * (n > 1)} ({', '.join(self.channels)}) at {self.fs:g} Hz, "
            f"{seconds:.4g} s in all{'; label: ' * bool(counts)}{counts}>"
        )

    @property
    def signals(self) -> list[AnyArray]:
        """Signal of each record, (n_channels, n_samples)."""
        return [record.signal for record in self]

    @property
    def fs(self) -> float:
        """Sampling rate, samples per second."""
        return self._records[0].fs

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the channels."""
        return self._records[0].channels

    @property
    def n_samples(self) -> Index:
        """Number of samples of each record."""
        return np.array([record.n_samples for record in self])

    @property
    def label(self) -> AnyArray:
        """Label of each record, "" where unknown."""
        return self.column("label")

    @property
    def rpm(self) -> Array:
        """Turns per minute of each record, NaN where unknown."""
        return self.column("rpm")

    @property
    def load(self) -> Array:
        """Load of each record, NaN where unknown."""
        return self.column("load")

    @property
    def bearing(self) -> AnyArray:
        """Bearing of each record, "" where unknown."""
        return self.column("bearing")

    @property
    def id(self) -> AnyArray:
        """Name of each record."""
        return self.column("id")

    @property
    def conditions(self) -> Any:
        """What is known, a row a record: a DataFrame, or a dict of arrays if pandas is not installed."""
        return conditions_frame(self._known())

    def column(self, name: str) -> AnyArray:
        """One value of each record.

        Parameters
        ----------
        name : str
            "label", "rpm", "load", "bearing", "id", or a name in `extra`.

        Returns
        -------
        ndarray of shape (n_records,)
            Numbers, NaN where unknown, if all known values are numbers; else text, "" where unknown.

        Raises
        ------
        ValueError
            If no record knows it.
        """
        if name in TEXTS + NUMBERS:
            return np.array([getattr(record, name) for record in self])
        if name not in self._extra():
            known = [*TEXTS, *NUMBERS, *self._extra()]
            raise ValueError(f"no record has {name!r}; what may be known is {', '.join(known)}.")
        values = [record.extra.get(name, "") for record in self]
        try:
            return np.array([np.nan if value == "" else value for value in values], dtype=np.float64)
        except ValueError:
            return np.array(list(map(str, values)))

    def assign(self, **columns: Any) -> Self:
        """The same records, knowing something else.

        Parameters
        ----------
        **columns : scalar or sequence of length n_records
            Values for ``label``, ``rpm``, ``load``, ``bearing``, ``id``, or of any other name.

        Returns
        -------
        Records

        Raises
        ------
        ValueError
            If there is not one value, or one for each record.
        """
        for name, values in columns.items():
            if np.ndim(values) and len(values) != len(self):
                raise ValueError(f"{name} has {len(values)} values for {len(self)} records.")
        each = [
            {name: values[i] if np.ndim(values) else values for name, values in columns.items()}
            for i in range(len(self))
        ]
        return type(self)(
            replace(
                record,
                extra={**record.extra, **{name: v for name, v in new.items() if name not in TEXTS + NUMBERS}},
                **{name: v for name, v in new.items() if name in TEXTS + NUMBERS},
            )
            for record, new in zip(self, each, strict=True)
        )

    def resample(self, fs: float) -> Self:
        """The same records at another sampling rate, by `scipy.signal.resample_poly`.

        Parameters
        ----------
        fs : float
            New sampling rate, samples per second. What is above half of it is filtered out.

        Returns
        -------
        Records
        """
        return type(self)(record.resample(fs) for record in self)

    def windows(self, length: int, hop: int | str | None = None, *, per_record: int | None = None) -> tuple[Any, Any]:
        """Cut windows, never across two records.

        Windows of one record are not independent, and with ``hop < length`` they share samples. Split the records
        first (`split`), or use the column ``record`` or ``bearing`` of the conditions as groups of a cross-validation.

        Parameters
        ----------
        length : int
            Samples of a window.
        hop : int or "dense", default=None
            Samples from the start of a window to that of the next; None for `length`, without overlap. "dense" gives
            every window, from every start, unread: an estimator reads those that it needs.
        per_record : int, default=None
            Cut this many windows from each record instead, spread evenly over it, so that records of any length
            count the same.

        Returns
        -------
        X : ndarray of shape (n_windows, n_channels, length), or DenseWindows
            Record by record, in the order of time.
        conditions : DataFrame, or dict of ndarray if pandas is not installed
            A row a window: ``record`` (its id), ``start`` (first sample in it), and what is known of ``label``,
            ``rpm``, ``load``, ``bearing`` and others.

        Raises
        ------
        ValueError
            If a record is too short, or `hop` and `per_record` are both given.
        """
        length = check_count("length", length)
        step, per_record = check_hop(length, hop, per_record)
        starts = [window_starts(record.n_samples, length, step, per_record, record.id) for record in self]
        X = DenseWindows(self.signals, length) if isinstance(hop, str) else cut_windows(self.signals, starts, length)
        row = np.repeat(np.arange(len(self)), list(map(len, starts)))
        known = {name: values[row] for name, values in self._known().items()}
        return X, conditions_frame({"record": known.pop("record"), "start": np.concatenate(starts), **known})

    def split(
        self, by: str = "bearing", *, test: Any = 0.25, gap: float = 0.0, random_state: Any = None
    ) -> tuple[Self, Self]:
        """Split into training and test so that no window that is cut from one side overlaps one of the other.

        Parameters
        ----------
        by : {"bearing", "record", "load", "time"} or str, default="bearing"
            What is on one side only. "bearing": all records of one bearing are on one side; this is the split that
            says how faults of bearings are recognized that were never seen. "record", "load" or any other column keep
            records whole, with a warning if a bearing is on both sides. "time" cuts every record: the end is the test.
        test : float, or sequence of values, default=0.25
            Share of the bearings (records, loads, time) in the test, or the values of the column `by` that are. A share
            is drawn within each label, at least one on each side; a label with a single bearing (record) stays in
            training.
        gap : float, default=0.0
            Seconds left out between training and test, for ``by="time"`` only.
        random_state : int, Generator, RandomState or None, default=None
            Of the draw.

        Returns
        -------
        train, test : Records

        Raises
        ------
        ValueError
            If one side would be empty, a value is unknown, or a record does not say what is split by.
        """
        gap = check_number("gap", gap, 0)
        if by == "time":
            return self._split_by_time(check_share(test), round(gap * self.fs))
        if gap:
            raise ValueError(f"gap={gap:g} has no effect with by={by!r}, only with by='time'.")
        groups = np.arange(len(self)) if by == "record" and isinstance(test, float) else self.column(_column(by))
        unknown = np.flatnonzero(_unknown(groups))
        if len(unknown):
            raise ValueError(
                f"{len(unknown)} of {len(self)} records do not say their {by}, as {self[unknown[0]].id!r}: read it "
                f"from file names or a table, set it by records.assign({by}=...), or split by something else."
            )
        chosen = choose_groups(groups, self.label, by, test, np.random.default_rng(seed_from(random_state)))
        warn_of_leaks(self.bearing, self.label, chosen, by)
        return self[~chosen], self[chosen]

    def _split_by_time(self, share: float, gap: int) -> tuple[Self, Self]:
        parts = []
        for record in self:
            cut_at = record.n_samples - round(share * record.n_samples)
            if cut_at - gap < 1 or cut_at == record.n_samples:
                raise ValueError(
                    f"{record.id!r} has {record.seconds:g} s, too few for a test of {share:g} of it and a gap of "
                    f"{gap / self.fs:g} s."
                )
            parts.append((record.part(0, cut_at - gap), record.part(cut_at, record.n_samples)))
        return type(self)(train for train, _ in parts), type(self)(test for _, test in parts)

    def _extra(self) -> list[str]:
        return list(dict.fromkeys(name for record in self for name in record.extra))

    def _known(self) -> dict[str, AnyArray]:
        """Columns of which something is known."""
        columns = {"record": self.id, **{name: self.column(name) for name in ("label", *NUMBERS, "bearing")}}
        columns |= {name: self.column(name) for name in self._extra()}
        return {name: values for name, values in columns.items() if name == "record" or not _unknown(values).all()}


def _unknown(values: AnyArray) -> Mask:
    return values == "" if values.dtype.kind == "U" else np.isnan(values)


def _column(by: str) -> str:
    return "id" if by == "record" else by
