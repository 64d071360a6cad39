"""Where and when the samples of a store were seen, and how far apart their pixels are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from swath.data import layout
from swath.data.bands import Channel, image_grid
from swath.data.chip import Ground

if TYPE_CHECKING:
    from swath.data.store import Store

FAR = 0.05  # of 1: how far lengths of a projection made for measuring are never off


def middles(store: Store) -> np.ndarray:
    """Return latitude and longitude (n, 2) of the middle of each sample, in degrees (WGS 84); NaN
    where unknown."""
    where = store.column("where").astype(np.float64)
    found = np.full((store.samples, 2), np.nan)
    for number, ground in enumerate(store.contents.grounds):
        mine = np.flatnonzero(where[:, 0] == number)
        if len(mine):
            _, row, col, height, width = where[mine].T
            found[mine] = degrees(ground, row + height / 2, col + width / 2)
    return found


def degrees(ground: Ground, rows: np.ndarray, cols: np.ndarray) -> np.ndarray:
    """Return latitude and longitude (n, 2), WGS 84, of places (n,) on ``ground``, counted in pixels
    from its corner; NaN where unknown."""
    import pyproj

    if ground.transform is None or ground.crs is None:
        return np.full((len(rows), 2), np.nan)
    a, b, c, d, e, f = ground.transform
    move = pyproj.Transformer.from_crs(ground.crs, "EPSG:4326", always_xy=True)
    lon, lat = move.transform(a * cols + b * rows + c, d * cols + e * rows + f)
    found = np.stack([lat, lon], 1)
    found[~np.isfinite(found).all(1)] = np.nan  # outside of where its projection holds
    return found


def times(store: Store) -> np.ndarray:
    """Return :func:`calendar` (n, 2) of when each sample was seen; NaN where unknown."""
    seconds = store.column("when")
    known = seconds != layout.UNKNOWN_TIME
    return np.where(known[:, None], calendar(np.where(known, seconds, 0)), np.nan)


def calendar(seconds: np.ndarray) -> np.ndarray:
    """Return years and days of the year (n, 2), the first of January from 1 on, in UTC, of seconds
    (n,) since 1970."""
    moment = seconds.astype("datetime64[s]")
    year = moment.astype("datetime64[Y]")
    day = (moment - year.astype("datetime64[s]")) / np.timedelta64(86400, "s") + 1
    return np.stack([year.astype(np.int64) + 1970.0, day], 1)


def known(store: Store) -> dict[str, int]:
    """Return of how many samples date and place are known, which a model can be told."""
    each = {"date": times(store), "place": middles(store)}
    return {what: int(np.isfinite(found).all(1).sum()) for what, found in each.items()}


def pixel_m(ground: Ground) -> float | None:
    """Return metres from pixel to pixel of ``ground``; None: unknown, or degrees.

    Where the projection's metre is more than FAR from one on the ground, as in Web Mercator, which
    doubles lengths at 60 degrees, those on the ground in the middle count.
    """
    import pyproj

    if ground.transform is None or ground.crs is None:
        return None
    a, b, _, d, e, _ = ground.transform
    crs = pyproj.CRS.from_user_input(ground.crs)
    if not crs.is_projected:
        return None
    size = float(abs(a * e - b * d) ** 0.5 * crs.axis_info[0].unit_conversion_factor)
    middle = degrees(ground, np.array([ground.height / 2]), np.array([ground.width / 2]))[0]
    if not np.isfinite(middle).all():
        return size
    stretched = pyproj.Proj(crs).get_factors(*middle[::-1]).areal_scale ** 0.5
    return size / stretched if abs(stretched - 1) > FAR else size


def gsd_m(store: Store, channels: Sequence[Channel]) -> float | None:
    """Return metres from pixel to pixel of images of ``channels``: as the grounds of the samples
    lie on the Earth (the median), else as the sensor says of the finest band; None: unknown."""
    height, _ = image_grid(store.contents, channels)
    where = store.column("where")
    found = []
    for number, ground in enumerate(store.contents.grounds):
        mine = np.flatnonzero(where[:, 0] == number)
        if len(mine) and (pixel := pixel_m(ground)) is not None:
            found.append(pixel * float(where[mine[0], 3]) / height)
    if found:
        return float(np.median(found))
    finest = max((m for m, _ in channels), key=lambda m: m.height * m.width)
    told = [b.gsd_m for b in finest.sensor.bands if b.gsd_m is not None]
    return min(told) * finest.height / height if told else None
