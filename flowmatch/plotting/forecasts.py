"""Ensemble forecasts: fans of series, panels of fields, animations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from flowmatch.core.checks import check_count, check_number
from flowmatch.plotting import _forecast_panels as parts
from flowmatch.plotting._common import Floats, as_array, check_one_label_each, divide_axes, load_pyplot


@dataclass(eq=False, repr=False)
class ForecastDisplay:
    """A forecast of one trajectory by an ensemble, beside what came true.

    Make one with `from_estimator` or `from_samples`. Series are drawn as fans, a panel a variable: the median, bands
    that hold given shares of the members, the truth and the history. Fields are drawn as truth, mean, one
    member, spread (standard deviation of the members) and error (mean minus truth): of one dimension over space and
    time, of two dimensions, or middle slices of three, as pictures at some lead times. Truth, mean and member share one
    scale of colors. `animate` writes a GIF.

    Parameters
    ----------
    samples : ndarray of shape (n_samples, n_steps), (n_samples, n_steps, d) or (n_samples, n_steps, n_channels, *grid)
        The ensemble, of a series or of fields in 1 to 3 dimensions.
    y_true : ndarray of shape (n_steps, ...), optional
        The truth.
    history : ndarray of shape (n_history, ...), optional
        Values of a series before the forecast.
    times : ndarray of shape (n_steps,) or (n_history + n_steps,), optional
        Numbers or dates, increasing. Without those of the history it is put evenly before the others. By default lead
        times count from 1.
    names : sequence of length d, optional
        Of the variables of a series.
    channel : int, default=0
        Of fields, the one that is shown.
    slice_axis : {0, 1, 2}, default=0
        Of fields in three dimensions, the axis that is cut in the middle.

    Attributes
    ----------
    axes_ : ndarray of matplotlib Axes
        Shape (d,) for series, (n_panels,) for fields of one dimension, (n_panels, n_columns) for others.
    figure_ : matplotlib Figure
        That holds them.
    lines_ : dict of str to list of matplotlib Line2D
        Of series, "median", "truth" and "history", one a variable.
    bands_ : list of list of matplotlib PolyCollection
        Of series, the bands of each variable, the widest first.
    images_ : dict of str to list of matplotlib QuadMesh or AxesImage
        Of fields, by panel ("truth", "mean", "member", "spread", "error"), one a column.
    colorbars_ : list of matplotlib Colorbar
        Of fields: of the states, the spread and the error.

    See Also
    --------
    flowmatch.metrics.forecast_report : Measures of the same forecasts.

    Examples
    --------
    >>> import numpy as np
    >>> from flowmatch.plotting import ForecastDisplay
    >>> walks = np.random.default_rng(0).normal(size=(51, 1, 30)).cumsum(axis=-1)
    >>> display = ForecastDisplay.from_samples(walks[1:], walks[0])  # doctest: +SKIP
    >>> display.animate("walk.gif")  # doctest: +SKIP
    """

    samples: Floats
    y_true: Floats | None = None
    _: KW_ONLY
    history: Floats | None = None
    times: NDArray[Any] | None = None
    names: Sequence[Any] | None = None
    channel: int = 0
    slice_axis: int = 0

    @classmethod
    def from_samples(
        cls,
        samples: ArrayLike,
        y_true: ArrayLike | None = None,
        *,
        history: ArrayLike | None = None,
        times: ArrayLike | None = None,
        index: int = 0,
        names: Sequence[Any] | None = None,
        channel: int = 0,
        slice_axis: int = 0,
        ax: Any = None,
        **plot_params: Any,
    ) -> Self:
        """Plot one of the rollouts at hand.

        Parameters
        ----------
        samples : array-like of shape (n_samples, n, n_steps, *state)
            The ensembles, members first; a state is a number, (d,) or (n_channels, *grid).
        y_true : array-like of shape (n, n_steps, *state), optional
            The truth.
        history : array-like of shape (n, n_history, *state), optional
            Of series.
        times : array-like of shape (n_steps,) or (n_history + n_steps,), optional
            See the class; the same for all rows.
        index : int, default=0
            The row that is shown.
        names : sequence of length d, optional
            Of the variables of a series.
        channel : int, default=0
            Of fields, the one that is shown.
        slice_axis : {0, 1, 2}, default=0
            Of fields in three dimensions, the axis that is cut in the middle.
        ax : matplotlib Axes or array of Axes, optional
            See `plot`.
        **plot_params
            See `plot`.

        Returns
        -------
        ForecastDisplay
            After `plot`.

        Raises
        ------
        ValueError
            If the shapes do not fit, the times are not increasing, or a parameter is out of range.
        """
        ensemble = as_array(samples)
        state = ensemble.shape[3:]
        if ensemble.ndim < 3 or len(state) > 4 or ensemble.size == 0:
            raise ValueError(
                f"samples has shape {ensemble.shape}; expected (n_samples, n, n_steps, *state), where a state is a "
                f"number, (d,) or (n_channels, *grid) with a grid of 1 to 3 axes."
            )
        n, n_steps = ensemble.shape[1:3]
        check_count("index", index, 0, n - 1, f" for samples with {n} rows")
        truth = None if y_true is None else parts.row_of("y_true", y_true, (n, n_steps, *state), index)
        past = None
        if history is not None:
            if len(state) > 1:
                raise ValueError(f"history is for series; samples has fields, its shape is {ensemble.shape}.")
            past = parts.row_of("history", history, (n, None, *state), index)
        found_times = None if times is None else parts.checked_times(times, n_steps, 0 if past is None else len(past))
        if len(state) > 1:
            check_count("channel", channel, 0, state[0] - 1, f" for fields with {state[0]} channels")
            check_count("slice_axis", slice_axis, 0, 2)
        check_one_label_each("names", names, int(np.prod(state[:1])), "variables")
        return cls(
            ensemble[:, index],
            truth,
            history=past,
            times=found_times,
            names=names,
            channel=channel,
            slice_axis=slice_axis,
        ).plot(ax=ax, **plot_params)

    @classmethod
    def from_estimator(
        cls,
        forecaster: Any,
        X: Any,
        y_true: ArrayLike | None = None,
        *,
        n_steps: int,
        n_samples: int = 20,
        random_state: Any = None,
        rollout_params: Mapping[str, Any] | None = None,
        **display_params: Any,
    ) -> Self:
        """Roll a forecaster out and plot one of its rollouts.

        Parameters
        ----------
        forecaster : fitted ConditionalForecaster, or an object with its `rollout`
            Makes the ensemble.
        X : as in the forecaster's `rollout`
            Where rollouts start. All rows are rolled out, and one is shown: pass few.
        y_true : array-like of shape (n, n_steps, *state), optional
            The truth.
        n_steps : int
            Lead times.
        n_samples : int, default=20
            Members.
        random_state : int, RandomState or None, default=None
            Seed of the members.
        rollout_params : mapping, optional
            More arguments of `rollout`.
        **display_params
            See `from_samples`; `index` is the row that is shown.

        Returns
        -------
        ForecastDisplay
            After `plot`.

        Raises
        ------
        ValueError
            As `from_samples` does.
        sklearn.exceptions.NotFittedError
            If the forecaster is not fitted.
        """
        check_count("n_steps", n_steps)
        check_count("n_samples", n_samples)
        params = dict(rollout_params or {}, n_samples=n_samples, random_state=random_state)
        return cls.from_samples(forecaster.rollout(X, n_steps, **params), y_true, **display_params)

    def plot(
        self,
        *,
        ax: Any = None,
        coverages: Sequence[float] = (0.5, 0.9),
        steps: Sequence[int] | None = None,
        member: int = 0,
        cmap: Any = "viridis",
        spread_cmap: Any = "magma",
        error_cmap: Any = "RdBu_r",
        colorbar: bool = True,
        **artist_params: Any,
    ) -> Self:
        """Draw the forecast.

        Parameters
        ----------
        ax : matplotlib Axes or array of Axes, optional
            One Axes is divided where several are needed. By default a figure of its own.
        coverages : sequence of float, default=(0.5, 0.9)
            Of series, the shares that the bands hold: those of `flowmatch.metrics.interval_coverage`, save that a band
            that needs more members reaches from the smallest to the largest.
        steps : sequence of int, optional
            Of fields in 2 and 3 dimensions, the lead times that are shown, counted from 1; by default 5 of them, the
            first and the last among them.
        member : int, default=0
            Of fields, the member that is shown.
        cmap, spread_cmap, error_cmap : str or matplotlib Colormap
            Colors of states (truth, mean and member, on one scale), of the spread (from 0 on) and the error (around
            0), by default "viridis", "magma" and "RdBu_r".
        colorbar : bool, default=True
            Of fields, whether to add the scales.
        **artist_params
            Passed to the median's ``plot``, or to ``pcolormesh`` or ``imshow``. The first axis of a grid points up, as
            heights do: ``origin="upper"`` turns pictures.

        Returns
        -------
        ForecastDisplay
            The display itself.

        Raises
        ------
        ValueError
            If a parameter is out of range.
        """
        self.lines_: dict[str, list[Any]] = {}
        self.bands_: list[list[Any]] = []
        self.images_: dict[str, list[Any]] = {}
        self.colorbars_: list[Any] = []
        if self.samples.ndim <= 3:
            self._draw_fans(ax, coverages, artist_params)
        else:
            self._draw_fields(ax, steps, member, (cmap, spread_cmap, error_cmap), artist_params)
            if colorbar:
                self.colorbars_ = parts.draw_colorbars(self.axes_, self.images_)
        self.figure_ = self.axes_.flat[0].figure
        return self

    def animate(
        self,
        path: str | Path,
        *,
        interval_ms: int = 100,
        panels: Sequence[str] = parts.STATES,
        member: int = 0,
        cmap: Any = "viridis",
        spread_cmap: Any = "magma",
        error_cmap: Any = "RdBu_r",
        dpi: int = 80,
        **artist_params: Any,
    ) -> Path:
        """Write the rollout as a GIF, a frame a lead time.

        Fans of series open up; fields of one dimension are profiles, of all members, their mean and the truth; others
        are pictures side by side.

        Parameters
        ----------
        path : str or path-like
            File to write; it ends in ".gif".
        interval_ms : int, default=100
            Milliseconds a frame.
        panels : sequence of str, default=("truth", "mean", "member")
            Of fields in 2 and 3 dimensions, the panels to show, "spread" and "error" among them; those that are not
            available, such as "truth" without a `y_true`, are left out.
        member : int, default=0
            Of fields, the member that is shown.
        cmap, spread_cmap, error_cmap : str or matplotlib Colormap
            As in `plot`.
        dpi : int, default=80
            Pixels an inch.
        **artist_params
            As in `plot`.

        Returns
        -------
        Path
            Path of the file.

        Raises
        ------
        ValueError
            If the path does not end in ".gif", or a parameter is out of range.
        FileNotFoundError
            If the folder does not exist.
        """
        target = Path(path)
        if target.suffix.lower() != ".gif":
            raise ValueError(f"path must end in '.gif', got {str(path)!r}.")
        check_count("interval_ms", interval_ms, 10)  # a GIF counts hundredths of a second
        check_count("dpi", dpi)
        pyplot = load_pyplot()
        from matplotlib.animation import PillowWriter

        with pyplot.ioff():
            figure, move_to = self._frames(panels, member, (cmap, spread_cmap, error_cmap), artist_params)
        try:
            labels = self._time_labels()
            title = figure.suptitle(labels[-1])
            figure.draw_without_rendering()
            figure.set_layout_engine("none")  # once is enough, and every frame alike
            fps: Any = 1000 / (interval_ms + 0.5)  # the writer cuts its inverse down to whole milliseconds
            writer = PillowWriter(fps)
            with writer.saving(figure, target, dpi):
                for step, label in enumerate(labels):
                    move_to(step)
                    title.set_text(label)
                    writer.grab_frame()
        finally:
            pyplot.close(figure)
        return target

    def _frames(self, panels: Sequence[str], member: int, cmaps: Sequence[Any], params: dict[str, Any]) -> parts.Frames:
        """What `animate` moves."""
        if self.samples.ndim <= 3:
            return parts.fan_frames(replace(self).plot(**params).axes_, self._times()[0])
        if self.samples.ndim == 4:
            return parts.profile_frames(*self._fields(), params)
        if not panels or any(name not in parts.PANELS for name in panels):
            raise ValueError(f"panels must be some of {', '.join(map(repr, parts.PANELS))}, got {panels!r}.")
        available = self._panels(member, cmaps)
        shown = {name: available[name] for name in panels if name in available}
        if not shown:
            raise ValueError(f"panels={panels!r} leaves nothing to show: there are {', '.join(map(repr, available))}.")
        return parts.picture_frames(shown, params)

    def _draw_fans(self, ax: Any, coverages: Sequence[float], params: dict[str, Any]) -> None:
        """A fan a variable, which opens at the last value of the history."""
        for coverage in coverages:
            check_number("coverages", coverage, 0.0, 1.0, open_low=True)
        samples = self.samples.reshape(*self.samples.shape[:2], -1)
        truth, past = (
            None if values is None else values.reshape(len(values), -1) for values in (self.y_true, self.history)
        )
        times, past_times = self._times()
        if past is not None:
            times = np.concatenate([past_times[-1:], times])
            samples = np.concatenate([np.repeat(past[None, -1:], len(samples), axis=0), samples], axis=1)
            truth = None if truth is None else np.concatenate([past[-1:], truth])
        self.axes_ = divide_axes(ax, samples.shape[2], 1, "variable", size=(6.0, 2.0), share=(True, False))
        drawn: dict[str, tuple[Any, Any, dict[str, Any]]] = {
            "history": (past_times, past, {"color": "0.45"}),
            "truth": (times, truth, {"color": "0.1"}),
            "median": (times, np.median(samples, axis=0), {"color": "C0"} | params),
        }
        self.lines_ = {name: [] for name in drawn}
        for j, panel in enumerate(self.axes_):
            for name, (across, values, line_params) in drawn.items():
                if values is not None:
                    self.lines_[name] += panel.plot(across, values[:, j], **{"label": name} | line_params)
            color = self.lines_["median"][j].get_color()
            self.bands_.append(parts.draw_bands(panel, times, samples[:, :, j], coverages, color))
            if self.names is not None:
                panel.set_ylabel(str(self.names[j]))
        self.axes_[0].legend(fontsize="small")
        self.axes_[-1].set_xlabel("lead time" if self.times is None else "time")

    def _draw_fields(
        self, ax: Any, steps: Sequence[int] | None, member: int, cmaps: Sequence[Any], params: dict[str, Any]
    ) -> None:
        """Panels of fields over space and time, or as pictures."""
        shown = self._panels(member, cmaps)
        if self.samples.ndim > 4:
            labels = self._time_labels()
            columns = [(step, labels[step]) for step in parts.chosen_steps(steps, len(labels))]
            self.axes_, self.images_ = parts.draw_pictures(ax, shown, columns, params)
            return
        if steps is not None:
            raise ValueError(f"steps is for fields in 2 and 3 dimensions; a sample has shape {self.samples.shape[1:]}.")
        self.axes_, self.images_ = parts.draw_space_time(ax, shown, self._times()[0], params)
        self.axes_[-1].set_xlabel("lead time" if self.times is None else "time")

    def _fields(self) -> tuple[Floats, Floats | None]:
        """Samples (n_samples, n_steps, [height,] width) and truth of the channel shown, cut if there is a depth."""
        samples = self.samples[:, :, self.channel]
        truth = None if self.y_true is None else self.y_true[:, self.channel]
        if samples.ndim == 5:
            axis = self.slice_axis - 3
            middle = samples.shape[axis] // 2
            samples = samples.take(middle, axis=axis)
            truth = None if truth is None else truth.take(middle, axis=axis)
        return samples, truth

    def _panels(self, member: int, cmaps: Sequence[Any]) -> parts.Panels:
        n = len(self.samples)
        check_count("member", member, 0, n - 1, f" for an ensemble of {n}")
        return parts.panels_of(*self._fields(), member, cmaps)

    def _times(self) -> tuple[NDArray[Any], NDArray[Any]]:
        """Times of the forecast and of the history."""
        n_steps = self.samples.shape[1]
        times = np.arange(1.0, n_steps + 1) if self.times is None else self.times
        if len(times) > n_steps:
            return times[-n_steps:], times[:-n_steps]
        n_past = 0 if self.history is None else len(self.history)
        step = times[1] - times[0] if n_steps > 1 else np.ones(1, dtype=(times - times).dtype)[0]
        return times, times[0] - step * np.arange(n_past, 0, -1)

    def _time_labels(self) -> list[str]:
        times = self._times()[0]
        if times.dtype.kind == "M":
            return [str(text) for text in np.datetime_as_string(times, unit="auto")]
        return [f"t = {time:g}" for time in times]
