"""Progress bars."""

from __future__ import annotations

from collections.abc import Iterable, Sized
from typing import Any, TypeVar

Piece = TypeVar("Piece")


def progress(
    pieces: Iterable[Piece], description: str, verbose: bool | int, n_pieces: int | None = None
) -> Iterable[Piece]:
    """The pieces of a task, in order; if `verbose`, with a bar where there are more than one.

    Bars inside of other bars vanish when they are full.

    Parameters
    ----------
    pieces : iterable
    description : str
        What goes on, such as "sampling": stands before the bar.
    verbose : bool or int
    n_pieces : int, optional
        Of pieces that have no length.

    Returns
    -------
    iterable
    """
    if not verbose:
        return pieces
    total = len(pieces) if isinstance(pieces, Sized) else n_pieces
    if total is not None and total < 2:
        return pieces
    from tqdm.auto import tqdm

    bar: Any = tqdm(pieces, desc=description, total=total, leave=None)
    return bar
