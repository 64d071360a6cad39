"""Rendezvous: how ranks find one another at the start, and whether they can work together.

Before there is a process group there is a store of keys that rank 0, or the launcher, keeps open.
Every rank says there where it runs, a digest of its versions and settings, or what keeps it from
taking part. Rank 0 judges and all hear the same: to begin, or why not. It takes no longer than
``seconds``, whoever is missing, and one rank tells the user.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch.distributed as dist

from swath import exits, here
from swath.config import ConfigError
from swath.parallel.alike import as_json, digest, first_difference, listed
from swath.parallel.end import RankFailed, ended

TROUBLED_SECONDS = 10.0
"""For how long a rank that cannot begin waits for others that may say the same."""


@dataclass
class Meeting:
    """The store in which ranks have met under ``name``, and may go on telling things."""

    point: here.MeetingPoint
    name: str
    rank: int
    ranks: int
    store: dist.Store
    server: dist.Store | None = None  # while it lives, the port is open

    def connect(self, seconds: float) -> tuple[dist.Store, dist.Store]:
        """Return a connection of its own, for a thread, to what this meeting tells and to what the
        job tells, whatever it has met for; an answer takes at most ``seconds``."""
        client = _client(self.point, seconds, "127.0.0.1" if self.server else None)
        return _named(client, self.point, self.name), dist.PrefixStore(self.point.job, client)

    def line(self) -> socket.socket:
        """Return a connection to whoever keeps the store, that is closed when it dies."""
        host = "127.0.0.1" if self.server else self.point.host
        line = socket.create_connection((host, self.point.port), timeout=10)
        line.setblocking(False)
        return line

    def close(self) -> None:
        """Close the port, if it is this rank that keeps it open."""
        self.server = None


def meet(
    name: str,
    facts: Mapping[str, Any],
    *,
    seconds: float,
    device: str | None = None,
    trouble: str | None = None,
) -> Meeting:
    """Return the meeting of all ranks of the job, once all have come and agree.

    name: what the ranks meet for; a later meeting has another one.
    facts: what has to be equal on all ranks, by the name of the field.
    device: the GPU that no other rank may have. trouble: what keeps this rank from taking part.

    Raises ConfigError on the rank that tells the user, RankFailed on the others.
    """
    seat = _Seat(name, here.rank(), here.ranks(), here.meeting_point(), seconds, trouble)
    mine = {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "device": device,
        "trouble": trouble,
    }
    server = seat.serve()
    while True:
        try:
            store = seat.reach()
            said = (seat.ask if seat.rank else seat.judge)(store, mine, facts)
        except dist.DistError as error:
            # A store of an earlier meeting that closed just now, or a stranger at the port.
            if time.monotonic() > seat.deadline:
                raise seat.nobody(error) from error
            time.sleep(0.2)
            continue
        if said is None:
            return Meeting(seat.point, name, seat.rank, seat.ranks, store, server)
        if seat.rank == 0:
            raise ConfigError(said)
        raise RankFailed(said, code=exits.MENDABLE, told=True)


class _Seat:
    """One rank at the meeting."""

    def __init__(
        self,
        name: str,
        rank: int,
        ranks: int,
        point: here.MeetingPoint,
        seconds: float,
        trouble: str | None,
    ) -> None:
        self.name, self.rank, self.ranks, self.point = name, rank, ranks, point
        self.seconds, self.trouble = seconds, trouble
        self.deadline = time.monotonic() + seconds

    def serve(self) -> dist.Store | None:
        """Open the port, if that is for this rank to do; ConfigError if it is taken."""
        if self.rank or self.point.kept:
            return None
        try:
            # It listens on all addresses; this one is only for its own first connection.
            return dist.TCPStore(
                "127.0.0.1", self.point.port, is_master=True, wait_for_workers=False
            )
        except dist.DistError as error:
            raise ConfigError(
                f"port {self.point.port} on {socket.gethostname()}, where {self.ranks} ranks were "
                f"to meet, cannot be opened ({_reason(error)}); set MASTER_PORT to a free one"
            ) from error

    def reach(self) -> dist.Store:
        """Return a connection to the store, waiting for whoever keeps it until the deadline."""
        mine = self.rank == 0 and not self.point.kept
        address = ("127.0.0.1" if mine else self.point.host, self.point.port)
        while True:
            try:
                # A plain socket first: waiting inside the store would not notice Ctrl-C.
                socket.create_connection(address, timeout=2).close()
                client = _client(self.point, min(10, self.seconds), address[0])
                self.job = dist.PrefixStore(self.point.job, client)
                return _named(client, self.point, self.name)
            except OSError as error:
                if time.monotonic() > self.deadline:
                    raise self.nobody(error) from error
            time.sleep(0.2)

    def nobody(self, error: Exception) -> Exception:
        """Return what to raise if there is no store, or none that answers."""
        keeper = "the launcher" if self.point.kept else "rank 0"
        said = (
            f"rank {self.rank} found nobody at {self.point.host}:{self.point.port} within "
            f"{self.seconds:g} s, where {keeper} should be ({_reason(error)}). What {keeper} wrote "
            "may say why; MASTER_ADDR and MASTER_PORT choose another place"
        )
        if self.trouble:
            return ConfigError(self.trouble)
        # Of those who wait beside rank 0 one is enough, and one on each of the other nodes.
        told = self.rank != 1 and here.local_rank() != 0
        return RankFailed(said, code=exits.MENDABLE, told=told)

    def judge(
        self, store: dist.Store, mine: Mapping[str, Any], facts: Mapping[str, Any]
    ) -> str | None:
        """Wait for all ranks, and return what keeps them from beginning, None if nothing does."""
        store.set("facts", as_json(facts))
        store.set("digest", "" if self.trouble else digest(facts))
        self._come(store, mine)
        patience = self.deadline
        while (came := store.add("came", 0)) < self.ranks and time.monotonic() < patience:
            if store.add("troubled", 0):
                patience = min(patience, time.monotonic() + TROUBLED_SECONDS)
            self._check()
            time.sleep(0.02)
        keys = [f"here/{rank}" for rank in range(self.ranks)]
        if came < self.ranks:
            keys = [key for key in keys if store.check([key])]
        answers = zip(keys, store.multi_get(keys), strict=True)
        records = {int(key.removeprefix("here/")): json.loads(text) for key, text in answers}
        said = verdict(records, self.ranks, self.seconds)
        store.set("verdict", said or "")
        if said and not self.point.kept:  # what it keeps ends with this process
            patience = time.monotonic() + 5
            while store.add("heard", 0) < len(records) - 1 and time.monotonic() < patience:
                time.sleep(0.02)
        return said

    def ask(
        self, store: dist.Store, mine: Mapping[str, Any], facts: Mapping[str, Any]
    ) -> str | None:
        """Say what rank 0 has to know, and return what it says."""
        self._await(store, "digest", self.deadline)
        differs = None
        if (
            not self.trouble
            and store.check(["digest"])
            and store.get("digest").decode() != digest(facts)
        ):
            differs = first_difference(json.loads(store.get("facts")), json.loads(as_json(facts)))
        self._come(store, {**mine, "differs": differs})
        self._await(store, "verdict", time.monotonic() + self.seconds + TROUBLED_SECONDS)
        said = store.get("verdict").decode()
        store.add("heard", 1)
        return said or None

    def _come(self, store: dist.Store, mine: Mapping[str, Any]) -> None:
        store.set(f"here/{self.rank}", as_json(mine))
        store.set(f"beat/{self.rank}", "0")
        store.add("came", 1)
        if self.trouble:
            store.add("troubled", 1)

    def _check(self) -> None:
        """Raise RankFailed if the launcher ends the job, because a rank was killed."""
        if (end := ended(self.job)) is not None:
            raise RankFailed(end.text, end.code, told=end.speaker(self.ranks) != self.rank)

    def _await(self, store: dist.Store, key: str, deadline: float) -> None:
        pause = 0.01
        while not store.check([key]):
            if time.monotonic() > deadline:
                raise dist.DistStoreError("rank 0 does not answer")
            self._check()
            time.sleep(pause)
            pause = min(1.0, 1.5 * pause)


def verdict(records: Mapping[int, Mapping[str, Any]], ranks: int, seconds: float) -> str | None:
    """Return what keeps ``ranks`` ranks from working together; None if nothing does.

    records: what each rank that came within ``seconds`` said of itself: host, device, trouble and
        differs, the first field that is not as on rank 0 with its value here and there.
    """
    troubled = {rank: told["trouble"] for rank, told in records.items() if told["trouble"]}
    if troubled:
        said = troubled[min(troubled)]
        same = [rank for rank, text in troubled.items() if text == said]
        return said if len(same) == ranks else f"{listed(same)} of {ranks}: {said}"
    missing = [rank for rank in range(ranks) if rank not in records]
    if missing:
        hosts = {told["host"] for told in records.values()}
        there = [
            f"{listed([r for r in records if records[r]['host'] == host])} on {host}"
            for host in sorted(hosts)
        ]
        return (
            f"of {ranks} ranks {listed(missing)} did not come within {seconds:g} s; there are "
            f"{_some(there)}. What the missing ones wrote may say why; parallel.start_seconds is "
            "how long the others wait"
        )
    differing = {rank: told["differs"] for rank, told in records.items() if told.get("differs")}
    if differing:
        field, theirs, first = differing[min(differing)]
        same = [r for r, (name, value, _) in differing.items() if (name, value) == (field, theirs)]
        return (
            f"the ranks are not alike: {field} is {first} on rank 0 and {theirs} on {listed(same)};"
            " start all of them with the same settings and the same installation"
        )
    owners: dict[tuple[str, str], list[int]] = {}
    for rank, told in records.items():
        if told["device"]:
            owners.setdefault((told["host"], told["device"]), []).append(rank)
    for (host, device), shared in owners.items():
        if len(shared) > 1:
            return (
                f"{listed(shared)} on {host} would share one GPU ({device}); start as many ranks "
                "on a node as it has GPUs, or set compute.device=cpu"
            )
    return None


def _some(parts: Sequence[str], most: int = 8) -> str:
    return "; ".join([*parts[:most], *([f"{len(parts) - most} more"] if parts[most:] else [])])


def _client(point: here.MeetingPoint, seconds: float, host: str | None = None) -> dist.TCPStore:
    """Return a connection to the store; DistNetworkError if there is none in ``seconds``."""
    made: list[dist.TCPStore] = []
    errors: list[Exception] = []

    def make() -> None:
        try:
            made.append(
                dist.TCPStore(
                    host or point.host,
                    point.port,
                    is_master=False,
                    wait_for_workers=False,
                    timeout=timedelta(seconds=seconds),
                )
            )
        except Exception as error:
            errors.append(error)

    # At the port of another program it would wait for ever for an answer.
    thread = threading.Thread(target=make, daemon=True)
    thread.start()
    thread.join(seconds + 1)
    if errors:
        raise errors[0]
    if not made:
        raise dist.DistNetworkError("who listens there does not answer as a store does")
    return made[0]


def _named(store: dist.Store, point: here.MeetingPoint, name: str) -> dist.Store:
    return dist.PrefixStore(f"{point.job}/{name}", store)


def _reason(error: Exception) -> str:
    """Return what the system says, without the words that torch puts around it."""
    text = (isinstance(error, OSError) and error.strerror) or str(error)
    if "message: " in text:
        return text.rpartition("message: ")[2].strip()
    return text.splitlines()[0] if text else type(error).__name__
