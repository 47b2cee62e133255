"""Plain-text tables of a `SampleReport`."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

BETTER = {
    "sliced_wasserstein": "lower",
    "wasserstein": "lower",
    "energy_distance": "lower",
    "precision": "higher",
    "recall": "higher",
    "density": "near the floor",
    "coverage": "higher",
    "c2st_auc": "near 0.5",
    "copy_share": "near the floor",
    "copy_gap": "near 0",
    "duplicate_share": "near the floor",
    "nearest_p05": "near the floor",
    "nearest_median": "near the floor",
    "column_distance": "lower",
    "outside_share": "near the floor",
    "missing_difference": "lower",
    "pair_difference": "lower",
}
TRAINED_ON_REAL = "higher; floor: trained on real rows"
MAX_COLUMNS = 20
MAX_WORST = 5
NAME_WIDTH = 24

Columns = Mapping[str, Mapping[str, Mapping[str, float]]]


def report_text(
    measures: Mapping[str, Mapping[str, float]],
    columns: Columns,
    differences: Mapping[str, Mapping[str, Any]],
    pairs: Sequence[Mapping[str, Any]],
) -> str:
    """All tables of a report: measures, columns of numbers, of categories, and where the differences are largest."""
    shown = dict(list(columns.items())[:MAX_COLUMNS])
    kinds = (
        {name: column for name, column in shown.items() if ("levels" in column) == category}
        for category in (False, True)
    )
    dates = {name for name, row in differences.items() if row["kind"] == "date"}
    tables = [measures_table(measures), *(columns_table(kind, dates) for kind in kinds if kind)]
    if len(columns) > len(shown):
        tables[-1] += f"\n... and {len(columns) - len(shown)} more columns, in to_frame('columns') and to_dict()"
    if differences:
        tables.append(differences_table(differences))
    if pairs:
        tables.append(pairs_table(pairs))
    return "\n\n".join(tables)


def measures_table(measures: Mapping[str, Mapping[str, float]]) -> str:
    """One line a measure: its value, its floor, and which way is better."""
    width = max(20, *(len(name) + 2 for name in measures))
    lines = [f"{'measure':<{width}}{'synthetic':>11}{'floor':>11}   better"]
    for name, row in measures.items():
        better = BETTER.get(name, TRAINED_ON_REAL)
        lines.append(f"{name:<{width}}{row['synthetic']:>11.4f}{row['floor']:>11.4f}   {better}")
    return "\n".join(lines)


def columns_table(columns: Columns, dates: Collection[str] = ()) -> str:
    """Two lines a column, real above synthetic; the values of `dates` are days since 1970."""
    statistics = list(dict.fromkeys(statistic for column in columns.values() for statistic in column))
    width = min(NAME_WIDTH, max(len("column"), *map(len, columns)))
    lines = [f"{'column':<{width}}  {'':<9}" + "".join(f"{statistic:>11}" for statistic in statistics)]
    for name, column in columns.items():
        for side, label in (("real", _shorten(name)), ("synthetic", "")):
            values = "".join(
                _cell(column.get(statistic, _NONE)[side], name in dates and statistic not in _NO_DATES)
                for statistic in statistics
            )
            lines.append(f"{label:<{width}}  {side:<9}{values}")
    return "\n".join(lines)


def differences_table(differences: Mapping[str, Mapping[str, Any]]) -> str:
    """The columns that are farthest from the real ones."""
    worst = sorted(differences, key=lambda name: -differences[name]["distance"])[:MAX_WORST]
    width = min(NAME_WIDTH, max(len("farthest columns"), *map(len, worst)))
    lines = [f"{'farthest columns':<{width}}{'distance':>12}{'floor':>9}{'missing':>9}{'outside':>9}   measured by"]
    for name in worst:
        row = differences[name]
        by = "total variation" if row["kind"] == "category" else "Kolmogorov-Smirnov"
        lines.append(
            f"{_shorten(name):<{width}}{row['distance']:>12.4f}{row['distance_floor']:>9.4f}{row['missing']:>9.4f}"
            f"{row['outside']:>9.4f}   {by}"
        )
    return "\n".join(lines)


def pairs_table(pairs: Sequence[Mapping[str, Any]]) -> str:
    """The pairs whose association is farthest from the real one."""
    worst = sorted(pairs, key=lambda pair: -abs(pair["difference"]))[:MAX_WORST]
    names = [f"{_shorten(pair['first'])}, {_shorten(pair['second'])}" for pair in worst]
    width = max(len("farthest pairs"), *map(len, names))
    lines = [f"{'farthest pairs':<{width}}{'real':>9}{'synthetic':>11}{'difference':>12}{'floor':>9}   measured by"]
    for name, pair in zip(names, worst, strict=True):
        lines.append(
            f"{name:<{width}}{pair['real']:>9.4f}{pair['synthetic']:>11.4f}{abs(pair['difference']):>12.4f}"
            f"{abs(pair['floor']):>9.4f}   {pair['measure']}"
        )
    return "\n".join(lines)


_NONE = {"real": 0.0, "synthetic": 0.0}
"""What a column without missing cells has of them."""


_NO_DATES = ("std", "missing")


def _cell(value: float, is_date: bool) -> str:
    if is_date and np.isfinite(value):
        return f" {np.datetime64(math.floor(value), 'D')!s:>10}"
    return f"{value:>11.4g}"


def _shorten(name: str) -> str:
    return name if len(name) <= NAME_WIDTH else name[: NAME_WIDTH - 3] + "..."
