"""Counts what ranks exchange: how often, and how many bytes.

    with counted() as volume:
        train_step(...)
    volume.bytes["all_reduce"], volume.wire["all_reduce"], volume.calls["all_reduce"]

Two conventions, both for one rank. ``bytes`` is the payload: the size of the whole tensor that is
summed, put together or dealt out. ``wire`` is what a rank sends for it if n ranks pass pieces on
in a ring, on the mean over ranks: 2(n-1)/n of the payload for an all-reduce, (n-1)/n for half of
one (all-gather, reduce-scatter), and so on below. It depends on no backend and no clock.

Every operation of the block passes through Python while it is counted, so count an update, not a
run; outside of the block nothing is slower. What torch.compile has compiled beforehand is counted
too: its exchanges are operations like any other.

Source: Thakur et al. 2005, Int. J. High Perform. Comput. Appl. 19, 49 (ring algorithms).
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import _resolve_process_group
from torch.utils._pytree import tree_leaves

from swath.parallel.operations import Operations

Sent = Callable[[int], float]

RING: dict[str, Sent] = {
    "all_reduce": lambda n: 2 * (n - 1) / n,
    "all_gather": lambda n: (n - 1) / n,
    "reduce_scatter": lambda n: (n - 1) / n,
    "all_to_all": lambda n: (n - 1) / n,
    "broadcast": lambda n: (n - 1) / n,  # the last of the ring passes nothing on
    "reduce": lambda n: (n - 1) / n,
    "gather": lambda n: (n - 1) / n,
    "scatter": lambda n: (n - 1) / n,
    "send": lambda n: 1.0,
    "recv": lambda n: 0.0,
}
"""Kind of exchange -> bytes that one of n ranks sends, for each byte of payload."""

WORDS = {
    "allreduce": "all_reduce",
    "allgather": "all_gather",
    "alltoall": "all_to_all",
    "isend": "send",
    "irecv": "recv",
}
"""Other words of torch's for the same."""


@dataclass(frozen=True)
class Exchange:
    """One call: its kind (a key of RING), how many ranks take part, payload in bytes, and the name
    of the process group."""

    kind: str
    ranks: int
    bytes: int
    group: str

    @property
    def wire(self) -> float:
        """Bytes that a rank sends, on the mean."""
        return RING[self.kind](self.ranks) * self.bytes


@dataclass
class Volume:
    """What this rank has exchanged, in order."""

    exchanges: list[Exchange] = field(default_factory=list)

    @property
    def calls(self) -> Counter[str]:
        """Kind -> number of calls."""
        return Counter(exchange.kind for exchange in self.exchanges)

    @property
    def bytes(self) -> Counter[str]:
        """Kind -> payload in bytes."""
        found: Counter[str] = Counter()
        for exchange in self.exchanges:
            found[exchange.kind] += exchange.bytes
        return found

    @property
    def wire(self) -> dict[str, float]:
        """Kind -> bytes sent by a rank, on the mean, if pieces go round a ring."""
        found: dict[str, float] = {}
        for exchange in self.exchanges:
            found[exchange.kind] = found.get(exchange.kind, 0.0) + exchange.wire
        return found

    def within(self, group: dist.ProcessGroup) -> Volume:
        """Return what was exchanged in ``group`` alone."""
        return Volume([e for e in self.exchanges if e.group == group.group_name])


@contextlib.contextmanager
def counted() -> Iterator[Volume]:
    """Count what this rank exchanges inside the block, its backward passes included."""
    volume = Volume()
    with _Counting(volume):
        yield volume


class _Counting(Operations):
    def __init__(self, volume: Volume) -> None:
        super().__init__()
        self.volume = volume

    def done(self, func: Any, given: tuple[Any, ...], result: Any) -> None:
        library, _, name = str(func).partition(".")
        if "c10d" in library and (kind := _kind(name.partition(".")[0])):
            group, most = _group(given), max(map(_bytes, (*given, result)))
            if group.size() > 1:  # torch also calls them among one rank
                self.volume.exchanges.append(Exchange(kind, group.size(), most, group.group_name))


def _kind(name: str) -> str | None:
    """Return the kind of the operation ``name``; None for one that exchanges no tensors."""
    for prefix, kind in (*WORDS.items(), *zip(RING, RING, strict=True)):
        if name.lstrip("_").startswith(prefix):
            return kind
    return None


def _group(values: tuple[Any, ...]) -> dist.ProcessGroup:
    for value in values:
        if isinstance(value, dist.ProcessGroup):
            return value
        if isinstance(value, torch.ScriptObject) and "ProcessGroup" in str(value._type()):
            return dist.ProcessGroup.unbox(value)
    names: list[Any] = [value for value in values if isinstance(value, str)]
    return _resolve_process_group(names[-1])  # a reduction's own name comes before it


def _bytes(value: Any) -> int:
    """Return the size of ``value``, one or more tensors: the whole is the largest of a call's."""
    return sum(t.numel() * t.element_size() for t in tree_leaves(value) if isinstance(t, Tensor))
