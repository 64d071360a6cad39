"""A store: many samples on disk, read at random, with everything that says what they are.

A store is a folder (or an s3:// or gs:// address) and a Zarr v3 group, so that any Zarr tool and
xarray can open it:

    zarr.json          attributes: version, contents, and what builders add (stats, splits, ...),
                       with a checksum
    <modality>/        (n, c, h, w), one chunk a sample, sharded to files of about 256 MB
    label/             (n, h, w) or (n, t, h, w) likewise; (n,), (n, k) or (n, t) as a column
    groups/<name>/     (n, h, w) likewise, or (n,) as a column
    where/ when/ given/ name/      columns: one small file each

Images keep their native type. While a store is built its columns are in ``building/``, a file to
each shard, so that a shard is written as a whole or counts as missing, and a build killed at any
moment is taken up again. Finishing copies the columns to where they belong and then marks the
store, in one rename, as done.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from swath import here
from swath.config import ConfigError, build, no_such, plain
from swath.data import layout
from swath.data.chip import Chip, Contents, Modality
from swath.data.shards import Group, Shards, as_text, damaged, is_address, nearby
from swath.files import json_sum

if TYPE_CHECKING:
    from swath.data.stage import Staging

_SUM = "swath_sha256"  # beside "swath" among the attributes: their checksum
_SUM_BYTES = 64 << 20  # pixels read at a time for the checksum


class Reading:
    """Samples on their way from disk."""

    def __init__(self, waits: dict[str, Callable[[], np.ndarray]]) -> None:
        self._waits = waits

    def result(self) -> dict[str, np.ndarray]:
        """Wait for the samples; ConfigError if one is damaged."""
        return {name: wait() for name, wait in self._waits.items()}


class Store:
    """Samples on disk; made by :meth:`create`, found again by :meth:`open`."""

    def __init__(self, path: str, attributes: dict[str, Any]) -> None:
        self.path = path
        self._attributes = attributes
        self.contents: Contents = build(Contents, attributes["contents"], path)
        self.specs = layout.specs(self.contents)
        self.samples: int = attributes["samples"]
        self.per_file: int = attributes["per_file"]
        """Samples in a shard."""
        self._group = Group(path)
        self._lock = threading.RLock()
        self._columns: dict[str, np.ndarray] = {}
        self._arrays: dict[str, Shards] = {}
        self.staging: Staging | None = None
        """Where copies of shards are; None: only originals are read."""
        self._threads = ThreadPoolExecutor(min(32, max(4, here.cores())), "store")

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str],
        contents: Contents,
        samples: int,
        *,
        compress: bool = True,
        shard_bytes: int = 256_000_000,
        **attributes: Any,
    ) -> Self:
        """Return a new store of ``samples`` samples, none written yet; ``attributes`` go with it.

        compress: blosc (lz4, bits shuffled): 38 % of the bytes for Sentinel-2, and about 1.3 GB/s
            a core to unpack; uncompressed is 6 to 8 times as fast from memory
            (benchmarks/loading.md).
        """
        text = as_text(path)
        if cls.exists(text):
            raise ConfigError(
                f"{text}: something is here already; name another folder or delete it"
            )
        if samples < 1:
            raise ConfigError(f"{text}: a store needs at least one sample, there are {samples}")
        sharded = [p.sample_bytes for p in layout.specs(contents).values() if not p.column]
        known = {
            "version": layout.VERSION,
            "done": False,
            "samples": samples,
            "per_file": int(min(samples, max(1, shard_bytes // max(sharded)))),
            "compress": compress,
            "contents": plain(contents),
        }
        store = cls(text, layout.from_json(layout.to_json({**attributes, **known})))
        for name in store.specs:
            store._create(name)
        Group(text, "groups").save({})
        store._save(store.attributes)  # last: what has no zarr.json is no store
        return store

    @classmethod
    def exists(cls, path: str | os.PathLike[str]) -> bool:
        """Return whether there is a Zarr group at ``path``, finished or not.

        ConfigError if ``path`` is an address that cannot be read.
        """
        return Group(as_text(path)).load() is not None

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, unfinished: bool = False) -> Self:
        """Return the store at ``path``; ConfigError if it is none, too new, or not finished.

        unfinished: take up a store whose building was cut short.
        """
        text = as_text(path)
        whole = Group(text).load() or {}
        attributes = whole.get("swath")
        if attributes is None:
            if not is_address(text) and not os.path.exists(text):
                other = nearby(text)
                near = f" (did you mean {other}?)" if other else ""
                raise no_such(text, "store", f"{near}; swath data build makes one")
            raise ConfigError(
                f"{text}: there is no store here (no zarr.json with 'swath' in its attributes); "
                f"make one with `swath data build`"
            )
        layout.check(attributes, text)
        if whole.get(_SUM) != json_sum(attributes):
            raise damaged(f"{text}/zarr.json", "it does not match its checksum")
        store = cls(text, layout.from_json(attributes))
        if not store.done and not unfinished:
            raise ConfigError(
                f"{text}: the store is not finished: {len(store.missing())} of "
                f"{-(-store.samples // store.per_file)} shards are missing. Run the same "
                f"`swath data build` again; it goes on where it stopped"
            )
        return store

    def __len__(self) -> int:
        return self.samples

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (type(self), self.path)

    @property
    def attributes(self) -> dict[str, Any]:
        """What is written about the store; changed by :meth:`update`."""
        return self._attributes

    @property
    def origins(self) -> list[dict[str, str]]:
        """For each ground, by band, a fingerprint of the file that it was read from; empty if
        nobody knows."""
        return self._attributes.get("origins") or [{} for _ in self.contents.grounds]

    @property
    def done(self) -> bool:
        """Whether everything is written."""
        return self._attributes["done"]

    @property
    def grid(self) -> tuple[int, int]:
        """Height and width of masks and pixel groups: those of the finest modality."""
        return layout.grid(self.contents)

    def modality(self, name: str) -> Modality:
        """Return one of the modalities; ConfigError if there is none of this name."""
        for modality in self.contents.modalities:
            if modality.name == name:
                return modality
        names = ", ".join(m.name for m in self.contents.modalities)
        raise ConfigError(f"{self.path}: no modality {name!r}; there are {names}")

    def update(self, **attributes: Any) -> None:
        """Add or replace attributes, all or none. Arrays become lists.

        ConfigError if somebody else has finished the store since it was opened here.
        """
        with self._lock:
            self._check_mine()
            new = {**self._attributes, **layout.from_json(layout.to_json(attributes))}
            self._save(new)
            self._attributes = new

    def _check_mine(self) -> None:
        """Raise ConfigError if the store is finished on disk but not here: writing undoes that."""
        there = (Group(self.path).load() or {}).get("swath") or {}
        if there.get("done") and not self.done:
            raise ConfigError(
                f"{self.path}: another process has finished this store; run the same command "
                "again, it takes the store as it is"
            )

    # Writing

    def missing(self) -> list[range]:
        """Return the samples that are not on disk, shard by shard, each to be written whole."""
        written = [
            self._group.files(f"{self._place(name)}/c")
            for name, spec in self.specs.items()
            if not (self.done and spec.column)
        ]
        return [
            range(start, min(start + self.per_file, self.samples))
            for shard, start in enumerate(range(0, self.samples, self.per_file))
            if any(shard not in files for files in written)
        ]

    def write(self, index: int, chip: Chip) -> None:
        """Replace one sample. Its shard is read and written anew: see :meth:`write_many`."""
        self.write_many(index, [chip])

    def write_many(self, start: int, chips: Sequence[Chip]) -> None:
        """Write samples from ``start`` on; ConfigError if a chip does not fit the contents.

        For speed, and so that nothing is torn, write the ranges of :meth:`missing` whole. Threads
        may write different ones at once. In a finished store this mends lost shards: columns stay
        as they are.
        """
        if start < 0 or start + len(chips) > self.samples:
            raise IndexError(f"{start}..{start + len(chips) - 1} is outside 0..{self.samples - 1}")
        specs = [p for p in self.specs.values() if not (self.done and p.column)]
        for name, values in [(p.name, layout.rows(p, chips)) for p in specs]:
            self._array(name).write(start, values)
            self._columns.pop(name, None)
        if self._attributes.get("checksum"):
            self.update(checksum=None)  # of what was there

    def finish(self, **attributes: Any) -> None:
        """Mark the store as done, with ``attributes``; ConfigError if samples are missing."""
        self._check_mine()
        if missing := self.missing():
            raise ConfigError(
                f"{self.path}: cannot be finished: {sum(map(len, missing))} samples are missing"
            )
        for name, spec in self.specs.items():
            if spec.column and not self.done:
                values = self._array(name).whole()
                self._create(name, finished=True).write(0, values)
        with self._lock:
            self.update(**attributes, done=True)
            self._arrays.clear()
        self._group.remove("building")

    # Reading

    def read(
        self,
        indices: np.ndarray | Sequence[int],
        modalities: Sequence[str] | None = None,
        *,
        label: bool = True,
        groups: Sequence[str] = (),
    ) -> Reading:
        """Begin to read samples, in the order asked; IndexError for one that is not there.

        The result holds each modality (b, c, h, w) by name, "label", and "groups/<name>" for each
        of ``groups``. modalities: None means all.
        """
        chosen = np.asarray(indices, dtype=np.int64).reshape(-1)
        if chosen.size and chosen.view(np.uint64).max() >= self.samples:  # or negative
            raise IndexError(f"{self.path}: samples are 0 to {self.samples - 1}, asked: {chosen}")
        if modalities is None:
            modalities = [m.name for m in self.contents.modalities]
        names = [self.modality(name).name for name in modalities]
        names += ["label"] if label and "label" in self.specs else []
        names += [f"groups/{group}" for group in groups]
        return Reading({name: self._begin(name, chosen) for name in names})

    def column(self, name: str) -> np.ndarray:
        """Return a whole column: where, when, given, name, label or groups/<name>.

        where (n, 5) int32: ground, row, col, height, width of the sample; ground -1: unknown.
        when (n,) int64: seconds since 1970 UTC, or ``layout.UNKNOWN_TIME``. given (n,) uint8:
        place in ``layout.GIVEN``, or 255. name (n,) str.
        """
        if name not in self._columns:
            there = [n for n, spec in self.specs.items() if spec.column]
            if name not in there:
                raise ConfigError(f"{self.path}: no column {name!r}; there are {', '.join(there)}")
            values = self._array(name).whole()
            self._columns[name] = layout.texts(values) if name == "name" else values
        return self._columns[name]

    def original(self, name: str) -> Shards:
        """Return one of the sharded arrays as it lies in the store."""
        return self._array(name)

    def sum(self) -> str:
        """Return a checksum of all pixels, labels and columns; each is read once.

        It is of what they are, not of how they are stored: packed or not, in shards of any size.
        """
        digest = hashlib.sha256()
        for name, spec in self.specs.items():
            digest.update(f"{name} {spec.dtype} {spec.shape}".encode())
            if spec.column:
                digest.update(self._array(name).whole().tobytes())
                continue
            step = max(1, _SUM_BYTES // spec.sample_bytes)
            for start in range(0, self.samples, step):
                some = np.arange(start, min(start + step, self.samples))
                digest.update(self._array(name).read(some)().tobytes())
        return digest.hexdigest()

    @property
    def fingerprint(self) -> str:
        """A short word for what the store holds: the same wherever it lies and however it is split,
        another one if a pixel or a label is another."""
        known = self._attributes.get("checksum") or self._attributes.get("census")
        contents = plain(self.contents, defaults=False)
        told = json.dumps(layout.to_json([contents, self.samples, known]))
        return hashlib.sha256(told.encode()).hexdigest()[:16]

    def check_same(self) -> None:
        """Raise ConfigError if another store lies here now than the one that was opened.

        A lost shard may be put back meanwhile: then the checksum is absent for a while.
        """
        there = (Group(self.path).load() or {}).get("swath") or {}
        mine = layout.to_json(self._attributes)
        if None in (there.get("checksum", ""), mine.get("checksum", "")):
            there["checksum"] = mine["checksum"] = None
        if there != mine:
            what = "another store lies here than" if there else "there is no longer the store that"
            raise ConfigError(
                f"{self.path}: {what} was opened, so what was read of it since may be of two; put "
                "that one back, or name where it is now, and run the same command again: a run "
                "goes on from its last checkpoint, which stands"
            )

    def _begin(self, name: str, indices: np.ndarray) -> Callable[[], np.ndarray]:
        if name not in self.specs:
            raise ConfigError(f"{self.path}: holds no {name!r}; there are {', '.join(self.specs)}")
        if not self.specs[name].column:
            array = self._array(name)
            return self.staging.read(array, indices) if self.staging else array.read(indices)
        values = self.column(name)[indices]
        return lambda: values

    def _place(self, name: str) -> str:
        return f"building/{name}" if self.specs[name].column and not self.done else name

    def _array(self, name: str) -> Shards:
        with self._lock:
            if name not in self._arrays:
                place = self._place(name)
                array = Shards(self.path, place, self._threads)
                spec = self.specs[name]
                per_file = self.samples if spec.column and self.done else self.per_file
                array.check_is((self.samples, *spec.shape), spec.dtype, per_file)
                self._arrays[name] = array
            return self._arrays[name]

    def _create(self, name: str, finished: bool = False) -> Shards:
        spec = self.specs[name]
        return Shards.create(
            self.path,
            name if finished else self._place(name),
            self._threads,
            shape=(self.samples, *spec.shape),
            dtype=spec.dtype,
            per_file=self.samples if finished else self.per_file,
            dims=("sample", *spec.dims),
            compress=spec.column or self._attributes["compress"],
            sharded=not spec.column,
            attributes=layout.facts(self.contents, name),
        )

    def _save(self, attributes: dict[str, Any]) -> None:
        told = layout.to_json(attributes)
        self._group.save({"swath": told, _SUM: json_sum(told)})


def _reopen(cls: type[Store], path: str) -> Store:
    return cls.open(path, unfinished=True)
