"""How long and how fast to train when the user does not say: one measured rule for all data."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from flowmatch.fitting.settings import FitSettings
from flowmatch.flow import LogitNormalTimes
from flowmatch.model import NetworkFactory
from flowmatch.networks import MLP, AutoNetwork

_SHORT_FIT = 1000
"""Rows up to which a table is trained on for 1000 steps at most."""

_LONG_FIT = 50_000
"""Rows from which on more are trained on no longer: some minutes on one core."""

_NARROW, _WIDE = 250, 16_000
"""Rows from which on a network is wider than 64 units, and as wide as any."""

_WIDEST = 512
"""Units for many codes: the cost of a step goes with their square."""


@dataclass(frozen=True)
class Schedule:
    """Optimizer steps, rows a step, and the peak learning rate.

    Attributes
    ----------
    max_iter, batch_size : int
    learning_rate : float
    longest : int
        Steps that a time budget may make of `max_iter`, if more: it ends sooner for the sake of time alone.
    """

    max_iter: int
    batch_size: int
    learning_rate: float
    longest: int = field(default=0, repr=False, compare=False)


def network_of(network: NetworkFactory, code_shape: tuple[int, ...], n_rows: int) -> NetworkFactory:
    """What ``network="auto"`` means for a table: an `MLP` as wide as its rows and codes ask for.

    64 units up to 250 rows, then more with the cube root of their number, up to 256; and at least one and a half for
    each code, up to 512, since all that the velocity knows of a row passes through them: of 200 columns in pairs of
    correlation .9, 64 units keep .4.
    """
    if not isinstance(network, AutoNetwork) or len(code_shape) > 1:
        return network
    wanted = max(64 * np.cbrt(np.clip(n_rows, _NARROW, _WIDE) / _NARROW), min(1.5 * code_shape[0], _WIDEST))
    return MLP(width=32 * round(wanted / 32))


def schedule_of(settings: FitSettings, sample_shape: tuple[int, ...], n_rows: int, *, grows: bool = False) -> Schedule:
    """The `max_iter`, `batch_size` and `learning_rate` of the settings, and measured ones where they are None.

    Tables of up to a thousand rows: about 600 passes of batches of 256, at least 300 and at most 1000 steps; more
    passes lower the distance to held-out rows little and copy more. Larger ones, if training `grows` with them: steps
    go with the square root of the rows, up to 7000 from 50,000 rows on, of 512 rows at a smaller rate. Grids (pictures
    of digits of 8 x 8 and 28 x 28 points were measured): about 130 passes of batches of 32, at least 1000 and at most
    8000 steps. MeanFlow chases a target of its own making: twice the steps at two fifths of the rate. A time budget
    takes the place of the most steps: it may make all of the passes, but no more of them.
    """
    if len(sample_shape) == 1:
        more = np.sqrt(np.clip(n_rows, _SHORT_FIT, _LONG_FIT) / _SHORT_FIT) if grows else 1.0
        steps = int(np.clip(600 * n_rows // 256, 300, 1000 * more))
        batch_size = 256 if more < 3 else 512
        measured = Schedule(steps, batch_size, float(5e-3 * more**-0.2), 600 * n_rows // batch_size)
    else:
        passes = 130 * n_rows // 32
        measured = Schedule(int(np.clip(passes, 1000, 8000)), 32, 4e-3, passes)
    if settings.objective.flow_map:
        steps, rate = 2 * measured.max_iter, 0.4 * measured.learning_rate
        measured = Schedule(steps, measured.batch_size, rate, 2 * measured.longest)
    return as_asked(settings, measured)


def as_asked(settings: FitSettings, measured: Schedule) -> Schedule:
    """The measured schedule, with what the settings ask for in its place."""
    return Schedule(
        measured.max_iter if settings.max_iter is None else int(settings.max_iter),
        measured.batch_size if settings.batch_size is None else int(settings.batch_size),
        measured.learning_rate if settings.learning_rate is None else float(settings.learning_rate),
        measured.longest if settings.max_iter is None else 0,
    )


def measured_times(sample_shape: tuple[int, ...]) -> LogitNormalTimes:
    """What ``time_sampler="auto"`` means: "logit_normal", and for large grids nearer to the noise.

    The more points show the same thing, the earlier on the way from noise to data it is settled what they show, so the
    logit's mean falls with the logarithm of the number of points (Esser et al., 2024, section 5.3.2, derive half of
    that logarithm). Measured on pictures of digits: with 64 points 0 is better than -1/2, with 784 points
    -1/2 and -1 are better than 0.
    """
    if len(sample_shape) == 1:
        return LogitNormalTimes()
    return LogitNormalTimes(mean=-float(np.clip(0.4 * math.log(math.prod(sample_shape[1:]) / 64), 0.0, 1.0)))
