"""Attention whose tokens are on several ranks: four ways to ask the tokens that are elsewhere.

All of them are exact. What a rank sends in one layer, with c ranks, b samples of n tokens, and d
numbers in all of its heads together:

* gather: keys, then values, of all ranks come here: 2 b n d (c-1)/c numbers forward and as many
  backward. Each rank holds the keys and values of the whole sample.
* lss: the same in one exchange where gather has two.
* ring: keys and values go round, and each rank asks those that come by: 2 b n d (c-1)/c forward and
  twice that backward. A rank holds a few runs of them, however many ranks there are.
* ulysses: ranks turn from tokens to heads and back: 4 b n d (c-1)/c**2 forward and as many
  backward, the least with more than two ranks. The heads must divide by the ranks.

Sources: ring, Liu et al. 2023, arXiv:2310.01889; ulysses, Jacobs et al. 2023, arXiv:2309.14509;
lss, after the abstract of Wang et al. 2023, arXiv:2311.02382.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from swath.parallel.kernel import merged, part, part_back
from swath.parallel.runs import Join, Runs, Turn

TOKENS = 2
"""The dim of queries, keys and values (b, heads, tokens, head width) along which tokens lie."""


class Gather(nn.Module):
    """Every rank gathers all keys, then all values.

    inner: attention with all keys at hand. runs: of the sample that is in work; set before a call.
    """

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.runs: Runs | None = None

    @torch.compiler.disable
    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Return the output for the queries ``q`` of this rank's tokens."""
        assert self.runs is not None, "attention is called from a block that knows its runs"
        return self.ask(q, k, v, self.runs)

    def ask(self, q: Tensor, k: Tensor, v: Tensor, runs: Runs) -> Tensor:
        k, v = Join.apply(k, runs, TOKENS), Join.apply(v, runs, TOKENS)
        return self.inner(q, k, v)


class LSS(Gather):
    """Every rank gathers all keys and values at once."""

    def ask(self, q: Tensor, k: Tensor, v: Tensor, runs: Runs) -> Tensor:
        k, v = Join.apply(torch.stack([k, v]), runs, TOKENS + 1)
        return self.inner(q, k, v)


class Ring(Gather):
    """Keys and values go round, and each rank asks those that come by."""

    def ask(self, q: Tensor, k: Tensor, v: Tensor, runs: Runs) -> Tensor:
        return Round.apply(q, k, v, runs)


class Ulysses(Gather):
    """Each rank turns from all heads of some tokens to some heads of all tokens, and back."""

    def ask(self, q: Tensor, k: Tensor, v: Tensor, runs: Runs) -> Tensor:
        q, k, v = Turn.apply(torch.stack([q, k, v]), runs, True)
        return Turn.apply(self.inner(q, k, v), runs, False)


class Round(torch.autograd.Function):
    """Attention with keys and values that go round; the backward pass sends them round again.

    While a rank computes with one run, the next one is on its way.
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, runs: Runs) -> Tensor:
        ranks, pair, whole = runs.world.ranks, torch.stack([k, v]), None
        for hop in range(ranks):
            coming = Passing(pair, runs, hop) if hop < ranks - 1 else None
            here = part(q, pair[0], pair[1])
            whole = here if whole is None else merged(whole, here)
            pair = coming.arrived() if coming else pair
        assert whole is not None, "there is at least one rank"
        out, logs = whole[0].to(q.dtype), whole[1]
        ctx.runs = runs
        ctx.save_for_backward(q, k, v, out, logs)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        q, k, v, out, logs = ctx.saved_tensors
        runs, ranks, pair = ctx.runs, ctx.runs.world.ranks, torch.stack([k, v])
        grad = grad.contiguous()
        coming = Passing(pair, runs, 0)
        grad_q, *back = part_back(grad, q, k, v, out, logs)
        own = torch.stack(back)
        grad_q = grad_q.to(logs.dtype)
        # The gradient of a run follows it and gathers what each rank adds, until it is home.
        following: Passing | None = None
        for hop in range(1, ranks):
            pair = coming.arrived()
            coming = Passing(pair, runs, hop) if hop < ranks - 1 else coming
            more, *back = part_back(grad, q, pair[0], pair[1], out, logs)
            grad_q = grad_q + more
            added = torch.stack(back)
            if following is not None:
                added = added + following.arrived()
            following = Passing(added, runs, hop)
        if following is not None:
            own = own + following.arrived()
        return grad_q.to(q.dtype), own[0], own[1], None


class Passing:
    """A run of keys and values on its way to the next rank, and another coming from the one before.

    run: (2, b, heads, tokens, head width), of the rank that is ``hop`` places back.
    """

    def __init__(self, run: Tensor, runs: Runs, hop: int) -> None:
        world = runs.world
        self._sent = run.contiguous()  # kept until it has left
        shape = list(run.shape)
        shape[TOKENS + 1] = runs.lengths[(world.rank - hop - 1) % world.ranks]
        self._coming = run.new_empty(shape)
        after, before = (world.rank + 1) % world.ranks, (world.rank - 1) % world.ranks
        self._works = dist.batch_isend_irecv(
            [
                dist.P2POp(dist.isend, self._sent, group=world.group, group_peer=after),
                dist.P2POp(dist.irecv, self._coming, group=world.group, group_peer=before),
            ]
        )

    def arrived(self) -> Tensor:
        """Return what came, once it is there."""
        for work in self._works:
            work.wait()
        return self._coming


KINDS: dict[str, type[Gather]] = {"gather": Gather, "lss": LSS, "ring": Ring, "ulysses": Ulysses}
