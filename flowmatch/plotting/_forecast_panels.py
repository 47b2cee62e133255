"""What `ForecastDisplay` is given, checked, and what it draws: bands of series, panels of fields, frames."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from flowmatch.core.checks import check_count
from flowmatch.plotting._common import Floats, as_array, divide_axes, finite_range, one_axes

STATES = ("truth", "mean", "member")
"""Panels that share one scale of colors."""
PANELS = (*STATES, "spread", "error")
_ALPHAS = (0.2, 0.4)
_COLUMNS = 5
_PIXELS = {"interpolation": "nearest", "origin": "lower"}
Panels: TypeAlias = dict[str, tuple[Floats, dict[str, Any]]]
"""What panels show, (n_steps, [height,] width), and its colors, by name."""
Images: TypeAlias = dict[str, list[Any]]
"""Artists of each panel."""
Frames: TypeAlias = tuple[Any, Callable[[int], None]]
"""A figure at the first lead time, and a function that moves it to another one."""


def row_of(name: str, X: Any, expected: tuple[int | None, ...], index: int) -> Floats:
    """Row `index` of an array of the expected shape, in which None stands for any length from 1."""
    array = as_array(X)
    fits = array.ndim == len(expected) and array.size > 0
    if not fits or any(want not in (None, got) for want, got in zip(expected, array.shape, strict=True)):
        shape = ", ".join("n_history" if length is None else str(length) for length in expected)
        raise ValueError(f"{name} has shape {array.shape}; expected ({shape}), to fit samples.")
    return array[index]


def checked_times(times: Any, n_steps: int, n_past: int) -> NDArray[Any]:
    """Times as floats, or as dates to the nanosecond, which can be halved."""
    found = np.asarray(times)
    if found.dtype.kind not in "Miuf":
        raise ValueError(f"times must be numbers or dates, got {times!r}.")
    found = found.astype("datetime64[ns]" if found.dtype.kind == "M" else np.float64)
    if found.shape not in {(n_steps,), (n_past + n_steps,)}:
        expected = f"({n_steps},)" + (f" or, with the history, ({n_past + n_steps},)" if n_past else "")
        raise ValueError(f"times has shape {found.shape}; expected {expected}.")
    if not (found[1:] > found[:-1]).all():
        raise ValueError(f"times must be increasing, got {times!r}.")
    return found


def chosen_steps(steps: Sequence[int] | None, n_steps: int) -> list[int]:
    """Positions, from 0, of the lead times that are shown."""
    if steps is None:
        return sorted({round(position) for position in np.linspace(0, n_steps - 1, _COLUMNS)})
    if len(steps) == 0:
        raise ValueError("steps is empty; expected at least one lead time, counted from 1.")
    return [check_count("each of steps", step, 1, n_steps, " (lead times count from 1)") - 1 for step in steps]


def draw_bands(panel: Any, times: NDArray[Any], samples: Floats, coverages: Sequence[float], color: Any) -> list[Any]:
    """Bands of one variable that hold these shares of the samples (n_samples, n_steps), the widest first."""
    bands = []
    alphas = np.linspace(*_ALPHAS, len(coverages)) if len(coverages) > 1 else [np.mean(_ALPHAS)]
    for coverage, alpha in zip(sorted(coverages, reverse=True), alphas, strict=True):
        # ranks (M + 1) p, as `flowmatch.metrics.interval_coverage` takes them: a calibrated band covers its share
        ends = np.quantile(samples, [0.5 - coverage / 2, 0.5 + coverage / 2], axis=0, method="weibull")
        params = {"color": color, "alpha": alpha, "linewidth": 0, "label": f"{coverage:.0%}"}
        bands.append(panel.fill_between(times, *ends, **params))
    return bands


def panels_of(samples: Floats, truth: Floats | None, member: int, cmaps: Sequence[Any]) -> Panels:
    """What is shown of an ensemble (n_samples, ...); a single member has no mean and no spread.

    `cmaps` are those of states, which share a scale, of the spread, from 0 on, and of the error, around 0.
    """
    state_cmap, spread_cmap, error_cmap = cmaps
    many, mean = len(samples) > 1, samples.mean(axis=0)
    candidates = zip(STATES, (truth, mean if many else None, samples[member]), strict=True)
    states = {name: values for name, values in candidates if values is not None}
    limits = finite_range(*states.values())
    found = {name: (values, state_cmap, limits) for name, values in states.items()}
    if many:
        spread = samples.std(axis=0, ddof=1)
        found["spread"] = spread, spread_cmap, (0.0, finite_range(spread)[1] or 1.0)
    if truth is not None:
        largest = max(map(abs, finite_range(mean - truth))) or 1.0
        found["error"] = mean - truth, error_cmap, (-largest, largest)
    return {
        name: (values, {"cmap": cmap, "vmin": low, "vmax": high}) for name, (values, cmap, (low, high)) in found.items()
    }


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
    axes, images = axes.reshape(len(shown), len(columns)), {}
    for row, (name, (values, colors)) in zip(axes, shown.items(), strict=True):
        images[name] = [
            panel.imshow(values[step], **colors | _PIXELS | params)
            for panel, (step, _) in zip(row, columns, strict=True)
        ]
        row[0].set_ylabel(name)
    for panel in axes.flat:
        panel.set(xticks=[], yticks=[])
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
