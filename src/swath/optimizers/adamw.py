"""AdamW: steps of the size of the learning rate, whatever the size of the gradient.

Source: Loshchilov & Hutter 2019, arXiv:1711.05101.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from swath.config import ConfigError
from swath.optimizers import Optimizer, groups

if TYPE_CHECKING:
    from torch import nn, optim


@dataclass(frozen=True, kw_only=True)
class AdamW(Optimizer):
    """Adam with decoupled weight decay, which spares biases, norms, tokens and positions."""

    lr: float = 1e-3
    """Peak learning rate, tuned for ``batch.samples``; the schedule multiplies it by 0..1."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Memory of the gradient's mean and of its square, each 0..1: the last 1 / (1 - beta)
    updates count."""
    eps: float = 1e-8
    """Added to the root of the mean square. Gradients well below it make no step: raise it where
    parameters whose true gradient is 0 wander on rounding noise."""
    weight_decay: float = 0.05
    """Share of a weight that is taken away in an update, as a multiple of the learning rate."""
    fused: bool = False
    """All arithmetic of an update in one kernel, different from the plain one by rounding. false:
    one operation at a time, for each parameter on a CPU, for all of them together on a GPU."""

    def __post_init__(self) -> None:
        if self.lr <= 0 or self.eps <= 0 or self.weight_decay < 0:
            raise ConfigError(
                f"lr={self.lr} and eps={self.eps} must be positive,"
                f" weight_decay={self.weight_decay} not negative"
            )
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ConfigError(f"betas={list(self.betas)}: each must be at least 0 and below 1")

    def build(self, model: nn.Module) -> optim.Optimizer:
        """Return the optimiser of ``model``'s parameters, in groups "decayed" and "free"."""
        import torch

        return torch.optim.AdamW(
            groups(model, self.weight_decay),
            lr=self.lr,
            betas=self.betas,
            eps=self.eps,
            fused=self.fused or None,  # None leaves torch its choice, which is never fused
        )
