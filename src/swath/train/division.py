"""Which rank writes which pieces of a state, and the copy of its own that it writes them from.

Torch's planner for distributed checkpoints decides: a piece that several ranks hold is written by
one of them, so that all write about as much. The ranks agree once for each layout, not at each
save; a model of a thousand tensors on a thousand ranks has a million pieces to talk about.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.checkpoint import DefaultSavePlanner
from torch.distributed.checkpoint.planner import SavePlan, WriteItem

from swath.parallel.world import World
from swath.train.tensors import file_name, index_content

Parts = dict[str, dict[str, Tensor]]
"""Tensors by part (model, optimizer, average) and name; spread ones as this rank has them."""
Files = dict[str, dict[str, Tensor]]
"""Tensors by file and name."""


class Division:
    """What this rank of ``world`` writes."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.index = b""
        """Content of index.json; on rank 0."""
        self._held: list[WriteItem] | None = None
        self._mine: list[WriteItem] = []
        self._copies: dict[tuple[str, str], Tensor] = {}

    def files(self, parts: Parts, copy: bool = False) -> Files:
        """Return what this rank writes of ``parts``; all ranks call it together.

        copy: return copies in the CPU's memory, good until the next call; else what is returned
        shares the memory of ``parts``.
        """
        flat = {f"{part}/{n}": t for part, members in parts.items() for n, t in members.items()}
        planner = DefaultSavePlanner(flatten_state_dict=False, flatten_sharded_tensors=False)
        planner.set_up_planner(flat, is_coordinator=self.world.first)
        held = planner.create_local_plan().items
        if self.world.any(held != self._held):
            self._agree(planner, held)
        files: Files = {}
        for item in self._mine:
            part, _, name = item.index.fqn.partition("/")
            piece = planner.resolve_data(item)
            assert isinstance(piece, Tensor), f"{item.index.fqn} is no tensor"
            file = file_name(part, self.world.rank, self.world.ranks)
            files.setdefault(file, {})[name] = self._copy(file, name, piece) if copy else piece
        if copy and self.world.device.type == "cuda":
            torch.cuda.synchronize()  # the copies are under way until here
        return files

    def _agree(self, planner: DefaultSavePlanner, held: list[WriteItem]) -> None:
        """Learn from rank 0 which of ``held``, the pieces that this rank holds, it writes."""
        self._held, self._copies = held, {}
        plans = _gather(held, self.world)
        chosen: list[set[str]] = []

        def decide() -> None:
            decided, metadata = planner.create_global_plan([SavePlan(items) for items in plans])
            chosen.extend({item.index.fqn for item in plan.items} for plan in decided)
            writers = {
                (item.index.fqn, tuple(item.index.offset or ())): rank
                for rank, plan in enumerate(decided)
                for item in plan.items
            }
            self.index = index_content(metadata, writers, self.world.ranks)

        self.world.first_does(decide)
        mine = _scatter(chosen, self.world)
        self._mine = [item for item in held if item.index.fqn in mine]

    def _copy(self, file: str, name: str, piece: Tensor) -> Tensor:
        """Return a copy in the CPU's memory, whose room is used again by the next."""
        piece = piece.detach()
        room = self._copies.get((file, name))
        if room is None:
            # Pinned, a GPU fills all of them at once, without anybody waiting in between.
            room = torch.empty(piece.shape, dtype=piece.dtype, pin_memory=piece.is_cuda)
            self._copies[file, name] = room
        return room.copy_(piece, non_blocking=True)


def _gather(mine: list[WriteItem], world: World) -> list[list[WriteItem]]:
    """Return those of all ranks on rank 0, nothing on the others."""
    if world.group is None:
        return [mine]
    places: list = [None] * world.ranks if world.first else []
    dist.gather_object(mine, places or None, group=world.group, group_dst=0)
    return places


def _scatter(chosen: list[set[str]], world: World) -> set[str]:
    """Return this rank's entry of what rank 0 has."""
    if world.group is None:
        return chosen[0]
    place: list = [None]
    dist.scatter_object_list(place, chosen or None, group=world.group, group_src=0)
    return place[0]
