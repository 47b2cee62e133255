"""Plain-text tables of a `SampleReport`."""

from __future__ import annotations

from collections.abc import Mapping

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
}
MAX_COLUMNS = 20
NAME_WIDTH = 24


def measures_table(measures: Mapping[str, Mapping[str, float]]) -> str:
    """One line a measure: its value, its floor, and which way is better."""
    lines = [f"{'measure':<20}{'synthetic':>11}{'floor':>11}   better"]
    for name, row in measures.items():
        lines.append(f"{name:<20}{row['synthetic']:>11.4f}{row['floor']:>11.4f}   {BETTER[name]}")
    return "\n".join(lines)


def columns_table(columns: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    """Two lines a column, real above synthetic; the first 20 columns."""
    shown = dict(list(columns.items())[:MAX_COLUMNS])
    statistics = list(next(iter(shown.values())))
    width = min(NAME_WIDTH, max(len("column"), *map(len, shown)))
    lines = [f"{'column':<{width}}  {'':<9}" + "".join(f"{statistic:>11}" for statistic in statistics)]
    for name, column in shown.items():
        for side, label in (("real", _shorten(name)), ("synthetic", "")):
            values = "".join(f"{column[statistic][side]:>11.4g}" for statistic in statistics)
            lines.append(f"{label:<{width}}  {side:<9}{values}")
    if len(columns) > len(shown):
        lines.append(f"... and {len(columns) - len(shown)} more columns, in to_frame('columns') and to_dict()")
    return "\n".join(lines)


def _shorten(name: str) -> str:
    return name if len(name) <= NAME_WIDTH else name[: NAME_WIDTH - 3] + "..."
