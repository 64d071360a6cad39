"""Exponential moving average of the weights: a smoother model than any single update's.

The average forgets over a number of *samples*, so it does not depend on the batch size. Early on,
when it has seen less than it may remember, it is the plain mean of all weights so far; without
that it would carry the random initial weights for long.

Source of averaging iterates: Polyak & Juditsky 1992, SIAM J. Control Optim. 30, 838.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from swath.nn.settle import follow


class Average:
    """The moving average of ``model``'s parameters and floating-point buffers.

    samples: how many samples it remembers; a weight of that age counts 1/e of a fresh one.
    """

    def __init__(self, model: nn.Module, samples: int) -> None:
        self.samples = samples
        self.updates = 0
        self.tensors = {name: value.detach().clone() for name, value in _averaged(model)}

    @torch.no_grad()
    def update(self, model: nn.Module, batch: int) -> None:
        """Take in the weights after an update of ``batch`` samples."""
        self.updates += 1
        fresh = max(1 - math.exp(-batch / self.samples), 1 / self.updates)
        for name, value in _averaged(model):
            follow(self.tensors[name], value, fresh)

    @contextlib.contextmanager
    def worn_by(self, model: nn.Module) -> Iterator[None]:
        """Let ``model`` have the averaged weights inside the block, and its own after it."""
        self._swap(model)
        try:
            yield
        finally:
            self._swap(model)

    @torch.no_grad()
    def _swap(self, model: nn.Module) -> None:
        taken: dict[int, Tensor] = {}
        for name, value in _averaged(model):
            kept = self.tensors[name]
            if id(value) in taken:  # a tensor of two names is swapped once
                kept.copy_(taken[id(value)])
                continue
            own = value.clone()
            value.copy_(kept)
            taken[id(value)] = kept.copy_(own)


def _averaged(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    for name, value in model.state_dict(keep_vars=True).items():
        if value.is_floating_point():
            yield name, value
