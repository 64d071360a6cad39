"""Ranks that make one map: they agree on it first, work apart for hours, and meet in the end."""

from __future__ import annotations

import contextlib
import datetime
import json
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
import torch.distributed as dist

from swath.config import ConfigError
from swath.parallel.world import World

LONGEST = datetime.timedelta(days=30)
"""How long a rank waits for the others; of a rank that ends it hears at once."""


@contextlib.contextmanager
def patient(world: World) -> Iterator[World]:
    """Give the ranks of ``world``, on the CPU, with a group that waits as long as strips take.

    Usual groups give up after minutes, and one rank's strips may hold no data, another's nothing
    else.
    """
    if world.group is None:
        yield World.alone()
        return
    members = dist.get_process_group_ranks(world.group)
    # Without a need to, no local synchronisation: it gives a later group of the same ranks the same
    # name, under which the addresses of this one are found.
    local = len(members) < dist.get_world_size()
    group = dist.new_group(
        members, timeout=LONGEST, backend="gloo", use_local_synchronization=local
    )
    yield World(world.rank, world.ranks, torch.device("cpu"), group)
    dist.destroy_process_group(group)


def check_alike(world: World, plan: Mapping[str, Any]) -> None:
    """Raise ConfigError, on all ranks, unless all have the same ``plan``."""
    mine = torch.tensor(
        [zlib.crc32(json.dumps(part, sort_keys=True).encode()) for part in plan.values()]
    )
    first = mine.clone()
    world.broadcast([first])
    differs = world.any_of((mine != first).tolist())
    if any(differs):
        names = ", ".join(name for name, other in zip(plan, differs, strict=True) if other)
        raise ConfigError(
            f"the ranks would make parts of different maps: they differ in {names}. Give all of "
            "them the same settings, model and kind of device"
        )


def meet(world: World) -> None:
    """Wait for all ranks; RuntimeError as soon as one of them has ended."""
    try:
        world.any(False)
    except RuntimeError as error:
        raise RuntimeError(
            "another rank ended before its part of the map was done, and its own message says why; "
            "what is done is kept, and the same command goes on with it"
        ) from error
