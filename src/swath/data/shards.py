"""One array of a store: a chunk and a checksum for each sample, many chunks to a file.

On disk it is plain Zarr v3 with the ``sharding_indexed`` codec. TensorStore writes it, and reads
what is compressed or remote, on threads of its own. Uncompressed local shards are left to
``swath.data.direct``, which copies each sample once.
"""

from __future__ import annotations

import difflib
import glob
import json
import math
import os
import pathlib
import re
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from typing import Any

import numpy as np

from swath.config import ConfigError
from swath.data.direct import BYTES, CRC, Damaged, Direct, checksums

_JOB_BYTES = 6_000_000  # read by one thread in one go


def address(path: str | os.PathLike[str], *below: str) -> dict[str, Any] | str:
    """Return TensorStore's name of a folder: ``path`` may also be a URL such as s3://bucket/x."""
    text = os.fspath(path)
    inner = "".join(f"{part}/" for part in below)
    if is_address(text):
        return text.rstrip("/") + "/" + inner
    return {"driver": "file", "path": os.path.abspath(text) + "/" + inner}


def is_address(path: str) -> bool:
    """Return whether ``path`` is a URL, such as s3://bucket/x, and not a folder."""
    return "://" in path


def as_text(path: str | os.PathLike[str]) -> str:
    """Return ``path`` as text; ConfigError if it was an address once, which pathlib destroys."""
    text = os.fspath(path)
    if not isinstance(path, str) and re.match(r"[a-z0-9]{2,}:/", text):
        raise ConfigError(
            f"{text}: an address cannot be a Path, which drops a slash: give it as text"
        )
    return text


def nearby(path: str) -> str:
    """Return a store that may have been meant by ``path``, where there is none: one beside it of
    nearly the same name, or of its name in a folder of nearly the same; "" if there is none."""
    if is_address(path):
        return ""
    asked = pathlib.Path(path)
    beside = [mark.parent for mark in asked.parent.glob("*/zarr.json")]
    over = asked.parent.parent.glob(f"*/{glob.escape(asked.name)}/zarr.json")
    for part, there in (
        (asked.name, {found.name: found for found in beside}),
        (asked.parent.name, {mark.parent.parent.name: mark.parent for mark in over}),
    ):
        near = difflib.get_close_matches(part, there, n=1, cutoff=0.75)
        if near:
            return str(there[near[0]])
    return ""


class Group:
    """A folder of arrays: a Zarr group and its attributes."""

    def __init__(self, path: str, *below: str) -> None:
        import tensorstore

        self._path = path
        try:
            self._files = tensorstore.KvStore.open(address(path, *below)).result()
        except ValueError as error:
            raise ConfigError(f"{path}: is no address of a store: {error}") from error

    def load(self) -> dict[str, Any] | None:
        """Return the attributes, or None if there is no Zarr group."""
        try:
            found = self._files.read("zarr.json").result()
        except (ValueError, OSError) as error:
            raise ConfigError(f"{self._path}: cannot be read: {error}") from error
        if found.state != "value":
            return None
        try:
            node = json.loads(found.value)
        except ValueError as error:
            raise damaged(f"{self._path}/zarr.json", f"not JSON: {error}") from error
        attributes = node.get("attributes", {}) if isinstance(node, dict) else None
        if not isinstance(attributes, dict):
            raise damaged(f"{self._path}/zarr.json", "not a Zarr group")
        return attributes

    def save(self, attributes: dict[str, Any]) -> None:
        """Write the attributes, all or none: aside, to disk, then renamed."""
        node = {"zarr_format": 3, "node_type": "group", "attributes": attributes}
        try:
            self._files.write("zarr.json", json.dumps(node, allow_nan=False, indent=1)).result()
        except ValueError as error:
            raise _unwritten(f"{self._path}/zarr.json", error) from error

    def files(self, folder: str) -> set[int]:
        """Return the numbers of the shards that lie in ``folder``."""
        start = f"{folder}/".encode()
        below = self._files.list(self._range(start)).result()
        return {int(name[len(start) :].split(b"/")[0]) for name in below}

    def content(self, name: str) -> bytes:
        """Return what is in one file; ConfigError if it is not there or cannot be read."""
        try:
            found = self._files.read(name).result()
        except (ValueError, OSError) as error:
            raise ConfigError(f"{self._path}/{name}: cannot be read: {error}") from error
        if found.state != "value":
            raise ConfigError(f"{self._path}/{name}: is missing; run `swath data build` again")
        return bytes(found.value)

    def remove(self, folder: str) -> None:
        """Remove everything below ``folder``."""
        self._files.delete_range(self._range(f"{folder}/".encode())).result()
        if not is_address(self._path):
            shutil.rmtree(f"{self._path}/{folder}", ignore_errors=True)  # what is left is empty

    def _range(self, start: bytes) -> Any:
        import tensorstore

        return tensorstore.KvStore.KeyRange(start, start[:-1] + bytes([start[-1] + 1]))


