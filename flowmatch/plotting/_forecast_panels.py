"""What `ForecastDisplay` draws: fans of series, panels of fields, and the frames of an animation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowmatch.plotting._common import Floats, divide_axes, finite_range

STATES = ("truth", "mean", "member")
"""Panels that share one scale of colors."""
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
) -> tuple[dict[str, Any], list[Any]]:
    """Lines by name, and bands (the widest first), of one variable.

    `samples` is (n_samples, n_steps); the fan opens at the last value of the history.
    """
    lines = {}
    if past is not None:
        (lines["history"],) = panel.plot(*past, color="0.45", label="history")
        times = np.concatenate([past[0][-1:], times])
        samples = np.concatenate([np.full((len(samples), 1), past[1][-1]), samples], axis=1)
        truth = None if truth is None else np.concatenate([past[1][-1:], truth])
    if truth is not None:
        (lines["truth"],) = panel.plot(times, truth, color="0.1", label="truth")
    median_params = {"color": "C0", "label": "median"} | line_params
    (lines["median"],) = panel.plot(times, np.median(samples, axis=0), **median_params)
    bands = []
    alphas = np.linspace(*_ALPHAS, len(coverages)) if len(coverages) > 1 else [np.mean(_ALPHAS)]
    for coverage, alpha in zip(sorted(coverages, reverse=True), alphas, strict=True):
        # ranks (M + 1) p, as `flowmatch.metrics.interval_coverage` takes them: a calibrated band covers its share
        ends = np.quantile(samples, [0.5 - coverage / 2, 0.5 + coverage / 2], axis=0, method="weibull")
        params = {"color": lines["median"].get_color(), "alpha": alpha, "linewidth": 0, "label": f"{coverage:.0%}"}
        bands.append(panel.fill_between(times, *ends, **params))
    return lines, bands


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


def colors_of(shown: dict[str, Floats], cmap: Any, spread_cmap: Any, error_cmap: Any) -> dict[str, dict[str, Any]]:
    """Colors of every panel: one scale for all states, from 0 on for the spread, around 0 for the error."""
    low, high = finite_range(*(values for name, values in shown.items() if name in STATES))
    colors = {name: {"cmap": cmap, "vmin": low, "vmax": high} for name in STATES}
    if "spread" in shown:
        colors["spread"] = {"cmap": spread_cmap, "vmin": 0.0, "vmax": finite_range(shown["spread"])[1] or 1.0}
    if "error" in shown:
        largest = max(map(abs, finite_range(shown["error"]))) or 1.0
        colors["error"] = {"cmap": error_cmap, "vmin": -largest, "vmax": largest}
    return colors


def draw_space_time(
    ax: Any, shown: dict[str, Floats], colors: dict[str, dict[str, Any]], times: NDArray[Any], params: dict[str, Any]
) -> tuple[Any, dict[str, list[Any]]]:
    """Axes (n_panels,), and the mesh of each panel (n_steps, width), time to the right and space upwards."""
    axes, images = divide_axes(ax, len(shown), 1, "panel", size=(6.0, 1.5)), {}
    half = (np.diff(times) if len(times) > 1 else np.ones(1, dtype=(times - times).dtype)) / 2
    edges = np.concatenate([times[:1] - half[:1], times[:-1] + half, times[-1:] + half[-1:]])
    for panel, (name, values) in zip(axes, shown.items(), strict=True):
        space = np.arange(values.shape[1] + 1) - 0.5
        images[name] = [panel.pcolormesh(edges, space, values.T, **colors[name] | {"rasterized": True} | params)]
        panel.set_ylabel(name)
    return axes, images


def draw_pictures(
    ax: Any,
    shown: dict[str, Floats],
    colors: dict[str, dict[str, Any]],
    columns: Sequence[tuple[int, str]],
    params: dict[str, Any],
) -> tuple[Any, dict[str, list[Any]]]:
    """Axes (n_panels, n_columns), and the pictures of each panel (n_steps, height, width) at each column's step."""
    _, height, width = next(iter(shown.values())).shape
    size = (1.6, max(0.5, min(3.2, 1.6 * height / width)))
    axes = divide_axes(ax, len(shown) * len(columns), len(columns), "picture", size=size)
    axes, images = axes.reshape(len(shown), len(columns)), {}
    for row, (name, values) in zip(axes, shown.items(), strict=True):
        row_params = colors[name] | _PIXELS | params
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
    axes: Any, shown: dict[str, Floats], colors: dict[str, dict[str, Any]], params: dict[str, Any]
) -> Callable[[int], None]:
    """Draw states (n_steps, height, width) at the first step; the function returned moves them to another."""
    images = {}
    for panel, (name, values) in zip(axes, shown.items(), strict=True):
        images[name] = panel.imshow(values[0], **colors[name] | _PIXELS | params)
        panel.set(title=name, xticks=[], yticks=[])

    def move_to(step: int) -> None:
        for name, image in images.items():
            image.set_data(shown[name][step])

    return move_to


def profile_frames(panel: Any, samples: Floats, truth: Floats | None, params: dict[str, Any]) -> Callable[[int], None]:
    """Draw profiles of all members (n_samples, n_steps, width), their mean and the truth at the first step."""
    mean = samples.mean(axis=0)
    lines = panel.plot(samples[:, 0].T, color="C0", alpha=0.25, linewidth=0.8)
    lines += panel.plot(mean[0], **{"color": "C0", "label": "mean"} | params)
    lines += [] if truth is None else panel.plot(truth[0], color="0.1", label="truth")
    profiles = [*samples, mean] + ([] if truth is None else [truth])
    low, high = finite_range(*profiles)
    margin = 0.05 * (high - low) or 1.0
    panel.set(xlabel="space [grid points]", xlim=(0, samples.shape[-1] - 1), ylim=(low - margin, high + margin))
    panel.legend(loc="upper right")

    def move_to(step: int) -> None:
        for line, values in zip(lines, profiles, strict=True):
            line.set_ydata(values[step])

    return move_to


def fan_frames(axes: Any, times: NDArray[Any]) -> Callable[[int], None]:
    """Cover what lies after the first time; the function returned uncovers it up to another one."""
    from matplotlib.dates import date2num
    from matplotlib.patches import Rectangle

    starts = np.asarray(date2num(times) if times.dtype.kind == "M" else times)
    covers = []
    for panel in axes:
        low, high = panel.get_xlim()
        panel.set(xlim=(low, high), ylim=panel.get_ylim())
        params = {"color": panel.get_facecolor(), "linewidth": 0, "zorder": 2.4}  # above lines, below spines
        cover = Rectangle((starts[0], 0.0), high - low, 1.0, transform=panel.get_xaxis_transform(), **params)
        covers.append(panel.add_patch(cover))

    def move_to(step: int) -> None:
        for cover in covers:
            cover.set_x(starts[step])

    return move_to
