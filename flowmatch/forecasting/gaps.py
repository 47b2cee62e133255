"""Times of series against the spacing that was learned: pieces between gaps, histories, and what follows them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from flowmatch.core.types import Mask
from flowmatch.core.user_warnings import warn
from flowmatch.preprocessing import NUMBERS, Spacing, Trajectories, clock_of, instants_of, learn_spacing

_LOOKED_AT = 10
"""Rows at the end of a history, more than its context, whose spacing is checked too."""

_NAMED = 5


def learned_spacing(trajectories: Trajectories) -> Spacing | float:
    """The spacing of trajectories; 0.0 where none have times, or no two of them.

    Whole numbers that keep to no spacing are names of rows.
    """
    timed = [
        (index, name)
        for index, name in zip(trajectories.times, trajectories.names, strict=True)
        if index is not None and len(index) > 1
    ]
    if not timed:
        return 0.0
    clock = clock_of(*timed[0])
    spacing = learn_spacing([index for index, _ in timed if clock_of(index, "") == clock], clock)
    if clock == NUMBERS and any(index.dtype.kind in "iu" and _are_many(spacing.gaps(index)) for index, _ in timed):
        return 0.0
    return spacing


def pieces_of(trajectories: Trajectories, spacing: Spacing, span: int) -> Trajectories:
    """Trajectories cut where times are missing, with their times on the clock of the spacing.

    Parameters
    ----------
    trajectories : Trajectories
        As they were read.
    spacing : Spacing
        What their times are to keep to.
    span : int
        States in a window.

    Returns
    -------
    Trajectories
        Pieces; those that are shorter than a window are among them. Warns of windows that go over gaps, and of
        trajectories that have no window.

    Raises
    ------
    ValueError
        For a trajectory whose times do not keep to the spacing, and where no piece is as long as a window.
    """
    times: tuple[Any, ...] = tuple(
        index if index is None else spacing.in_own_clock(index, name)
        for index, name in zip(trajectories.times, trajectories.names, strict=True)
    )
    before, gaps = np.zeros(len(trajectories.frames), dtype=bool), []
    for number, (follows, closed) in _steps_of(times, spacing).items():
        index, name, gap = times[number], trajectories.names[number], ~(follows | closed)
        if _are_many(gap):
            raise ValueError(_off(spacing, index, follows, name))
        after = np.flatnonzero(gap)
        before[trajectories.starts[number] + after + 1] = True
        gaps += [f"{name} between {index[row]} and {index[row + 1]}" for row in after]
    whole = replace(trajectories, times=times)
    if not gaps:
        _check_lengths(whole, whole, span, "")
        return whole
    pieces = whole.cut(before)
    what = f"X has {len(gaps)} gap(s) in time (the first: {gaps[0]})"
    _check_lengths(whole, pieces, span, what)
    possible, left = _n_windows(whole, span), _n_windows(pieces, span)
    warn(f"{what}: {possible - left} of {possible} windows go over them and are left out.")
    return pieces


def read_histories(parts: Sequence[Any], names: Sequence[str], spacing: Spacing, n_lags: int) -> list[Any]:
    """The ends of histories that are contexts, once their times are checked.

    Parameters
    ----------
    parts : sequence of DataFrame, Series or array
        Histories; nothing is read of what is before their ends.
    names : sequence of str
        What errors call them.
    spacing : Spacing
        What the times of DataFrames are to keep to.
    n_lags : int
        Rows of a context.

    Returns
    -------
    list
        The last `n_lags` rows of each, with times on the clock of the spacing as their index.

    Raises
    ------
    ValueError
        For times that do not follow each other, or are of another clock.
    """
    ends = [part[-n_lags:] for part in parts]
    times: list[Any] = [
        instants_of(part.index[-max(n_lags, _LOOKED_AT) :], name) if hasattr(part, "iloc") else None
        for part, name in zip(parts, names, strict=True)
    ]
    times = [
        index if index is None else spacing.in_own_clock(index, name) for index, name in zip(times, names, strict=True)
    ]
    for number, (follows, closed) in _steps_of(times, spacing).items():
        gap = ~(follows | closed)
        within = gap[max(0, len(gap) - n_lags + 1) :]
        if within.any() or _are_many(gap) or closed.sum() > max(1, len(closed) // 4):
            raise ValueError(_off(spacing, times[number], follows, names[number]))
    return [
        end if index is None or index is end.index else end.set_axis(index[-n_lags:], axis=0)
        for end, index in zip(ends, times, strict=True)
    ]


def rows_that_follow(frame: Any, history: Any, spacing: Spacing, n_steps: int, name: str) -> Any:
    """The rows of a frame that come after a history, found by their times.

    Parameters
    ----------
    frame : DataFrame
        What is known ahead; it may begin before the end of the history.
    history : DataFrame, Series or array
        As `read_histories` gives it.
    spacing : Spacing
        From one instant to the next.
    n_steps : int
        How many rows are needed.
    name : str
        What errors call the frame.

    Returns
    -------
    DataFrame
        These rows; the frame as it is where it or the history has no times.

    Raises
    ------
    ValueError
        If instants that follow are missing.
    """
    times, before = (instants_of(part.index, name) if hasattr(part, "iloc") else None for part in (frame, history))
    if times is None or before is None or not spacing.clock:
        return frame
    times, start = spacing.in_own_clock(times, name), before[-1:]
    last = start[0]
    rows = np.flatnonzero(times > last)[:n_steps]
    if len(rows) == n_steps and not spacing.gaps(start.append(times[rows])).any():
        return frame.iloc[rows]
    expected = [spacing.after(start, step)[0] for step in range(1, n_steps + 1)]
    missing = [instant for instant in expected if instant not in times]
    raise ValueError(
        f"{name} does not follow its history: it has {len(times)} row(s) from {times[0]} to {times[-1]}, but after "
        f"{last} come {expected[0]} to {expected[-1]}, {n_steps} step(s) of {spacing}"
        + (f", of which {missing[0]} is missing ({len(missing)} in all)." if missing else ".")
        + " Rows without times are taken by position: pass to_numpy(), or reset_index(drop=True)."
    )


def _steps_of(times: Sequence[Any], spacing: Spacing) -> dict[int, tuple[Mask, Mask]]:
    """How the instants of each series go on, as `Spacing.steps_of` tells; of those that have several, by number."""
    timed = [number for number, index in enumerate(times) if index is not None and len(index) > 1]
    if not timed or not spacing.clock:
        return {}
    whole = times[timed[0]].append(
        [times[number] for number in timed[1:]]
    )  # at once, since calls take most of the time
    follows, closed = spacing.steps_of(whole)
    ends = np.cumsum([len(times[number]) for number in timed])
    parts = [slice(end - len(times[number]), end - 1) for number, end in zip(timed, ends, strict=True)]
    return {number: (follows[part], closed[part]) for number, part in zip(timed, parts, strict=True)}


def _are_many(gaps: Mask) -> bool:
    """Whether less than half of the steps of a series are the usual one."""
    return bool(2 * gaps.sum() > len(gaps))


def _off(spacing: Spacing, index: Any, follows: Mask, name: str) -> str:
    """What is wrong with times that do not keep to the spacing."""
    row = len(follows) - 1 - int(np.argmin(follows[::-1]))
    return (
        f"the times of {name} do not keep to the spacing of the series, {spacing}: {spacing.after(index[[row]], 1)[0]} "
        f"is expected after {index[row]}, but {index[row + 1]} comes ({(~follows).sum()} of {len(follows)} steps). "
        "Bring them to that grid, as by resample, asfreq or to_period of pandas, or drop the times by "
        "reset_index(drop=True) if every row is one step."
    )


def _n_windows(trajectories: Trajectories, span: int) -> int:
    return int(np.maximum(trajectories.lengths - span + 1, 0).sum())


def _check_lengths(trajectories: Trajectories, pieces: Trajectories, span: int, gaps: str) -> None:
    """Warn of trajectories without a window, by name; raise a ValueError where there is none at all."""
    short = trajectories.lengths < span
    if not _n_windows(pieces, span):
        first = int(np.argmax(trajectories.lengths))
        if not short.all():
            raise ValueError(
                f"{gaps}: no piece between them is as long as a window of n_lags and horizon, {span} states; the "
                f"longest has {max([0, *pieces.lengths])}. Fill the gaps, or choose shorter windows."
            )
        raise ValueError(
            f"{trajectories.names[first]} of X has {trajectories.lengths[first]} states, but a window of n_lags and "
            f"horizon needs {span}."
        )
    if short.any():
        named = [f"{trajectories.names[i]} ({trajectories.lengths[i]})" for i in np.flatnonzero(short)[:_NAMED]]
        warn(
            f"{short.sum()} of {len(short)} trajectories have fewer than the {span} states of a window of n_lags and "
            f"horizon, and are left out: {', '.join(named)}{', ...' if short.sum() > _NAMED else ''}."
        )
