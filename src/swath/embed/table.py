"""Embeddings of samples on disk: a Zarr v3 group that any Zarr tool and xarray opens.

    embedding          (sample, feature) float32, or (sample, y, x, feature) of patches
    part, label        (sample,) or (sample, y, x): 0, 1, 2 for train, val, test, 255 for none; the
                       class, -1 where there is none
    lon, lat           (sample,) degrees of the sample's middle (WGS 84); NaN where unknown
    name               (sample,) text

Attributes say of which model, store and settings they are, and the names of the classes. The first
three are in files of as many samples each, written whole; a file that is there is done.
"""

from __future__ import annotations

import json
import math
import pathlib
import shutil
import struct
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from swath.config import ConfigError
from swath.data.shards import Group, Shards
from swath.files import read_json, write_file

ROWS_BYTES = 16_000_000  # of vectors in one file, about
NO_CLASS = -1


class Table:
    """Embeddings of the samples of a store; made by :meth:`begin`, found again by :meth:`open`."""

    def __init__(self, path: pathlib.Path, attributes: dict[str, Any]) -> None:
        self.path, self.attributes = path, attributes
        self._threads = ThreadPoolExecutor(4, "table")
        self._arrays = {
            name: Shards(str(path), name, self._threads) for name in ("embedding", "part", "label")
        }
        self.samples, *self.grid, self.width = self._arrays["embedding"].shape
        self.per_file = self._arrays["embedding"].per_file

    @classmethod
    def begin(
        cls,
        path: pathlib.Path,
        plan: dict[str, Any],
        samples: int,
        grid: Sequence[int],
        width: int,
        columns: dict[str, np.ndarray],
    ) -> Table:
        """Return the table of ``plan`` at ``path``, as far as it is there; one of another plan is
        removed. plan: all that the vectors depend on, as JSON, and the names of the classes.

        grid: rows and columns of vectors in a sample, or none of both. columns: lon, lat, name.
        """
        plan = json.loads(json.dumps(plan))
        there = Group(str(path)).load() if path.exists() else None
        if there is None or there.get("plan") != plan:
            shutil.rmtree(path, ignore_errors=True)
            path.mkdir(parents=True)
            rows = max(1, min(samples, 512, ROWS_BYTES // (4 * width * math.prod(grid))))
            with ThreadPoolExecutor(1) as threads:
                for name, dtype, more in (
                    ("embedding", "float32", (width,)),
                    ("part", "uint8", ()),
                    ("label", "int32", ()),
                ):
                    dims = ("sample", *("y", "x")[: len(grid)], *("feature",)[: len(more)])
                    shape = (samples, *grid, *more)
                    attributes = {"classes": plan["classes"]} if name == "label" else {}
                    Shards.create(
                        str(path),
                        name,
                        threads,
                        shape=shape,
                        dtype=dtype,
                        per_file=rows,
                        dims=dims,
                        compress=False,
                        sharded=False,
                        attributes=attributes,
                    )
                for name in ("lon", "lat"):
                    Shards.create(
                        str(path),
                        name,
                        threads,
                        shape=(samples,),
                        dtype="float64",
                        per_file=samples,
                        dims=("sample",),
                        compress=False,
                        sharded=False,
                        attributes={"units": f"degrees_{'east' if name == 'lon' else 'north'}"},
                    ).write(0, columns[name])
            _write_texts(path / "name", columns["name"])
            Group(str(path)).save({"plan": plan, "done": False})
        return cls(path, {"plan": plan})

    @classmethod
    def open(cls, path: pathlib.Path) -> Table:
        """Return a finished table; ConfigError if there is none."""
        attributes = Group(str(path)).load() if path.exists() else None
        if not attributes or not attributes.get("done"):
            raise ConfigError(f"{path}: there are no finished embeddings; swath embed makes them")
        return cls(path, attributes)

    @property
    def plan(self) -> dict[str, Any]:
        """What the vectors depend on."""
        return self.attributes["plan"]

    def missing(self) -> list[int]:
        """Return the files that are not there, by their number."""
        group = Group(str(self.path))
        there = set.intersection(*(group.files(f"{name}/c") for name in self._arrays))
        return [i for i in range(-(-self.samples // self.per_file)) if i not in there]

    def rows(self, file: int) -> np.ndarray:
        """Return the samples in one file."""
        first = file * self.per_file
        return np.arange(first, min(first + self.per_file, self.samples))

    def write(self, file: int, **arrays: np.ndarray) -> None:
        """Write embedding, part and label of the samples of one file."""
        for name, array in self._arrays.items():
            array.write(file * self.per_file, arrays[name])

    def finish(self) -> None:
        """Say that all is there; ConfigError if it is not."""
        if missing := self.missing():
            raise ConfigError(
                f"{self.path}: {len(missing)} files of embeddings are missing, the first is "
                f"{missing[0]}; ranks must write into one folder that all see. The same command "
                "goes on"
            )
        self.attributes = {"plan": self.plan, "done": True}
        Group(str(self.path)).save(self.attributes)

    def add(self, name: str, values: np.ndarray) -> None:
        """Write a figure of every vector (n,) as one more array, in place of an older one."""
        shutil.rmtree(self.path / name, ignore_errors=True)
        shape = (self.samples, *self.grid)
        Shards.create(
            str(self.path),
            name,
            self._threads,
            shape=shape,
            dtype="float32",
            per_file=self.samples,
            dims=("sample", *("y", "x")[: len(self.grid)]),
            compress=False,
            sharded=False,
            attributes={},
        ).write(0, values.reshape(shape))

    def blocks(self) -> Iterator[tuple[int, np.ndarray]]:
        """Yield the number of the first vector and vectors (m, width), from first to last."""
        each = math.prod(self.grid)
        for file in range(-(-self.samples // self.per_file)):
            rows = self.rows(file)
            found = self._arrays["embedding"].read(rows)()
            yield int(rows[0]) * each, found.reshape(-1, self.width)

    def vectors(self, chosen: np.ndarray) -> np.ndarray:
        """Return the vectors (m, width) of ``chosen`` numbers, in their order."""
        out = np.empty((len(chosen), self.width), np.float32)
        order = np.argsort(chosen, kind="stable")
        ordered = chosen[order]
        for first, block in self.blocks():
            low, high = np.searchsorted(ordered, (first, first + len(block)))
            out[order[low:high]] = block[ordered[low:high] - first]
        return out

    def column(self, name: str) -> np.ndarray:
        """Return part or label of every vector, (n,); or lon, lat or name of every sample."""
        if name == "name":
            return _read_texts(self.path / "name")
        if name in self._arrays:
            return self._arrays[name].whole().reshape(-1)
        return Shards(str(self.path), name, self._threads).whole()


def _write_texts(path: pathlib.Path, values: np.ndarray) -> None:
    """Write a Zarr array of text, which TensorStore does not know: lengths and letters in turn."""
    path.joinpath("c").mkdir(parents=True)
    letters = [str(value).encode() for value in values]
    parts = [struct.pack("<I", len(one)) + one for one in letters]
    write_file(path / "c" / "0", struct.pack("<I", len(letters)) + b"".join(parts))
    meta = {
        "zarr_format": 3,
        "node_type": "array",
        "shape": [len(letters)],
        "data_type": "string",
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [len(letters)]}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": "",
        "codecs": [{"name": "vlen-utf8"}],
        "dimension_names": ["sample"],
        "attributes": {},
    }
    write_file(path / "zarr.json", json.dumps(meta).encode())


def _read_texts(path: pathlib.Path) -> np.ndarray:
    content = (path / "c" / "0").read_bytes()
    at, found = 4, []
    for _ in range(read_json(path / "zarr.json")["shape"][0]):
        (length,) = struct.unpack_from("<I", content, at)
        found.append(content[at + 4 : at + 4 + length].decode())
        at += 4 + length
    return np.array(found)
