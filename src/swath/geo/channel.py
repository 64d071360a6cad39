"""One channel of a raster file, read on any grid, from any thread.

GDAL's handles serve one thread at a time, so a file keeps a few and lends them. A channel knows
which of its pixels were observed: by its no-data value, by the file's mask, and, in float
imagery, because they are not NaN. What the numbers mean is left to ``swath.data``.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import queue
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from swath.config import ConfigError
from swath.geo import warp
from swath.geo.raster import lacking, open_raster, read
from swath.geo.window import Window, windows

if TYPE_CHECKING:
    from odc.geo.geobox import GeoBox
    from rasterio.io import DatasetReader


_PIECE, _PIECES = 16 << 10, 16  # bytes, and how many such pieces of a file tell its content


class File:
    """A raster file and the handles on it that are open."""

    def __init__(
        self, path: str, crs: str | None = None, transform: Sequence[float] | None = None
    ) -> None:
        """crs, transform: taken instead of what the file says."""
        self.path = path
        self._idle: queue.LifoQueue[DatasetReader] = queue.LifoQueue()
        with self.borrow() as raster:
            self.count: int = raster.count
            self.dtypes = tuple(np.dtype(d) for d in raster.dtypes)
            self.nodatas: tuple[float | None, ...] = raster.nodatavals
            self.descriptions = tuple(
                d or (c.name if c.name in ("red", "green", "blue") else "")
                for d, c in zip(raster.descriptions, raster.colorinterp, strict=True)
            )
            # Another channel (alpha) or a mask file says what was observed.
            self.masked = tuple(
                any(flag.name == "per_dataset" for flag in flags)
                for flags in raster.mask_flag_enums
            )
            self.lacks = lacking(raster) if crs is None or transform is None else ""
            if crs is not None and raster.crs is None and not raster.transform.is_identity:
                self.lacks = ""  # it lacked only the CRS
            self.grid: GeoBox | None = None
            if not self.lacks:
                self.grid = warp.box(
                    raster.height, raster.width, transform or raster.transform, crs or raster.crs
                )
            self.height, self.width = raster.shape

    def state(self) -> list[Any]:
        """Return name, size in bytes and time of change of each file that this one is made of (a
        mosaic has several); for what is not on disk, checksums of its corners and its middle."""
        known: list[Any] = []
        with self.borrow() as raster:
            for name in raster.files or [self.path]:
                if name.endswith((".aux.xml", ".ovr")):  # viewers write them, pixels are elsewhere
                    continue
                try:
                    found = os.stat(name)
                    known.append([name, found.st_size, found.st_mtime_ns])
                except OSError:
                    known.append([name, *_samples(raster)])
        return known

    def content(self) -> str:
        """Return a fingerprint of what the file holds, the same wherever it lies: of its size and
        of pieces all over it, or, if it is not on disk, of its corners and its middle."""
        digest = hashlib.sha256()
        with self.borrow() as raster:
            names = [n for n in raster.files if not n.endswith((".aux.xml", ".ovr"))]
            for name in [n for n in names if not n.endswith(".vrt")] or names or [self.path]:
                try:
                    _add(digest, name)
                except OSError:
                    digest.update(json.dumps(_samples(raster)).encode())
        return digest.hexdigest()[:16]

    @contextlib.contextmanager
    def borrow(self) -> Iterator[DatasetReader]:
        """Lend a handle that no other thread uses meanwhile."""
        try:
            raster = self._idle.get_nowait()
        except queue.Empty:
            raster = open_raster(self.path)
        try:
            yield raster
        finally:
            self._idle.put(raster)

    def close(self) -> None:
        """Close the idle handles; the file can still be read, and opens anew."""
        with contextlib.suppress(queue.Empty):
            while True:
                self._idle.get_nowait().close()


def _add(digest: Any, name: str) -> None:
    """Add the size of the file ``name`` and its bytes to ``digest``; of a large one, pieces."""
    with open(name, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        digest.update(str(size).encode())
        for start in range(0, size, max(_PIECE, size // _PIECES)):
            file.seek(start)
            digest.update(file.read(_PIECE))


def _samples(raster: DatasetReader, size: int = 64) -> list[int]:
    """Return a checksum of the pixels of each channel, at the corners and in the middle."""
    rows, cols = ([0, max(0, n - size) // 2, max(0, n - size)] for n in raster.shape)
    places = [(r, c) for r in rows for c in cols if (r == rows[1]) == (c == cols[1])]
    areas = [
        ((r, min(r + size, raster.height)), (c, min(c + size, raster.width))) for r, c in places
    ]
    return [raster.checksum(n, window=area) for n in raster.indexes for area in areas]


class Channel:
    """One channel (counted from 1) of a file."""

    def __init__(self, file: File, number: int = 1, nodata: float | None = None) -> None:
        """nodata: instead of what the file declares. ConfigError if there is no such channel."""
        if not 1 <= number <= file.count:
            raise ConfigError(f"{file.path}: there is no channel {number}; it has {file.count}")
        self.file, self.number = file, number
        self.dtype = file.dtypes[number - 1]
        if self.dtype.kind not in "uif":
            raise ConfigError(
                f"{file.path}: pixels are {self.dtype}; expected whole or real numbers"
            )
        declared = file.nodatas[number - 1]
        self.nodata = declared if nodata is None else nodata
        self.masked = file.masked[number - 1]

    @property
    def grid(self) -> GeoBox:
        """The channel's own grid; ConfigError if it has no place on the Earth."""
        if self.file.grid is None:
            raise ConfigError(f"{self.file.path}: {self.file.lacks}")
        return self.file.grid

    def pixels(self, window: Window | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Return pixels (h, w) in native type, and which of them were observed (h, w) bool."""
        with self.file.borrow() as raster:
            values = read(raster, self.number, window)
            observed = np.ones(values.shape, bool)
            if self.masked:
                area = None if window is None else tuple((s.start, s.stop) for s in window.slices)
                observed = raster.read_masks(self.number, window=area) > 0
        if self.dtype.kind == "f":
            observed &= np.isfinite(values)
        if self.nodata is not None and not np.isnan(self.nodata):
            observed &= values != self.nodata
        return values, observed

    def on(
        self,
        grid: GeoBox,
        window: Window,
        resampling: warp.Resampling,
        dtype: np.dtype | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the pixels (h, w) under ``window`` of ``grid`` in ``dtype`` (None: the native
        one), and which of them were observed. Whole numbers are rounded; where not observed they
        are 0."""
        dtype = dtype or self.dtype
        target = warp.crop(grid, window)
        height, width = window.height, window.width
        values, observed = np.zeros((height, width), dtype), np.zeros((height, width), bool)
        shift = warp.offset(self.grid, target)
        if shift is not None:
            wanted = Window(*shift, height, width)
            found = wanted.overlap(Window(0, 0, *self.grid.shape))
            if found is not None:
                here = found.inside(wanted).slices
                values[here], observed[here] = self.pixels(found)
                values[~observed] = 0
            return values, observed
        found = warp.source_window(target, self.grid, warp.margin(target, self.grid, resampling))
        if found is None:
            return values, observed
        native, seen = self.pixels(found)
        if not seen.any():
            return values, observed
        real = native.astype(np.float64)
        real[~seen] = np.nan
        pace = warp.pace(grid, self.grid)
        real = warp.warp(real, warp.crop(self.grid, found), target, resampling, pace)
        observed = np.isfinite(real)
        if dtype.kind in "ui":
            limits = np.iinfo(dtype)
            # Halves are common (bilinear from 20 m to 10 m gives sixteenths) and carry rounding
            # noise of about 1e-12, which must not decide between two counts: they go up.
            real = np.clip(np.floor(real + (0.5 + 1e-6)), limits.min, limits.max)
        values[observed] = real[observed].astype(dtype)
        return values, observed

    def some_observed(self, size: int = 256, places: int = 5) -> np.ndarray:
        """Return observed pixels (n,) of a few tiles, from the middle to the edge; if they have
        none, of the first that has any; none if no pixel of the file was observed."""
        height, width = self.file.height, self.file.width
        tiles = windows(height, width, size, size)
        tiles.sort(
            key=lambda w: abs(w.row + size / 2 - height / 2) + abs(w.col + size / 2 - width / 2)
        )
        step = max(1, len(tiles) // places)
        found: list[np.ndarray] = []
        for tile in [*tiles[::step], *tiles]:
            values, observed = self.pixels(tile)
            found.append(values[observed])
            if len(found) >= min(places, len(tiles)) and any(map(len, found)):
                break
        return np.concatenate(found)
