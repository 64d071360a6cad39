"""The tokens of one sample, dealt out to ranks in runs: contiguous shards of the sequence.

Each rank holds a run of neighbouring tokens, as long as the others' or one longer; so any number of
tokens fits any number of ranks. Two exchanges go with it: runs are joined to the whole, and wholes
are added up over ranks, each of which keeps its run of the sum. One is the other's derivative.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from swath.config import ConfigError
from swath.parallel.world import World

# torch 2.13 has new names and warns at the old ones; 2.11 has the old ones only.
_gather: Any = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
_scatter_sum: Any = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor


@dataclass(frozen=True)
class Runs:
    """How many tokens each rank of ``world`` holds, in the order of ranks."""

    world: World
    lengths: tuple[int, ...]

    @classmethod
    def of(cls, tokens: int, world: World) -> Runs:
        """Deal out ``tokens`` tokens; ConfigError if there is not one for each rank."""
        if tokens < world.ranks:
            raise ConfigError(
                f"parallel.context={world.ranks}: a sample has {tokens} tokens, fewer than "
                f"ranks; set context to at most {tokens}, or make model.patch smaller"
            )
        each, over = divmod(tokens, world.ranks)
        return cls(world, tuple(each + (rank < over) for rank in range(world.ranks)))

    def own(self, whole: Tensor, dim: int) -> Tensor:
        """Return this rank's run of ``whole``, whose tokens lie along ``dim``."""
        rank = self.world.rank
        return whole.narrow(dim, sum(self.lengths[:rank]), self.lengths[rank]).contiguous()

    def join(self, run: Tensor, dim: int) -> Tensor:
        """Return the runs of all ranks, one after the other along ``dim``."""
        longest = max(self.lengths)
        sent = _lengthened(run, dim, longest).contiguous()
        all_runs = sent.new_empty(self.world.ranks * sent.numel())
        _gather(all_runs, sent.view(-1), group=self.world.group)
        each = all_runs.view(self.world.ranks, *sent.shape)
        pairs = zip(each, self.lengths, strict=True)
        return torch.cat([one.narrow(dim, 0, length) for one, length in pairs], dim)

    def sum(self, whole: Tensor, dim: int) -> Tensor:
        """Return this rank's run of the sum of ``whole`` over ranks."""
        longest = max(self.lengths)
        runs = whole.split(list(self.lengths), dim)
        sent = torch.stack([_lengthened(run, dim, longest) for run in runs])
        total = torch.empty_like(sent[0])
        _scatter_sum(total.view(-1), sent.view(-1), group=self.world.group)
        return total.narrow(dim, 0, self.lengths[self.world.rank]).contiguous()

    def to_heads(self, run: Tensor) -> Tensor:
        """Turn all heads of this rank's tokens, (..., heads, tokens, e), into all tokens of this
        rank's share of the heads."""
        parts = run.chunk(self.world.ranks, -3)
        shapes = [(*parts[0].shape[:-2], length, run.shape[-1]) for length in self.lengths]
        return torch.cat(self._exchange(parts, shapes), -2)

    def to_tokens(self, share: Tensor) -> Tensor:
        """Turn back what :meth:`to_heads` turned."""
        parts = share.split(list(self.lengths), -2)
        shapes = [tuple(parts[self.world.rank].shape)] * self.world.ranks
        return torch.cat(self._exchange(parts, shapes), -3)

    def _exchange(self, parts: Sequence[Tensor], shapes: Sequence[tuple[int, ...]]) -> list[Tensor]:
        """Send ``parts[i]`` to rank i; return what each rank sent here, in ``shapes``."""
        sizes = [math.prod(shape) for shape in shapes]
        sent = torch.cat([part.reshape(-1) for part in parts])
        arrived = sent.new_empty(sum(sizes))
        counts = [part.numel() for part in parts]
        dist.all_to_all_single(arrived, sent, sizes, counts, group=self.world.group)
        pairs = zip(arrived.split(sizes), shapes, strict=True)
        return [flat.view(shape) for flat, shape in pairs]


class Join(torch.autograd.Function):
    """Runs joined to the whole on every rank; ``Join.apply(run, runs, dim)``.

    Each rank's gradient of the whole is a piece of it, so the backward pass adds them up.
    """

    @staticmethod
    def forward(ctx: Any, run: Tensor, runs: Runs, dim: int) -> Tensor:
        ctx.runs, ctx.dim = runs, dim
        return runs.join(run, dim)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        return ctx.runs.sum(grad, ctx.dim), None, None


class Turn(torch.autograd.Function):
    """From all heads of some tokens to some heads of all tokens, ``Turn.apply(x, runs, True)``; or
    back, with False."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, runs: Runs, heads: bool) -> Tensor:
        ctx.runs, ctx.heads = runs, heads
        return runs.to_heads(x) if heads else runs.to_tokens(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        back = ctx.runs.to_tokens if ctx.heads else ctx.runs.to_heads
        return back(grad), None, None


def _lengthened(run: Tensor, dim: int, length: int) -> Tensor:
    """Return ``run`` with zeros at the end of ``dim``, up to ``length``."""
    missing = length - run.shape[dim]
    if not missing:
        return run
    shape = list(run.shape)
    shape[dim] = missing
    return torch.cat([run, run.new_zeros(shape)], dim)
