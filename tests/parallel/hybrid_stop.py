"""Hybrid-STOP written out by hand, and what is gathered at once, to compare with.

A chain y = f(x A) B: the tensor ranks hold columns of A and the same rows of B; each such share is
cut once more, flat, among the shard ranks. It is put together when it is used, forward and again
backward, and let go. Nothing of swath.parallel's layers is used.

Source: Wang et al. 2024, arXiv:2404.14712 (ORBIT).
"""

from __future__ import annotations

import time
import weakref
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from swath.parallel.operations import Operations

Group = dist.ProcessGroup


def put_together(piece: Tensor, shape: torch.Size, group: Group) -> Tensor:
    whole = piece.new_empty(piece.numel() * group.size())
    dist.all_gather_into_tensor(whole, piece.detach(), group=group)
    return whole[: shape.numel()].view(shape)


class Link(torch.autograd.Function):
    """x @ w.T with w in pieces; keeps x and this rank's piece only."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, piece: Tensor, shape: torch.Size, group: Group) -> Tensor:
        ctx.save_for_backward(x, piece)
        ctx.shape, ctx.group = shape, group
        return x @ put_together(piece, shape, group).T

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        x, piece = ctx.saved_tensors
        of_x = gradient @ put_together(piece, ctx.shape, ctx.group)
        whole = gradient.flatten(0, -2).T @ x.flatten(0, -2)
        whole = F.pad(whole.flatten(), (0, piece.numel() * ctx.group.size() - whole.numel()))
        of_piece = torch.empty_like(piece)
        dist.reduce_scatter_tensor(of_piece, whole, group=ctx.group)
        return of_x, of_piece, None, None


class Enter(torch.autograd.Function):
    """The input of columns: the same for all; its gradients are summed."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: Group) -> Tensor:
        ctx.group = group
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        gradient = gradient.contiguous()
        dist.all_reduce(gradient, group=ctx.group)
        return gradient, None


class Leave(torch.autograd.Function):
    """The output of rows: summed; its gradient is the same for all."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: Group) -> Tensor:
        x = x.clone()
        dist.all_reduce(x, group=group)
        return x

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        return gradient, None


class Shared(nn.Module):
    """A linear layer of which this rank holds a piece of a share."""

    def __init__(self, whole: nn.Linear, way: str, tensor: Group, shard: Group) -> None:
        super().__init__()
        self.way, self.tensor, self.shard = way, tensor, shard
        own = whole.weight.detach().chunk(tensor.size(), 0 if way == "columns" else 1)
        share = own[tensor.rank()]
        self.shape = share.shape
        flat = F.pad(share.flatten(), (0, -share.numel() % shard.size()))
        self.piece = nn.Parameter(flat.chunk(shard.size())[shard.rank()].clone())
        bias = whole.bias.detach()
        self.bias = nn.Parameter(
            bias.chunk(tensor.size())[tensor.rank()].clone() if way == "columns" else bias.clone()
        )

    def forward(self, x: Tensor) -> Tensor:
        y = Link.apply(x, self.piece, self.shape, self.shard)
        return (Leave.apply(y, self.tensor) if self.way == "rows" else y) + self.bias


def write_out(model: nn.Module, tensor: Group, shard: Group) -> None:
    """Share the matrices of ``model``'s blocks as Hybrid-STOP does, in place."""
    for module in [m for m in model.modules() if hasattr(m, "split")]:
        for layer, way in module.split.items():
            setattr(module, layer, Shared(getattr(module, layer), way, tensor, shard))
        module.register_forward_pre_hook(lambda _, args: (Enter.apply(args[0], tensor),))


class Peak(Operations):
    """Follows how many bytes of parameters, put together, are there at once; ``bytes``: the most.

    Counted are the results of all-gathers of more than one rank while they live, and parameters of
    ``model`` that torch has put together from them.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.bytes = model, 0
        self.held: list[weakref.ref] = []

    def done(self, func: Any, given: tuple[Any, ...], result: Any) -> None:
        if "allgather" in str(func):
            self.held.append(weakref.ref(given[0].untyped_storage()))
        now = self._now()
        for _ in range(20):
            if now <= self.bytes:
                break
            time.sleep(0.002)  # the thread of an exchange may let its buffer go a moment late
            now = min(now, self._now())
        self.bytes = max(self.bytes, now)

    def _now(self) -> int:
        self.held = [held for held in self.held if held() is not None]
        alive = {id(s): s.nbytes() for held in self.held if (s := held()) is not None}
        return sum(alive.values()) + self._whole()

    def _whole(self) -> int:
        total = 0
        for module in self.model.modules():
            for p in module.parameters(recurse=False):
                axes = p.device_mesh.mesh_dim_names if isinstance(p, DTensor) else ()
                if "shard" not in axes:
                    total += (p._local_tensor if axes else p).nbytes  # to_local() is an operation
        return total
