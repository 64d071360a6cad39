"""One rank's share of a checkpoint on its way to disk, in a thread of its own.

A file system that hangs holds this thread up and nothing else, so somebody can say so. How long a
write may take nobody knows: it is waited for, and the user told what is waited for.
"""

from __future__ import annotations

import logging
import pathlib
import threading
import time

from swath.files import Sum, write_into
from swath.train.division import Files
from swath.train.tensors import pack

log = logging.getLogger(__name__)

SLOW_SECONDS = 60.0
"""A write that takes longer is told of; again when it has taken twice, four times as long."""


class Writing(threading.Thread):
    """This rank's share of the checkpoint ``path``: ``files`` of tensors, then ``words``."""

    def __init__(self, path: pathlib.Path, files: Files) -> None:
        # A process that leaves without asking how it went does not wait for it.
        super().__init__(name="checkpoint", daemon=True)
        self.path = path
        self.files = files
        self.words: dict[str, bytes] = {}
        self._sums: dict[str, Sum] = {}
        self._error: Exception | None = None
        self._at = ""
        self._began, self._patience = time.monotonic(), SLOW_SECONDS

    def run(self) -> None:
        try:
            for name, tensors in self.files.items():
                self._at = name
                self._sums[name] = write_into(self.path, name, pack(tensors))
            for name, content in self.words.items():
                self._at = name
                self._sums[name] = write_into(self.path, name, content)
        except Exception as error:
            self._error = error

    def complain(self) -> None:
        """Tell the user if it takes long, here or on another rank."""
        seconds = time.monotonic() - self._began
        if seconds > self._patience:
            self._patience = 2 * seconds
            where = f", now {self._at}" if self.is_alive() else " by another rank"
            log.warning(
                "%s: still being written after %.0f s%s; the file system is slow or hangs. SIGTERM "
                "or Ctrl-C, twice, leaves without waiting; the checkpoints before stand",
                *(self.path, seconds, where),
            )

    def result(self) -> dict[str, Sum]:
        """Return the checksums of what was written, when it is; or raise what went wrong."""
        self.join()
        if self._error is not None:
            raise self._error
        return self._sums
