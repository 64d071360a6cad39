"""The ranks as they are now: who takes part, on which device, and how they add numbers up.

One process is a world of one; there is no second path for it. A world is a value: whoever needs
one is given one, and no module-level variable keeps a process group. Where every rank holds the
whole model, membership may change in mid-run by handing over another world. A model that is shared
among ranks does keep groups, in its hooks and its DTensors: for other ranks it is built anew, from
a checkpoint. A world knows no models, data or optimisers.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor

from swath import here
from swath.config import ConfigError, plain
from swath.parallel.alike import flat
from swath.parallel.end import RankFailed
from swath.parallel.meet import Meeting, meet
from swath.parallel.settings import Parallel
from swath.parallel.watch import Watch
from swath.version import VERSION

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

_met: list[str] = []  # names of meetings: every rank has as many, in the same order


@dataclass(frozen=True)
class World:
    """``ranks`` processes that hold replicas of one run; this one is number ``rank``."""

    rank: int
    ranks: int
    device: torch.device
    group: ProcessGroup | None = None  # None: alone, nothing is ever sent
    watch: Watch | None = None  # of the group that start() opened, not of one it joined

    @classmethod
    def alone(cls, device: str | torch.device = "cpu") -> World:
        """Return a world of this process only."""
        return cls(0, 1, torch.device(device))

    @classmethod
    def start(
        cls, device: str = "auto", parallel: Parallel | None = None, settings: Any = None
    ) -> World:
        """Return the world that the launcher made: of one process unless it started several.

        device: "auto" takes a GPU if there is one, "cpu" and "cuda" insist. parallel: how long to
        wait for ranks. settings: what has to be the same on all ranks, beside the versions.

        A process group that exists already is joined; otherwise one is opened, with NCCL on GPUs
        and gloo on CPUs, and closed at the end of a ``with`` block. If a rank is missing, differs
        or cannot take part, all end: ConfigError on the one that tells the user, RankFailed on the
        others. ConfigError too if the device is not there.
        """
        if not dist.is_initialized() and here.ranks() > 1:
            return cls._open(device, parallel or Parallel(), settings)
        chosen = pick_device(device)
        if dist.is_initialized():
            return cls(dist.get_rank(), dist.get_world_size(), chosen, dist.group.WORLD)
        return cls.alone(chosen)

    @classmethod
    def _open(cls, device: str, parallel: Parallel, settings: Any) -> World:
        try:
            chosen = pick_device(device)
        except ConfigError as error:
            raise refuse(str(error), parallel.start_seconds) from error
        seconds = parallel.start_seconds
        facts = {"swath": VERSION, "torch": torch.__version__, "device": chosen.type}
        meeting = _meet(
            {**facts, **flat(plain(settings))}, seconds=seconds, device=_device_id(chosen)
        )
        watch = Watch(meeting, parallel.lost_seconds)
        backend = "nccl" if chosen.type == "cuda" else "gloo"
        slow = (
            f"{meeting.ranks} ranks met at {meeting.point.host}:{meeting.point.port}, but {backend}"
            f" could not connect them within {seconds:g} s; is the network interface the right one "
            f"({backend.upper()}_SOCKET_IFNAME)?"
        )
        rank, ranks = meeting.rank, meeting.ranks
        try:
            with watch.within(seconds, slow):
                store = dist.PrefixStore("group", meeting.store)
                dist.init_process_group(backend, store=store, rank=rank, world_size=ranks)
                world = cls(rank, ranks, chosen, dist.group.WORLD, watch)
                world.any(False)  # NCCL connects with the first exchange
        except BaseException as error:
            raise watch.fail(error) or error from error
        return world

    @property
    def opened(self) -> bool:
        """Whether start() opened the group, rather than joined it."""
        return self.watch is not None

    def __enter__(self) -> World:
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if self.watch is None:
            return
        if error is None:
            dist.destroy_process_group(self.group)
        # After an error of one rank the others may be in an exchange; closing could wait for them.
        if error is None or isinstance(error, SystemExit):  # all ranks leave together
            self.watch.leave()
        elif (instead := self.watch.fail(error)) is not None:
            raise instead from error

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

    def max(self, values: Sequence[float]) -> list[float]:
        """Return the largest of all ranks for each of ``values``; in one exchange."""
        if self.group is None:
            return list(values)
        most = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(most, dist.ReduceOp.MAX, group=self.group)
        return most.tolist()

    def broadcast(self, tensors: Sequence[Tensor]) -> None:
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
        self._end_alike(error, "rank 0")

    def all_do(self, action: Callable[[], object], seconds: float = 0.5) -> None:
        """Let every rank do ``action``, on a thread; return when all are done. If it fails on one,
        raise on all.

        It may take hours where a single exchange would be taken for dead: ranks ask one another
        every ``seconds``.
        """
        with ThreadPoolExecutor(1) as thread:
            doing = thread.submit(action)
            while self.any(not doing.done()):
                time.sleep(seconds)
            error = doing.exception()
        self._end_alike(error, "another rank")

    def _end_alike(self, error: BaseException | None, who: str) -> None:
        """Raise on all ranks if there is an ``error`` on one: the others must not walk into the
        next exchange alone."""
        if self.any(error is not None):
            raise error or RankFailed(f"{who} failed; its own message says why", told=True)


def refuse(trouble: str, seconds: float = 60.0) -> ConfigError | RankFailed:
    """Tell the other ranks that this one cannot begin; return what to raise, here and there.

    seconds: for how long the others may keep it waiting.
    """
    try:
        _meet({}, seconds=seconds, trouble=trouble)
    except (ConfigError, RankFailed) as error:
        return error
    raise AssertionError("a rank with trouble was let in")


def may_refuse() -> bool:
    """Whether this is one of several ranks that have not met yet."""
    return not _met and here.ranks() > 1


def _meet(facts: dict[str, Any], **more: Any) -> Meeting:
    _met.append(f"world/{len(_met)}")
    return meet(_met[-1], facts, **more)


def _device_id(device: torch.device) -> str | None:
    """Return what tells this GPU from others of the node; None on a CPU, which many may share."""
    if device.type != "cuda":
        return None
    return f"GPU {device.index}, {torch.cuda.get_device_properties(device).uuid}"


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
