"""How well the machine is used: the figures of time, bytes and memory in the record.

They are of the time since the last record, evaluations and checkpoints in it included. On one rank
they cost an update nothing that can be measured, on several an exchange a record
(benchmarks/seeing.md). What is shared out unevenly is told of the rank that has most of it.

    samples_per_s   samples of the run learned from in a second
    tokens_per_s    their tokens, if the model has some
    mfu             model FLOP/s utilisation, 0..1: see :mod:`swath.train.cost`; left out where a
                    peak that was measured cannot be one
    data_wait       share of the time that a rank waited for data, 0..1
    exchange_wait   share of the time that a rank waited for exchanges, no work hiding them, 0..1
    sent_bytes      bytes that a rank sends in an update, as pieces passed on in a ring: see
                    :mod:`swath.parallel.count`. From the second update of a start on
    memory_bytes    most memory that a rank used: see :mod:`swath.train.memory`
    staged_bytes    bytes that ranks have copied near since this start, all together
    staged_seconds  seconds that the rank which copied longest has spent on it
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any

import torch

from swath.data.stage import Staging
from swath.parallel.count import counted
from swath.parallel.waits import Waits
from swath.parallel.world import World
from swath.train.cost import Cost
from swath.train.memory import peak_bytes

_COUNTED = 2  # update of a start whose exchanges are counted; the first also arranges things


class Usage:
    """Watches updates and adds up; ``figures()`` starts the next interval.

    compiled: whether parts of the model are compiled.
    """

    def __init__(
        self, cost: Cost | None = None, staging: Staging | None = None, *, compiled: bool = False
    ) -> None:
        self.cost, self.staging = cost or Cost(), staging
        self._compiled = compiled
        self._waits: Waits | None = None

    @contextlib.contextmanager
    def timed(self, device: torch.device) -> Iterator[None]:
        """Notice waits for exchanges in the block, with which ``device`` is kept from its work."""
        self._waits = Waits(device, compiled=self._compiled)
        with self._waits.timed():
            yield

    def begin(self, world: World, samples: int, data_waited: float) -> None:
        """Begin an interval with the ranks of ``world``.

        samples: of the run so far. data_waited: seconds that this rank has waited for data so far.
        """
        self.world = world
        self._updates = 0
        self._sent: float | None = 0.0 if world.ranks == 1 else None
        peak_bytes(world.device)
        self._since = time.perf_counter(), samples, data_waited, self._waited

    @contextlib.contextmanager
    def counted(self) -> Iterator[None]:
        """Count what the update in the block sends, if that is not known."""
        self._updates += 1
        if self._updates != _COUNTED or self._sent is not None:
            yield
            return
        with counted() as volume:
            yield
        self._sent = sum(volume.wire.values())

    @property
    def _waited(self) -> float:
        return self._waits.seconds if self._waits else 0.0

    def figures(self, samples: int, data_waited: float) -> dict[str, Any]:
        """Return the figures since the last ones, the same on all ranks, which call together."""
        before = self._since
        self._since = time.perf_counter(), samples, data_waited, self._waited
        seconds, learned, data, exchanges = (
            now - then for now, then in zip(self._since, before, strict=True)
        )
        sent = -1.0 if self._sent is None else self._sent
        data, exchanges, sent, memory = self.world.max(
            [data / seconds, exchanges / seconds, sent, peak_bytes(self.world.device)]
        )
        found: dict[str, Any] = {"samples_per_s": learned / seconds}
        if self.cost.tokens is not None:
            found["tokens_per_s"] = self.cost.tokens * learned / seconds
        if self.cost.flops is not None and self.cost.peak is not None:
            rate = self.cost.flops * learned / seconds
            share = rate / (self.cost.peak * self.world.ranks)
            if share <= 1:  # else the peak was measured while others computed
                found["mfu"] = share
        found |= {"data_wait": data, "exchange_wait": exchanges}
        if sent >= 0:
            found["sent_bytes"] = round(sent)
        if self.staging is not None:
            copied = torch.tensor(
                self.staging.copied_bytes, dtype=torch.int64, device=self.world.device
            )
            found["staged_bytes"] = int(self.world.sum(copied))
            (found["staged_seconds"],) = self.world.max([self.staging.copied_seconds])
        return {**found, "memory_bytes": round(memory)}
