"""Where a rank stands among the axes along which samples and model are shared out.

A mesh is a value made from a world and degrees, as a world is: whoever needs one is given one, and
another may take its place between two updates. What is summed over which ranks:

* gradients over ``learners``: all ranks that hold the same parameters, or shares of them, and see
  different samples or different pieces of one;
* losses, weights and scores over ``totals``: the learners of every stage of a pipeline;
* nothing over tensor ranks: they compute the same numbers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.distributed as dist

from swath.parallel.settings import DEGREES, Degrees, Parallel
from swath.parallel.world import World

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh


@dataclass(frozen=True)
class Mesh:
    """The ranks of ``world`` laid out by ``degrees``; this one has a number along each axis."""

    world: World
    degrees: Degrees = field(default_factory=Degrees)

    def __post_init__(self) -> None:
        assert self.degrees.ranks == self.world.ranks, "degrees must multiply to the ranks"

    @classmethod
    def of(cls, world: World, parallel: Parallel | None = None) -> Mesh:
        """Return ``world`` laid out by ``parallel`` (None: replicas); ConfigError if unfit."""
        return cls(world, (parallel or Parallel()).over(world.ranks))

    @cached_property
    def _grid(self) -> np.ndarray:
        sides = [getattr(self.degrees, axis) for axis in DEGREES]
        return np.arange(self.world.ranks).reshape(sides)

    def at(self, axis: str) -> int:
        """This rank's number along ``axis``."""
        place = np.unravel_index(self.world.rank, self._grid.shape)
        return int(place[DEGREES.index(axis)])

    @property
    def data_rank(self) -> int:
        """Which share of an update's samples is this rank's, of ``data_ranks``."""
        return self.at("replicate") * self.degrees.shard + self.at("shard")

    @property
    def data_ranks(self) -> int:
        return self.degrees.data_ranks

    @property
    def speaks(self) -> bool:
        """Whether scores computed here count: they are the same along a pipeline, and on all ranks
        that share the tokens of a sample."""
        return self.at("pipeline") == 0 and self.at("context") == 0

    @cached_property
    def learners(self) -> World:
        """The ranks over which gradients are summed."""
        return self.along("replicate", "context", "spatial", "shard")

    @cached_property
    def totals(self) -> World:
        """The ranks over which losses, weights and scores are summed."""
        return self.along("pipeline", "replicate", "context", "spatial", "shard")

    @cached_property
    def team(self) -> World:
        """The ranks that hold one copy of the model and see the same samples."""
        return self.along("pipeline", "context", "spatial", "tensor")

    def along(self, *axes: str) -> World:
        """Return the ranks that differ from this one only along ``axes``, as a world of their own.

        All ranks call it together, with the same axes, in the same order.
        """
        kept = [i for i, axis in enumerate(DEGREES) if axis not in axes]
        moved = [i for i, axis in enumerate(DEGREES) if axis in axes]
        across = math.prod(self._grid.shape[i] for i in moved)
        rows = self._grid.transpose(*kept, *moved).reshape(-1, across)
        if rows.shape[1] == 1:
            return World.alone(self.world.device)
        if rows.shape[1] == self.world.ranks:
            return self.world
        mine: World | None = None
        for row in rows.tolist():
            # Every rank has to open every group, its own or not.
            group = dist.new_group([self._global(rank) for rank in row])
            if self.world.rank in row:
                mine = World(row.index(self.world.rank), len(row), self.world.device, group)
        assert mine is not None, "every rank is in one row"
        return mine

    @cached_property
    def devices(self) -> DeviceMesh:
        """The axes that torch's own parallel layers want: pipeline, replica, shard, tensor.

        "replica" holds all over which gradients of one shard are summed.
        """
        from torch.distributed.device_mesh import DeviceMesh
        from torch.distributed.tensor.debug import _clear_sharding_prop_cache

        # Torch remembers layouts by the shape of a mesh, together with the groups of the first of
        # that shape, which may be closed by now.
        _clear_sharding_prop_cache()
        d = self.degrees
        ranks = torch.tensor([self._global(rank) for rank in range(self.world.ranks)])
        return DeviceMesh(
            self.world.device.type,
            ranks.view(d.pipeline, d.copies, d.shard, d.tensor),
            mesh_dim_names=("pipeline", "replica", "shard", "tensor"),
        )

    def _global(self, rank: int) -> int:
        return dist.get_global_rank(self.world.group, rank) if self.world.group else rank
