"""Norms of the residual field: how far a prediction is from its target, sample by sample."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor

from flowmatch.core.checks import check_number, checked
from flowmatch.core.component import Component


class ResidualLoss(Component, ABC):
    """A loss of the residual ``prediction - target``.

    Examples
    --------
    >>> from dataclasses import dataclass
    >>> import torch
    >>> from flowmatch.objectives import ResidualLoss
    >>> @dataclass(frozen=True)
    ... class AbsoluteLoss(ResidualLoss):
    ...     def __call__(self, residual, t):
    ...         return residual.abs().flatten(1).mean(1)
    >>> AbsoluteLoss()(torch.tensor([[1.0, -3.0]]), torch.tensor([0.5]))
    tensor([2.])
    """

    @abstractmethod
    def __call__(self, residual: Tensor, t: Tensor) -> Tensor:
        """Loss of each sample.

        Parameters
        ----------
        residual : Tensor of shape (B, *sample_shape)
            Prediction minus target.
        t : Tensor of shape (B,)
            Times of the samples, for losses that change along the path.

        Returns
        -------
        Tensor of shape (B,)
            The losses.
        """

    def check_shape(self, sample_shape: tuple[int, ...]) -> None:
        """Check that the loss suits samples of a shape; called before training starts.

        Parameters
        ----------
        sample_shape : tuple of int
            Shape of one sample.

        Raises
        ------
        ValueError
            If it does not.
        """


@dataclass(frozen=True)
class L2Loss(ResidualLoss):
    """Mean of the squared residual over a sample's entries.

    Examples
    --------
    >>> import torch
    >>> from flowmatch.objectives import L2Loss
    >>> L2Loss()(torch.tensor([[1.0, -3.0]]), torch.tensor([0.5]))
    tensor([5.])
    """

    def __call__(self, residual: Tensor, t: Tensor) -> Tensor:
        return residual.square().flatten(1).mean(1)


@dataclass(frozen=True)
class PseudoHuberLoss(ResidualLoss):
    """``sqrt(|e|^2 + c^2) - c`` with |e| the Euclidean norm of a sample's residual.

    Quadratic for small and linear for large residuals, so outlying samples pull less. It changes the minimizer from
    the conditional mean toward a conditional median. The default follows Song and Dhariwal (2023, section 3.3):
    ``c = 0.00054 sqrt(d)`` for samples of d entries.

    Parameters
    ----------
    scale : float, default=0.00054
        The constant c per square root of the number of entries.

    Examples
    --------
    >>> import torch
    >>> from flowmatch.objectives import PseudoHuberLoss
    >>> PseudoHuberLoss()(torch.tensor([[3.0, 4.0]]), torch.tensor([0.5]))
    tensor([4.9992])
    """

    scale: float = checked(0.00054, check_number, 0.0, open_low=True)

    def __call__(self, residual: Tensor, t: Tensor) -> Tensor:
        residual = residual.flatten(1)
        c = self.scale * residual.shape[1] ** 0.5
        return (residual.square().sum(1) + c * c).sqrt() - c
