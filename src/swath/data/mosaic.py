"""Samples put back on the ground they were cut from: images, labels or groups, seen as a map."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from swath.config import ConfigError
from swath.data.chip import IGNORE

if TYPE_CHECKING:
    from swath.data.store import Store

_BATCH_BYTES = 64 << 20  # samples read at a time


def mosaic(
    store: Store,
    ground: int,
    what: str = "label",
    indices: np.ndarray | None = None,
    *,
    grouping: bool = False,
) -> np.ndarray:
    """Return ``what`` on the pixels of ``store.contents.grounds[ground]``.

    what: a modality: (c, H, W) of its type, nearest pixel where it is coarser than the ground, 0
        or the sensor's no-data value where no sample lies. "label": (H, W) class ids, IGNORE
        where unknown; a raster gives (t, H, W), NaN where unknown. A sample's own label or group
        fills its footprint, or its centre pixel if samples are windows about their centre.
    indices: samples to put back; None: all. Where samples overlap, the later one is seen.
    grouping: ``what`` is a grouping, which may be called like a modality: (H, W) int32, -1 where
        there is none.

    Raises ConfigError if samples have no such thing, or it is not one number for a place.
    """
    if not 0 <= ground < len(store.contents.grounds):
        raise ConfigError(f"{store.path}: has no ground {ground}; samples have no place on one")
    here = store.contents.grounds[ground]
    out, at_centre = _blank(store, what, grouping, here.height, here.width)
    where = store.column("where").astype(np.int64)
    chosen = np.arange(store.samples) if indices is None else np.asarray(indices)
    of = chosen[where[chosen, 0] == ground]
    for index, value in _values(store, what, grouping, of):
        row, col, height, width = where[index, 1:].tolist()
        if at_centre:
            row, col, height, width = row + height // 2, col + width // 2, 1, 1
        _put(out, value, row, col, height, width)
    return out


def _blank(
    store: Store, what: str, grouping: bool, height: int, width: int
) -> tuple[np.ndarray, bool]:
    """Return the empty map of ``what``, and whether a sample gives its centre pixel alone."""
    contents, label = store.contents, store.contents.label
    if grouping:
        per_pixel = what in contents.grouped_pixels
        return np.full((height, width), -1, np.int32), contents.centred and not per_pixel
    if what == "label":
        if label.kind == "raster":
            return np.full((len(label.classes), height, width), np.nan, np.float32), False
        if label.kind in ("mask", "class"):
            dtype = np.uint8 if len(label.classes) <= IGNORE else np.int32
            return np.full((height, width), IGNORE, dtype), contents.centred
        raise ConfigError(f"{store.path}: a label of kind {label.kind} cannot be shown on a map")
    modality = store.modality(what)
    nodata = modality.sensor.nodata
    shape = (len(modality.sensor.bands), height, width)
    return np.full(shape, 0 if nodata is None else nodata, modality.dtype), False


def _values(
    store: Store, what: str, grouping: bool, indices: np.ndarray
) -> Iterator[tuple[int, np.ndarray]]:
    modalities = () if grouping or what == "label" else (what,)
    groups = (what,) if grouping else ()
    height, width = store.grid
    bands = len(store.modality(what).sensor.bands) if modalities else 4
    step = max(1, _BATCH_BYTES // (4 * bands * height * width))
    key = f"groups/{what}" if groups else what
    for start in range(0, len(indices), step):
        some = indices[start : start + step]
        read = store.read(some, modalities, label=what == "label", groups=groups).result()
        yield from zip(some.tolist(), read[key], strict=True)


def _put(out: np.ndarray, value: np.ndarray, row: int, col: int, height: int, width: int) -> None:
    """Lay ``value`` over (row, col, height, width) of ``out``, as far as that lies inside."""
    top, left = max(row, 0), max(col, 0)
    bottom, right = min(row + height, out.shape[-2]), min(col + width, out.shape[-1])
    if top >= bottom or left >= right:
        return
    if np.ndim(value) < 2:
        if value != -1:  # a sample without a label or group leaves a hole
            out[..., top:bottom, left:right] = value
        return
    y = (np.arange(top, bottom) - row) * value.shape[-2] // height
    x = (np.arange(left, right) - col) * value.shape[-1] // width
    out[..., top:bottom, left:right] = value[..., y[:, None], x]
