"""Cloud-Optimised GeoTIFFs of any size, written window by window, finished or absent.

Windows go to a plain file beside the target (raw pixels, channel after channel, with an ENVI
header). What has been synced survives a kill, so writing can go on later, and several processes can
write windows of their own at once. ``finish`` turns it into a COG with overviews, colour table,
class names and no-data, compares the two, and renames. Class names are where GDAL and QGIS look for
them, in ``<name>.tif.aux.xml``.
"""

from __future__ import annotations

import contextlib
import errno
import os
import pathlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from swath import units
from swath.config import ConfigError
from swath.files import disk_full
from swath.geo.window import Window, windows

# numpy name: (ENVI's code, GDAL's name)
_TYPES = {
    "uint8": (1, "Byte"),
    "int16": (2, "Int16"),
    "int32": (3, "Int32"),
    "float32": (4, "Float32"),
    "float64": (5, "Float64"),
    "uint16": (12, "UInt16"),
    "uint32": (13, "UInt32"),
}

_LEAST_BYTES = 64  # of the raw file: GDAL takes a shorter one for no raster at all


class CogWriter:
    """A raster (count, height, width) on its way to ``path``."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        count: int,
        height: int,
        width: int,
        dtype: Any,
        transform: Any,
        crs: Any,
        nodata: float | None = None,
        descriptions: Sequence[str] = (),
        colours: Sequence[str] | None = None,
        classes: Sequence[str] | None = None,
        tags: Mapping[str, str] | None = None,
        resume: bool = False,
        join: bool = False,
    ) -> None:
        """transform: affine a..f of the outer corner of the upper left pixel; None: no place.
        crs: anything rasterio takes; None: none.
        descriptions: a name for each channel.
        colours: "#rrggbb" of pixel values 0, 1, ...; classes: their names. For uint8 and uint16.
        resume: go on with what an interrupted writer of the same raster has synced.
        join: write into what another writer of the same raster has begun, which stays as it is.

        Raises ConfigError if there is not the room for the raw pixels, or nothing to join.
        """
        self.path = pathlib.Path(path)
        self.count, self.height, self.width = count, height, width
        self.dtype = np.dtype(dtype)
        if self.dtype.name not in _TYPES:
            raise ConfigError(
                f"{self.path}: a map cannot hold {self.dtype}; use {', '.join(_TYPES)}"
            )
        if (colours or classes) and self.dtype.name not in ("uint8", "uint16"):
            raise ConfigError(f"{self.path}: {self.dtype} pixels have no class colours or names")
        self._transform = None if transform is None else tuple(transform)[:6]
        self._crs, self._nodata = crs, nodata
        self._descriptions, self._tags = tuple(descriptions), dict(tags or {})
        self._colours, self._classes = tuple(colours or ()), tuple(classes or ())
        self.part = self.path.with_name(f".{self.path.name}.part")
        """The raw pixels, beside the target."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        size = self.count * self.height * self.width * self.dtype.itemsize
        size = max(size, _LEAST_BYTES)
        kept = (resume or join) and self.part.exists() and self.part.stat().st_size == size
        if join and not kept:
            raise ConfigError(
                f"{self.part}: the map that another process has begun is not there; those that "
                "make a map together must all see the folder it lies in"
            )
        self._file = os.open(self.part, os.O_RDWR | os.O_CREAT | (0 if kept else os.O_TRUNC))
        if not kept:
            with self._room(size):
                os.posix_fallocate(self._file, 0, size)
        if not join:
            self.part.with_name(self.part.name + ".hdr").write_text(self._header())

    def write(self, window: Window, pixels: np.ndarray) -> None:
        """Write ``pixels`` (count, h, w), or (h, w) of a single channel, at ``window``."""
        pixels = pixels[None] if pixels.ndim == 2 else pixels
        fitting = (self.count, window.height, window.width)
        if pixels.shape != fitting or not window.within(self.height, self.width):
            whole = (self.count, self.height, self.width)
            raise ValueError(f"pixels {pixels.shape} do not fit {window} of {whole}")
        if pixels.dtype != self.dtype:
            raise ValueError(f"pixels are {pixels.dtype}, the raster is {self.dtype}")
        data = np.ascontiguousarray(pixels, self.dtype.newbyteorder("<"))
        for start, piece in self._runs(window):
            os.pwrite(self._file, data[piece].tobytes(), start)

    def read(self, window: Window) -> np.ndarray:
        """Return what was written (count, h, w) at ``window``; 0 where nothing was."""
        out = np.empty((self.count, window.height, window.width), self.dtype.newbyteorder("<"))
        for start, piece in self._runs(window):
            raw = os.pread(self._file, out[piece].nbytes, start)
            out[piece] = np.frombuffer(raw, out.dtype).reshape(out[piece].shape)
        return out.astype(self.dtype, copy=False)

    def sync(self) -> None:
        """Return when all that was written is on the disk and survives a kill."""
        os.fsync(self._file)

    def finish(self) -> pathlib.Path:
        """Turn what was written into the COG at ``path``, which was absent or the old one until
        now; return the path. ConfigError if there is no room."""
        import rasterio
        import rasterio.shutil
        from rasterio.errors import RasterioError

        aside = self.path.with_name(f".{self.path.stem}.part.tif")
        options = {
            "COMPRESS": "DEFLATE",
            "PREDICTOR": "NO" if self._colours else "YES",
            "BLOCKSIZE": "512",
            "BIGTIFF": "IF_SAFER",
            # A mean of class numbers is no class.
            "OVERVIEW_RESAMPLING": "MODE" if self._colours or self._classes else "AVERAGE",
            "NUM_THREADS": "ALL_CPUS",
        }
        self.sync()
        with self._room(self.part.stat().st_size), rasterio.Env(GDAL_CACHEMAX=256 << 20):
            try:
                rasterio.shutil.copy(self._vrt(), str(aside), driver="COG", **options)
                self._compare(aside)
            except RasterioError as error:
                raise OSError(errno.EIO, str(error)) from error
        extra = pathlib.Path(f"{aside}.aux.xml")
        with open(aside, "rb") as file:
            os.fsync(file.fileno())
        pathlib.Path(f"{self.path}.aux.xml").unlink(missing_ok=True)  # of an older map
        if extra.exists():
            os.replace(extra, f"{self.path}.aux.xml")
        os.replace(aside, self.path)
        self.close()
        self.part.unlink()
        self.part.with_name(self.part.name + ".hdr").unlink()
        return self.path

    def close(self) -> None:
        """Close the raw file, which stays so that a later writer can go on with it."""
        if self._file >= 0:
            os.close(self._file)
        self._file = -1

    def _runs(self, window: Window) -> Iterator[tuple[int, tuple]]:
        """Yield (byte offset in the file, index into a (count, h, w) array) of unbroken runs."""
        full = window.width == self.width
        for channel in range(self.count):
            for row in range(1 if full else window.height):
                place = (channel * self.height + window.row + row) * self.width + window.col
                piece = (channel,) if full else (channel, row)
                yield place * self.dtype.itemsize, piece

    def _compare(self, cog: pathlib.Path) -> None:
        import rasterio

        nan = self.dtype.kind == "f"  # then NaN equals NaN
        with rasterio.open(cog) as found:
            for window in windows(self.height, self.width, 2048, 2048):
                pixels = found.read(window=tuple((s.start, s.stop) for s in window.slices))
                if not np.array_equal(pixels, self.read(window), equal_nan=nan):
                    raise OSError(errno.EIO, f"{cog} does not hold what was written to it")

    @contextlib.contextmanager
    def _room(self, size: int) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            free = shutil.disk_usage(self.path.parent).free
            if not disk_full(error) and free > size:
                raise
            raise ConfigError(
                f"{self.path}: the disk is full: the map needs {units.bytes_(size)} aside while it "
                f"is written, {units.bytes_(free)} are free; make room and run again"
            ) from error

    def _header(self) -> str:
        return (
            f"ENVI\nsamples = {self.width}\nlines = {self.height}\nbands = {self.count}\n"
            f"header offset = 0\nfile type = ENVI Standard\ninterleave = bsq\nbyte order = 0\n"
            f"data type = {_TYPES[self.dtype.name][0]}\n"
        )

    def _vrt(self) -> str:
        """Return the description, for GDAL, of the raw pixels with all that is known of them."""
        from xml.sax.saxutils import escape, quoteattr  # slow to import

        from rasterio.crs import CRS

        head = f'<VRTDataset rasterXSize="{self.width}" rasterYSize="{self.height}">'
        parts = [head]
        if self._crs is not None:
            parts.append(f"<SRS>{escape(CRS.from_user_input(self._crs).to_wkt())}</SRS>")
        if self._transform is not None:
            a, b, c, d, e, f = self._transform
            numbers = ", ".join(repr(float(n)) for n in (c, a, b, f, d, e))
            parts.append(f"<GeoTransform>{numbers}</GeoTransform>")
        items = "".join(
            f"<MDI key={quoteattr(key)}>{escape(str(value))}</MDI>"
            for key, value in self._tags.items()
        )
        parts.append(f"<Metadata>{items}</Metadata>")
        for channel in range(self.count):
            parts.append(self._vrt_band(channel))
        return "".join(parts) + "</VRTDataset>"

    def _vrt_band(self, channel: int) -> str:
        from xml.sax.saxutils import escape

        kind = _TYPES[self.dtype.name][1]
        parts = [f'<VRTRasterBand dataType="{kind}" band="{channel + 1}">']
        if channel < len(self._descriptions):
            parts.append(f"<Description>{escape(self._descriptions[channel])}</Description>")
        if self._nodata is not None:
            parts.append(f"<NoDataValue>{self._nodata!r}</NoDataValue>")
        if self._classes:
            names = "".join(f"<Category>{escape(name)}</Category>" for name in self._classes)
            parts.append(f"<CategoryNames>{names}</CategoryNames>")
        if self._colours:
            parts.append("<ColorInterp>Palette</ColorInterp>")
            entries = "".join(
                '<Entry c1="{}" c2="{}" c3="{}" c4="255"/>'.format(*bytes.fromhex(colour[1:]))
                for colour in self._colours
            )
            parts.append(f"<ColorTable>{entries}</ColorTable>")
        parts.append(
            f"<SimpleSource><SourceFilename>{escape(str(self.part.resolve()))}</SourceFilename>"
            f"<SourceBand>{channel + 1}</SourceBand></SimpleSource></VRTRasterBand>"
        )
        return "".join(parts)
