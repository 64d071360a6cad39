"""One rank of thousands, in one process that is not one of them: no exchange, no memory.

The process group is torch's fake one, whose exchanges bring nothing, and the tensors are fake ones,
with shapes and no values; all else is what a real run does, from the same functions. So what a rank
holds and what it exchanges can be counted on a laptop before a job is asked for.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed.distributed_c10d import _resolve_process_group
from torch.distributed.fsdp import FSDPModule
from torch.distributed.pipelining import PipelineStage

from swath.config import ConfigError
from swath.parallel.arguments import Arguments
from swath.parallel.count import Volume
from swath.parallel.cut import cut
from swath.parallel.fill import hollow, make_room
from swath.parallel.local import local
from swath.parallel.mesh import Mesh
from swath.parallel.pipeline import Border
from swath.parallel.settings import DEGREES, Degrees, Parallel
from swath.parallel.world import World


@dataclass(frozen=True)
class Held:
    """A parameter as one rank holds it."""

    name: str
    whole: tuple[int, ...]
    """Shape in the model."""
    here: tuple[int, ...]
    """Shape of this rank's share."""
    bytes: int
    """Of this rank's share."""


@dataclass(frozen=True)
class Traffic:
    """What one rank exchanges in an update by one kind of call in one group."""

    kind: str
    axes: tuple[str, ...]
    """Along which the ranks of the group lie."""
    members: tuple[int, ...]
    """Their numbers."""
    calls: float
    bytes: float
    """Payload; see swath.parallel.count."""
    wire: float
    """Sent by a rank, on the mean over a ring."""


@contextlib.contextmanager
def pretended(rank: int, ranks: int) -> Iterator[World]:
    """Let this process be ``rank`` of ``ranks`` for the length of the block.

    ConfigError if it is one of several already.
    """
    if dist.is_initialized():
        raise ConfigError(
            "a dry run needs a process of its own, and this one is a rank of a process group; "
            "start it alone"
        )
    if ranks == 1:
        yield World.alone()
        return
    dist.init_process_group("fake", rank=rank, world_size=ranks)
    try:
        with _agreed():
            yield World(rank, ranks, torch.device("cpu"), dist.group.WORLD)
    finally:
        dist.destroy_process_group()


@contextlib.contextmanager
def _agreed() -> Iterator[None]:
    """Let stages of a pipeline go without what they exchange once, before the first update: in
    torch 2.11 to get to know their neighbours, in 2.13 a vote on whether all know what is handed
    on; they do."""
    stage: Any = PipelineStage
    names = [n for n in ("_warmup_forward_vote", "_warmup_backward_result") if hasattr(stage, n)]
    before = {name: getattr(stage, name) for name in names}
    try:
        for name in names:
            setattr(stage, name, lambda *_, **__: torch.tensor([1]))
        if not names:
            before = {"_get_init_p2p_neighbors_ops": stage._get_init_p2p_neighbors_ops}
            stage._get_init_p2p_neighbors_ops = lambda _: []
        yield
    finally:
        for name, method in before.items():
            setattr(stage, name, method)


def opened(world: World, parallel: Parallel) -> Mesh:
    """Return the mesh with the groups that an update needs: among fake tensors none can be made."""
    mesh = Mesh.of(world, parallel)
    _ = mesh.learners, mesh.totals
    if mesh.degrees.shard > 1 or mesh.degrees.tensor > 1:
        _ = mesh.devices
    return mesh


def places(degrees: Degrees) -> list[int]:
    """Return the ranks that differ in what they hold, each the first of its likes and with the
    largest shares: one for each stage of a pipeline; of those that share the rows of an image the
    first, and the second, which has two neighbours."""
    grid = np.arange(degrees.ranks).reshape([getattr(degrees, axis) for axis in DEGREES])
    rows = 2 if degrees.spatial > 2 else 1
    return [int(r) for r in grid[:, 0, 0, :rows, 0, 0].flatten()]


def borders(
    build: Callable[[], nn.Module],
    degrees: Degrees,
    parallel: Parallel,
    inputs: Callable[[nn.Module], Arguments],
    narrow: torch.dtype | None,
) -> list[Border]:
    """Return what each piece of a pipeline hands on.

    build: the whole model. inputs: what it is called with for a microbatch. narrow: of autocast, if
    any.
    """
    pieces: dict[int, nn.Module] = {}
    for rank in range(0, degrees.ranks, degrees.ranks // degrees.pipeline):
        mesh = Mesh(World(rank, degrees.ranks, torch.device("cpu")), degrees)
        pieces |= cut(hollow(build), mesh, parallel)
    found: list[Border] = []
    cast = torch.autocast("cpu", dtype=narrow, enabled=narrow is not None)
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad(), cast:
        given, told = inputs(pieces[0])
        x = given[0]
        for number in range(len(pieces)):
            make_room(pieces[number], x.device, offload=False)
            x = pieces[number](x, *given, **told)
            found.append((tuple(x.shape), x.dtype))
    return found


def accumulated(model: nn.Module) -> Iterator[Tensor | None]:
    """Yield the gradients that sharded layers of ``model`` keep whole between microbatches."""
    for module in model.modules():
        if not isinstance(module, FSDPModule):
            continue
        state: Any = module._get_fsdp_state()
        # Several in torch 2.13, one in 2.11.
        groups = getattr(state, "_fsdp_param_groups", None) or [state._fsdp_param_group]
        for one in (p for group in groups if group is not None for p in group.fsdp_params):
            yield one.unsharded_accumulated_grad
            yield getattr(getattr(one, "_unsharded_param", None), "grad", None)


def held(model: nn.Module) -> list[Held]:
    """Return this rank's shares of all parameters, the largest first."""
    found = []
    for name, p in model.named_parameters():
        own = local(p)
        found.append(Held(name, tuple(p.shape), tuple(own.shape), own.numel() * own.itemsize))
    return sorted(found, key=lambda one: -one.bytes)


def traffic(volume: Volume, mesh: Mesh) -> list[Traffic]:
    """Return what was exchanged, summed by kind and group; the most bytes first."""
    sums: dict[tuple[str, str], list[float]] = {}
    for one in volume.exchanges:
        found = sums.setdefault((one.kind, one.group), [0, 0, 0.0])
        found[0] += 1
        found[1] += one.bytes
        found[2] += one.wire
    rows: dict[tuple[str, tuple[int, ...]], Traffic] = {}
    for (kind, group), (calls, payload, wire) in sums.items():
        of: Any = group
        members = tuple(dist.get_process_group_ranks(_resolve_process_group(of)))
        same = rows.get((kind, members))  # torch opens groups of its own beside ours
        if same is not None:
            calls, payload, wire = calls + same.calls, payload + same.bytes, wire + same.wire
        rows[kind, members] = Traffic(
            kind, axes(members, mesh.degrees), members, calls, payload, wire
        )
    return sorted(rows.values(), key=lambda one: -one.bytes)


def axes(members: tuple[int, ...], degrees: Degrees) -> tuple[str, ...]:
    """Return the axes along which the ranks ``members`` differ."""
    sides = [getattr(degrees, axis) for axis in DEGREES]
    at = np.unravel_index(np.array(members), sides)
    return tuple(axis for axis, n in zip(DEGREES, at, strict=True) if len(set(n.tolist())) > 1)
