"""All measures of a synthetic sample at once, each beside its floor, and the columns side by side."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from flowmatch._checks import check_count
from flowmatch.metrics._samples import (
    FloatArray,
    RandomState,
    Samples,
    as_pair,
    column_names,
    numpy_generator,
)
from flowmatch.metrics._text import columns_table, measures_table
from flowmatch.metrics.copies import copy_check
from flowmatch.metrics.energy import energy_distance
from flowmatch.metrics.fidelity import precision_recall_density_coverage
from flowmatch.metrics.transport import sliced_wasserstein, wasserstein
from flowmatch.metrics.two_sample import classifier_two_sample_test

if TYPE_CHECKING:
    import pandas as pd

MIN_ROWS = 6
"""Rows a side: five neighbours and the row itself."""
MAX_ASSIGNED = 1000
"""Rows a side for exact transport, whose time is cubic."""


@dataclass(frozen=True, repr=False)
class SampleReport:
    """What `report` found; print it.

    Attributes
    ----------
    measures : dict
        ``measures[name]["synthetic"]`` is the value of synthetic against real rows, ``measures[name]["floor"]`` that of
        real against real rows.
    columns : dict
        ``columns[column][statistic]["real"]`` and ``["synthetic"]``, in the column's own units.
    n_compared : int
        Rows a side that the measures were taken on.
    floor : str
        What the floor is: "held-out rows" or "the other half of the real rows".
    """

    measures: dict[str, dict[str, float]]
    columns: dict[str, dict[str, dict[str, float]]]
    n_compared: int
    floor: str

    def __repr__(self) -> str:
        """Lay the report out as two tables."""
        head = (
            f"Synthetic against real, {self.n_compared} rows a side; floor: {self.floor} against real.\n"
            f"Distances are in standard deviations of the real columns.\n"
        )
        return "\n".join([head, measures_table(self.measures), "", columns_table(self.columns)])

    def to_dict(self) -> dict[str, Any]:
        """Return plain dicts, numbers and strings, ready for `json.dump`."""
        return {
            "measures": {name: dict(row) for name, row in self.measures.items()},
            "columns": {
                name: {statistic: dict(pair) for statistic, pair in column.items()}
                for name, column in self.columns.items()
            },
            "n_compared": self.n_compared,
            "floor": self.floor,
        }

    def to_frame(self, part: str = "measures") -> pd.DataFrame:
        """Return a pandas DataFrame of one part of the report.

        Parameters
        ----------
        part : {"measures", "columns"}, default="measures"
            "measures": one row a measure, columns synthetic and floor. "columns": one row a column, and for each
            statistic a pair of columns (statistic, "real") and (statistic, "synthetic").

        Raises
        ------
        ValueError
            If `part` is neither.
        """
        if part not in ("measures", "columns"):
            raise ValueError(f"unknown part {part!r}. Choose one of 'measures', 'columns'.")
        import pandas as pd

        if part == "measures":
            return pd.DataFrame.from_dict(self.measures, orient="index")
        flat = {
            name: {(statistic, side): value for statistic, pair in column.items() for side, value in pair.items()}
            for name, column in self.columns.items()
        }
        frame = pd.DataFrame.from_dict(flat, orient="index")
        frame.columns = pd.MultiIndex.from_tuples(frame.columns)
        return frame


def report(
    real: Samples,
    synthetic: Samples,
    holdout: Samples | None = None,
    *,
    max_rows: int = 2000,
    random_state: RandomState = 0,
) -> SampleReport:
    """Compare synthetic rows with real ones on every measure, each beside its floor.

    Columns are standardised by the real rows' mean and standard deviation (a constant column by its mean only), so
    that units do not matter.

    The floor is what the measure gives for real rows in the place of the synthetic ones: the best that can be asked
    for, and not 0, since two samples of one law differ. Most measures fall or rise with the number of rows, so value
    and floor are taken at one size, against the same real rows: every sample is cut, at random, to the smallest one's
    size and to `max_rows`. Without `holdout` the real rows are cut into two random halves, one the reference and one
    the floor, which halves that size: hand over held-out rows when you have them.

    The exception is the copy check: copies of rows that were cut away would go unseen, so all real rows are its
    training rows. Its floor is the share for held-out rows, or for one half of the real rows against the other; the
    share hardly depends on the number of training rows, save in high dimension, where half of them put it a few
    hundredths too high.

    Parameters
    ----------
    real : array-like, tensor or DataFrame of shape (n, d) or (n, ...)
        The rows that the generator was fitted on.
    synthetic : array-like, tensor or DataFrame of shape (m, d) or (m, ...)
        Its samples.
    holdout : array-like, tensor or DataFrame of shape (h, d) or (h, ...), default=None
        Real rows that it has not seen.
    max_rows : int, default=2000
        Rows a side at most, for the measures whose time is quadratic; exact transport takes 1000 of them at most.
        Statistics of columns use all rows.
    random_state : int, Generator, RandomState or None, default=0
        Seeds the cuts, the directions of `sliced_wasserstein` and the classifiers' folds.

    Returns
    -------
    SampleReport
        Prints as a table; `to_dict` and `to_frame` give the numbers. 2000 rows a side take about 10 s.

    Raises
    ------
    ValueError
        If the samples have different columns, are empty, 1-D or not finite, or too few: 6 rows a side are the least,
        12 real rows without `holdout`.

    Examples
    --------
    >>> import numpy as np
    >>> from flowmatch.metrics import report
    >>> rng = np.random.default_rng(0)
    >>> real, holdout, draws = rng.normal(size=(3, 200, 2))
    >>> narrow = report(real, 0.5 * draws, holdout)  # half as wide as it should be; print(narrow) shows it all
    >>> print(narrow.to_frame().round(2))
                        synthetic  floor
    sliced_wasserstein       0.54   0.13
    wasserstein              0.69   0.27
    energy_distance          0.18   0.01
    precision                1.00   1.00
    recall                   0.84   1.00
    density                  1.04   1.03
    coverage                 0.75   0.96
    c2st_auc                 0.79   0.52
    copy_share               0.55   0.60
    """
    known, generated = as_pair(real, synthetic, ("real", "synthetic"))
    fresh = None if holdout is None else as_pair(real, holdout, ("real", "holdout"))[1]
    check_count("max_rows", max_rows, MIN_ROWS)
    rng = numpy_generator(random_state)

    constant = known.min(axis=0) == known.max(axis=0)  # their std may be 1e-17 instead of 0
    center, scale = known.mean(axis=0), np.where(constant, 1.0, known.std(axis=0))
    known_z, generated_z = (known - center) / scale, rng.permutation((generated - center) / scale)
    fresh_z = None if fresh is None else rng.permutation((fresh - center) / scale)

    reference, floor_rows = _reference_and_floor(rng.permutation(known_z), fresh_z)
    n_compared = _common_size(max_rows, reference, generated_z, floor_rows)
    reference_cut, generated_cut, floor_cut = (rows[:n_compared] for rows in (reference, generated_z, floor_rows))
    seed = int(rng.integers(2**31))
    values = _measure(reference_cut, generated_cut, seed) | {"copy_share": copy_check(known_z, generated_cut).share}
    floors = _measure(reference_cut, floor_cut, seed) | {
        "copy_share": copy_check(reference if fresh is None else known_z, floor_cut).share
    }
    return SampleReport(
        measures={name: {"synthetic": values[name], "floor": floors[name]} for name in values},
        columns=_column_statistics(known, generated, _names(real, synthetic, known.shape[1])),
        n_compared=n_compared,
        floor="the other half of the real rows" if fresh is None else "held-out rows",
    )


def _reference_and_floor(known: FloatArray, fresh: FloatArray | None) -> tuple[FloatArray, FloatArray]:
    """Real rows to compare with, and real rows to compare in the place of synthetic ones."""
    if fresh is not None:
        return known, fresh
    half = len(known) // 2
    return known[:half], known[half:]


def _common_size(max_rows: int, reference: FloatArray, generated: FloatArray, floor_rows: FloatArray) -> int:
    smallest = min(len(reference), len(generated), len(floor_rows))
    if smallest < MIN_ROWS:
        raise ValueError(
            f"a report needs {MIN_ROWS} rows a side. There are {len(reference)} real rows to compare with, "
            f"{len(generated)} synthetic rows and {len(floor_rows)} real rows for the floor "
            f"(without holdout, the real rows are cut in half)."
        )
    return min(smallest, max_rows)


def _measure(real: FloatArray, rows: FloatArray, seed: int) -> dict[str, float]:
    """Every measure of `rows` against `real`, by name; both are in random order."""
    return {
        "sliced_wasserstein": sliced_wasserstein(real, rows, random_state=seed),
        "wasserstein": wasserstein(real[:MAX_ASSIGNED], rows[:MAX_ASSIGNED]),
        "energy_distance": energy_distance(real, rows),
        **precision_recall_density_coverage(real, rows)._asdict(),
        "c2st_auc": classifier_two_sample_test(real, rows, random_state=seed),
    }


def _column_statistics(
    real: FloatArray, synthetic: FloatArray, names: list[str]
) -> dict[str, dict[str, dict[str, float]]]:
    sides = {"real": _statistics(real), "synthetic": _statistics(synthetic)}
    return {
        name: {
            statistic: {side: float(table[statistic][column]) for side, table in sides.items()}
            for statistic in sides["real"]
        }
        for column, name in enumerate(names)
    }


def _statistics(X: FloatArray) -> dict[str, FloatArray]:
    quantiles = np.quantile(X, [0.0, 0.25, 0.5, 0.75, 1.0], axis=0)
    return {"mean": X.mean(axis=0), "std": X.std(axis=0)} | dict(
        zip(["min", "25%", "50%", "75%", "max"], quantiles, strict=True)
    )


def _names(real: Samples, synthetic: Samples, n_columns: int) -> list[str]:
    """Take a DataFrame's column names if they tell the columns apart, else x0, x1, and so on."""
    names = column_names(real) or column_names(synthetic) or []
    return names if len(set(names)) == n_columns else [f"x{column}" for column in range(n_columns)]
