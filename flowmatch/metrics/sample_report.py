"""All measures of a synthetic sample at once, each beside its floor, and its columns and pairs of columns."""

from __future__ import annotations

import itertools
import numbers
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from flowmatch.core.checks import check_choice, check_count
from flowmatch.core.randomness import seed_from
from flowmatch.metrics._columns import column_differences, statistics
from flowmatch.metrics._downstream import downstream_scores, has_classes
from flowmatch.metrics._samples import FloatArray, RandomState, Samples
from flowmatch.metrics._sides import MIN_ROWS, Sides, cut
from flowmatch.metrics._text import report_text
from flowmatch.metrics.associations import MAX_COLUMNS, associations
from flowmatch.metrics.copies import copy_check, duplicate_share, nearest_distances
from flowmatch.metrics.energy import energy_distance
from flowmatch.metrics.fidelity import precision_recall_density_coverage
from flowmatch.metrics.membership import MIN_HELD_OUT, attack_rows
from flowmatch.metrics.table_reader import Encoding, SampleTables, find_column, read_tables
from flowmatch.metrics.transport import sliced_wasserstein, wasserstein
from flowmatch.metrics.two_sample import classifier_two_sample_test

if TYPE_CHECKING:
    import pandas as pd

MAX_ASSIGNED = 1000
"""Rows a side for exact transport, whose time is cubic."""
Measures: TypeAlias = dict[str, tuple[float, float]]
"""Value and floor by name."""
PARTS = ("measures", "columns", "differences", "pairs")
MEANS = {"column_distance": "distance", "outside_share": "outside", "missing_difference": "missing"}
"""Measures that are means over the columns of "differences"."""


