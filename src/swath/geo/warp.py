"""Bringing rasters of different grids onto one, without mixing no-data into data.

A grid is odc-geo's ``GeoBox``: shape, affine transform and CRS. Warping is GDAL's; what is added
here is the choice of the pixels that it needs, so that memory is bounded, and the rule that an
output pixel is observed exactly if the source pixel under its centre is. Values next to a hole
are made from observed pixels alone, whose weights are scaled up to one.

Between different CRS, GDAL interpolates places along a row, to 1/8 px at worst (1e-4 px in the
tests), so a value depends a little on the window; within a CRS it does not.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import numpy as np

from swath.geo.window import Window

if TYPE_CHECKING:
    from odc.geo.geobox import GeoBox

Resampling = Literal["nearest", "bilinear", "cubic", "average"]
REACH = {"nearest": 1, "bilinear": 1, "cubic": 2, "average": 1}
"""Source pixels (of the coarser of the two grids) that a kernel reaches from its centre."""


def box(height: int, width: int, transform: object, crs: object) -> GeoBox:
    """Return the grid of that shape, affine ``transform`` (or its 6 numbers a..f) and CRS."""
    from affine import Affine
    from odc.geo.geobox import GeoBox

    affine = transform if isinstance(transform, Affine) else Affine(*list(transform)[:6])  # type: ignore[call-overload]
    return GeoBox((height, width), affine, str(crs.to_wkt() if hasattr(crs, "to_wkt") else crs))


def crop(grid: GeoBox, window: Window) -> GeoBox:
    """Return the part of ``grid`` under ``window``, which may reach beyond it."""
    from affine import Affine

    corner = grid.affine @ Affine.translation(window.col, window.row)
    return box(window.height, window.width, corner, grid.crs)


def offset(grid: GeoBox, other: GeoBox) -> tuple[int, int] | None:
    """Return (rows, cols) from the corner of ``grid`` to that of ``other`` if both have the same
    pixels (CRS, size, a whole number of pixels apart, to 1 % of a pixel); else None."""
    if grid.crs != other.crs:
        return None
    step = ~grid.affine @ other.affine
    edge = max(other.shape)
    straight = abs(step.a - 1) + abs(step.e - 1) + abs(step.b) + abs(step.d)
    row, col = round(step.f), round(step.c)
    if straight * edge > 0.01 or abs(step.f - row) > 0.01 or abs(step.c - col) > 0.01:
        return None
    return row, col


def at_resolution(grid: GeoBox, resolution: float | None, crs: str | None) -> GeoBox:
    """Return a north-up grid over the extent of ``grid`` with pixels of ``resolution`` (in units
    of the CRS; None: about as fine as ``grid``) in ``crs`` (None: the same). Its corner lies on a
    multiple of the resolution."""
    import rasterio.warp
    from odc.geo.geobox import GeoBox

    target = crs or str(grid.crs)
    if resolution is None:
        resolution = abs(grid.to_crs(target).resolution.x)
    left, bottom, right, top = tuple(grid.extent.boundingbox)[:4]
    if crs is not None:
        left, bottom, right, top = rasterio.warp.transform_bounds(
            str(grid.crs), crs, left, bottom, right, top
        )
    return GeoBox.from_bbox((left, bottom, right, top), target, resolution=resolution)


def source_window(target: GeoBox, source: GeoBox, margin: int) -> Window | None:
    """Return the pixels of ``source`` that lie under ``target``, and ``margin`` more on every
    side, cut to ``source``; None if there are none."""
    # Corners do not bound a warped rectangle, points along its edges nearly do: hence the 2 px.
    margin += 2 if target.crs != source.crs else 0
    steps = np.linspace(0, 1, 17)
    down, right = np.meshgrid(steps * target.shape[0], steps * target.shape[1], indexing="ij")
    cols, rows = _place(target, source, right.ravel(), down.ravel())
    seen = np.isfinite(cols) & np.isfinite(rows)
    if not seen.any():
        return None
    top, left = math.floor(rows[seen].min()) - margin, math.floor(cols[seen].min()) - margin
    bottom, end = math.ceil(rows[seen].max()) + margin, math.ceil(cols[seen].max()) + margin
    return Window(top, left, bottom - top, end - left).overlap(Window(0, 0, *source.shape))


def pace(target: GeoBox, source: GeoBox) -> tuple[float, float]:
    """Return how many source pixels one target pixel goes right, and down, in the middle."""
    height, width = target.shape[0] / 2, target.shape[1] / 2
    cols, rows = _place(
        target, source, np.array([width, width + 1, width]), np.array([height, height, height + 1])
    )
    right, down = np.hypot(cols[1:] - cols[0], rows[1:] - rows[0]).tolist()
    return (right, down) if math.isfinite(right + down) else (1.0, 1.0)


def margin(target: GeoBox, source: GeoBox, resampling: Resampling) -> int:
    """Return how many pixels around a target window the kernel may need from ``source``."""
    # A kernel widens when pixels get larger; turned against the grid it reaches 1.5 times as far.
    return math.ceil(1.5 * REACH[resampling] * max(1.0, *pace(target, source))) + 2


def _place(
    target: GeoBox, source: GeoBox, cols: np.ndarray, rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return columns and rows in ``source`` of points in ``target``; infinite where undefined."""
    import rasterio.warp

    a, b, c, d, e, f = tuple(target.affine)[:6]
    x, y = a * cols + b * rows + c, d * cols + e * rows + f
    if target.crs != source.crs:
        found = rasterio.warp.transform(str(target.crs), str(source.crs), x, y)
        x, y = np.asarray(found[0]), np.asarray(found[1])
    a, b, c, d, e, f = tuple(~source.affine)[:6]
    return a * x + b * y + c, d * x + e * y + f


def warp(
    values: np.ndarray,
    source: GeoBox,
    target: GeoBox,
    resampling: Resampling,
    pace: tuple[float, float],
) -> np.ndarray:
    """Return ``values`` (h, w float64, NaN where not observed) on the grid ``target``.

    source: the grid of ``values``, which hold all pixels that the kernel needs.
    pace: of the whole image (see :func:`pace`); a kernel is as wide as it says. Taken from a
        window, it would vary from window to window where the CRS differ.

    NaN in the result: outside ``source``, or where the source pixel under the centre is NaN.
    """
    out = _reproject(values, source, target, resampling, pace)
    if resampling != "nearest" and np.isnan(values).any():
        out[np.isnan(_reproject(values, source, target, "nearest", pace))] = np.nan
    return out


def _reproject(
    values: np.ndarray,
    source: GeoBox,
    target: GeoBox,
    resampling: Resampling,
    pace: tuple[float, float],
) -> np.ndarray:
    import rasterio.enums
    import rasterio.warp

    out = np.full(tuple(target.shape), np.nan)
    rasterio.warp.reproject(
        np.ascontiguousarray(values, dtype=np.float64),
        out,
        src_transform=source.affine,
        src_crs=str(source.crs),
        src_nodata=np.nan,
        dst_transform=target.affine,
        dst_crs=str(target.crs),
        dst_nodata=np.nan,
        resampling=rasterio.enums.Resampling[resampling],
        # Without these GDAL takes the kernel's width from the shapes of the two arrays.
        XSCALE=1 / pace[0],
        YSCALE=1 / pace[1],
    )
    return out
