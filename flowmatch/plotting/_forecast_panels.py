"""What `ForecastDisplay` draws: fans of series, panels of fields, and the frames of an animation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowmatch.plotting._common import divide_axes

Floats = NDArray[np.float64]
STATES = ("truth", "mean", "member")
"""Panels that share one scale of colours."""
_ALPHAS = (0.2, 0.4)
_PIXELS = {"interpolation": "nearest", "origin": "lower"}


def draw_fan(
    panel: Any,
    times: NDArray[Any],
    samples: Floats,
    truth: Floats | None,
    past: tuple[NDArray[Any], Floats] | None,
    coverages: Sequence[float],
    line_params: dict[str, Any],
) -> tuple[Any, list[Any], Any, Any]:
    """Median line, bands (the widest first), and lines of truth and history, or None, of one variable.

    `samples` is (n_samples, n_steps); the fan opens at the last value of the history.
    """
    truth_line = past_line = None
    if past is not None:
        (past_line,) = panel.plot(*past, color="0.45", label="history")
        times = np.concatenate([past[0][-1:], times])
        samples = np.concatenate([np.full((len(samples), 1), past[1][-1]), samples], axis=1)
        truth = None if truth is None else np.concatenate([past[1][-1:], truth])
    if truth is not None:
        (truth_line,) = panel.plot(times, truth, color="0.1", label="truth")
    (median,) = panel.plot(times, np.median(samples, axis=0), **{"color": "C0", "label": "median"} | line_params)
    bands = []
    alphas = np.linspace(*_ALPHAS, len(coverages)) if len(coverages) > 1 else [np.mean(_ALPHAS)]
    for coverage, alpha in zip(sorted(coverages, reverse=True), alphas, strict=True):
        # ranks (M + 1) p, as `flowmatch.metrics.interval_coverage` takes them: a calibrated band covers what it says
        ends = np.quantile(samples, [0.5 - coverage / 2, 0.5 + coverage / 2], axis=0, method="weibull")
        params = {"color": median.get_color(), "alpha": alpha, "linewidth": 0, "label": f"{coverage:.0%}"}
        bands.append(panel.fill_between(times, *ends, **params))
    return median, bands, truth_line, past_line


def panels_of(samples: Floats, truth: Floats | None, member: int) -> dict[str, Floats]:
    """What is shown of an ensemble (n_samples, ...), by name; a single member has no mean and no spread."""
    mean = samples.mean(axis=0)
    shown = {} if truth is None else {"truth": truth}
    if len(samples) > 1:
        shown["mean"] = mean
    shown["member"] = samples[member]
    if len(samples) > 1:
        shown["spread"] = samples.std(axis=0, ddof=1)
    if truth is not None:
        shown["error"] = mean - truth
    return shown


def colours_of(shown: dict[str, Floats], cmap: Any, spread_cmap: Any, error_cmap: Any) -> dict[str, dict[str, Any]]:
    """Colours of every panel: one scale for all states, from 0 on for the spread, around 0 for the error."""
    low, high = _range(*(values for name, values in shown.items() if name in STATES))
    colours = {name: {"cmap": cmap, "vmin": low, "vmax": high} for name in STATES}
    if "spread" in shown:
        colours["spread"] = {"cmap": spread_cmap, "vmin": 0.0, "vmax": _range(shown["spread"])[1] or 1.0}
    if "error" in shown:
        largest = max(map(abs, _range(shown["error"]))) or 1.0
        colours["error"] = {"cmap": error_cmap, "vmin": -largest, "vmax": largest}
    return colours


def draw_space_time(
    pyplot: Any,
    ax: Any,
    shown: dict[str, Floats],
    colours: dict[str, dict[str, Any]],
    times: NDArray[Any],
    params: dict[str, Any],
) -> tuple[Any, dict[str, list[Any]]]:
    """Axes (n_panels,), and the mesh of each panel (n_steps, width), time to the right and space upwards."""
    axes, images = divide_axes(pyplot, ax, len(shown), 1, "panel", size=(6.0, 1.5)), {}
    edges = _edges_between(times)
    for panel, (name, values) in zip(axes, shown.items(), strict=True):
        space = np.arange(values.shape[1] + 1) - 0.5
        images[name] = [panel.pcolormesh(edges, space, values.T, **colours[name] | {"rasterized": True} | params)]
        panel.set_ylabel(name)
    return axes, images


def draw_pictures(
    pyplot: Any,
    ax: Any,
    shown: dict[str, Floats],
    colours: dict[str, dict[str, Any]],
    columns: Sequence[tuple[int, str]],
    params: dict[str, Any],
) -> tuple[Any, dict[str, list[Any]]]:
    """Axes (n_panels, n_columns), and the pictures of each panel (n_steps, height, width) at each column's step."""
    _, height, width = next(iter(shown.values())).shape
    size = (1.6, max(0.5, min(3.2, 1.6 * height / width)))
    axes = divide_axes(pyplot, ax, len(shown) * len(columns), len(columns), "picture", size=size)
    axes, images = axes.reshape(len(shown), len(columns)), {}
    for row, (name, values) in zip(axes, shown.items(), strict=True):
        row_params = colours[name] | _PIXELS | params
        images[name] = [panel.imshow(values[k], **row_params) for panel, (k, _) in zip(row, columns, strict=True)]
        row[0].set_ylabel(name)
    for panel, (_, label) in zip(axes[0], columns, strict=True):
        panel.set_title(label)
    for panel in axes.flat:
        panel.set(xticks=[], yticks=[])
    return axes, images


