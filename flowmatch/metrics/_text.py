"""Reports as plain text: aligned tables."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

BETTER = {
    **dict.fromkeys(("sliced_wasserstein", "wasserstein", "energy_distance"), "lower"),
    **dict.fromkeys(("column_distance", "missing_difference", "pair_difference"), "lower"),
    **dict.fromkeys(("precision", "recall", "coverage"), "higher"),
    **dict.fromkeys(("copy_share", "duplicate_share", "nearest_p05", "nearest_median"), "near the floor"),
    **dict.fromkeys(("density", "outside_share"), "near the floor"),
    "copy_gap": "near 0",
    **dict.fromkeys(
        ("frechet_convolutions", "frechet_spectrum", "log_spectral_distance", "spectral_convergence"), "lower"
    ),
    **dict.fromkeys(("envelope_distance", "autocorrelation_distance", "coherence_distance"), "lower"),
    **dict.fromkeys(("rms_distance", "skewness_distance", "kurtosis_distance", "crest_distance"), "lower"),
    **dict.fromkeys(("bpfo_energy", "bpfi_energy", "bsf_energy", "ftf_energy"), "near 1"),
    **dict.fromkeys(("copy_shift", "copy_half"), "near the floor"),
    **dict.fromkeys(
        ("c2st_auc", "c2st_spectrum", "c2st_convolutions", "membership_nearest", "membership_density"), "near 0.5"
    ),
}
TRAINED_ON_REAL = "higher; floor: trained on real rows"
MAX_COLUMNS = 20
MAX_WORST = 5
NAME_WIDTH = 24

Columns = Mapping[str, Mapping[str, Mapping[str, float]]]


def aligned(rows: Sequence[Sequence[str]], left: Collection[int] = (0,)) -> str:
    """Rows of texts in columns, those at the positions `left` aligned to the left and all others to the right."""
    columns = []
    for position, texts in enumerate(zip(*rows, strict=True)):
        width = max(map(len, texts))
        columns.append([text.ljust(width) if position in left else text.rjust(width) for text in texts])
    return "\n".join("   ".join(row).rstrip() for row in zip(*columns, strict=True))


def report_text(
    measures: Mapping[str, Mapping[str, float]],
    columns: Columns,
    differences: Mapping[str, Mapping[str, Any]],
    pairs: Sequence[Mapping[str, Any]],
) -> str:
    """All tables of a report: measures, numeric columns, categories, and where the differences are largest."""
    tables = [measures_table(measures)]
    shown = list(columns.items())[:MAX_COLUMNS]
    dates = {name for name, row in differences.items() if row["kind"] == "date"}
    for is_category in (False, True):
        of_kind = {name: column for name, column in shown if ("levels" in column) == is_category}
        tables += [columns_table(of_kind, dates)] if of_kind else []
    if len(columns) > len(shown):
        tables[-1] += f"\n... and {len(columns) - len(shown)} more columns, in to_frame('columns') and to_dict()"
    tables += [_differences_table(differences)] if differences else []
    tables += [_pairs_table(pairs)] if pairs else []
    return "\n\n".join(tables)


def measures_table(measures: Mapping[str, Mapping[str, float]]) -> str:
    """One line a measure: its value, its floor, and which way is better."""
    rows = [["measure", "synthetic", "floor", "better"]]
    for name, row in measures.items():
        rows.append([name, f"{row['synthetic']:.4f}", f"{row['floor']:.4f}", BETTER.get(name, TRAINED_ON_REAL)])
    return aligned(rows, left=(0, 3))


def columns_table(columns: Columns, dates: Collection[str] = (), head: str = "column") -> str:
    """Two lines a column, real above synthetic; the values of `dates` are days since 1970."""
    statistics = list(dict.fromkeys(statistic for column in columns.values() for statistic in column))
    none = {"real": 0.0, "synthetic": 0.0}  # the missing entries of a column without them
    rows = [[head, "", *statistics]]
    for name, column in columns.items():
        for side, label in (("real", _shorten(name)), ("synthetic", "")):
            texts = [
                _value_text(column.get(statistic, none)[side], name in dates and statistic not in ("std", "missing"))
                for statistic in statistics
            ]
            rows.append([label, side, *texts])
    return aligned(rows, left=(0, 1))


def _differences_table(differences: Mapping[str, Mapping[str, Any]]) -> str:
    """The columns that are farthest from the real ones."""
    rows = [["farthest columns", "distance", "floor", "missing", "outside", "measured by"]]
    for name in sorted(differences, key=lambda name: -differences[name]["distance"])[:MAX_WORST]:
        row = differences[name]
        by = "total variation" if row["kind"] == "category" else "Kolmogorov-Smirnov"
        values = [f"{row[key]:.4f}" for key in ("distance", "distance_floor", "missing", "outside")]
        rows.append([_shorten(name), *values, by])
    return aligned(rows, left=(0, 5))


def _pairs_table(pairs: Sequence[Mapping[str, Any]]) -> str:
    """The pairs whose association is farthest from the real one."""
    rows = [["farthest pairs", "real", "synthetic", "difference", "floor", "measured by"]]
    for pair in sorted(pairs, key=lambda pair: -abs(pair["difference"]))[:MAX_WORST]:
        name = f"{_shorten(pair['first'])}, {_shorten(pair['second'])}"
        values = (pair["real"], pair["synthetic"], abs(pair["difference"]), abs(pair["floor"]))
        rows.append([name, *(f"{value:.4f}" for value in values), pair["measure"]])
    return aligned(rows, left=(0, 5))


def _value_text(value: float, is_date: bool) -> str:
    return str(np.datetime64(math.floor(value), "D")) if is_date and np.isfinite(value) else f"{value:.4g}"


def _shorten(name: str) -> str:
    return name if len(name) <= NAME_WIDTH else name[: NAME_WIDTH - 3] + "..."
