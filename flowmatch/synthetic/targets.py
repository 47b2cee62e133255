"""Targets of a table: classes or numbers, read and given back in their container, and where numbers are sparse."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils.multiclass import type_of_target
from sklearn.utils.validation import assert_all_finite, column_or_1d

from flowmatch.preprocessing import Container, as_plain
from flowmatch.preprocessing.conditions import systematic_sample
from flowmatch.tables.frames import is_polars
from flowmatch.tables.reading import missing_entries


@dataclass(frozen=True)
class Target:
    """One value a row, and what y was when it came.

    Attributes
    ----------
    values : ndarray of shape (n,)
    n_indicators : int
        Columns of ones and zeros that stood for classes, 0 if there were none.
    original : object
        y itself.
    """

    values: NDArray[Any]
    n_indicators: int
    original: Any

    @classmethod
    def of(cls, y: Any) -> Target:
        """Read a target.

        Raises
        ------
        ValueError
            For anything but one value a row, or several classes a row.
        """
        if np.ndim(y) == 2 and np.shape(y)[1] > 1:
            table = np.asarray(as_plain(y, "y"))
            _check_whole(table)
            if type_of_target(table) != "multilabel-indicator" or not (table.sum(axis=1) == 1).all():
                raise ValueError(
                    f"y has shape {table.shape}. Multilabel and multioutput targets are not supported: expected one "
                    "value a row, or one column a class with exactly one 1 a row."
                )
            return cls(table.argmax(axis=1), table.shape[1], y)
        return cls(check_target(y), 0, y)

    def like(self, values: NDArray[Any]) -> Any:
        """Values (n_new,) in the container, dtype and layout that y had."""
        if self.n_indicators:
            values = np.eye(self.n_indicators, dtype=np.asarray(self.original).dtype)[values]
        if isinstance(self.original, list):
            return values.tolist()
        if isinstance(self.original, torch.Tensor):
            return torch.as_tensor(values, dtype=self.original.dtype, device=self.original.device)
        if is_polars(self.original):
            return Container.of(self.original).wrap(values)
        if hasattr(self.original, "dtypes"):
            import pandas as pd

            if hasattr(self.original, "columns"):
                return pd.DataFrame(values, columns=self.original.columns).astype(self.original.dtypes)
            return pd.Series(values, dtype=self.original.dtype, name=self.original.name)
        return values


def check_target(y: Any, *, warn: bool = False) -> NDArray[Any]:
    """A target (n,) without missing values; `warn` of a column where it should be flat.

    Raises
    ------
    ValueError
        For anything but one value a row, NaN, None or infinities.
    """
    column = column_or_1d(as_plain(y, "y"), warn=warn)
    _check_whole(column)
    assert_all_finite(column, input_name="y")
    return column


def _check_whole(values: NDArray[Any]) -> None:
    """Raise a ValueError for objects that stand for missing values."""
    if values.dtype.kind == "O" and missing_entries(values.ravel()).any():
        raise ValueError("Input y contains None or NaN.")


def holds_numbers(y: NDArray[Any], target: str) -> bool:
    """Whether a target is amounts, by `target` ("classes" or "numbers") or, for "auto", by scikit-learn's rule.

    Raises
    ------
    ValueError
        For a target that cannot be what it is said to be.
    """
    kind = type_of_target(y, input_name="y", raise_unknown=True)
    if target == "numbers":
        if y.dtype.kind not in "biuf":
            raise ValueError(f"target='numbers' needs a y of numbers, got dtype {y.dtype}.")
        return True
    if target == "classes" and kind == "continuous":
        raise ValueError(
            "Unknown label type: continuous. y holds numbers with a fraction, which are no classes: pass "
            "target='numbers', or cut y into classes."
        )
    return bool(kind == "continuous")


def sparse_targets(
    y: NDArray[Any], n_new: int, random_state: np.random.RandomState, weight: NDArray[np.float64] | None = None
) -> NDArray[np.float64]:
    """Targets (n_new,) for new rows, where y (n,) is sparse: they fill up its density from below to one level.

    The new targets have the density ``max(0, level - p(y))`` near the observed ones, and none elsewhere: observed
    targets are repeated with weights ``max(0, level / p(y) - 1)`` and smoothed by the kernel of `p`, a Gaussian of
    Silverman's (1986, eq. 3.31) width. They stay inside the observed range.

    Notes
    -----
    That a target's importance is the inverse of its density is the rule of DenseWeight (Steininger et al., 2021); that
    sparse regions of a numeric target are over-sampled, that of SMOTER (Torgo et al., 2013) and SMOGN (Branco et al.,
    2017). The level takes the place of their parameters: it follows from the number of rows.
    """
    values = y.astype(np.float64)
    share = np.full(len(values), 1 / len(values)) if weight is None else weight / weight.sum()
    width = _silverman_width(values, share)
    if width == 0 or n_new == 0:
        return np.full(n_new, values[0])
    ratio = n_new / len(values)
    inverse = 1 / _density(values, share, width)
    level = _level(inverse, share, ratio)
    filled = share * np.maximum(0.0, level * inverse - 1)
    rows = systematic_sample(filled / filled.sum(), n_new, random_state)
    drawn = values[rows] + width * random_state.standard_normal(n_new)
    return np.asarray(np.clip(drawn, values.min(), values.max())[random_state.permutation(n_new)])


def _silverman_width(values: NDArray[np.float64], share: NDArray[np.float64]) -> float:
    """``0.9 min(std, IQR / 1.34) n^(-1/5)`` of weighted values."""
    order = np.argsort(values)
    below = np.cumsum(share[order]) - 0.5 * share[order]
    spread = np.sqrt(np.average((values - np.average(values, weights=share)) ** 2, weights=share))
    quartiles = np.interp([0.25, 0.75], below, values[order])
    middle = (quartiles[1] - quartiles[0]) / 1.34
    return float(0.9 * (min(spread, middle) if middle > 0 else spread) * len(values) ** -0.2)


def _density(values: NDArray[np.float64], share: NDArray[np.float64], width: float) -> NDArray[np.float64]:
    """Kernel density at the values themselves, from a grid of a tenth of the kernel's width or 4096 points."""
    low, high = values.min() - 4 * width, values.max() + 4 * width
    size = int(np.clip((high - low) / (0.1 * width), 16, 4096))
    counts, edges = np.histogram(values, bins=size, range=(low, high), weights=share)
    step = edges[1] - edges[0]
    half = int(np.ceil(4 * width / step))
    kernel = np.exp(-0.5 * (np.arange(-half, half + 1) * step / width) ** 2)
    density = np.convolve(counts, kernel / (kernel.sum() * step), mode="same")
    return np.asarray(np.interp(values, 0.5 * (edges[1:] + edges[:-1]), density))


def _level(inverse: NDArray[np.float64], share: NDArray[np.float64], ratio: float) -> float:
    """The level L with ``sum(share * max(0, L * inverse - 1)) = ratio``: piecewise linear in L, solved exactly."""
    inverse, share = inverse[share > 0], share[share > 0]
    order = np.argsort(-inverse)  # the sparsest come first above the water
    slopes, offsets = np.cumsum((share * inverse)[order]), np.cumsum(share[order])
    levels = (ratio + offsets) / slopes
    starts = 1 / inverse[order]
    return float(levels[np.flatnonzero(levels >= starts)[-1]])
