"""The flow matching objective: regress the velocity of the path that joins noise and data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from flowmatch.core.checks import check_output
from flowmatch.core.entries import BLOCKS, generated, start_from, without_labels
from flowmatch.core.types import Rng
from flowmatch.flow import Coupling, IndependentCoupling, Path, Source, TimeSampler
from flowmatch.objectives.losses import L2Loss, ResidualLoss
from flowmatch.objectives.weights import LossWeight, UniformWeight

Network = Callable[..., Tensor]
"""``network(x, t, condition=None) -> (B, *sample_shape)`` with `t` of shape (B,)."""


@dataclass(frozen=True)
class VelocityObjective:
    """Conditional flow matching (Lipman et al., 2023, eq. 14): ``E w(t) |v(x_t, t, c) - u_t|^2``.

    Parameters
    ----------
    path : Path
        How noise and data are mixed along time.
    source : Source
        The distribution of the noise.
    coupling : Coupling
        How noise is paired with data within a batch.
    time_sampler : TimeSampler
        The distribution of times.
    source_scale : Tensor of shape sample_shape
        From ``source.fit_scale``; it also says on which device and in which dtype noise is drawn.
    loss : ResidualLoss, default=L2Loss()
        Norm of the velocity's error.
    weight : LossWeight, default=UniformWeight()
        Weight of the loss.
    condition_dropout : float, default=0.0
        Probability that a row's condition is replaced by zeros, which stand for "no condition". Needed for guidance.
    conditions_are_classes : bool, default=False
        Whether conditions are one-hot labels. The coupling then pairs inside a class; for other conditions every row
        is alone in its condition and keeps the noise it was given.
    crop : float, default=1.0
        Train on random windows of this share of every grid axis.
    is_masked : bool, default=False
        Whether conditions end in the entries of a table's row that are given or absent (`flowmatch.core.entries`).
        Noise is zero there, as the data and the network's output are, so that they add nothing to the loss; conditions
        are dropped without them.
    has_gaps : bool, default=False
        Whether data may be NaN. Nothing is learned there: the path ends at zero, and the error does not count.

    Examples
    --------
    >>> import torch
    >>> from flowmatch.flow import IndependentCoupling, LinearPath, NormalSource, UniformTimes
    >>> from flowmatch.networks import MLP
    >>> from flowmatch.objectives import VelocityObjective
    >>> parts = LinearPath(), NormalSource(), IndependentCoupling(), UniformTimes()
    >>> objective = VelocityObjective(*parts, source_scale=torch.ones(2))
    >>> objective(MLP()((2,), 0), torch.zeros(8, 2)).shape
    torch.Size([8])
    """

    path: Path
    source: Source
    coupling: Coupling
    time_sampler: TimeSampler
    source_scale: Tensor
    loss: ResidualLoss = field(default_factory=L2Loss)
    weight: LossWeight = field(default_factory=UniformWeight)
    condition_dropout: float = 0.0
    conditions_are_classes: bool = False
    crop: float = 1.0
    is_masked: bool = False
    has_gaps: bool = False

    def __call__(self, network: Network, x1: Tensor, condition: Tensor | None = None, generator: Rng = None) -> Tensor:
        """Draw noise and times, and return the loss of each sample.

        Parameters
        ----------
        network : callable
            The velocity ``(x, t, condition) -> (B, *sample_shape)``.
        x1 : Tensor of shape (B, *sample_shape)
            Data.
        condition : Tensor of shape (B, k), optional
            Conditions.
        generator : torch.Generator, optional
            On the device of `x1`.

        Returns
        -------
        Tensor of shape (B,)
            The losses.
        """
        x0, x1 = self.draw_pairs(x1, condition, generator)
        t = self.draw_times(len(x1), generator)
        condition = self.hide_conditions(condition, generator)
        return self.residual_loss(network, x0, x1, t, condition)

    def draw_pairs(self, x1: Tensor, condition: Tensor | None, generator: Rng) -> tuple[Tensor, Tensor]:
        """Draw noise for data, as they belong together.

        Parameters
        ----------
        x1 : Tensor of shape (B, *sample_shape)
            Data.
        condition : Tensor of shape (B, k) or None
            Conditions.
        generator : torch.Generator or None
            On the device of `x1`.

        Returns
        -------
        x0, x1 : Tensor of shape (B, *sample_shape)
            Noise and data, or windows of them.
        """
        x0 = self.source.draw(len(x1), self.source_scale, generator)
        if self.crop < 1:
            x0, x1 = random_windows((x0, x1), self.crop, generator)
        if not self.is_masked or condition is None:
            return self._pair(x0, x1, condition), x1
        if type(self.coupling) is IndependentCoupling:
            return start_from(x0, condition), x1
        shown = generated(condition, self.source_scale.numel())
        whole = (shown == 1).all(1)  # noise that knew the given entries would reveal them
        vector = condition[:, : condition.shape[1] - self.n_kept]
        paired = self._pair(x0, x1, vector if vector.shape[1] else None, whole)
        return start_from(torch.where(whole[:, None], paired, x0), condition), x1

    def hide_conditions(self, condition: Tensor | None, generator: Rng) -> Tensor | None:
        """Replace the conditions of a share of the rows by zeros; given entries stay.

        Parameters
        ----------
        condition : Tensor of shape (B, k) or None
            Conditions.
        generator : torch.Generator or None
            On their device.

        Returns
        -------
        Tensor of shape (B, k) or None
            New conditions.
        """
        if condition is None or self.condition_dropout == 0:
            return condition
        shown = torch.rand(len(condition), 1, generator=generator, device=condition.device) >= self.condition_dropout
        return torch.where(shown, condition, without_labels(condition, self.n_kept))

    @property
    def n_kept(self) -> int:
        """Elements at the end of a condition that are no conditions, but entries of the row."""
        return BLOCKS * self.source_scale.numel() if self.is_masked else 0

    def draw_times(self, n_samples: int, generator: Rng) -> Tensor:
        """Draw training times.

        Parameters
        ----------
        n_samples : int
            How many.
        generator : torch.Generator or None
            On the device of the source's scale.

        Returns
        -------
        Tensor of shape (n_samples,)
            In [path.first_time, 1].
        """
        scale, first = self.source_scale, self.path.first_time
        t = self.time_sampler.draw(n_samples, generator, scale.device, scale.dtype)
        return t if first == 0 else first + (1 - first) * t

    def residual_loss(
        self, network: Network, x0: Tensor, x1: Tensor, t: Tensor, condition: Tensor | None = None
    ) -> Tensor:
        """Weighted loss of each sample for given noise and times.

        Parameters
        ----------
        network : callable
            The velocity ``(x, t, condition) -> (B, *sample_shape)``.
        x0 : Tensor of shape (B, *sample_shape)
            Noise.
        x1 : Tensor of shape (B, *sample_shape)
            Data.
        t : Tensor of shape (B,)
            Times.
        condition : Tensor of shape (B, k), optional
            Conditions.

        Returns
        -------
        Tensor of shape (B,)
            The losses.
        """
        absent = x1.isnan() if self.has_gaps else None
        x1 = x1 if absent is None else x1.masked_fill(absent, 0.0)
        target = self.path.velocity(x0, x1, t)
        velocity = check_output(network, network(self.path.interpolate(x0, x1, t), t, condition), target)
        residual = velocity - target
        return self.weigh(residual if absent is None else residual.masked_fill(absent, 0.0), t)

    def weigh(self, residual: Tensor, t: Tensor) -> Tensor:
        """Weighted loss of each sample's residual.

        Parameters
        ----------
        residual : Tensor of shape (B, *sample_shape)
            Prediction minus target.
        t : Tensor of shape (B,)
            Times.

        Returns
        -------
        Tensor of shape (B,)
            The losses.
        """
        loss = self.loss(residual, t)
        if isinstance(self.weight, UniformWeight):
            return loss
        error = loss if isinstance(self.loss, L2Loss) else residual.square().flatten(1).mean(1)
        return self.weight(t, error, self.path) * loss

    def _pair(self, x0: Tensor, x1: Tensor, condition: Tensor | None, whole: Tensor | None = None) -> Tensor:
        """Noise in the order of the data that the coupling gives it to; `whole` rows (B,) are paired on their own.

        Rows with zeros in place of hidden entries would take the noise near zero away from the others.
        """
        if condition is not None and not self.conditions_are_classes:
            return x0
        groups = None if condition is None else condition.argmax(1)
        if whole is not None:
            groups = whole.long() if groups is None else torch.where(whole, groups, -1)
        return self.coupling.pair(x0, x1, groups)


def random_windows(tensors: Sequence[Tensor], share: float, generator: Rng = None) -> tuple[Tensor, ...]:
    """Cut a random window out of each sample's grid, the same one in all tensors.

    Parameters
    ----------
    tensors : sequence of Tensor of shape (B, C, *grid)
        Samples.
    share : float
        Length of the window along every axis, as a share of the axis; at least one point.
    generator : torch.Generator, optional
        On the tensors' device.

    Returns
    -------
    tuple of Tensor of shape (B, C, *window)
        The windows.
    """
    first = tensors[0]
    for axis in range(2, first.ndim):
        size = max(1, round(share * first.shape[axis]))
        start = torch.randint(first.shape[axis] - size + 1, (len(first), 1), generator=generator, device=first.device)
        points = start + torch.arange(size, device=first.device)
        index = points.reshape(len(first), *[1] * (axis - 1), size, *[1] * (first.ndim - axis - 1))
        tensors = [torch.take_along_dim(tensor, index, dim=axis) for tensor in tensors]
    return tuple(tensors)
