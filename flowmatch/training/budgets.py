"""A time budget: seconds that become a number of steps before the first of them is made."""

from __future__ import annotations

import bisect
import contextlib
import gc
import itertools
import math
import time
from collections.abc import Callable
from dataclasses import replace

from flowmatch.core.memory import check_memory, memory_for
from flowmatch.core.user_warnings import warn
from flowmatch.training.loop import NonFiniteTrainingError, TrainingRun
from flowmatch.training.plans import TrainingPlan

FEWEST_STEPS = 20
"""Steps that are made however little time there is: with fewer there would be no model to speak of."""

_UNTIMED, _TRIED, _TIMED = 2, 1, 50
"""First steps, which are slow, one that tells how many can be afforded to be timed, and the most of these."""

_TIMED_SHARE = 0.05
"""Share of the time left that may go into timing steps."""

_ASSUMED_STEPS = 10_000
"""Of the plan whose steps are timed: its learning rate is still warming up after the last of them."""


def clock() -> float:
    """Seconds on a clock that never goes back."""
    return time.perf_counter()


class TimeBudget:
    """Seconds that training may take, counted from now, and the number of steps that they come to.

    The number is found once, for the first run of a fit; all runs of the fit make so many steps, and a fit that goes
    on from a checkpoint finds it there. The first steps are made on a copy of the network for the clock's sake alone,
    so that the run itself is to the bit that of a plan with this `max_iter`.

    Parameters
    ----------
    seconds : float

    Attributes
    ----------
    ends : float
        When the time is up, by `clock`.
    n_steps : int or None
        None before the first run.
    first_run : str or None
        Fingerprint of the first run, where it has checkpoints.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds, self.ends = seconds, clock() + seconds
        self.n_steps: int | None = None
        self.first_run: str | None = None

    def share(self, n_runs: float) -> None:
        """Leave the first of `n_runs` runs, all of one length, its share of the time that is left."""
        now = clock()
        self.ends = now + (self.ends - now) / n_runs

    def planned(
        self,
        plan: TrainingPlan,
        make_run: Callable[[TrainingPlan], TrainingRun],
        *,
        saved: int | None = None,
        longest: int = 0,
        fewest: int = FEWEST_STEPS,
    ) -> TrainingPlan:
        """A plan with the number of steps that there is time for.

        Parameters
        ----------
        plan : TrainingPlan
            With the number of steps that would be made without a budget.
        make_run : callable ``TrainingPlan -> TrainingRun``
            Makes a run of the plan that may be thrown away.
        saved : int, optional
            The number of steps that a checkpoint of the same fit says; else that is found by the clock.
        longest : int, default=0
            Most steps, if more than the plan's.
        fewest : int, default=20
            Steps that are made in any case, if not more than the plan's.

        Returns
        -------
        TrainingPlan
        """
        self.n_steps = self.n_steps or saved
        if self.n_steps is None:
            found = self._steps_within(plan, make_run, max(longest, plan.max_iter))
            self.n_steps = max(min(fewest, plan.max_iter), found)
            if self.n_steps < plan.max_iter:
                warn(
                    f"max_time={self.seconds:g} ends training after {self.n_steps:,} steps instead of "
                    f"{plan.max_iter:,}: more time comes nearer to the data."
                )
        return replace(plan, max_iter=self.n_steps)

    def _steps_within(self, plan: TrainingPlan, make_run: Callable[[TrainingPlan], TrainingRun], most: int) -> int:
        """How many steps, and the reports among them, fit into the time that is left once they have been timed."""
        if clock() >= self.ends:
            return 0
        what = f"batch_size={plan.batch_size}"
        check_memory(what, 8.0 * plan.batch_size)
        with memory_for(f"training with {what}"):
            assumed = replace(plan, max_iter=_ASSUMED_STEPS, is_sound=None)
            of_step, of_report = _seconds_of_run(make_run(assumed), _TIMED_SHARE * (self.ends - clock()))
        gc.collect()  # optimizers are in cycles of references, and the run that counts needs the memory

        def seconds(n_steps: int) -> float:
            n_reports = math.ceil(n_steps / replace(plan, max_iter=n_steps).report_period)
            return n_steps * of_step + n_reports * of_report

        return bisect.bisect_right(range(1, most + 1), self.ends - clock(), key=seconds)


def _seconds_of_run(run: TrainingRun, affordable: float) -> tuple[float, float]:
    """Seconds of a step, the mean over the phases, and of a report, by steps that take about `affordable` seconds."""
    run.network.train()
    of_step, ends = 0.0, run.plan.phase_ends
    for first, end in itertools.pairwise([0, *ends]):
        if end > first:
            run.step = first
            _seconds_of_steps(run, _UNTIMED)
            n_steps = affordable / len(ends) / max(_seconds_of_steps(run, _TRIED), 1e-9)
            share = (end - first) / run.plan.max_iter
            of_step += share * _seconds_of_steps(run, int(max(1, min(n_steps, _TIMED))))
    begun = clock()
    with contextlib.suppress(NonFiniteTrainingError):  # the run itself will say so
        run.report()
    return of_step, clock() - begun


def _seconds_of_steps(run: TrainingRun, n_steps: int) -> float:
    """Seconds of a step, the mean over the next ones."""
    begun = clock()
    for _ in range(n_steps):
        run.advance()
    run.first_bad_step.item()  # waits for the device
    return (clock() - begun) / n_steps