class Shards:
    """An array (samples, ...) on disk; written whole shards at a time, read sample by sample."""

    def __init__(self, path: str, name: str, threads: Executor, spec: Any = None) -> None:
        import tensorstore

        self.name, self._threads = name, threads
        context = {"cache_pool": {"total_bytes_limit": 64_000_000}}  # holds the tables of shards
        whole_spec = {
            "driver": "zarr3",
            "kvstore": address(path, *name.split("/")),
            "context": context,
            "recheck_cached_metadata": "open",
            "recheck_cached_data": "open",
            "store_data_equal_to_fill_value": True,  # a file that is absent was never written
            "fill_missing_data_reads": False,
            **(spec or {}),
        }
        try:
            self._array = tensorstore.open(whole_spec).result()
        except ValueError as error:
            file = f"{path}/{name}/zarr.json"
            if spec:
                raise _unwritten(file, error) from error
            raise damaged(file, str(error).partition(" [source")[0]) from error
        self.shape = tuple(self._array.shape)
        self.dtype = np.dtype(self._array.dtype.numpy_dtype)
        metadata = self._array.spec().to_json(include_defaults=True)["metadata"]
        self.per_file = metadata["chunk_grid"]["configuration"]["chunk_shape"][0]
        self._root = path
        self._direct: Direct | None = None
        summed = checksums(metadata["codecs"])
        if summed is not None and not is_address(path):
            size = self.dtype.itemsize * math.prod(self.shape[1:])
            self._direct = Direct(
                lambda shard: f"{path}/{self.file(shard)}",
                self.shape[0],
                self.per_file,
                size,
                summed,
            )

    def check_is(self, shape: tuple[int, ...], dtype: Any, per_file: int) -> None:
        """Raise ConfigError unless the array is as large as the store's own zarr.json tells."""
        told = (shape, np.dtype(dtype).name, per_file)
        found = (self.shape, self.dtype.name, self.per_file)
        if found != told:
            raise damaged(
                f"{self._root}/{self.name}/zarr.json",
                "it says {} {}, {} a file; {} {}, {} were written".format(*found, *told),
            )

    @classmethod
    def create(
        cls,
        path: str,
        name: str,
        threads: Executor,
        *,
        shape: Sequence[int],
        dtype: str,
        per_file: int,
        dims: Sequence[str],
        compress: bool,
        sharded: bool = True,
        attributes: dict[str, Any] | None = None,
    ) -> Shards:
        """Create the array on disk, empty; one that lies there is removed.

        sharded: False makes each file one chunk, for columns that are always read whole.
        """
        blosc = {
            "name": "blosc",
            "configuration": {
                "cname": "lz4",
                "clevel": 5,
                "shuffle": "bitshuffle",
                "typesize": np.dtype(dtype).itemsize,
                "blocksize": 0,
            },
        }
        codecs: list[dict[str, Any]] = [BYTES, *([blosc] if compress else []), CRC]
        if sharded:
            inner = {"chunk_shape": [1, *shape[1:]], "codecs": codecs}
            inner["index_codecs"] = [BYTES, CRC]
            codecs = [{"name": "sharding_indexed", "configuration": inner}]
        grid = {"chunk_shape": [per_file, *shape[1:]]}
        metadata = {
            "shape": list(shape),
            "data_type": dtype,
            "chunk_grid": {"name": "regular", "configuration": grid},
            "chunk_key_encoding": {"name": "default"},
            "fill_value": 0,
            "dimension_names": list(dims),
            "codecs": codecs,
            "attributes": attributes or {},
        }
        spec = {"metadata": metadata, "create": True, "delete_existing": True}
        return cls(path, name, threads, spec)

    def at(self, path: str) -> Shards:
        """Return the array of the same name below ``path``."""
        return Shards(path, self.name, self._threads)

    def file(self, shard: int) -> str:
        """Return the name of the file of one shard, below the store."""
        return "/".join([self.name, "c", str(shard), *("0" for _ in self.shape[1:])])

    def write(self, start: int, values: np.ndarray) -> None:
        """Write samples from ``start`` on; whole shards at a time are fast and atomic."""
        try:
            self._array[start : start + len(values)].write(values).result()
        except (ValueError, OSError) as error:
            what = f"{self._root}/{self.name}: samples {start} to {start + len(values) - 1}"
            raise _unwritten(what, error) from error
        if self._direct is not None:
            self._direct.forget()

    def read(self, indices: np.ndarray) -> Callable[[], np.ndarray]:
        """Begin to read samples; the returned function waits for them."""
        direct = self._direct
        if direct is None:
            future = self._array[indices].read()
            return lambda: self._wait(future, indices)
        # What is cached is copied when it is asked for: handing a little work to another thread and
        # back takes longer, and the copy is still in the processor's cache when it is used.
        begun = None if direct.cached(indices) else self._begin(direct, indices)

        def wait() -> np.ndarray:
            try:
                out, jobs = begun or self._begin(direct, indices, here=1)
                for job in jobs:
                    job.result()
            except Damaged as error:
                raise self._damaged(str(error), error.index) from error
            return out

        return wait

    def _begin(
        self, direct: Direct, indices: np.ndarray, here: int = 0
    ) -> tuple[np.ndarray, list[Future]]:
        """Begin to fill a batch on the threads, and fill the first ``here`` pieces of it now."""
        out = np.empty((len(indices), *self.shape[1:]), self.dtype)
        rows = out.view(np.uint8).reshape(len(indices), direct.sample_bytes)
        size = max(1, _JOB_BYTES // direct.sample_bytes)
        starts = range(0, len(indices), size)
        pieces = [(indices[i : i + size].tolist(), rows[i : i + size]) for i in starts]
        jobs = [self._threads.submit(direct.fill, *piece) for piece in pieces[here:]]
        for piece in pieces[:here]:
            direct.fill(*piece)
        return out, jobs

    def whole(self) -> np.ndarray:
        """Return the whole array; for columns."""
        try:
            return np.asarray(self._array.read().result())
        except ValueError as error:
            raise self._damaged(str(error)) from error

    def _wait(self, future: Any, indices: np.ndarray) -> np.ndarray:
        try:
            return future.result()
        except ValueError as error:
            said = str(error)
        for index in np.unique(indices).tolist():  # find the one, to name it
            try:
                self._array[index].read().result()
            except ValueError as error:
                raise self._damaged(str(error).split('": ')[-1], index) from error
        raise self._damaged(said)

    def _damaged(self, why: str, index: int | None = None) -> ConfigError:
        where, sample = f"{self._root}/{self.name}", ""
        if index is not None:
            where = f"{self._root}/{self.file(index // self.per_file)}"
            sample = f"sample {index} of {self.name!r} is damaged: "
        return ConfigError(
            f"{where}: {sample}{why}. Delete this file and run `swath data build` with the same "
            f"settings: it writes what is missing"
        )


def damaged(file: str, why: str) -> ConfigError:
    """Return the error that ``file``, which says what an array or a store is, is not as written."""
    return ConfigError(
        f"{file}: damaged: {why}. Put this file back from a copy of the store, or delete the store "
        "and build it again"
    )


def _unwritten(what: str, error: Exception) -> ConfigError:
    full = any(words in str(error).lower() for words in ("no space left", "quota exceeded"))
    reason = "the disk is full; free some space and run again" if full else str(error)
    return ConfigError(f"{what} cannot be written: {reason}")
