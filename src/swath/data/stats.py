"""What the pixels are like: mean, deviation, extremes and quantiles of each band.

Sums are exact, as integers, so that the result has the same bits however the samples were
sharded and in whatever order shards were merged. Integer pixels are counted by value, which
gives everything. Floating-point ones (as float32) are summed as integers per power of two; their
quantiles come from a histogram by sign, exponent and the 7 leading bits of the mantissa, so they
are right to 0.8 %.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np

from swath.data.chip import Modality
from swath.data.fold import fit
from swath.data.split import NONE, PARTS, Selection, Split

if TYPE_CHECKING:
    from swath.data.store import Store

QUANTILES = (0.02, 0.5, 0.98)
_SHARD_BYTES = 64 << 20  # pixels read at a time


@dataclass(frozen=True, kw_only=True)
class BandStats:
    """One band over the pixels of a part; NaN where there were no pixels."""

    name: str
    pixels: int
    """Observed pixels; chips that overlap count theirs each."""
    nodata: float
    """Share of pixels that were not observed."""
    mean: float
    std: float
    low: float
    high: float
    p02: float
    p50: float
    p98: float


@dataclass
class _Band:
    """Exact sums of one band: values (or bins) seen and how often, and powers of two."""

    total: int
    values: np.ndarray  # int64, ascending
    counts: np.ndarray  # int64
    first: int  # sum of x * 2^149
    second: int  # sum of (x * 2^149)^2
    low: float
    high: float


@dataclass(frozen=True)
class BandFold:
    """Fold over shards (image (n, c, h, w), used (n, h, w) bool or None) of one modality."""

    modality: Modality

    def map(self, shard: tuple[np.ndarray, np.ndarray | None]) -> list[_Band]:
        image, used = shard
        return [self._band(image[:, i], used) for i in range(image.shape[1])]

    def _band(self, image: np.ndarray, used: np.ndarray | None) -> _Band:
        pixels = image[used] if used is not None else image.ravel()
        x = pixels[self.modality.sensor.observed(pixels)]
        if not len(x):
            empty = np.zeros(0, np.int64)
            return _Band(len(pixels), empty, empty, 0, 0, math.inf, -math.inf)
        low, high = float(x.min()), float(x.max())
        first = second = 0
        if _counted(x.dtype):
            least = int(x.min())
            codes = x.astype(np.int64) - least
        else:
            x = x.astype(np.float32)
            first, second = _exact_sums(x)
            codes, least = _bins(x), 0
        counts = np.bincount(codes)
        values = np.flatnonzero(counts)
        return _Band(len(pixels), values + least, counts[values], first, second, low, high)

    def merge(self, left: list[_Band], right: list[_Band]) -> list[_Band]:
        return [_merge(a, b) for a, b in zip(left, right, strict=True)]

    def finish(self, state: list[_Band]) -> list[BandStats]:
        names = [band.name for band in self.modality.sensor.bands]
        counted = _counted(np.dtype(self.modality.dtype))
        return [_finish(n, band, counted) for n, band in zip(names, state, strict=True)]


def _counted(dtype: np.dtype) -> bool:
    return dtype.kind in "iu" and dtype.itemsize <= 2


def _merge(a: _Band, b: _Band) -> _Band:
    values, place = np.unique(np.concatenate([a.values, b.values]), return_inverse=True)
    counts = np.zeros(len(values), np.int64)
    np.add.at(counts, place, np.concatenate([a.counts, b.counts]))
    return _Band(
        a.total + b.total,
        values,
        counts,
        a.first + b.first,
        a.second + b.second,
        min(a.low, b.low),
        max(a.high, b.high),
    )


def _finish(name: str, band: _Band, counted: bool) -> BandStats:
    pixels = int(band.counts.sum())
    nodata = 1 - pixels / band.total if band.total else math.nan
    if not pixels:
        empty = dict.fromkeys(("mean", "std", "low", "high", "p02", "p50", "p98"), math.nan)
        return BandStats(name=name, pixels=0, nodata=nodata, **empty)
    if counted:
        pairs = list(zip(band.values.tolist(), band.counts.tolist(), strict=True))
        mean = Fraction(sum(v * n for v, n in pairs), pixels)
        square = Fraction(sum(v * v * n for v, n in pairs), pixels)
        places = band.values.astype(np.float64)
    else:
        mean = Fraction(band.first, pixels << 149)
        square = Fraction(band.second, pixels << 298)
        places = _middles(band.values)
    below = band.counts.cumsum()
    p02, p50, p98 = (
        float(np.clip(places[np.searchsorted(below, q * pixels)], band.low, band.high))
        for q in QUANTILES
    )
    return BandStats(
        name=name,
        pixels=pixels,
        nodata=nodata,
        mean=float(mean),
        std=math.sqrt(square - mean * mean),
        low=band.low,
        high=band.high,
        p02=p02,
        p50=p50,
        p98=p98,
    )


def _exact_sums(x: np.ndarray) -> tuple[int, int]:
    """Return the sums of x and of x squared, exactly, in units of 2^-149 and 2^-298; x float32."""
    first = second = 0
    for start in range(0, len(x), 1 << 24):  # so that no sum of 24-bit numbers exceeds 2^53
        mantissa, exponent = np.frexp(x[start : start + (1 << 24)].astype(np.float64))
        whole = np.ldexp(mantissa, 24)  # an integer: a float32 has 24 bits
        least = int(exponent.min())
        power = exponent - least
        high, low = np.divmod(whole * whole, 2.0**24)
        for p, (s, h, w) in enumerate(
            zip(*(np.bincount(power, v).tolist() for v in (whole, high, low)), strict=True)
        ):
            shift = p + least - 24
            first += _shifted(int(s), shift + 149)
            second += _shifted((int(h) << 24) + int(w), 2 * shift + 298)
    return first, second


def _shifted(number: int, by: int) -> int:
    # A denormal has fewer bits, so those shifted out are zeros.
    return number << by if by >= 0 else number >> -by


def _bins(x: np.ndarray) -> np.ndarray:
    """Return the number 0..65535 of the bin of each float32, ascending with x."""
    bits = x.view(np.uint32) >> np.uint32(16)
    return np.where(bits & 0x8000, 0xFFFF - bits, bits | 0x8000).astype(np.int64)


def _middles(bins: np.ndarray) -> np.ndarray:
    code = bins.astype(np.uint32)
    bits = np.where(code & 0x8000, code & 0x7FFF, 0xFFFF - code).astype(np.uint32)
    return ((bits << 16) | 0x8000).astype(np.uint32).view(np.float32).astype(np.float64)


def modality_statistics(selection: Selection, modality: Modality) -> list[BandStats]:
    """Return the statistics of the bands of ``modality`` over ``selection``.

    If parts are of pixels, the pixels of groups in other parts are left out, and those in no
    group stay: they are not what is tested on.
    """
    return fit(BandFold(modality), _shards(selection, modality))


def _shards(
    selection: Selection, modality: Modality
) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
    bands = len(modality.sensor.bands)
    sample_bytes = bands * modality.height * modality.width * np.dtype(modality.dtype).itemsize
    step = max(1, _SHARD_BYTES // sample_bytes)
    grouping = selection.grouping
    if not len(selection.indices):
        yield np.zeros((0, bands, modality.height, modality.width), modality.dtype), None
    for start in range(0, len(selection.indices), step):
        some = selection.indices[start : start + step]
        groups = (grouping,) if grouping else ()
        read = selection.store.read(
            some, modalities=(modality.name,), label=False, groups=groups
        ).result()
        used = _used(selection, read[f"groups/{grouping}"], modality) if grouping else None
        yield read[modality.name], used


def _used(selection: Selection, groups: np.ndarray, modality: Modality) -> np.ndarray:
    """Return the pixels (n, h, w) of ``modality`` that lie in no group of another part."""
    other = selection.parts != PARTS.get(selection.part, NONE)
    if selection.part == "all":
        other = np.zeros_like(other)
    foreign = np.isin(groups, selection.table.ids[other])
    height, width = groups.shape[1:]
    # Pixel (y, x) of the groups lies in pixel (y * h // height, x * w // width) of the modality.
    if modality.height <= height and modality.width <= width:
        rows = np.flatnonzero(np.diff(np.arange(height) * modality.height // height, prepend=-1))
        cols = np.flatnonzero(np.diff(np.arange(width) * modality.width // width, prepend=-1))
        return ~np.maximum.reduceat(np.maximum.reduceat(foreign, rows, axis=1), cols, axis=2)
    y = np.arange(modality.height) * height // modality.height
    x = np.arange(modality.width) * width // modality.width
    return ~foreign[:, y][:, :, x]


def statistics(store: Store, selection: Selection) -> dict[str, list[BandStats]]:
    """Return the band statistics of ``selection``: the store's own if it is its training part."""
    own = Split(**store.attributes["split"])
    if selection.part == "train" and selection.split == own and "stats" in store.attributes:
        return unplain(store.attributes["stats"])
    return {m.name: modality_statistics(selection, m) for m in store.contents.modalities}


def plain(stats: dict[str, list[BandStats]]) -> dict[str, Any]:
    """Return ``stats`` for a store's attributes (JSON, which has no NaN: null)."""

    def written(band: BandStats) -> dict[str, Any]:
        values = dataclasses.asdict(band)
        return {k: None if v != v else v for k, v in values.items()}

    return {name: [written(b) for b in bands] for name, bands in stats.items()}


def unplain(written: dict[str, Any]) -> dict[str, list[BandStats]]:
    """Return what :func:`plain` wrote."""

    def read(values: dict[str, Any]) -> BandStats:
        filled: dict[str, Any] = {k: math.nan if v is None else v for k, v in values.items()}
        return BandStats(**filled)

    return {name: [read(values) for values in bands] for name, bands in written.items()}
