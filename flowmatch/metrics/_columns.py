"""Differences of tables, column by column."""

from __future__ import annotations

from typing import Any

import numpy as np

from flowmatch.metrics._samples import FloatArray
from flowmatch.metrics.table_reader import Encoding, SampleTables

QUANTILES = {"min": 0.0, "25%": 0.25, "50%": 0.5, "75%": 0.75, "max": 1.0}


def column_differences(
    real: FloatArray, rows: FloatArray, train: FloatArray, encoding: Encoding
) -> list[dict[str, Any]]:
    """Differences of `rows` from `real` rows, both (n, d), column by column; missing entries count in "missing" alone.

    Parameters
    ----------
    real, rows : ndarray of shape (n, d) and (m, d)
        Entries of the encoding's tables.
    train : ndarray of shape (k, d)
        All training rows, whose range or levels a value is inside of or not.
    encoding : Encoding
        Whose scale is the unit of "wasserstein".

    Returns
    -------
    list of dict
        For each column:

        * "distance": for numeric columns the Kolmogorov-Smirnov distance, the largest difference of the distribution
          functions (Smirnov, 1939); for categories the total variation distance, half the sum of the differences of
          the shares (Levin and Peres, 2017, prop. 4.2). Both are the largest difference in the share of rows that an
          event has: any half line, any set of levels.
        * "wasserstein": for numeric columns the 1-Wasserstein distance in standard deviations of the real column (Peyre
        and
          Cuturi, 2019, remark 2.30); for categories at distance 1 from each other it is the total variation distance
          (prop. 4.7 of Levin and Peres).
        * "missing": difference in the share of missing entries.
        * "outside": share of observed entries outside the training rows' range, or of a level that they lack.

        Where one side has no observed entry "distance" is 1, where neither has it is 0.
    """
    from scipy.stats import ks_2samp, wasserstein_distance

    found = []
    for column, is_category in enumerate(encoding.tables.is_category):
        first, second, seen = (_observed(side[:, column]) for side in (real, rows, train))
        if len(first) == 0 or len(second) == 0:
            distance, transport = float(len(first) != len(second)), None
        elif is_category:
            n_levels = len(encoding.tables.levels[column])
            shares = [np.bincount(side.astype(np.intp), minlength=n_levels) / len(side) for side in (first, second)]
            distance = transport = float(np.abs(shares[0] - shares[1]).sum() / 2)
        else:
            distance = float(ks_2samp(first, second, method="asymp").statistic)
            transport = float(wasserstein_distance(first, second) / encoding.scale[column])
        missing = abs(len(first) / len(real) - len(second) / len(rows))
        outside = _outside(second, seen, is_category)
        found.append({"distance": distance, "wasserstein": transport, "missing": missing, "outside": outside})
    return found


def statistics(real: FloatArray, synthetic: FloatArray, tables: SampleTables) -> dict[str, dict[str, dict[str, float]]]:
    """Statistics of each column, of both sides; of observed entries, in the column's own units.

    Numeric columns have mean, std and quantiles, categories the number of their levels and the share of the real rows'
    most frequent one; columns with a missing entry anywhere have the share of them.
    """
    found: dict[str, dict[str, dict[str, float]]] = {}
    for column, (name, is_category) in enumerate(zip(tables.names, tables.is_category, strict=True)):
        sides = {"real": real[:, column], "synthetic": synthetic[:, column]}
        describe = _describe_levels if is_category else _describe_numbers
        described = {side: describe(_observed(values)) for side, values in sides.items()}
        missing = {side: float(np.isnan(values).mean()) for side, values in sides.items()}
        found[name] = {key: {side: described[side][key] for side in sides} for key in described["real"]}
        if any(missing.values()) or is_category:
            found[name]["missing"] = missing
    return found


def _describe_numbers(values: FloatArray) -> dict[str, float]:
    if len(values) == 0:
        return dict.fromkeys(["mean", "std", *QUANTILES], float("nan"))
    quantiles = zip(QUANTILES, np.quantile(values, [*QUANTILES.values()]).tolist(), strict=True)
    return {"mean": float(values.mean()), "std": float(values.std()), **dict(quantiles)}


def _describe_levels(positions: FloatArray) -> dict[str, float]:
    top = float((positions == 0).mean()) if len(positions) else float("nan")
    return {"levels": float(len(np.unique(positions))), "top_share": top}


def _observed(values: FloatArray) -> FloatArray:
    return values[~np.isnan(values)]


def _outside(values: FloatArray, seen: FloatArray, is_category: bool) -> float:
    """Share of values that are not among those seen, or, in numeric columns, not in their range."""
    if len(values) == 0 or len(seen) == 0:
        return float(len(values) > 0)
    if is_category:
        return float((~np.isin(values, seen)).mean())
    return float(((values < seen.min()) | (values > seen.max())).mean())