def draw_colorbars(axes: Any, images: dict[str, list[Any]]) -> list[Any]:
    """One scale for all states, one for the spread, one for the error."""
    rows = dict(zip(images, axes.reshape(len(images), -1), strict=True))
    states = [name for name in images if name in STATES]
    colorbars = []
    for names in [states] + [[name] for name in images if name not in STATES]:
        beside = [panel for name in names for panel in rows[name]]
        colorbars.append(beside[0].figure.colorbar(images[names[0]][0], ax=beside))
    return colorbars


def picture_frames(
    axes: Any, shown: dict[str, Floats], colours: dict[str, dict[str, Any]], params: dict[str, Any]
) -> Callable[[int], None]:
    """Draw states (n_steps, height, width) at the first step; the function given back moves them to another."""
    images = {}
    for panel, (name, values) in zip(axes, shown.items(), strict=True):
        images[name] = panel.imshow(values[0], **colours[name] | _PIXELS | params)
        panel.set(title=name, xticks=[], yticks=[])

    def move_to(step: int) -> None:
        for name, image in images.items():
            image.set_data(shown[name][step])

    return move_to


def profile_frames(panel: Any, samples: Floats, truth: Floats | None, params: dict[str, Any]) -> Callable[[int], None]:
    """Draw profiles of all members (n_samples, n_steps, width), their mean and the truth at the first step."""
    lines = [(panel.plot(member[0], color="C0", alpha=0.25, linewidth=0.8)[0], member) for member in samples]
    mean = samples.mean(axis=0)
    lines.append((panel.plot(mean[0], **{"color": "C0", "label": "mean"} | params)[0], mean))
    if truth is not None:
        lines.append((panel.plot(truth[0], color="0.1", label="truth")[0], truth))
    low, high = _range(samples, *([] if truth is None else [truth]))
    margin = 0.05 * (high - low) or 1.0
    panel.set(xlabel="space [cells]", xlim=(0, samples.shape[-1] - 1), ylim=(low - margin, high + margin))
    panel.legend(loc="upper right")

    def move_to(step: int) -> None:
        for line, values in lines:
            line.set_ydata(values[step])

    return move_to


def fan_frames(axes: Any, artists: Sequence[Any], times: NDArray[Any]) -> Callable[[int], None]:
    """Hide what lies after the first step; the function given back shows up to another one.

    The artists are those of the forecast and the truth, one list a panel.
    """
    from matplotlib.dates import date2num
    from matplotlib.patches import Rectangle

    places = np.asarray(date2num(times) if times.dtype.kind == "M" else times)
    windows = []
    for panel, drawn in zip(axes, artists, strict=True):
        left = panel.get_xlim()[0]
        panel.set(xlim=panel.get_xlim(), ylim=panel.get_ylim())
        window = Rectangle((left, 0.0), places[0] - left, 1.0, transform=panel.get_xaxis_transform())
        for artist in drawn:
            artist.set_clip_path(window)
        windows.append((window, drawn, left))

    def move_to(step: int) -> None:
        for window, drawn, left in windows:
            window.set_width(places[step] - left)
            for artist in drawn:
                artist.set_clip_path(window)  # it was taken as it was then

    return move_to


def _edges_between(times: NDArray[Any]) -> NDArray[Any]:
    """Edges of cells around the times, one more than there are times."""
    steps = np.diff(times) if len(times) > 1 else np.ones(1, dtype=(times - times).dtype)
    middles = times[:-1] + np.diff(times) / 2
    return np.concatenate([times[:1] - steps[:1] / 2, middles, times[-1:] + steps[-1:] / 2])


def _range(*arrays: Floats) -> tuple[float, float]:
    finite = np.concatenate([values[np.isfinite(values)] for values in arrays])
    return (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
