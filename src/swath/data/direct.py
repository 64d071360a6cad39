"""Read samples of uncompressed local shards straight into a batch, with one copy.

The first time a process reads a sample it does so by ``preadv``, and compares the checksum. If
the array fits in half of the machine's memory, later reads copy from a memory map: the pages are
in the cache then, and need no system call. Larger arrays are never mapped: a page fault reads a
disk in small pieces, and an I/O error in it would end the process.

Layout of a shard: chunks in any order, then (offset, bytes) of each as uint64, then the CRC-32C
of that table. Source: zarr-specs, codecs/sharding-indexed v1.0.
"""

from __future__ import annotations

import functools
import mmap
import os
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

BYTES = {"name": "bytes", "configuration": {"endian": "little"}}
CRC = {"name": "crc32c"}
_ABSENT = 2**64 - 1  # offset of a chunk that was never stored; it stands for the fill value, 0
_OPEN_FILES = 128


class Damaged(Exception):
    """A sample that cannot be read, and why."""

    def __init__(self, index: int, why: str) -> None:
        super().__init__(why)
        self.index = index


class Direct:
    """The samples of one array, each ``sample_bytes`` long, in shards of ``per_file`` chunks."""

    def __init__(
        self,
        path_of: Callable[[int], str],
        samples: int,
        per_file: int,
        sample_bytes: int,
        summed: bool,
    ) -> None:
        """path_of: from the number of a shard to its file. summed: chunks end in a CRC-32C."""
        self.per_file, self.sample_bytes, self.summed = per_file, sample_bytes, summed
        self._checked = np.zeros(samples, bool)
        self._mapped = 2 * samples * sample_bytes <= _memory_bytes()
        self._shard = functools.lru_cache(_OPEN_FILES)(lambda n: _Shard(path_of(n), per_file))

    def fill(self, indices: list[int], rows: np.ndarray) -> None:
        """Read samples into ``rows``, uint8 (b, sample_bytes); raises Damaged."""
        size, known = self.sample_bytes, self._checked if self._mapped else None
        for index, row in zip(indices, rows, strict=True):
            number, place = divmod(index, self.per_file)
            try:
                shard = self._shard(number)
            except OSError as error:
                raise Damaged(index, f"the file cannot be read: {error.strerror}") from error
            except ValueError as error:
                raise Damaged(index, str(error)) from error
            offset = shard.offsets[place]
            if known is not None and known[index]:
                row[:] = shard.content[offset : offset + size]
            elif offset == _ABSENT:
                row[:] = 0
            else:
                self._read(shard, index, offset, row)

    def cached(self, indices: np.ndarray) -> bool:
        """Return whether reading is a copy in memory, so that there is nothing to wait for."""
        return self._mapped and bool(self._checked[indices].all())

    def forget(self) -> None:
        """Open files anew from now on; they were written."""
        self._shard.cache_clear()
        self._checked[:] = False

    def _read(self, shard: _Shard, index: int, offset: int, row: np.ndarray) -> None:
        import google_crc32c

        tail = bytearray(4 * self.summed)
        stored = shard.sizes[index % self.per_file]
        read = os.preadv(shard.file.fileno(), [row.data, tail], offset)
        if read != len(row) + len(tail) or stored != read:
            raise Damaged(index, "the file is too short")
        fresh = self.summed and not self._checked[index]
        if fresh and google_crc32c.value(row) != int.from_bytes(tail, "little"):
            raise Damaged(index, "its checksum does not match its bytes")
        self._checked[index] = True


class _Shard:
    """An open file, closed after its last reader; OSError or ValueError if it cannot be one."""

    def __init__(self, path: str, per_file: int) -> None:
        import google_crc32c

        self.file = open(path, "rb", buffering=0)  # noqa: SIM115
        size = 16 * per_file + 4
        end = os.fstat(self.file.fileno()).st_size
        table = os.pread(self.file.fileno(), size, end - size) if end >= size else b""
        if len(table) < size:
            raise ValueError("the file is too short")
        if google_crc32c.value(table[:-4]) != int.from_bytes(table[-4:], "little"):
            raise ValueError("the checksum of its table of chunks does not match")
        pairs = np.frombuffer(table[:-4], "<u8").reshape(-1, 2)
        self.offsets, self.sizes = pairs[:, 0].tolist(), pairs[:, 1].tolist()

    @functools.cached_property
    def content(self) -> np.ndarray:
        """The file's bytes, uint8; reads them when they are looked at."""
        return np.frombuffer(mmap.mmap(self.file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)


def checksums(codecs: list[dict[str, Any]]) -> bool | None:
    """Return whether chunks carry a checksum; None if they are not chunks that Direct can read."""
    if sys.byteorder != "little" or [c["name"] for c in codecs] != ["sharding_indexed"]:
        return None
    inner = codecs[0]["configuration"]
    if inner.get("index_location", "end") != "end" or inner["index_codecs"] != [BYTES, CRC]:
        return None
    return {"bytes": False, "bytes crc32c": True}.get(" ".join(c["name"] for c in inner["codecs"]))


def _memory_bytes() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
