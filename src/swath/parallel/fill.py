"""Models too large for each rank to hold: spread while they are hollow, then filled.

Hollow, a model has shapes and no values (torch's meta device). Each rank spreads such a one, makes
room for its own share, and is handed the values one tensor after the other: only rank 0 ever holds
all of them, in the CPU's memory.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from itertools import chain

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from swath.parallel.apply import spread
from swath.parallel.mesh import Mesh
from swath.parallel.settings import Parallel
from swath.parallel.world import World

log = logging.getLogger(__name__)

Shape = tuple[str, torch.Size, torch.dtype]
"""Name, shape and type of a tensor."""


def spread_hollow(
    build: Callable[[], nn.Module],
    mesh: Mesh,
    parallel: Parallel,
    *,
    compile: bool = False,
    narrow: torch.dtype | None = None,
) -> nn.Module:
    """Return the model that ``build`` makes, with the values of rank 0, as this rank of ``mesh``
    holds it; like :func:`swath.parallel.apply.spread`, without a whole copy on the other ranks.

    build: must make the same names, shapes and types on all ranks, in the CPU's memory or, inside
    ``with torch.device("meta")``, without values.
    """
    model = hollow(build)
    tensors = shapes(model)
    values = dict(_tensors(build())) if mesh.world.first else {}
    model = spread(model, mesh, parallel, compile=compile, narrow=narrow)
    make_room(model, mesh.world.device, parallel.offload)
    hand_out(model, tensors, lambda name: values.pop(name).detach(), mesh.world)
    return model


def shapes(model: nn.Module) -> list[Shape]:
    """Return name, shape and type of each tensor of ``model``, those too that no checkpoint
    holds."""
    return [(name, t.shape, t.dtype) for name, t in _tensors(model)]


@torch.no_grad()
def hand_out(
    model: nn.Module, tensors: Sequence[Shape], value: Callable[[str], Tensor], world: World
) -> None:
    """Put values into the tensors of ``model``, spread over the ranks of ``world`` or not.

    tensors: the same on all ranks. value: returns one of them, whole; asked on rank 0 alone.
    """
    held = dict(_tensors(model))
    for name, shape, dtype in tensors:
        if world.first:
            whole = value(name).to(world.device, dtype).contiguous()
        else:
            whole = torch.empty(shape, dtype=dtype, device=world.device)
        world.broadcast([whole])
        if name in held:
            _put(held[name], whole)


def hollow(build: Callable[[], nn.Module]) -> nn.Module:
    """Return the model without values, or with them if it cannot do without."""
    try:
        with torch.device("meta"):
            model = build()
    except (NotImplementedError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
    else:
        loose = [n for m in model.modules() for n, v in vars(m).items() if isinstance(v, Tensor)]
        if not loose:
            return model
        reason = f"{loose[0]} is a tensor and no buffer"
    log.warning("each rank builds the whole model first: it needs values at once (%s)", reason)
    return build()


def _tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield parameters and buffers by name, those too that no checkpoint holds."""
    return chain(model.named_parameters(), model.named_buffers())


def make_room(model: nn.Module, device: torch.device, offload: bool) -> None:
    """Give ``model`` memory of whatever content on ``device``; under ``offload`` its parameters
    in the CPU's."""
    model.to_empty(device="cpu" if offload else device)
    for module in model.modules():
        for name, buffer in module.named_buffers(recurse=False):
            setattr(module, name, buffer.to(device))


def _put(target: Tensor, value: Tensor) -> None:
    """Copy into ``target`` what it holds of the whole ``value``."""
    if not isinstance(target, DTensor):
        target.copy_(value)
        return
    for box in target.__create_chunk_list__():  # what torch's checkpoints ask too
        for dim, (start, side) in enumerate(zip(box.offsets, box.sizes, strict=True)):
            value = value.narrow(dim, start, side)
    target.to_local().copy_(value)
