"""Stochastic gradient descent, with momentum.

Source of the momentum: Sutskever et al. 2013, ICML, "On the importance of initialization and
momentum in deep learning", in torch's form, where the velocity is not scaled by the rate.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from swath.config import ConfigError
from swath.optimizers import Optimizer, groups

if TYPE_CHECKING:
    from torch import nn, optim


@dataclass(frozen=True, kw_only=True)
class SGD(Optimizer):
    """Steps along the gradient, or along its running sum."""

    lr: float = 0.1
    """Peak learning rate, tuned for ``batch.samples``; the schedule multiplies it by 0..1."""
    momentum: float = 0.9
    """Share of the velocity kept from update to update, 0..1; 0: plain descent."""
    nesterov: bool = False
    """Look ahead: use the gradient where the velocity leads."""
    weight_decay: float = 0.0
    """Added to the gradient, times the weight; biases, norms, tokens and positions are spared."""

    def __post_init__(self) -> None:
        if self.lr <= 0 or self.weight_decay < 0:
            raise ConfigError(
                f"lr={self.lr} must be positive, weight_decay={self.weight_decay} not negative"
            )
        if not 0 <= self.momentum < 1:
            raise ConfigError(f"momentum={self.momentum} must be at least 0 and below 1")
        if self.nesterov and not self.momentum:
            raise ConfigError("nesterov=true has no effect with momentum=0; set momentum, as 0.9")

    def build(self, model: nn.Module) -> optim.Optimizer:
        """Return the optimiser of ``model``'s parameters, in groups "decayed" and "free"."""
        import torch

        return torch.optim.SGD(
            groups(model, self.weight_decay),
            lr=self.lr,
            momentum=self.momentum,
            nesterov=self.nesterov,
        )
