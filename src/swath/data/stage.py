"""Shards copied to a disk of the node that reads them.

What many nodes read again and again from one shared file system, each may keep on a disk of its
own. ``copy`` brings everything there before training begins; ``cache`` brings a shard when it is
first needed and reads the original meanwhile, and goes on with originals when the disk is full.

Copies lie in ``folder/FINGERPRINT/``, named after what the store holds, so that runs share them and
never take those of another store. One is finished or absent: it is written aside and renamed, and
it is whole if its size and time are the original's. Whoever locks the file aside first copies it;
the system lets go of the lock when that process dies, and the next one begins it anew. Each
sample's checksum is compared as it is read, as an original's is.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import pathlib
import queue
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Literal

import numpy as np

from swath import here, units
from swath.config import ConfigError
from swath.data.shards import Group, Shards, is_address
from swath.files import disk_full, write_file

if TYPE_CHECKING:
    from swath.data.store import Store

log = logging.getLogger(__name__)

_THREADS = 4  # that copy at a time, before training; one alone seldom fills a network
_PIECE = 16 << 20  # bytes copied at a time
_LEFT = 50  # one part in so many of the disk stays free


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Where each node keeps shards near, and when they come there; changes no result."""

    folder: str
    """Folder on a disk of the node, as $TMPDIR/swath: $NAME is an environment variable."""
    mode: Literal["copy", "cache"] = "cache"
    """copy: all shards before training begins. cache: each when it is first needed."""


class Staging:
    """The copies of one store near this process; ConfigError if nothing can be written there."""

    def __init__(self, settings: Stage, store: Store) -> None:
        self.settings, self.store = settings, store
        self.copied_bytes, self.copied_seconds = 0, 0.0
        """Copied by this process, and the time it took."""
        self.folder = pathlib.Path(here.expanded(settings.folder)) / store.fingerprint
        self._arrays: dict[str, _Near] = {}
        self._lock = threading.Lock()
        self._wanted: queue.Queue[tuple[_Near, int]] = queue.Queue()
        self._thread: threading.Thread | None = None
        self._stopped = False
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with open(self.folder / ".lock", "a"):
                pass
        except OSError as error:
            raise ConfigError(
                f"data.stage.folder={settings.folder}: {self.folder} cannot be written"
                f" ({error.strerror}); name a folder on a disk of the node, or leave stage out"
            ) from error

    def read(self, far: Shards, indices: np.ndarray) -> Callable[[], np.ndarray]:
        """Begin to read samples of the array whose original is ``far`` from wherever they are; the
        returned function waits for them."""
        return self._near(far).read(indices)

    def fill(self, names: Sequence[str]) -> None:
        """Copy what is missing of the arrays ``names``; of processes that share the folder one
        copies while the others wait. ConfigError if there is no room for it."""
        with open(self.folder / ".lock", "a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            missing = [
                (near, shard)
                for near in (self._near(self.store.original(name)) for name in names)
                for shard in range(near.shards)
                if not near.whole(shard)
            ]
            self._check_room(sum(near.size(shard) for near, shard in missing))
            with ThreadPoolExecutor(_THREADS) as threads:
                began = time.perf_counter()
                copies = [threads.submit(near.copy, shard, wait=True) for near, shard in missing]
                for copy in copies:
                    try:
                        self.copied_bytes += copy.result()
                    except OSError as error:
                        threads.shutdown(cancel_futures=True)
                        raise self.explained(error) from error
                self.copied_seconds += time.perf_counter() - began
        if self.copied_bytes:
            told = units.bytes_(self.copied_bytes), units.seconds(self.copied_seconds)
            log.info("%s: copied %s in %s", self.folder, *told)

    def want(self, near: _Near, shard: int) -> None:
        """Copy a shard when there is time, unless the disk is full."""
        with self._lock:
            if self._thread is None:
                # A daemon: a run that ends does not wait for copies of no more use to it.
                self._thread = threading.Thread(target=self._work, name="swath stage", daemon=True)
                self._thread.start()
        if not self._stopped:
            self._wanted.put((near, shard))

    def _near(self, far: Shards) -> _Near:
        with self._lock:
            if far.name not in self._arrays:
                self._arrays[far.name] = _Near(self, far)
            return self._arrays[far.name]

    def _work(self) -> None:
        while not self._stopped:
            near, shard = self._wanted.get()
            began = time.perf_counter()
            try:
                if near.size(shard) > self._room():
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                self.copied_bytes += near.copy(shard)
            except (OSError, ConfigError) as error:
                self._stopped = True
                log.warning(
                    "%s: no more shards are copied (%s); the others are read from %s",
                    self.folder,
                    error,
                    self.store.path,
                )
            self.copied_seconds += time.perf_counter() - began

    def _room(self) -> int:
        disk = shutil.disk_usage(self.folder)
        return disk.free - disk.total // _LEFT

    def _check_room(self, needed: int) -> None:
        if needed > (room := max(0, self._room())):
            raise ConfigError(
                f"data.stage.folder={self.settings.folder}: {units.bytes_(needed)} of"
                f" {self.store.path} are not there yet and {self.folder} has room for"
                f" {units.bytes_(room)}; set data.stage.mode=cache, which keeps what fits, name"
                " another folder, or leave stage out"
            )

    def explained(self, error: OSError | ConfigError) -> ConfigError:
        why = "the disk is full" if disk_full(error) else str(error)
        return ConfigError(
            f"data.stage.folder={self.settings.folder}: copying to {self.folder} failed: {why};"
            " set data.stage.mode=cache, which keeps what fits, name another folder, or leave"
            " stage out"
        )


