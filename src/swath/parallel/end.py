"""Why a run of several ranks ends before its time, said once for all of them.

Whoever notices says so under one key of the job's store: a rank that failed, one that misses
another, or the launcher. The first one wins, and all ranks end with its words and its exit code.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from swath import exits

if TYPE_CHECKING:
    from torch.distributed import Store

GOES_ON = "What was saved is good: the same command goes on from there"


class RankFailed(RuntimeError):
    """The run ends because of another rank; this process ends with ``code``.

    told: another rank tells the user, this one need not.
    """

    def __init__(self, message: str, code: int = exits.FAULT, told: bool = False) -> None:
        super().__init__(message)
        self.code, self.told = code, told


@dataclass(frozen=True)
class End:
    """Why the run ends, in the words of rank ``by`` (-1: the launcher), and the exit code."""

    text: str
    code: int
    by: int
    lost: tuple[int, ...] = ()

    def speaker(self, ranks: int) -> int:
        """Return the rank that tells the user: the launcher itself, or the first that lives."""
        return self.by if self.by < 0 else min(set(range(ranks)) - set(self.lost))


def claim(job: Store, end: End) -> End:
    """Say that the run ends, unless somebody has said so before; return what was said first."""
    return _read(job.compare_set("end", "", json.dumps([end.text, end.code, end.by, end.lost])))


def ended(job: Store) -> End | None:
    """Return why the run ends, None if it goes on."""
    return _read(job.get("end")) if job.check(["end"]) else None


def _read(said: bytes) -> End:
    text, code, by, lost = json.loads(said)
    return End(text, code, by, tuple(lost))
