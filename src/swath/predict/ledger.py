"""What is finished of an unfinished map, so that an interrupted one resumes.

A small file beside the map says what the map is made of (its plan) and holds a checksum for each
strip of rows that is safe on the disk. A map of another plan is begun anew; a strip whose pixels
do not match their checksum is made again, with all after it.
"""

from __future__ import annotations

import json
import pathlib
import zlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from swath.train.files import write_file


class Ledger:
    """The finished strips 0, 1, ... of one map, in the file ``path``."""

    def __init__(self, path: pathlib.Path, plan: Mapping[str, Any]) -> None:
        """plan: everything that the pixels depend on, as JSON."""
        self.path = path
        self.sums: list[int] = []
        """Checksums of the finished strips."""
        self.differs = ""
        """What of the plan is not as in the unfinished map that was found here, in words."""
        self._plan = json.loads(json.dumps(plan))
        try:
            found = json.loads(path.read_text())
            old, sums = found["plan"], found["strips"]
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError, TypeError):
            self.differs = "its ledger is damaged"
            return
        if old == self._plan:
            self.sums = sums
        else:
            names = [n for n in {**old, **self._plan} if old.get(n) != self._plan.get(n)]
            self.differs = f"it was made with other {', '.join(names)}"

    def keep(self, strips: int) -> None:
        """Forget all strips but the first ``strips``."""
        self.sums = self.sums[:strips]

    def add(self, checksum: int) -> None:
        """Say that the next strip is on the disk; ConfigError if the disk is full."""
        self.sums.append(checksum)
        write_file(self.path, json.dumps({"plan": self._plan, "strips": self.sums}).encode())

    def remove(self) -> None:
        """The map is finished."""
        self.path.unlink(missing_ok=True)


def checksum(layers: Iterable[np.ndarray]) -> int:
    """Return the CRC-32 of the pixels of all layers of a strip."""
    total = 0
    for pixels in layers:
        total = zlib.crc32(np.ascontiguousarray(pixels).data, total)
    return total