class _Near:
    """One array: its original, and copies of some of its shards."""

    def __init__(self, staging: Staging, far: Shards) -> None:
        self.far, self._staging = far, staging
        self.shards = -(-far.shape[0] // far.per_file)
        self._root = staging.store.path
        self._group = Group(self._root)
        self._there = np.zeros(self.shards, bool)
        self._spoiled = np.zeros(self.shards, bool)
        """Whose copies have turned out to be damaged: they are not looked at again."""
        self._asked: set[int] = set()
        self._facts: dict[int, tuple[int, int] | None] = {}
        place = staging.folder / far.name / "zarr.json"
        try:
            if not place.exists():
                place.parent.mkdir(parents=True, exist_ok=True)
                write_file(place, self._group.content(f"{far.name}/zarr.json"))
        except (OSError, ConfigError) as error:
            raise staging.explained(error) from error
        self._near = far.at(str(staging.folder))

    def read(self, indices: np.ndarray) -> Callable[[], np.ndarray]:
        shards = indices // self.far.per_file
        self._look_for(np.unique(shards[~self._there[shards]]).tolist())
        near = self._there[shards]
        if not near.any():
            return self.far.read(indices)
        if near.all():
            return self._checked(indices)
        parts = [(near, self._checked(indices[near])), (~near, self.far.read(indices[~near]))]

        def wait() -> np.ndarray:
            out = np.empty((len(indices), *self.far.shape[1:]), self.far.dtype)
            for places, begun in parts:
                out[places] = begun()
            return out

        return wait

    def whole(self, shard: int) -> bool:
        """Whether the copy of ``shard`` is there and as large and as old as the original."""
        try:
            found = os.stat(self._file(shard))
        except OSError:
            return False
        facts = self._told(shard)
        return facts is None or facts == (found.st_size, int(found.st_mtime))

    def size(self, shard: int) -> int:
        """Return the bytes of ``shard``; of an address, as many as it has unpacked."""
        facts = self._told(shard)
        if facts is not None:
            return facts[0]
        return self.far.per_file * int(np.prod(self.far.shape[1:])) * self.far.dtype.itemsize

    def _told(self, shard: int) -> tuple[int, int] | None:
        """Return size and time of the original, asked for once; an address tells neither, but the
        name of the folder of copies tells what is in them."""
        if shard not in self._facts:
            facts = None
            if not is_address(self._root):
                found = os.stat(f"{self._root}/{self.far.file(shard)}")
                facts = found.st_size, int(found.st_mtime)
            self._facts[shard] = facts
        return self._facts[shard]

    def copy(self, shard: int, wait: bool = False) -> int:
        """Copy ``shard`` unless its copy is whole; return how many bytes were copied.

        wait: if another process is at it, until it is done; else it is left to that one.
        """
        target = self._file(shard)
        target.parent.mkdir(parents=True, exist_ok=True)
        aside = target.with_name(f".{target.name}.part")
        with open(aside, "ab") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                return 0
            if self.whole(shard):  # and ``file`` may be it, renamed since it was opened
                aside.unlink(missing_ok=True)
                return 0
            file.truncate(0)
            try:
                size = self._write(shard, file)
                os.replace(aside, target)
            except OSError:
                aside.unlink(missing_ok=True)  # a part would fill the disk for nothing
                raise
        return size

    def _write(self, shard: int, file: BinaryIO) -> int:
        name = self.far.file(shard)
        if is_address(self._root):
            size = file.write(self._group.content(name))
            file.flush()
            return size
        with open(f"{self._root}/{name}", "rb") as original:
            shutil.copyfileobj(original, file, _PIECE)
            file.flush()
            facts = os.fstat(original.fileno())
        os.utime(file.fileno(), ns=(facts.st_atime_ns, facts.st_mtime_ns))
        return facts.st_size

    def _file(self, shard: int) -> pathlib.Path:
        return self._staging.folder / self.far.file(shard)

    def _look_for(self, shards: Sequence[int]) -> None:
        """Note which of ``shards`` have come, and ask for those that have not."""
        for shard in shards:
            if self._spoiled[shard]:
                continue
            self._there[shard] = self.whole(shard)
            if not self._there[shard] and shard not in self._asked:
                self._asked.add(shard)
                self._staging.want(self, shard)

    def _checked(self, indices: np.ndarray) -> Callable[[], np.ndarray]:
        """Begin to read from copies; if one of them is damaged, from originals after all."""
        begun = self._near.read(indices)

        def wait() -> np.ndarray:
            try:
                return begun()
            except ConfigError as error:
                shards = np.unique(indices // self.far.per_file)
                log.warning("%s; it is a copy: the original is read, and it is removed", error)
                self._there[shards], self._spoiled[shards] = False, True
                for shard in shards.tolist():
                    self._file(shard).unlink(missing_ok=True)
                return self.far.read(indices)()

        return wait
