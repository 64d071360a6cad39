"""State of a network that moves once an update: what its forward passes gathered, over all ranks.

A module that learns from the samples themselves (batch norm its statistics, a teacher its centre)
only adds up in its forward passes. When the update is made, :func:`settle` sums over ranks and lets
each such module move on, once. Moving at every pass would give each rank a state of its own, and
another when microbatches are dealt out anew. An update that is skipped leaves no trace.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Update:
    """Where in the run the update is that was made, in samples."""

    samples: int
    """Of the update, over all ranks."""
    seen: int
    """By the whole run so far, these included."""


class Settled(nn.Module):
    """A module with a state that moves when an update is made.

    gathers: names of the buffers that forward passes add to. They are not saved: a checkpoint is
    taken when they are zero.
    """

    gathers: ClassVar[tuple[str, ...]] = ()

    def move(self, update: Update) -> None:
        """Take in what was gathered, which now is the sum over all ranks."""
        raise TypeError(f"{type(self).__name__} has no move()")


def settle(model: nn.Module, sum_: Callable[[Tensor], Tensor], update: Update) -> None:
    """Let the modules of ``model`` move on by what they gathered since the last call.

    sum_: returns its argument summed over ranks; called once, by all ranks together, and not at
    all for a model that gathers nothing.
    """
    gathered = _gathered(model)
    with torch.no_grad():
        if gathered:
            total = sum_(torch.cat([tensor.flatten() for tensor in gathered]))
            sizes = [tensor.numel() for tensor in gathered]
            for tensor, value in zip(gathered, total.split(sizes), strict=True):
                tensor.copy_(value.view_as(tensor))
        for module in _settled(model):
            module.move(update)
    forget(model)


def forget(model: nn.Module) -> None:
    """Drop what was gathered since the last :func:`settle`: the update was skipped."""
    for tensor in _gathered(model):
        tensor.zero_()


@contextlib.contextmanager
def unrecorded(model: nn.Module) -> Iterator[None]:
    """Leave out what would be gathered of what passes through ``model`` inside the block."""
    gathered = _gathered(model)
    before = [tensor.clone() for tensor in gathered]
    try:
        yield
    finally:  # recomputing ends by an exception
        for tensor, value in zip(gathered, before, strict=True):
            tensor.copy_(value)


def _settled(model: nn.Module) -> list[Settled]:
    return [module for module in model.modules() if isinstance(module, Settled)]


def _gathered(model: nn.Module) -> list[Tensor]:
    return [getattr(module, name) for module in _settled(model) for name in module.gathers]


@torch.no_grad()
def follow(mine: Tensor, own: Tensor, share: float) -> None:
    """Move ``mine`` towards ``own``, which lies on the ranks as it does, by ``share``, in place."""
    # Each rank moves its own part. Of shared tensors torch would look up anew, for each new share,
    # where the result lies, and keep what it found.
    mine, own = (t.to_local() if hasattr(t, "to_local") else t for t in (mine, own))
    mine.lerp_(own, share)
