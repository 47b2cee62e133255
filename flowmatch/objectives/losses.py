"""Norms of the residual field: how far a prediction is from its target, sample by sample."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor

from flowmatch.core.checks import check_number
from flowmatch.core.component import Component


class ResidualLoss(Component, ABC):
    """A loss of the residual ``prediction - target``."""

    @abstractmethod
    def __call__(self, residual: Tensor, t: Tensor) -> Tensor:
        """Loss of each sample, shape (B,).

        Parameters
        ----------
        residual : Tensor of shape (B, *sample_shape)
        t : Tensor of shape (B,)
            Times of the samples, for losses that change along the path.
        """

    def check_shape(self, sample_shape: tuple[int, ...]) -> None:
        """Raise a ValueError if the loss does not fit samples of that shape; called before training starts."""


@dataclass(frozen=True)
class L2Loss(ResidualLoss):
    """Mean of the squared residual over a sample's entries."""

    def __call__(self, residual: Tensor, t: Tensor) -> Tensor:
        return residual.square().flatten(1).mean(1)


@dataclass(frozen=True)
class PseudoHuberLoss(ResidualLoss):
    """``sqrt(|e|^2 + c^2) - c`` with |e| the Euclidean norm of a sample's residual.

    Quadratic for small and linear for large residuals, so outlying samples pull less. It changes the minimiser from
    the conditional mean towards a conditional median. The default follows Song and Dhariwal (2023, section 3.3):
    ``c = 0.00054 sqrt(d)`` for samples of d entries.

    Parameters
    ----------
    scale : float, default=0.00054
        c per square root of the number of entries.
    """

    scale: float = 0.00054

    def validate(self) -> None:
        check_number("scale", self.scale, 0.0, open_low=True)

    def __call__(self, residual: Tensor, t: Tensor) -> Tensor:
        residual = residual.flatten(1)
        c = self.scale * residual.shape[1] ** 0.5
        return (residual.square().sum(1) + c * c).sqrt() - c
