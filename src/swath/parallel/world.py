"""The ranks as they are now: who takes part, on which device, and how they add numbers up.

One process is a world of one; there is no second path for it. A world is a value: whoever needs
one is given one, and membership may change in mid-run by handing over another. So nothing keeps a
process group in a module-level variable or in a model. It knows no models, data or optimisers.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.rendezvous import rendezvous

from swath import here
from swath.config import ConfigError

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

_worlds = itertools.count()  # every rank opens as many, in the same order


@dataclass(frozen=True)
class World:
    """``ranks`` processes that hold replicas of one run; this one is number ``rank``."""

    rank: int
    ranks: int
    device: torch.device
    group: ProcessGroup | None = None  # None: alone, nothing is ever sent
    opened: bool = False  # whether start() opened the group, rather than joined it

    @classmethod
    def alone(cls, device: str | torch.device = "cpu") -> World:
        """Return a world of this process only."""
        return cls(0, 1, torch.device(device))

    @classmethod
    def start(cls, device: str = "auto") -> World:
        """Return the world that the launcher made: of one process unless it started several.

        device: "auto" takes a GPU if there is one, "cpu" and "cuda" insist. A process group that
        exists already is joined; otherwise one is opened over TCP, with NCCL on GPUs and gloo on
        CPUs, and closed at the end of a ``with`` block. ConfigError if the device is not there.
        """
        chosen = pick_device(device)
        if dist.is_initialized():
            return cls(dist.get_rank(), dist.get_world_size(), chosen, dist.group.WORLD)
        if here.ranks() == 1:
            return cls.alone(chosen)
        backend = "nccl" if chosen.type == "cuda" else "gloo"
        rank, ranks = here.rank(), here.ranks()
        met, _, _ = next(rendezvous("env://", rank, ranks))
        # A launcher's meeting point outlives a group, and so do the addresses left in it.
        fresh = dist.PrefixStore(f"world/{next(_worlds)}", met)
        dist.init_process_group(backend, store=fresh, rank=rank, world_size=ranks)
        return cls(rank, ranks, chosen, dist.group.WORLD, opened=True)

    def __enter__(self) -> World:
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        # After an error of one rank the others may be in an exchange; closing could wait for them.
        if self.opened and error is None:
            dist.destroy_process_group(self.group)

    @property
    def first(self) -> bool:
        """Whether this rank is the one that writes files and talks to the user."""
        return self.rank == 0

    def sum_all(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its sum over ranks: one exchange for each dtype."""
        if self.group is None:
            return
        kinds = {(t.dtype, t.device) for t in tensors}
        # Every rank must exchange in the same order, and a set has none.
        for kind in sorted(kinds, key=str):
            self._sum_flat([t for t in tensors if (t.dtype, t.device) == kind])

    def _sum_flat(self, tensors: list[Tensor]) -> None:
        if len(tensors) == 1 and tensors[0].is_contiguous() and tensors[0].device == self.device:
            dist.all_reduce(tensors[0], group=self.group)
            return
        flat = torch.cat([t.reshape(-1) for t in tensors]).to(self.device)
        dist.all_reduce(flat, group=self.group)
        parts = flat.split([t.numel() for t in tensors])
        for tensor, part in zip(tensors, parts, strict=True):
            tensor.copy_(part.view_as(tensor))

    def sum(self, tensor: Tensor) -> Tensor:
        """Return the sum of ``tensor`` over ranks, equal on each; the argument stays as it is."""
        total = tensor.detach().clone()
        self.sum_all([total])
        return total

    def any(self, flag: bool) -> bool:
        """Return whether ``flag`` is true on any rank. All ranks must ask."""
        return self.any_of([flag])[0]

    def any_of(self, flags: Sequence[bool]) -> list[bool]:
        """Return for each of ``flags`` whether it is true on any rank; in one exchange."""
        if self.group is None:  # then there is no wait for the device either
            return list(flags)
        votes = self.sum(torch.tensor(flags, dtype=torch.float32, device=self.device))
        return [vote > 0 for vote in votes.tolist()]

    def share(self, tensors: Sequence[Tensor]) -> None:
        """Give every rank the tensors of rank 0, in place."""
        if self.group is None:
            return
        for tensor in tensors:
            dist.broadcast(tensor, group=self.group, group_src=0)

    def number(self, value: int) -> int:
        """Return rank 0's ``value`` (a 63-bit integer) on every rank."""
        mine = value if self.first else 0
        return int(self.sum(torch.tensor([mine], dtype=torch.int64, device=self.device)).item())

    def first_does(self, action: Callable[[], None]) -> None:
        """Let rank 0 do ``action`` while the others wait; if it fails, raise on all of them."""
        error: Exception | None = None
        if self.first:
            try:
                action()
            except Exception as problem:
                error = problem
        # The others must not walk into the next exchange alone.
        if self.any(error is not None):
            raise error or RuntimeError("rank 0 failed; its own message says why")


def pick_device(name: str) -> torch.device:
    """Return the device this rank computes on; ConfigError if ``name`` asks for one that is not."""
    if name not in ("auto", "cpu", "cuda"):
        raise ConfigError(f"compute.device: {name!r} is not a device; there are auto, cpu, cuda")
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise ConfigError("compute.device: cuda was asked for, torch sees no GPU; use auto or cpu")
    number = here.local_rank() % torch.cuda.device_count()
    torch.cuda.set_device(number)
    return torch.device("cuda", number)
