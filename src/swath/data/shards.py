"""One array of a store: a chunk and a checksum for each sample, many chunks to a file.

On disk it is plain Zarr v3 with the ``sharding_indexed`` codec. TensorStore writes it, and reads
what is compressed or remote, on threads of its own. Uncompressed local shards are read by the
few lines below, straight into the batch: TensorStore copies such a chunk several times, which
made it 3 times slower (benchmarks/loading.md).

Layout of a shard: chunks in any order, then (offset, bytes) of each as uint64, then the CRC-32C
of that table. Source: zarr-specs, codecs/sharding-indexed v1.0.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Any

import numpy as np

from swath.config import ConfigError

_BYTES = {"name": "bytes", "configuration": {"endian": "little"}}
_CRC = {"name": "crc32c"}
_ABSENT = 2**64 - 1  # offset of a chunk that was never stored; it stands for the fill value, 0
_OPEN_FILES = 128
_JOB_BYTES = 2_000_000  # read by one thread in one go


def address(path: str | os.PathLike[str], *below: str) -> dict[str, Any] | str:
    """Return TensorStore's name of a folder: ``path`` may also be a URL such as s3://bucket/x."""
    text = os.fspath(path)
    inner = "".join(f"{part}/" for part in below)
    if "://" in text:
        return text.rstrip("/") + "/" + inner
    return {"driver": "file", "path": os.path.abspath(text) + "/" + inner}


class Group:
    """A folder of arrays: a Zarr group and its attributes."""

    def __init__(self, path: str, *below: str) -> None:
        import tensorstore

        self._path = path
        self._files = tensorstore.KvStore.open(address(path, *below)).result()

    def load(self) -> dict[str, Any] | None:
        """Return the attributes, or None if there is no Zarr group."""
        found = self._files.read("zarr.json").result()
        if found.state != "value":
            return None
        try:
            return json.loads(found.value).get("attributes", {})
        except ValueError as error:
            raise ConfigError(f"{self._path}/zarr.json: damaged, not JSON: {error}") from error

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

    def remove(self, folder: str) -> None:
        """Remove everything below ``folder``."""
        self._files.delete_range(self._range(f"{folder}/".encode())).result()
        if "://" not in self._path:
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
        self._array = tensorstore.open(
            {
                "driver": "zarr3",
                "kvstore": address(path, *name.split("/")),
                "context": context,
                "recheck_cached_metadata": "open",
                "recheck_cached_data": "open",
                "store_data_equal_to_fill_value": True,  # a file that is absent was never written
                "fill_missing_data_reads": False,
                **(spec or {}),
            }
        ).result()
        self.shape = tuple(self._array.shape)
        self.dtype = np.dtype(self._array.dtype.numpy_dtype)
        metadata = self._array.spec().to_json(include_defaults=True)["metadata"]
        self.per_file = metadata["chunk_grid"]["configuration"]["chunk_shape"][0]
        self._root = path
        self._summed = _plain(metadata["codecs"])
        self.direct = "://" not in path and self._summed is not None
        """Read by this file rather than by TensorStore."""
        self._checked = np.zeros(self.shape[0], bool)
        self._file = functools.lru_cache(_OPEN_FILES)(self._open_file)

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
        codecs: list[dict[str, Any]] = [_BYTES, *([blosc] if compress else []), _CRC]
        if sharded:
            inner = {"chunk_shape": [1, *shape[1:]], "codecs": codecs}
            inner["index_codecs"] = [_BYTES, _CRC]
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

    def read(self, indices: np.ndarray) -> Callable[[], np.ndarray]:
        """Begin to read samples; the returned function waits for them."""
        if not self.direct:
            future = self._array[indices].read()
            return lambda: self._wait(future, indices)
        out = np.empty((len(indices), *self.shape[1:]), self.dtype)
        rows = out.view(np.uint8).reshape(len(indices), out.nbytes // max(1, len(indices)))
        size = max(1, _JOB_BYTES // max(1, rows.shape[1]))
        jobs = [
            self._threads.submit(self._fill, indices[i : i + size].tolist(), rows[i : i + size])
            for i in range(0, len(indices), size)
        ]

        def wait() -> np.ndarray:
            for job in jobs:
                job.result()
            return out

        return wait

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

    def _fill(self, indices: list[int], rows: np.ndarray) -> None:
        import google_crc32c

        tail = bytearray(4)
        for index, row in zip(indices, rows, strict=True):
            try:
                file, table = self._file(index // self.per_file)
            except ValueError as error:
                raise self._damaged(str(error), index) from error
            offset, stored = table[index % self.per_file]
            if offset == _ABSENT:
                row[:] = 0
                continue
            check = self._summed and not self._checked[index]
            read = os.preadv(file.fileno(), [row, tail] if check else [row], offset)
            if stored != row.size + 4 * bool(self._summed) or read != row.size + 4 * bool(check):
                raise self._damaged("the file is too short", index)
            if check:  # once in a process; later reads come from the same page cache
                if google_crc32c.value(row) != int.from_bytes(tail, "little"):
                    raise self._damaged("its checksum does not match its bytes", index)
                self._checked[index] = True

    def _open_file(self, shard: int) -> tuple[Any, list[tuple[int, int]]]:
        """Return a shard's open file (closed after its last reader) and its table of chunks.

        ValueError says what is wrong with it.
        """
        import google_crc32c

        try:
            file = open(f"{self._root}/{self.file(shard)}", "rb", buffering=0)  # noqa: SIM115
        except OSError as error:
            raise ValueError(f"the file cannot be read: {error.strerror}") from error
        size = 16 * self.per_file + 4
        end = os.fstat(file.fileno()).st_size
        table = os.pread(file.fileno(), size, end - size) if end >= size else b""
        if len(table) < size:
            raise ValueError("the file is too short")
        if google_crc32c.value(table[:-4]) != int.from_bytes(table[-4:], "little"):
            raise ValueError("the checksum of its table of chunks does not match")
        pairs = np.frombuffer(table[:-4], "<u8").reshape(-1, 2)
        return file, [(int(a), int(b)) for a, b in pairs]

    def _damaged(self, why: str, index: int | None = None) -> ConfigError:
        where, sample = f"{self._root}/{self.name}", ""
        if index is not None:
            where = f"{self._root}/{self.file(index // self.per_file)}"
            sample = f"sample {index} of {self.name!r} is damaged: "
        return ConfigError(
            f"{where}: {sample}{why}. Delete this file and run `swath data build` with the same "
            f"settings: it writes what is missing"
        )


def _unwritten(what: str, error: Exception) -> ConfigError:
    full = any(words in str(error).lower() for words in ("no space left", "quota exceeded"))
    reason = "the disk is full; free some space and run again" if full else str(error)
    return ConfigError(f"{what} cannot be written: {reason}")


def _plain(codecs: list[dict[str, Any]]) -> bool | None:
    """Return whether chunks carry a checksum, or None if they are not uncompressed shards."""
    if sys.byteorder != "little" or [c["name"] for c in codecs] != ["sharding_indexed"]:
        return None
    inner = codecs[0]["configuration"]
    if inner.get("index_location", "end") != "end" or inner["index_codecs"] != [_BYTES, _CRC]:
        return None
    return {"bytes": False, "bytes crc32c": True}.get(" ".join(c["name"] for c in inner["codecs"]))
