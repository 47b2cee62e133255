"""Rows that have to satisfy something: for each the first of its candidates that does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowmatch.core.user_warnings import warn

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

Violates = Callable[[Array], Mask]
"""Which rows (n, d) of a table's numbers are not to be kept."""

MOST_CANDIDATES = 20_000
"""Candidates of a row, or of all rows together as long as none was kept, after which drawing gives up."""

_AT_ONCE = 1024
_SMALL, _JUDGED_BY = 0.01, 1000


@dataclass(frozen=True)
class Places:
    """What random numbers are drawn for: rows of a call, and which of its candidates each row gets.

    Attributes
    ----------
    rows, tries : ndarray of int, shape (B,)
    """

    rows: NDArray[np.intp]
    tries: NDArray[np.intp]

    @classmethod
    def first(cls, rows: NDArray[np.intp]) -> Places:
        """The first candidates of rows."""
        return cls(rows, np.zeros_like(rows))

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, chosen: NDArray[Any]) -> Places:
        """Some of them."""
        return Places(self.rows[chosen], self.tries[chosen])


@dataclass
class Rejection:
    """Says which candidates are kept, and counts them.

    Parameters
    ----------
    violates : callable
        Which of the rows (n, d) of numbers are not to be kept.
    what : str
        What they are to satisfy, which begins errors and warnings: "given['age'] in (30, 40)".
    drops : callable, optional
        Which of the rows at some places are dropped at random besides.
    """

    violates: Violates
    what: str
    drops: Callable[[Array, Places], Mask] | None = None
    n_drawn: int = field(default=0, init=False)
    n_kept: int = field(default=0, init=False)
    warned: bool = field(default=False, init=False)

    @property
    def acceptance(self) -> float:
        """Share of the candidates so far that were kept."""
        return self.n_kept / max(1, self.n_drawn)

    def __call__(self, candidates: Array, places: Places) -> Mask:
        """Which candidates (n, d) at some places are kept; warns where these are few.

        Raises
        ------
        ValueError
            If so many were drawn in vain that none is to be expected.
        """
        kept = ~self.violates(candidates)
        if self.drops is not None:
            kept &= ~self.drops(candidates, places)
        self.n_drawn, self.n_kept = self.n_drawn + len(kept), self.n_kept + int(kept.sum())
        if self.n_kept == 0 and self.n_drawn >= MOST_CANDIDATES:
            raise self.in_vain()
        if self.n_drawn >= _JUDGED_BY and 0 < self.acceptance < _SMALL and not self.warned:
            self.warned = True
            warn(
                f"{self.what}: {self.acceptance:.2g} of the rows drawn are like that, so that some "
                f"{1 / self.acceptance:.0f} have to be drawn for each that is kept."
            )
        return kept

    def in_vain(self) -> ValueError:
        """The error after too many candidates."""
        return ValueError(
            f"{self.what}: too rare to be drawn. Of {self.n_drawn} rows drawn, {self.n_kept} were like that: ask for "
            "less, such as a wider range."
        )


def draw_kept(
    draw: Callable[[Places], tuple[Any, ...]], rows: NDArray[np.intp], rejection: Rejection | None
) -> list[Any]:
    """For each row the first of its candidates that is kept.

    Candidates are numbered, and each is drawn with random numbers of its own, so that a row depends neither on the
    others nor on how many candidates are drawn at once.

    Parameters
    ----------
    draw : callable
        Gives the numbers (B, d) of candidates, and arrays (B, ...) of what else there is of them; or None in place of
        an array.
    rows : ndarray of int, shape (n,)
        Numbers of the rows.
    rejection : Rejection or None
        None keeps the first ones.

    Returns
    -------
    list of (ndarray of shape (n, ...) or None)

    Raises
    ------
    ValueError
        If none of twenty thousand candidates is kept.
    """
    found = list(draw(first := Places.first(rows)))
    if rejection is None:
        return found
    open_rows = np.flatnonzero(~rejection(found[0], first))
    n_tried, n_more = 1, 1
    while len(open_rows):
        if n_tried >= MOST_CANDIDATES:
            raise rejection.in_vain()
        tries = np.arange(n_tried, n_tried + n_more)
        places = Places(np.repeat(rows[open_rows], n_more), np.tile(tries, len(open_rows)))
        candidates = draw(places)
        kept = rejection(candidates[0], places).reshape(-1, n_more)
        done = kept.any(axis=1)
        chosen = np.flatnonzero(done) * n_more + kept[done].argmax(axis=1)
        for whole, part in zip(found, candidates, strict=True):
            if whole is not None:
                whole[open_rows[done]] = part[chosen]
        open_rows, n_tried = open_rows[~done], n_tried + n_more
        n_more = max(1, min(2 * n_more, _AT_ONCE // max(1, len(open_rows)), MOST_CANDIDATES - n_tried))
    return found
