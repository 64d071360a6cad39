"""What is finished of an unfinished map, so that an interrupted one resumes.

A small file beside the map says what the map is made of (its plan) and holds a checksum for each
strip of rows that is safe on the disk; ranks that make a map together have a file each. A map of
another plan is begun anew; a strip whose pixels do not match their checksum is made again.
"""

from __future__ import annotations

import glob
import json
import pathlib
import zlib
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np

from swath.files import write_file


class Ledger:
    """The finished strips of one map, by the ranks that made them; rank 0's file is ``path``."""

    def __init__(self, path: pathlib.Path, plan: Mapping[str, Any], rank: int = 0) -> None:
        """plan: everything that the pixels depend on, as JSON.

        Rank 0 takes over what ranks have finished of an interrupted map, however many they were.
        """
        self.path = path
        self.sums: dict[int, int] = {}
        """Checksums of the finished strips, by their number."""
        self.differs = ""
        """What of the plan is not as in the unfinished map that was found here, in words."""
        self._plan = json.loads(json.dumps(plan))
        self._own = path.with_name(f"{path.name}.{rank}") if rank else path
        for file in self._files() if rank == 0 else ():
            self._take(file)

    def keep(self, strips: Collection[int]) -> None:
        """Forget all strips but ``strips``, and what other ranks have written."""
        self.sums = {strip: self.sums[strip] for strip in sorted(strips)}
        if self.sums:
            self._write()
        for file in self._files():
            if file != self._own or not self.sums:
                file.unlink(missing_ok=True)

    def add(self, strip: int, checksum: int) -> None:
        """Say that ``strip`` is on the disk; ConfigError if the disk is full."""
        self.sums[strip] = checksum
        self._write()

    def remove(self) -> None:
        """The map is finished."""
        for file in self._files():
            file.unlink(missing_ok=True)

    def _files(self) -> list[pathlib.Path]:
        others = sorted(self.path.parent.glob(f"{glob.escape(self.path.name)}.*"))
        return [file for file in (self.path, *others) if file.exists()]

    def _take(self, file: pathlib.Path) -> None:
        try:
            found = json.loads(file.read_text())
            old, sums = found["plan"], {int(n): int(s) for n, s in found["strips"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            self.differs = self.differs or "its ledger is damaged"
            return
        if old == self._plan:
            self.sums |= sums
        else:
            names = [n for n in {**old, **self._plan} if old.get(n) != self._plan.get(n)]
            self.differs = f"it was made with other {', '.join(names)}"

    def _write(self) -> None:
        write_file(self._own, json.dumps({"plan": self._plan, "strips": self.sums}).encode())


def checksum(layers: Iterable[np.ndarray]) -> int:
    """Return the CRC-32 of the pixels of all layers of a strip."""
    total = 0
    for pixels in layers:
        total = zlib.crc32(np.ascontiguousarray(pixels).data, total)
    return total
