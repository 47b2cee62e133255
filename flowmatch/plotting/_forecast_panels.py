"""What `ForecastDisplay` draws: fans of series, panels of fields, and the frames of an animation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from flowmatch.plotting._common import Floats, divide_axes, finite_range, one_axes

STATES = ("truth", "mean", "member")
"""Panels that share one scale of colors."""
PANELS = (*STATES, "spread", "error")
_ALPHAS = (0.2, 0.4)
_PIXELS = {"interpolation": "nearest", "origin": "lower"}
Panels: TypeAlias = dict[str, tuple[Floats, dict[str, Any]]]
"""What panels show, (n_steps, [height,] width), and its colors, by name."""
Images: TypeAlias = dict[str, list[Any]]
"""Artists of each panel."""
Frames: TypeAlias = tuple[Any, Callable[[int], None]]
"""A figure at the first lead time, and a function that moves it to another one."""


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


def panels_of(samples: Floats, truth: Floats | None, member: int, cmaps: Sequence[Any]) -> Panels:
    """What is shown of an ensemble (n_samples, ...); a single member has no mean and no spread.

    `cmaps` are those of states, which share a scale, of the spread, from 0 on, and of the error, around 0.
    """
    many, mean = len(samples) > 1, samples.mean(axis=0)
    spread = samples.std(axis=0, ddof=1) if many else None
    found = (truth, mean if many else None, samples[member], spread, None if truth is None else mean - truth)
    shown = {name: values for name, values in zip(PANELS, found, strict=True) if values is not None}
    limits = dict.fromkeys(STATES, finite_range(*(shown[name] for name in STATES if name in shown)))
    if "spread" in shown:
        limits["spread"] = 0.0, finite_range(shown["spread"])[1] or 1.0
    if "error" in shown:
        largest = max(map(abs, finite_range(shown["error"]))) or 1.0
        limits["error"] = -largest, largest
    state, spread_cmap, error_cmap = cmaps
    cmap_of = dict.fromkeys(STATES, state) | {"spread": spread_cmap, "error": error_cmap}
    colors = {name: {"cmap": cmap_of[name], "vmin": low, "vmax": high} for name, (low, high) in limits.items()}
    return {name: (values, colors[name]) for name, values in shown.items()}


def draw_space_time(ax: Any, shown: Panels, times: NDArray[Any], params: dict[str, Any]) -> tuple[Any, Images]:
    """Axes (n_panels,), and the mesh of each panel (n_steps, width), time to the right and space upwards."""
    axes, images = divide_axes(ax, len(shown), 1, "panel", size=(6.0, 1.5)), {}
    half = (np.diff(times) if len(times) > 1 else np.ones(1, dtype=(times - times).dtype)) / 2
    edges = np.concatenate([times[:1] - half[:1], times[:-1] + half, times[-1:] + half[-1:]])
    for panel, (name, (values, colors)) in zip(axes, shown.items(), strict=True):
        space = np.arange(values.shape[1] + 1) - 0.5
        images[name] = [panel.pcolormesh(edges, space, values.T, **colors | {"rasterized": True} | params)]
        panel.set_ylabel(name)
    return axes, images


def draw_pictures(
    ax: Any, shown: Panels, columns: Sequence[tuple[int, str]], params: dict[str, Any]
) -> tuple[Any, Images]:
    """Axes (n_panels, n_columns), and the pictures of each panel (n_steps, height, width) at each column's step."""
    _, height, width = shown["member"][0].shape
    size = (1.6, max(0.5, min(3.2, 1.6 * height / width)))
    axes = divide_axes(ax, len(shown) * len(columns), len(columns), "picture", size=size)
    axes = axes.reshape(len(shown), len(columns))
    images: Images = {}
    for row, (name, (values, colors)) in zip(axes, shown.items(), strict=True):
        images[name] = []
        for panel, (step, _) in zip(row, columns, strict=True):
            images[name].append(panel.imshow(values[step], **colors | _PIXELS | params))
            panel.set(xticks=[], yticks=[])
        row[0].set_ylabel(name)
    for panel, (_, label) in zip(axes[0], columns, strict=True):
        panel.set_title(label)
    return axes, images


def draw_colorbars(axes: Any, images: Images) -> list[Any]:
    """One scale for all states, one for the spread, one for the error."""
    rows = dict(zip(images, axes.reshape(len(images), -1), strict=True))
    states = [name for name in images if name in STATES]
    colorbars = []
    for names in [states] + [[name] for name in images if name not in STATES]:
        beside = [panel for name in names for panel in rows[name]]
        colorbars.append(beside[0].figure.colorbar(images[names[0]][0], ax=beside))
    return colorbars


def picture_frames(shown: Panels, params: dict[str, Any]) -> Frames:
    """States (n_steps, height, width) side by side."""
    axes, images = divide_axes(None, len(shown), len(shown), "panel", size=(2.6, 2.4)), {}
    for panel, (name, (values, colors)) in zip(axes, shown.items(), strict=True):
        images[name] = panel.imshow(values[0], **colors | _PIXELS | params)
        panel.set(title=name, xticks=[], yticks=[])

    def move_to(step: int) -> None:
        for name, image in images.items():
            image.set_data(shown[name][0][step])

    return axes[0].figure, move_to


def profile_frames(samples: Floats, truth: Floats | None, params: dict[str, Any]) -> Frames:
    """Profiles of all members (n_samples, n_steps, width), their mean and the truth."""
    panel, mean = one_axes(None, (6.0, 3.2)), samples.mean(axis=0)
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

    return panel.figure, move_to


def fan_frames(axes: Any, times: NDArray[Any]) -> Frames:
    """Fans, of which what lies after the time of a frame is covered."""
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

    return axes[0].figure, move_to
