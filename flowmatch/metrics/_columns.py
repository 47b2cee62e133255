"""Differences of tables, column by column."""

from __future__ import annotations

from typing import Any

import numpy as np

from flowmatch.metrics._samples import FloatArray
from flowmatch.metrics.tables import Encoding, Tables


def column_differences(
    real: FloatArray, rows: FloatArray, known: FloatArray, encoding: Encoding
) -> list[dict[str, Any]]:
    """Differences of `rows` from `real` rows, both (n, d), column by column; missing cells count in "missing" alone.

    Parameters
    ----------
    real, rows : ndarray of shape (n, d) and (m, d)
    known : ndarray of shape (k, d)
        All training rows, whose range or levels a value is inside of or not.
    encoding : Encoding
        Whose scale is the unit of "wasserstein".

    Returns
    -------
    list of dict
        For each column:

        * "distance": for numbers the Kolmogorov-Smirnov distance, the largest difference of the distribution
          functions (Smirnov, 1939); for categories the total variation distance, half the sum of the differences of
          the shares (Levin and Peres, 2017, prop. 4.2). Both are the largest difference in the share of rows that an
          event has: any half line, any set of levels.
        * "wasserstein": for numbers the 1-Wasserstein distance in standard deviations of the real column (Peyre and
          Cuturi, 2019, remark 2.30); for categories at distance 1 from each other it is the total variation distance
          (prop. 4.7 of Levin and Peres).
        * "missing": difference in the share of missing cells.
        * "outside": share of observed cells outside the training rows' range, or of a level that they lack.

        Where one side has no observed cell "distance" is 1, where neither has it is 0.
    """
    tables = encoding.tables
    found = []
    for column, levels in enumerate(tables.levels):
        first, second, seen = (_observed(side[:, column]) for side in (real, rows, known))
        outside = _outside(second, seen, None if levels is None else tables.n_known[column])
        if len(first) == 0 or len(second) == 0:
            distance, transport = float(len(first) != len(second)), None
        elif levels is None:
            distance, transport = kolmogorov_smirnov(first, second), _wasserstein(first, second, encoding.scale[column])
        else:
            distance = transport = total_variation(first, second, len(levels))
        missing = abs(len(first) / len(real) - len(second) / len(rows))
        found.append({"distance": distance, "wasserstein": transport, "missing": missing, "outside": outside})
    return found


def kolmogorov_smirnov(first: FloatArray, second: FloatArray) -> float:
    """Largest difference of two empirical distribution functions."""
    values = np.concatenate([first, second])
    shares = [np.searchsorted(np.sort(side), values, side="right") / len(side) for side in (first, second)]
    return float(np.abs(shares[0] - shares[1]).max())


def total_variation(first: FloatArray, second: FloatArray, n_levels: int) -> float:
    """Half the sum of the differences of the shares of levels, which come as positions."""
    shares = [np.bincount(side.astype(np.intp), minlength=n_levels) / len(side) for side in (first, second)]
    return float(np.abs(shares[0] - shares[1]).sum() / 2)


def statistics(real: FloatArray, synthetic: FloatArray, tables: Tables) -> dict[str, dict[str, dict[str, float]]]:
    """What describes a column, beside each other for both sides; of observed cells, in the column's own units.

    Numbers have mean, std and quantiles, categories the number of their levels and the share of the real rows' most
    frequent one; columns with a missing cell anywhere have the share of them.
    """
    found: dict[str, dict[str, dict[str, float]]] = {}
    for column, (name, levels) in enumerate(zip(tables.names, tables.levels, strict=True)):
        sides = {"real": real[:, column], "synthetic": synthetic[:, column]}
        describe = _describe_numbers if levels is None else _describe_levels
        described = {side: describe(_observed(values)) for side, values in sides.items()}
        missing = {side: float(np.isnan(values).mean()) for side, values in sides.items()}
        found[name] = {
            statistic: {side: described[side][statistic] for side in sides} for statistic in described["real"]
        }
        if any(missing.values()) or levels is not None:
            found[name]["missing"] = missing
    return found


def _describe_numbers(values: FloatArray) -> dict[str, float]:
    if len(values) == 0:
        return dict.fromkeys(["mean", "std", "min", "25%", "50%", "75%", "max"], float("nan"))
    quantiles = np.quantile(values, [0.0, 0.25, 0.5, 0.75, 1.0]).tolist()
    return {"mean": float(values.mean()), "std": float(values.std())} | dict(
        zip(["min", "25%", "50%", "75%", "max"], quantiles, strict=True)
    )


def _describe_levels(positions: FloatArray) -> dict[str, float]:
    return {
        "levels": float(len(np.unique(positions))),
        "top_share": float((positions == 0).mean()) if len(positions) else float("nan"),
    }


def _observed(values: FloatArray) -> FloatArray:
    observed: FloatArray = values[~np.isnan(values)]
    return observed


def _outside(values: FloatArray, seen: FloatArray, n_known: int | None) -> float:
    """Share of values outside the range of those seen, or, for categories, beyond the first `n_known` levels."""
    if len(values) == 0:
        return 0.0
    if n_known is not None:
        return float((values >= n_known).mean())
    if len(seen) == 0:
        return 1.0
    return float(((values < seen.min()) | (values > seen.max())).mean())


def _wasserstein(first: FloatArray, second: FloatArray, scale: float) -> float:
    from scipy.stats import wasserstein_distance

    return float(wasserstein_distance(first, second) / scale)
