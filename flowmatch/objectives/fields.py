"""Losses for residuals on grids: gradients, several resolutions, channels of unequal importance.

Each is a positive definite quadratic form of the residual (for squared inner losses) that does not depend on the
data. So each has the minimizer of the plain loss, the conditional mean of the velocity, and with it the exact flow.
What changes is where a network of limited capacity, trained for a limited time, makes its errors: at short or long
wavelengths, in one channel or another.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import MISSING, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from flowmatch.core.checks import check_choice, check_each, check_number, check_sequence, checked
from flowmatch.core.component import resolve_component
from flowmatch.objectives.losses import L2Loss, PseudoHuberLoss, ResidualLoss
from flowmatch.objectives.weights import at_times

TimeWeight = float | Callable[[Tensor], Tensor]
"""A number, or a function of times (B,) with values (B,)."""

BOUNDARIES = ("periodic", "wall")

_POOLS: dict[int, Callable[..., Tensor]] = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}
_TRIAL_TIMES = (0.1, 0.3, 0.5, 0.7, 0.9)


def _check_time_weight(name: str, weight: Any, *, open_low: bool) -> None:
    """A number in range, or a function that turns five times between 0 and 1 into such numbers."""
    if not callable(weight):
        check_number(name, weight, 0.0, open_low=open_low)
        return
    values = at_times(name, weight, torch.tensor(_TRIAL_TIMES))
    for t, value in zip(_TRIAL_TIMES, values.tolist(), strict=True):
        check_number(f"{name}(t) at t = {t:g}", value, 0.0, open_low=open_low)


def _check_scales(name: str, scales: Any) -> None:
    """Numbers 1 over an integer, 1 among them."""
    check_sequence(name, scales, check_number, 0.0, open_low=True)
    for scale in scales:
        if scale > 1 or abs(1 / scale - round(1 / scale)) > 1e-6:
            raise ValueError(f"{name} must be 1 over an integer, such as 1.0, 0.5 and 0.25; got {scale!r}.")
    if all(scale != 1 for scale in scales):
        raise ValueError(f"{name} must contain 1.0, or fine details are not learned; got {scales!r}.")


def _check_inner(name: str, loss: Any) -> None:
    resolve_component(name, loss, ResidualLoss, dict(LOSSES))


@dataclass(frozen=True)
class Sobolev(ResidualLoss):
    """``alpha(t) |e|^2 + beta(t) sum over grid axes |grad e|^2``, each a mean over a sample's entries.

    Gradients are forward differences divided by the grid spacing. On a wave of wavenumber k (radians per unit of
    spacing h) the loss is ``alpha + beta sum over axes (2 / h sin(k h / 2))^2`` times the plain one, so beta > 0 puts
    short wavelengths first; centered differences would not see the shortest, the checkerboard. Independent noise
    weighs ``alpha + 2 beta / h^2`` for each periodic axis. ``Sobolev(1, 0)`` is `L2Loss`.

    Near t = 1 the velocity's target is mostly noise, which no network can predict and which beta > 0 amplifies. On
    small unconditional fields trained for few steps short wavelengths came out worse, not better, the larger beta was:
    compare spectra of generated samples with those under "l2" before relying on it.

    Parameters
    ----------
    alpha : float > 0 or callable, default=1.0
        Weight of the residual itself; a callable is given times (B,) and returns weights (B,). With alpha = 0 the
        mean of the field would drop out of the loss and stay unlearned, so 0 is refused; a callable should vanish at
        single times at most.
    beta : float >= 0 or callable, default=0.25
        Weight of the gradients, in squared units of spacing: ``sqrt(beta / alpha)`` is the length below which
        gradients count more than values. The default weighs a wave of two points' length along one axis twice as much
        as the mean of the field; on a square grid the range is 1 to 3, mild enough not to be ruled by noise.
    boundary : {"wall", "periodic"} or sequence of them, default="wall"
        Whether differences wrap around at the end of an axis; one for all axes or one for each.
    spacing : float > 0 or sequence of them, default=1.0
        Distance of neighboring points; one for all axes or one for each. Inside `MultiScale` that of every
        resolution.

    Examples
    --------
    >>> import torch
    >>> checkerboard = torch.tensor([[[1.0, -1.0, 1.0, -1.0]]])
    >>> Sobolev(beta=0.25, boundary="periodic")(checkerboard, torch.tensor([0.5]))
    tensor([2.])
    """

    alpha: TimeWeight = checked(1.0, _check_time_weight, open_low=True)
    beta: TimeWeight = checked(0.25, _check_time_weight, open_low=False)
    boundary: str | Sequence[str] = checked("wall", check_each, check_choice, BOUNDARIES)
    spacing: float | Sequence[float] = checked(1.0, check_each, check_number, 0.0, open_low=True)

    def check_shape(self, sample_shape: tuple[int, ...]) -> None:
        _check_grid("Sobolev", sample_shape)
        for name, value in (("boundary", self.boundary), ("spacing", self.spacing)):
            if len(_each(value, len(sample_shape) - 1)) != len(sample_shape) - 1:
                raise ValueError(
                    f"{name} of Sobolev must be one value, or one for each of the {len(sample_shape) - 1} grid axes "
                    f"of samples of shape {sample_shape}; got {value!r}."
                )

    def __call__(self, residual: Tensor, t: Tensor) -> Tensor:
        loss = _at(self.alpha, t) * residual.square().flatten(1).mean(1)
        return loss + _at(self.beta, t) * self.squared_gradient(residual)

    def squared_gradient(self, residual: Tensor) -> Tensor:
        """Sum over grid axes of the squared forward differences, as a mean over entries.

        Parameters
        ----------
        residual : Tensor of shape (B, C, *grid)
            Prediction minus target.

        Returns
        -------
        Tensor of shape (B,)
            One for each sample.
        """
        n_axes = residual.ndim - 2
        total = residual.new_zeros(len(residual))
        for axis, boundary, spacing in zip(
            range(2, residual.ndim), _each(self.boundary, n_axes), _each(self.spacing, n_axes), strict=True
        ):
            step = residual.roll(-1, axis) - residual if boundary == "periodic" else residual.diff(dim=axis)
            total = total + step.square().flatten(1).sum(1) / spacing**2
        return total / math.prod(residual.shape[1:])


@dataclass(frozen=True)
class MultiScale(ResidualLoss):
    """The loss on several resolutions at once, ``sum_s s loss(average of e over cells of 1/s points) / sum_s s``.

    Averaging is linear, so the averaged residual is the flow matching residual of the averaged data along the averaged
    path, and the network is trained on coarse versions of the problem without being shown any. A squared loss keeps
    its minimizer. Weights go from 1 for the mean of the field down to ``1 / sum_s s`` (0.57 by default) of it for the
    shortest wavelengths, so that long ones come first: the opposite of `Sobolev`.

    Tutorials on signals instead feed downsampled samples to the network and add the losses. A network that works
    at any size is then not told which resolution it sees and learns, at each, a mixture of their velocities; one of
    fixed size cannot be run on them at all.

    Cells at the end of an axis that have fewer points average those they have; an axis shorter than a cell is one
    cell.

    Parameters
    ----------
    scales : sequence of float, default=(1.0, 0.5, 0.25)
        Resolutions and their weights, each 1 over an integer. 1.0 must be among them: details finer than every cell
        would not be learned.
    loss : {"l2", "huber", "sobolev"} or ResidualLoss, default="l2"
        What is computed at each resolution.

    Examples
    --------
    >>> import torch
    >>> wave, t = torch.tensor([[[1.0, 1.0, -1.0, -1.0]]]), torch.tensor([0.5])
    >>> MultiScale()(wave, t)  # seen in full at 1 and 0.5, not at 0.25
    tensor([0.8571])
    """

    scales: Sequence[float] = checked((1.0, 0.5, 0.25), _check_scales)
    loss: str | ResidualLoss = checked("l2", _check_inner)

    def check_shape(self, sample_shape: tuple[int, ...]) -> None:
        _check_grid("MultiScale", sample_shape)
        _inner(self.loss).check_shape(sample_shape)

    def __call__(self, residual: Tensor, t: Tensor) -> Tensor:
        loss, total = _inner(self.loss), residual.new_zeros(len(residual))
        for scale in self.scales:
            total = total + scale * loss(average_cells(residual, round(1 / scale)), t)
        return total / sum(self.scales)


@dataclass(frozen=True)
class ChannelWeighted(ResidualLoss):
    """A loss in which channels count unequally: channel c of the residual is scaled by ``sqrt(w_c / mean(w))``.

    A squared loss is then weighted by w, keeps its size and its minimizer. Data are standardized per channel by
    default, so that equal weights already mean equal shares of a channel's variance.

    Parameters
    ----------
    weights : sequence of float > 0
        One for each channel of a grid, or for each column of a table that is not constant; only their ratios matter.
        0 is refused: the channel would not be learned, and its samples would stay noise.
    loss : {"l2", "huber", "sobolev", "multiscale"} or ResidualLoss, default="l2"
        What is computed of the scaled residual.

    Examples
    --------
    >>> import torch
    >>> ChannelWeighted([3.0, 1.0])(torch.tensor([[[1.0, 1.0], [0.0, 0.0]]]), torch.tensor([0.5]))
    tensor([0.7500])
    """

    weights: Sequence[float] = checked(MISSING, check_sequence, check_number, 0.0, open_low=True)
    loss: str | ResidualLoss = checked("l2", _check_inner)

    def check_shape(self, sample_shape: tuple[int, ...]) -> None:
        if len(self.weights) != sample_shape[0]:
            what = "channels" if len(sample_shape) > 1 else "columns that vary"
            raise ValueError(
                f"weights of ChannelWeighted has {len(self.weights)} entries, but the data have {sample_shape[0]} "
                f"{what}; expected one weight for each."
            )
        _inner(self.loss).check_shape(sample_shape)

    def __call__(self, residual: Tensor, t: Tensor) -> Tensor:
        scale = _root_weights(tuple(self.weights), residual.device, residual.dtype)
        return _inner(self.loss)(residual * scale.reshape(-1, *[1] * (residual.ndim - 2)), t)


LOSSES: dict[str, type[ResidualLoss]] = {
    "l2": L2Loss,
    "huber": PseudoHuberLoss,
    "sobolev": Sobolev,
    "multiscale": MultiScale,
}


def average_cells(field: Tensor, size: int) -> Tensor:
    """Averages over cells of `size` points along each grid axis: (B, C, *grid) to (B, C, *ceil(grid / size))."""
    grid = field.shape[2:]
    if size == 1 or not grid:
        return field
    # ceil_mode divides by the points inside the grid, so cells that stick out average what they have
    return _POOLS[len(grid)](field, [min(size, points) for points in grid], ceil_mode=True)


@functools.lru_cache(maxsize=32)
def _root_weights(weights: tuple[float, ...], device: torch.device, dtype: torch.dtype) -> Tensor:
    """``sqrt(w / mean(w))``, kept on the device: a copy at every step would make the host wait for it."""
    mean = math.fsum(weights) / len(weights)
    with torch.inference_mode(False):
        return torch.tensor([math.sqrt(weight / mean) for weight in weights], device=device, dtype=dtype)


def _inner(loss: str | ResidualLoss) -> ResidualLoss:
    return LOSSES[loss]() if isinstance(loss, str) else loss


def _at(weight: TimeWeight, t: Tensor) -> Tensor | float:
    return weight(t) if callable(weight) else weight


def _check_grid(name: str, sample_shape: tuple[int, ...]) -> None:
    if not 2 <= len(sample_shape) <= 4:
        raise ValueError(
            f"loss {name} needs samples on a grid of one to three axes, (n, channels, *grid); got samples of shape "
            f"{sample_shape}{', which are rows of a table' if len(sample_shape) == 1 else ''}."
        )


def _each(value: Any, n_axes: int) -> Sequence[Any]:
    """A sequence as it is, a single value once for each axis."""
    return value if isinstance(value, (tuple, list)) else (value,) * n_axes