@dataclass(frozen=True, repr=False)
class SampleReport:
    """Result of `report`; prints as tables.

    Parameters
    ----------
    measures : dict
        ``measures[name]["synthetic"]`` is the value of synthetic against real rows, ``measures[name]["floor"]`` that of
        real against real rows.
    columns : dict
        ``columns[column][statistic]["real"]`` and ``["synthetic"]``, in the column's own units; dates in days since
        1970.
    n_compared : int
        Rows a side that the measures were taken on.
    floor : str
        What the floor is: "held-out rows" or "the other half of the real rows".
    differences : dict
        ``differences[column][measure]``, for samples of shape (n, d): how far synthetic columns are from real ones.
    pairs : list of dict
        The association of each pair of columns in both samples; of tables with at most 500 columns.
    """

    measures: dict[str, dict[str, float]]
    columns: dict[str, dict[str, dict[str, float]]]
    n_compared: int
    floor: str
    differences: dict[str, dict[str, Any]] = field(default_factory=dict)
    pairs: list[dict[str, Any]] = field(default_factory=list)

    def __repr__(self) -> str:
        """Lay the report out as tables."""
        head = (
            f"Synthetic against real, {self.n_compared} rows a side; floor: {self.floor} against real.\n"
            f"Distances are in standard deviations of the real columns.\n"
        )
        return head + "\n" + report_text(self.measures, self.columns, self.differences, self.pairs)

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain dicts, lists, numbers and strings.

        Returns
        -------
        dict
            The fields of the report by name, ready for `json.dump`.
        """
        return asdict(self)

    def to_frame(self, part: str = "measures") -> pd.DataFrame:
        """Convert one part of the report to a pandas DataFrame.

        Parameters
        ----------
        part : {"measures", "columns", "differences", "pairs"}, default="measures"
            * "measures": one row a measure, columns "synthetic" and "floor".
            * "columns": one row a column, and for each statistic a pair of columns (statistic, "real") and
              (statistic, "synthetic").
            * "differences": one row a column; its "kind", "number", "date" or "category"; "distance", the
              Kolmogorov-Smirnov distance of numeric columns and the total variation distance of categories;
              "wasserstein", in standard deviations; "missing", the difference in the share of missing entries;
              "outside", the share of entries outside the real rows' range or set of values. Each has its floor beside
              it, "distance_floor" and so on.
            * "pairs": one row a pair of columns, "first" and "second"; the "measure" of their association,
              "spearman" (two numeric columns), "correlation_ratio" (a numeric one and categories) or "cramers_v" (two
              of categories); its values "real" and "synthetic", their "difference", and the "floor" of that.

        Returns
        -------
        pandas.DataFrame
            With the rows and columns above.

        Raises
        ------
        ValueError
            If `part` is none of them.
        """
        check_choice("part", part, PARTS)
        import pandas as pd

        if part == "pairs":
            return pd.DataFrame(self.pairs)
        if part != "columns":
            return pd.DataFrame.from_dict(self.measures if part == "measures" else self.differences, orient="index")
        return pd.concat({name: pd.DataFrame(column).unstack() for name, column in self.columns.items()}, axis=1).T


def report(
    real: Samples,
    synthetic: Samples,
    holdout: Samples | None = None,
    *,
    target: Any = None,
    categorical_features: Any = "auto",
    max_rows: int = 2000,
    random_state: RandomState = 0,
) -> SampleReport:
    """Compare synthetic rows with real ones on every measure, each beside its floor.

    Numeric columns are standardized by the real rows' mean and standard deviation (a constant column by its mean only),
    so that units do not matter. Categories are one-hot over sqrt(2): two different ones are at distance 1. Missing is a
    category of its own; in numeric columns an indicator, at distance 1, beside the mean.

    The floor is what the measure gives for real rows in the place of the synthetic ones: the best that can be asked
    for, and not 0, since two samples of one distribution differ. Most measures fall or rise with the number of rows, so
    value and floor are taken at one size, against the same real rows: every sample is cut, at random, to the smallest
    one's size and to `max_rows`. Without `holdout` the real rows are cut into two random halves, one the reference and
    one the floor, which halves that size: pass held-out rows when you have them.

    The exceptions are the measures of privacy and "outside_share": copies of rows that were cut away would go unseen,
    so all real rows are their training rows. Their floor is the value for held-out rows; without them, for real rows
    against the others, or for one half of the real rows against the other (the copy share hardly depends on the number
    of training rows, save in high dimension, where half of them put it a few hundredths too high).

    Parameters
    ----------
    real : array-like, tensor or DataFrame of shape (n, d) or (n, ...)
        The rows that the generator was fitted on. Tables (n, d) may hold numbers, dates, categories (text, booleans,
        pandas' category) and missing entries.
    synthetic : array-like, tensor or DataFrame of shape (m, d) or (m, ...)
        Its samples.
    holdout : array-like, tensor or DataFrame of shape (h, d) or (h, ...), default=None
        Real rows that it has not seen.
    target : str, int or sequence of array-like, default=None
        Target that a model predicts from the other columns, for the downstream scores: a column's name or position, or
        the targets of the samples, ``(y_real, y_synthetic)`` or ``(y_real, y_synthetic, y_holdout)``, which then are a
        last column of the tables in all measures. Categories and a few whole numbers are classes.
    categorical_features : "auto", None or array-like of str, int or bool, default="auto"
        Columns of categories by name, by position or as a mask. "auto": those of text, booleans and pandas' category.
    max_rows : int, default=2000
        Rows a side at most, for the measures whose time is quadratic and for the training rows of the downstream
        models; exact transport takes 1000 of them at most. Statistics of columns and pairs use all rows.
    random_state : int, Generator, RandomState or None, default=0
        Seeds the cuts, the directions of `sliced_wasserstein` and the classifiers.

    Returns
    -------
    SampleReport
        Prints as tables; `to_dict` and `to_frame` return its values. 2000 rows a side take about 5 s.

    Raises
    ------
    ValueError
        If the samples have different columns, are empty, 1-D or not finite (grids), or too few: 6 rows a side are the
        least, 12 real rows without `holdout`; if `target` or `categorical_features` name no column.

    See Also
    --------
    flowmatch.plotting.MarginalsDisplay : The columns, real beside synthetic.
    flowmatch.plotting.PairDifferenceDisplay : Differences of the associations of columns.
    flowmatch.plotting.EmbeddingDisplay : The rows in one plane.

    Notes
    -----
    Beside the measures that are functions of this module:

    * copy_share, copy_gap: `copy_check`, and how much its share lies above the floor.
    * duplicate_share: synthetic rows that equal a training row in every entry.
    * nearest_p05, nearest_median: quantiles of the distance to the closest training row. Below the floor, rows are too
      near to the training rows; above, too far from them.
    * membership_nearest, membership_density: areas under the ROC curves of `membership_attack`, from 12 rows of
      `holdout` on. Their floor is 0.5, guessing.
    * column_distance, missing_difference, outside_share: means over the columns of the report's "differences".
    * pair_difference: mean absolute difference over its "pairs".
    * macro_f1, balanced_accuracy or r2, of gradient boosted trees and of a linear model: trained on synthetic rows and
      tested on held-out ones. The floor is the same models trained on as many real rows. Without `holdout` the rows
      tested on are half of those that the generator was fitted on, which flatters it.

    Nothing here proves privacy: rows too near to the training set are seen, and what two simple attacks find out, not
    what can be inferred about one row by another.

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
    copy_gap                 0.00   0.00
    duplicate_share          0.00   0.00
    nearest_p05              0.03   0.03
    nearest_median           0.11   0.13
    membership_nearest       0.53   0.50
    membership_density       0.52   0.50
    column_distance          0.24   0.06
    outside_share            0.00   0.00
    pair_difference          0.09   0.10
    """
    check_count("max_rows", max_rows, MIN_ROWS)
    samples = {"real": real, "synthetic": synthetic} | ({} if holdout is None else {"holdout": holdout})
    tables, target_column = _read(samples, categorical_features, target)
    rng = np.random.default_rng(seed_from(random_state))
    sides = cut(tables.rows, rng)
    n_common = min(map(len, (sides.reference, sides.synthetic, sides.floor)))
    n_compared = min(n_common, max_rows)
    encoding, seed = Encoding.of(tables), int(rng.integers(2**31))

    measures = _measures(sides, encoding, n_compared, seed)
    differences, pairs = {}, []
    if all(len(np.shape(X)) == 2 for X in samples.values()):
        differences, pairs = _differences(sides, encoding, n_common), _pairs(sides, tables, n_common)
        measures |= _means(differences, pairs)
    if target_column is not None:
        measures |= _downstream(sides, encoding, target_column, n_compared, seed)
    return SampleReport(
        measures={name: {"synthetic": value, "floor": floor} for name, (value, floor) in measures.items()},
        columns=statistics(sides.train, sides.synthetic, tables),
        n_compared=n_compared,
        floor="held-out rows" if sides.held_out else "the other half of the real rows",
        differences=differences,
        pairs=pairs,
    )


def _read(samples: dict[str, Any], categorical_features: Any, target: Any) -> tuple[SampleTables, int | None]:
    """The samples as tables, and the position of the target among their columns."""
    if target is None or isinstance(target, (str, numbers.Integral)):
        tables = read_tables(samples, categorical_features)
        return tables, None if target is None else find_column("target", target, tables.names)
    if not isinstance(target, (tuple, list)) or len(target) != len(samples):
        got = f"a {type(target).__name__} of length {len(target)}" if hasattr(target, "__len__") else repr(target)
        raise ValueError(
            f"target must be a column's name or position, or a sequence (y_{', y_'.join(samples)}), got {got}."
        )
    tables = read_tables(samples, categorical_features, target)
    return tables, len(tables.names) - 1


def _measures(sides: Sides, encoding: Encoding, n_rows: int, seed: int) -> Measures:
    """The measures between samples, on `n_rows` of each, and those against all training rows."""
    train = encoding(sides.train)
    reference = train[: len(sides.reference)]
    synthetic, floor = encoding(sides.synthetic[:n_rows]), encoding(sides.floor[:n_rows])
    values, floors = (_distances(reference[:n_rows], rows, seed) for rows in (synthetic, floor))
    values["copy_share"], floors["copy_share"] = copy_check(train, synthetic).share, copy_check(reference, floor).share
    values["copy_gap"], floors["copy_gap"] = max(0.0, values["copy_share"] - floors["copy_share"]), 0.0
    values["duplicate_share"] = duplicate_share(sides.synthetic, sides.train)
    values |= nearest_distances(synthetic, train)
    own = not sides.held_out
    floors["duplicate_share"] = duplicate_share(sides.train if own else sides.floor, sides.train, leave_out=own)
    floors |= nearest_distances(floor, train, leave_out=own)
    if sides.held_out and len(floor) >= MIN_HELD_OUT:
        attack = attack_rows(train, synthetic, floor)
        values |= {"membership_nearest": attack.nearest_auc, "membership_density": attack.density_auc}
        floors |= {"membership_nearest": 0.5, "membership_density": 0.5}
    return {name: (values[name], floors[name]) for name in values}


def _distances(real: FloatArray, rows: FloatArray, seed: int) -> dict[str, float]:
    """Every measure of `rows` against `real`, by name; both are in random order."""
    return {
        "sliced_wasserstein": sliced_wasserstein(real, rows, random_state=seed),
        "wasserstein": wasserstein(real[:MAX_ASSIGNED], rows[:MAX_ASSIGNED]),
        "energy_distance": energy_distance(real, rows),
        **precision_recall_density_coverage(real, rows)._asdict(),
        "c2st_auc": classifier_two_sample_test(real, rows, random_state=seed),
    }


def _differences(sides: Sides, encoding: Encoding, n_rows: int) -> dict[str, dict[str, Any]]:
    """Differences of each column from the real one, each measure beside its floor."""
    real, found = sides.reference[:n_rows], {}
    values = column_differences(real, sides.synthetic[:n_rows], sides.train, encoding)
    floors = column_differences(real, sides.floor[:n_rows], sides.reference, encoding)
    for name, kind, value, floor in zip(encoding.tables.names, encoding.tables.kinds, values, floors, strict=True):
        found[name] = {"kind": kind}
        for measure in value:
            found[name] |= {measure: value[measure], f"{measure}_floor": floor[measure]}
    return found


def _pairs(sides: Sides, tables: SampleTables, n_rows: int) -> list[dict[str, Any]]:
    """The association of each pair of columns, in the order of the columns."""
    if len(tables.names) > MAX_COLUMNS:
        return []
    real, synthetic, floor = (
        associations(rows[:n_rows], tables) for rows in (sides.reference, sides.synthetic, sides.floor)
    )
    measures = ("spearman", "correlation_ratio", "cramers_v")  # of none, one and two categories
    return [
        {
            "first": tables.names[i],
            "second": tables.names[j],
            "measure": measures[tables.is_category[[i, j]].sum()],
            "real": float(real[i, j]),
            "synthetic": float(synthetic[i, j]),
            "difference": float(synthetic[i, j] - real[i, j]),
            "floor": float(floor[i, j] - real[i, j]),
        }
        for i, j in itertools.combinations(range(len(tables.names)), 2)
    ]


def _means(differences: dict[str, dict[str, Any]], pairs: list[dict[str, Any]]) -> Measures:
    """Means of the differences over columns and pairs."""

    def mean(rows: Any, measure: str, floor: str) -> tuple[float, float]:
        value, beside = np.mean([[abs(row[measure]), abs(row[floor])] for row in rows], axis=0).tolist()
        return value, beside

    columns = differences.values()
    found = {name: mean(columns, part, f"{part}_floor") for name, part in MEANS.items()}
    if not any(found["missing_difference"]):
        del found["missing_difference"]
    return found | ({"pair_difference": mean(pairs, "difference", "floor")} if pairs else {})


def _downstream(sides: Sides, encoding: Encoding, target: int, n_rows: int, seed: int) -> Measures:
    """Scores of models trained on synthetic rows, and on real ones."""
    classes = has_classes(sides.train[:, target], bool(encoding.tables.is_category[target]))
    values, floors = (
        downstream_scores(train[:n_rows], sides.floor, encoding, target, classes, seed)
        for train in (sides.synthetic, sides.reference)
    )
    return {name: (values[name], floors[name]) for name in values}
