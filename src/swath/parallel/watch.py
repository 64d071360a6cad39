"""Heartbeats: a rank looks after the others while it computes, so that none waits for a dead one.

Every rank shows a sign of life in the store where the ranks met and looks for that of the next
rank; a thread does both. Whoever misses a sign, or fails itself, says so in one place, the first
one wins, and all ranks end with its words and its exit code: the lowest rank that lives tells the
user. A rank stuck in an exchange that cannot end is ended by its thread.

Backends notice some deaths by themselves: gloo's exchanges fail when a connection closes. That
failure is only a hint here; it says that somebody is gone, not who.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
import time
from collections.abc import Iterator, Sequence

import torch.distributed as dist

from swath import exits, here
from swath.config import ConfigError
from swath.parallel.alike import listed
from swath.parallel.end import GOES_ON, End, RankFailed, claim, ended
from swath.parallel.meet import Meeting

_LEFT = b"left"  # the last sign of life of a rank that ended in order


class Watch:
    """Looks after the ranks of ``meeting`` until it is told to stop.

    seconds: without a sign of life for so long a rank is lost; for a few beats, once an exchange
        has broken.
    """

    def __init__(self, meeting: Meeting, seconds: float) -> None:
        self.meeting, self.seconds = meeting, seconds
        self.rank, self.ranks = meeting.rank, meeting.ranks
        self.beat = min(1 + self.ranks / 1000, seconds / 10)  # one store answers all of them
        self.end: End | None = None
        self._ending = threading.Event()  # there is an end
        self._leaving = threading.Event()  # the main thread ends by itself
        self._stop = threading.Event()
        self._limit: tuple[float, str] | None = None
        # Nothing goes over this one; it closes when whoever keeps the store dies.
        self._line = meeting.line()
        self._store, self._job = meeting.connect(max(5.0, seconds))
        self._thread = threading.Thread(target=self._run, name="swath watch", daemon=True)
        self._thread.start()

    @contextlib.contextmanager
    def within(self, seconds: float, otherwise: str) -> Iterator[None]:
        """End the run, with the words ``otherwise``, if the block takes longer than ``seconds``."""
        self._limit = (time.monotonic() + seconds, otherwise)
        try:
            yield
        finally:
            self._limit = None

    def leave(self) -> None:
        """Stop in order: this rank has done what there was to do, as the others have."""
        self._stop.set()
        self._thread.join()
        self._part(10.0)

    def fail(self, error: BaseException) -> RankFailed | None:
        """Stop because of ``error`` and let the other ranks know.

        Returns what to raise in its place; None: the error itself, for this rank tells the user.
        """
        self._leaving.set()
        try:
            if not self._kept():  # the thread will notice too
                raise dist.DistNetworkError("the store is gone")
            if _broken(error):
                self.meeting.store.set("cut", "1")
                self._ending.wait(15 * self.beat)
            end = self.end or claim(self._job, self._own(error))
        except dist.DistError:
            self._ending.wait(self.seconds + 15 * self.beat)
            end = self.end or self._own(error)
        self._stop.set()
        self._thread.join()
        self._part(5.0, len(end.lost))
        if end == self._own(error):
            quiet = self.rank and isinstance(error, ConfigError | ArithmeticError)
            return RankFailed(end.text, end.code, told=True) if quiet else None
        if self.rank == 0 and end.text.endswith(f": {error}"):
            return None  # all ranks say the same
        return RankFailed(end.text, end.code, told=end.speaker(self.ranks) != self.rank)

    def _own(self, error: BaseException) -> End:
        said = str(error).partition("\n")[0]
        if not isinstance(error, ConfigError | ArithmeticError):
            said = f"{type(error).__name__}: {said}"
        code = exits.MENDABLE if isinstance(error, ConfigError) else exits.FAULT
        if isinstance(error, KeyboardInterrupt):
            said, code = "interrupted", exits.INTERRUPTED
        return End(f"rank {self.rank}: {said}", code, self.rank)

    def _part(self, seconds: float, lost: int = 0) -> None:
        """Take leave; whoever keeps the store waits until the others have, or are gone."""
        with contextlib.suppress(dist.DistError):
            if not self._kept():
                return
            store = self.meeting.store
            store.set(f"beat/{self.rank}", _LEFT.decode())
            left = store.add("left", 1)
            patience = time.monotonic() + seconds
            while self.meeting.server and left < self.ranks - lost and time.monotonic() < patience:
                time.sleep(0.02)
                left = store.add("left", 0)
        self.meeting.close()

    def _run(self) -> None:
        try:
            end = self._look()
        except dist.DistError:
            end = self._keeper_lost()
        if end is None:
            return
        self.end = end
        self._ending.set()
        # In an exchange with a dead rank the main thread may wait for ever.
        if not self._leaving.wait(2 * self.beat + 1):
            if end.speaker(self.ranks) == self.rank:
                print(f"swath: {end.text}", file=sys.stderr, flush=True)
            os._exit(end.code)

    def _look(self) -> End | None:
        """Show signs of life and look for those of the next rank until the run ends; return why,
        None if this rank was told to stop."""
        store, neighbour = self._store, f"beat/{(self.rank + 1) % self.ranks}"
        seen = b""
        changed = before = time.monotonic()
        while self._lives():
            if (end := ended(self._job)) is not None:
                return end
            now, sign = time.monotonic(), store.get(neighbour)
            # A process that was stopped itself, with all others, has nobody to blame.
            if sign != seen or now - before > self.seconds / 2:
                seen, changed = sign, now
            before = now
            if seen != _LEFT and now - changed > self._patience() and (lost := self._silent()):
                return claim(self._job, self._blame(lost, now - changed))
            if self._limit and now > self._limit[0]:
                return claim(self._job, End(self._limit[1], 2, self.rank))
        return None

    def _lives(self) -> bool:
        """Show a sign of life a beat later; False if this rank was told to stop meanwhile."""
        if self._stop.wait(self.beat):
            return False
        if not self._kept():
            raise dist.DistNetworkError("the store is gone")
        self._store.set(f"beat/{self.rank}", str(time.monotonic_ns()))
        return True

    def _kept(self) -> bool:
        """Whether whoever keeps the store is there, as far as its system has told."""
        try:
            return self._line.recv(1) != b""
        except BlockingIOError:
            return True
        except OSError:
            return False

    def _patience(self) -> float:
        return 4 * self.beat if self._store.check(["cut"]) else self.seconds

    def _silent(self) -> list[int]:
        """Return the ranks that show no sign of life for some beats from now."""
        signs = [f"beat/{rank}" for rank in range(self.ranks)]
        before = self._store.multi_get(signs)
        for _ in range(3):
            self._lives()
        after = self._store.multi_get(signs)
        return [
            rank
            for rank in range(self.ranks)
            if before[rank] == after[rank] != _LEFT and rank != self.rank
        ]

    def _blame(self, lost: Sequence[int], seconds: float) -> End:
        told = [json.loads(self._store.get(f"here/{rank}")) for rank in lost[:8]]
        places = ", ".join(f"{one['host']} pid {one['pid']}" for one in told)
        are = "is" if len(lost) == 1 else "are"
        return End(
            f"{listed(lost)} ({places}) {are} lost: no sign of life for {seconds:.0f} s. {GOES_ON}",
            exits.LOST,
            self.rank,
            tuple(lost),
        )

    def _keeper_lost(self) -> End | None:
        """Return the end of a run whose store is gone; nobody can be asked who speaks."""
        if self._stop.is_set():
            return None
        point = self.meeting.point
        keeper = "the launcher" if point.kept else "rank 0"
        speaks = self.rank == (0 if point.kept else 1) or here.local_rank() == 0
        return End(
            f"{keeper} ({point.host}:{point.port}) is lost. {GOES_ON}",
            exits.LOST,
            self.rank,
            tuple(rank for rank in range(self.ranks) if (rank == self.rank) != speaks),
        )


def _broken(error: BaseException) -> bool:
    """Whether ``error`` is what an exchange raises when another rank is gone."""
    if isinstance(error, RankFailed | dist.DistError):
        return True
    words = ("gloo", "NCCL", "Connection closed", "Connection reset", "Broken pipe", "ProcessGroup")
    return isinstance(error, RuntimeError) and any(word in str(error) for word in words)
