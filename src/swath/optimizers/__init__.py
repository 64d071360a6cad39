"""Optimisers by name: one file each. ``kind: adamw`` is ``optimizers/adamw.py``.

An optimiser is a frozen dataclass with the fields ``lr`` and ``weight_decay``, and ``build``. Its
parameters are in the two groups that :func:`groups` makes: "decayed", and "free", which holds
biases, norms, tokens and positions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from swath.config import Choice
from swath.optimizers._groups import groups as groups

if TYPE_CHECKING:
    from torch import nn, optim


@dataclass(frozen=True, kw_only=True)
class Optimizer(Choice):
    """Settings of an optimiser."""

    package: ClassVar[str] = "swath.optimizers"

    lr: float
    """Peak learning rate, tuned for ``batch.samples``; the schedule multiplies it by 0..1."""

    def build(self, model: nn.Module) -> optim.Optimizer:
        """Return the optimiser of ``model``'s parameters, in the order of ``named_parameters``."""
        raise TypeError(f"{type(self).__name__} has no build()")
