"""Groups of channels shared among tensor ranks: each makes the tokens of its own.

A layer that aggregates channels (swath.nn.channels) says which of its parameters belong to groups.
A rank keeps those of whole groups, makes their tokens and no others, and what is left, a token of
each patch for each of the last groups, is gathered. What follows is computed alike on all tensor
ranks, and so is its gradient: the gather's backward pass takes this rank's part and sends nothing.

The groups are those of the settings, whatever the number of ranks, which has to divide the last of
them. Layers that all groups share see only some groups on a rank; their gradients are pieces, and
added up once an update with those of parallel/tensor.py.

Source: Tsaris et al. 2025, arXiv:2506.21411, where each rank makes one group.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

from swath.config import ConfigError
from swath.nn.channels import ChannelEmbed, Whole
from swath.parallel.mesh import Mesh

# torch 2.13 has a new name and warns at the old one; 2.11 has the old one only.
_gather: Any = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor


def share_channels(model: nn.Module, mesh: Mesh) -> None:
    """Share the groups of channels in ``model`` among the ranks of the mesh's tensor axis, in
    place; ConfigError if they do not divide."""
    ranks, found = mesh.degrees.tensor, [m for m in model.modules() if isinstance(m, ChannelEmbed)]
    for embed in found:
        last = embed.groups[-1]
        if last % ranks:
            fit = [n for n in range(1, ranks) if last % n == 0]
            raise ConfigError(
                f"parallel.tensor={ranks} cannot share the {last} groups that"
                f" model.channels.groups={list(embed.groups)} ends with evenly; set tensor="
                f"{fit[-1]}, or end groups with a multiple of {ranks}, which is another model"
            )
        for owner, name in embed.shared:
            _keep_own(owner, name, mesh)
        for layer in embed.common:
            layer.sum_over_ranks = True  # type: ignore[assignment]
        group = mesh.devices["tensor"].get_group()
        embed.place = Shared(mesh.at("tensor"), ranks, group)


def _keep_own(owner: nn.Module, name: str, mesh: Mesh) -> None:
    whole: nn.Parameter = getattr(owner, name)
    own = distribute_tensor(whole, mesh.devices["tensor"], [Shard(1)], src_data_rank=None)
    setattr(owner, name, nn.Parameter(own, requires_grad=whole.requires_grad))


class Shared(Whole):
    """As many groups on each of ``ranks`` ranks; this one is number ``at``."""

    def __init__(self, at: int, ranks: int, group: dist.ProcessGroup) -> None:
        self.at, self.ranks, self.group = at, ranks, group

    def own(self, groups: int) -> range:
        each = groups // self.ranks
        return range(self.at * each, (self.at + 1) * each)

    def weight(self, parameter: Tensor) -> Tensor:
        assert isinstance(parameter, DTensor), "parameters of groups are shared"
        return parameter.to_local()

    @torch.compiler.disable  # torch 2.11 traces the gather, and its gradients are wrong
    def join(self, tokens: Tensor) -> Tensor:
        return _Join.apply(tokens, self)


class _Join(torch.autograd.Function):
    """The tokens of all ranks' groups, on every rank; each has the whole gradient of them."""

    @staticmethod
    def forward(ctx: Any, tokens: Tensor, place: Shared) -> Tensor:
        ctx.own = slice(place.at * len(tokens), (place.at + 1) * len(tokens))
        every = tokens.new_empty(place.ranks * len(tokens), *tokens.shape[1:])
        _gather(every, tokens.contiguous(), group=place.group)
        return every

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        return grad[ctx.own], None
