"""Rasters on disk: opened and read with errors that say what is wrong.

What a raster's numbers mean is left to ``swath.data``, how grids are brought together to
``swath.geo.warp``, how COGs are written to ``swath.geo.cog``. GDAL does the work, through rasterio.
"""

from __future__ import annotations

import functools
import os
import pathlib
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from swath.config import ConfigError, no_such
from swath.geo.window import Window

if TYPE_CHECKING:
    from odc.geo.geobox import GeoBox
    from rasterio.io import DatasetReader


def open_raster(path: str | pathlib.Path, *, georeferenced: bool = False) -> DatasetReader:
    """Return the raster at ``path``, open for reading; the caller closes it.

    path: a file of any raster format that GDAL reads, or a name in GDAL's own terms, such as
        netcdf:cube.nc:B2 or /vsizip/a.zip/b.tif.
    georeferenced: raise if the raster has no CRS or no place in it.

    Raises ConfigError if the file is missing, is no raster or is damaged.
    """
    import rasterio
    from rasterio.errors import RasterioError

    _hush()
    name = os.fspath(path)
    plain = pathlib.Path(name)
    if not is_gdal_name(name) and not plain.exists():
        raise no_such(name)
    if not is_gdal_name(name) and plain.is_file() and plain.stat().st_size == 0:
        raise ConfigError(f"{name}: the file is empty")
    try:
        raster = rasterio.open(name)
    except RasterioError as error:
        raise ConfigError(f"{name}: is not a raster, or is damaged ({_cause(error)})") from error
    message = "" if raster.count else f"holds no image of its own{_inner(raster)}"
    if georeferenced and not message and lacking(raster):
        message = f"{lacking(raster)}; write it into the file (gdal_edit -a_srs ... -a_ullr ...)"
    if message:
        raster.close()
        raise ConfigError(f"{name}: {message}")
    return raster


def lacking(raster: DatasetReader) -> str:
    """Return what ``raster`` lacks to have a place on the Earth; "" if it lacks nothing."""
    if raster.crs is None:
        return "has no coordinate reference system (CRS)"
    if raster.transform.is_identity:
        return f"has a CRS ({crs_short(raster.crs)}) but no place in it (no transform)"
    return ""


def read(raster: DatasetReader, channel: int, window: Window | None = None) -> np.ndarray:
    """Return pixels (h, w) of one channel, counted from 1, in their native type.

    Raises ConfigError if the file ends early or is damaged there. ``window`` lies inside.
    """
    from rasterio.errors import RasterioError

    area = None
    if window is not None:
        area = tuple((s.start, s.stop) for s in window.slices)
    try:
        return raster.read(channel, window=area)
    except RasterioError as error:
        place = "" if window is None else f" in rows {window.row}..{window.row + window.height - 1}"
        raise ConfigError(
            f"{raster.name}: channel {channel} cannot be read{place}; the file is truncated or "
            f"damaged ({_cause(error)}). Copy or download it again"
        ) from error


def is_gdal_name(name: str) -> bool:
    """Return whether ``name`` is one of GDAL's own (a virtual file, an address, a subdataset)."""
    head, colon, _ = name.partition(":")
    return name.startswith("/vsi") or (bool(colon) and head.isalnum() and len(head) > 1)


def check_crs(text: str) -> None:
    """Raise ConfigError if ``text`` names no coordinate reference system."""
    import pyproj

    try:
        pyproj.CRS.from_user_input(text)
    except pyproj.exceptions.CRSError as error:
        raise ConfigError(
            f"crs={text!r} is no coordinate reference system; give one such as 'EPSG:32633'"
        ) from error


def crs_name(crs: Any) -> str:
    """Return "EPSG:32633" where the CRS has a code, else its WKT."""
    code = crs.to_epsg()
    return f"EPSG:{code}" if code else crs.to_wkt()


def crs_short(crs: Any) -> str:
    """Return "EPSG:32633" or, where the CRS has no code, its name."""
    name = crs_name(crs)
    return name.split('"')[1] if '"' in name else name


def extent(grid: GeoBox) -> str:
    """Return in words what ``grid`` covers, in degrees, and its CRS."""
    return extent_of(tuple(grid.extent.boundingbox)[:4], grid.crs)


def extent_of(bounds: Sequence[float], crs: Any) -> str:
    """Return in words what lies within ``bounds`` (left, bottom, right, top) of ``crs``."""
    import rasterio.errors
    import rasterio.warp

    try:
        west, south, east, north = rasterio.warp.transform_bounds(str(crs), "EPSG:4326", *bounds)
    except rasterio.errors.RasterioError:
        return f"{tuple(bounds)} in {crs_short(crs)}"
    return f"lon {west:.3f}..{east:.3f}, lat {south:.3f}..{north:.3f} ({crs_short(crs)})"


@functools.cache
def _hush() -> None:
    """Silence rasterio's warning about rasters without a place: here that is said by errors."""
    from rasterio.errors import NotGeoreferencedWarning

    warnings.simplefilter("ignore", NotGeoreferencedWarning)


def _inner(raster: DatasetReader) -> str:
    inside = list(raster.subdatasets)
    if not inside:
        return ""
    return f"; name one of those inside: {', '.join(inside[:8])}"


def _cause(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error)
