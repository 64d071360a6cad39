"""Which arrays a store of given contents has, and how a chip becomes a row of each.

Nothing here touches a disk. Arrays that are small for every sample (numbers, names, places) are
columns: read once and kept. The others are sharded, a chunk for each sample.
"""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from swath.config import ConfigError, plain
from swath.data.chip import Chip, Contents
from swath.data.shards import damaged

VERSION = 1
"""Of what a store's attributes say; a newer one is refused."""
UNKNOWN_TIME = -(2**63)
"""In the column ``when``: no time is known."""
GIVEN = ("train", "val", "test")
"""What 0, 1 and 2 mean in the column ``given``; 255: the publisher gave no split."""
_NAME_BYTES = 256
_DTYPES = {"class": "int32", "flags": "uint8", "mask": "uint8", "value": "f4", "raster": "f4"}


@dataclass(frozen=True)
class ArraySpec:
    """What one array of a store is like."""

    name: str
    shape: tuple[int, ...]
    """Of one sample."""
    dtype: str
    column: bool
    """Whether it is small enough to be read whole, and kept."""
    dims: tuple[str, ...]
    """Names of the axes after "sample", for xarray."""

    @property
    def sample_bytes(self) -> int:
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


def grid(contents: Contents) -> tuple[int, int]:
    """Return height and width of masks and of pixel groups: those of the finest modality."""
    finest = max(contents.modalities, key=lambda m: m.height * m.width)
    return finest.height, finest.width


def specs(contents: Contents) -> dict[str, ArraySpec]:
    """Return the arrays of a store by name, in the order in which they are written."""
    found = []
    for m in contents.modalities:
        if not re.fullmatch(r"\w[\w.-]*", m.name) or m.name in _TAKEN:
            raise ConfigError(f"modality {m.name!r}: a store cannot use this name, choose another")
        axes = (f"{m.name}_band", f"{m.name}_y", f"{m.name}_x")
        shape = (len(m.sensor.bands), m.height, m.width)
        found.append(ArraySpec(m.name, shape, m.dtype, False, axes))
    pixels = ("y", "x")
    kind, quantities = contents.label.kind, len(contents.label.classes)
    if kind != "none":
        outer = (quantities,) if kind in ("flags", "value", "raster") else ()
        inner = grid(contents) if contents.label.per_pixel else ()
        dims = ("quantity",) * len(outer) + pixels[: len(inner)]
        dtype = np.dtype(_DTYPES[kind]).name
        found.append(ArraySpec("label", outer + inner, dtype, not inner, dims))
    for group in contents.groupings:
        inner = grid(contents) if group in contents.grouped_pixels else ()
        found.append(ArraySpec(f"groups/{group}", inner, "int32", not inner, pixels[: len(inner)]))
    found += [
        ArraySpec("where", (5,), "int32", True, ("place",)),
        ArraySpec("when", (), "int64", True, ()),
        ArraySpec("given", (), "uint8", True, ()),
        ArraySpec("name", (_NAME_BYTES,), "uint8", True, ("letter",)),
    ]
    return {spec.name: spec for spec in found}


def facts(contents: Contents, name: str) -> dict[str, Any]:
    """Return what a reader who knows Zarr but not Swath wants beside the array ``name``."""
    for modality in contents.modalities:
        if modality.name == name:
            return to_json(plain(modality.sensor))
    return to_json(plain(contents.label)) if name == "label" else {}


_TAKEN = {"label", "groups", "where", "when", "given", "name", "building"}


def rows(spec: ArraySpec, chips: Sequence[Chip]) -> np.ndarray:
    """Return the rows of ``chips`` in an array, (len(chips), ...); ConfigError names a bad one."""
    out = np.empty((len(chips), *spec.shape), spec.dtype)
    for i, chip in enumerate(chips):
        value = _value(spec, chip)
        found = np.asarray(value)
        kinds = "fiu" if out.dtype.kind == "f" else "iub"
        image = spec.name in chip.images
        fits = found.dtype == out.dtype if image else found.dtype.kind in kinds
        if value is None or found.shape != spec.shape or not fits:
            got = "missing" if value is None else f"{found.dtype} {found.shape}"
            raise ConfigError(
                f"chip {chip.name!r}: {spec.name!r} is {got}, the store holds {spec.dtype} "
                f"{spec.shape}"
            )
        out[i] = found
        if not image and out.dtype.kind != "f" and (out[i] != found).any():
            raise ConfigError(
                f"chip {chip.name!r}: {spec.name!r} holds {found.min()}..{found.max()}, which does "
                f"not fit {spec.dtype}"
            )
    return out


def _value(spec: ArraySpec, chip: Chip) -> Any:
    kind, _, group = spec.name.partition("/")
    if kind == "label":
        return chip.label
    if kind == "groups":
        return chip.groups.get(group)
    if kind == "where":
        w = chip.where
        return (-1,) * 5 if w is None else (w.ground, w.row, w.col, w.height, w.width)
    if kind == "when":
        return UNKNOWN_TIME if chip.when is None else _seconds(chip.when)
    if kind == "given":
        return 255 if chip.given is None else GIVEN.index(chip.given)
    if kind == "name":
        letters = chip.name.encode()
        if len(letters) > _NAME_BYTES:
            raise ConfigError(
                f"chip {chip.name!r}: its name is over {_NAME_BYTES} bytes; shorten it"
            )
        return np.frombuffer(letters.ljust(_NAME_BYTES, b"\0"), np.uint8)
    return chip.images.get(kind)


def texts(letters: np.ndarray) -> np.ndarray:
    """Return (n, bytes) uint8 of UTF-8, padded with 0, as n strings."""
    width = int(np.flatnonzero(letters.any(0)).max(initial=0)) + 1
    narrow = np.ascontiguousarray(letters[:, :width])
    return np.char.decode(narrow.view(f"S{width}")[:, 0], "utf-8")


def to_json(value: Any) -> Any:
    """Return ``value`` in what JSON has: arrays as lists, and NaN and infinity as Zarr's words."""
    if isinstance(value, dict):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    if isinstance(value, np.ndarray | np.generic):
        return to_json(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def from_json(value: Any) -> Any:
    """Undo :func:`to_json`, but for arrays, which stay lists."""
    if isinstance(value, dict):
        return {key: from_json(item) for key, item in value.items()}
    if isinstance(value, list):
        return [from_json(item) for item in value]
    return float(value) if value in ("NaN", "Infinity", "-Infinity") else value


def _seconds(when: datetime.datetime) -> int:
    zoned = when if when.tzinfo else when.replace(tzinfo=datetime.UTC)
    return math.floor(zoned.timestamp())


def check(attributes: Any, path: str) -> None:
    """Raise ConfigError unless ``attributes`` are a store's, of a version that is known here."""
    needed = {"version", "done", "samples", "per_file", "compress", "contents"}
    if not isinstance(attributes, dict) or not isinstance(attributes.get("version"), int):
        raise damaged(f"{path}/zarr.json", "its 'swath' says no version")
    if attributes["version"] > VERSION:
        raise ConfigError(
            f"{path}: written by a newer Swath (store version {attributes['version']}, this "
            f"one reads up to {VERSION}): update Swath, or build the store again"
        )
    if missing := needed - attributes.keys():
        raise damaged(f"{path}/zarr.json", f"its 'swath' lacks {', '.join(sorted(missing))}")
