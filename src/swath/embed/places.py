"""Where vectors are from: the sample or patch that each is of, as a rectangle on its ground."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Any

import numpy as np

from swath.config import ConfigError
from swath.data.store import Store
from swath.embed.table import Table

EARTH_KM = 6371.0


@dataclass(frozen=True)
class Box:
    """A rectangle of a ground, in its pixels: rows [top, bottom), columns [left, right)."""

    ground: int
    top: float
    left: float
    bottom: float
    right: float

    def meets(self, other: Box) -> bool:
        """Return whether both have ground in common."""
        return (
            self.ground == other.ground >= 0
            and max(self.top, other.top) < min(self.bottom, other.bottom)
            and max(self.left, other.left) < min(self.right, other.right)
        )


class Places:
    """The places of the vectors in ``table``, which are of the samples of ``store``."""

    def __init__(self, store: Store, table: Table) -> None:
        if table.plan["store"] != store.fingerprint:
            raise ConfigError(f"{table.path}: these are embeddings of another store")
        self.store, self.table = store, table
        self._where = store.column("where")
        self._side = store.grid
        self.each = int(np.prod(table.grid)) if table.grid else 1
        """Vectors in a sample."""

    def sample(self, number: int) -> int:
        """Return the sample of a vector."""
        return number // self.each

    def cell(self, number: int) -> tuple[int, int]:
        """Return row and column of a vector's patch in its sample; 0, 0 of a whole sample."""
        return divmod(number % self.each, self.table.grid[1]) if self.table.grid else (0, 0)

    def box(self, number: int) -> Box:
        """Return the rectangle of a vector; of ground -1 if it has no place."""
        ground, top, left, height, width = map(float, self._where[self.sample(number)])
        if not self.table.grid:
            return Box(int(ground), top, left, top + height, left + width)
        unit, (row, col) = self.table.plan["unit"], self.cell(number)
        down, across = height / self._side[0], width / self._side[1]  # of the ground's to a pixel
        return Box(
            int(ground),
            top + row * unit * down,
            left + col * unit * across,
            top + min((row + 1) * unit * down, height),
            left + min((col + 1) * unit * across, width),
        )

    def corners(self, number: int) -> list[tuple[float, float]] | None:
        """Return longitude and latitude of a vector's corners, against the clock; None: unknown."""
        import rasterio.warp

        box = self.box(number)
        if box.ground < 0:
            return None
        ground = self.store.contents.grounds[box.ground]
        if ground.transform is None or ground.crs is None:
            return None
        cols = np.array([box.left, box.left, box.right, box.right])
        rows = np.array([box.top, box.bottom, box.bottom, box.top])
        a, b, c, d, e, f = ground.transform[:6]
        x, y = a * cols + b * rows + c, d * cols + e * rows + f
        lon, lat = rasterio.warp.transform(ground.crs, "EPSG:4326", x, y)
        return list(zip(lon, lat, strict=True))

    def km_from(self, sample: int) -> np.ndarray:
        """Return how far the middle of each sample is from that of ``sample``, km (samples,); NaN
        where one of both is not known."""
        there = np.array([self.table.column("lon"), self.table.column("lat")])
        return _km(there, there[:, sample])

    def named(self, word: str) -> int:
        """Return the vector of the sample of that name, or, if none is called so, of that number;
        ConfigError if there is none, or it has several vectors."""
        if self.table.grid:
            raise ConfigError(
                f"{self.table.path}: a sample has {self.each} vectors here, one for each patch: "
                "name a place (--at LON,LAT), or set embed.pool=mean"
            )
        names = self.store.column("name")
        found = np.flatnonzero(names == word)
        if len(found):
            return int(found[0])
        if word.isdigit() and int(word) < self.store.samples:
            return int(word)
        near = difflib.get_close_matches(word, names.tolist(), n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ConfigError(
            f"{self.store.path}: no sample is called {word!r}; {hint}Samples also have numbers, 0 "
            f"to {self.store.samples - 1}"
        )

    def at(self, lon: float, lat: float) -> int:
        """Return the vector whose rectangle holds a place and whose middle is nearest to it.

        ConfigError if there is none.
        """
        import rasterio.warp
        from affine import Affine

        best: tuple[float, int] | None = None
        for index, ground in enumerate(self.store.contents.grounds):
            if ground.transform is None or ground.crs is None:
                continue
            x, y = rasterio.warp.transform("EPSG:4326", ground.crs, [lon], [lat])
            if not np.isfinite([*x, *y]).all():
                continue
            col, row = ~Affine(*ground.transform) @ (x[0], y[0])
            mine = np.flatnonzero(self._where[:, 0] == index)
            _, top, left, height, width = self._where[mine].T
            inside = (top <= row) & (row < top + height) & (left <= col) & (col < left + width)
            for one in mine[inside].tolist():
                number = one * self.each + self._inside(one, row, col)
                box = self.box(number)
                middle = ((box.top + box.bottom) / 2, (box.left + box.right) / 2)
                far = float(np.hypot(middle[0] - row, middle[1] - col))
                best = min(best or (far, number), (far, number))
        if best is None:
            raise ConfigError(
                f"{self.store.path}: no sample shows {lon:g}, {lat:g}{self._near(lon, lat)}"
            )
        return best[1]

    def _inside(self, sample: int, row: float, col: float) -> int:
        """Return which of a sample's vectors holds a pixel of its ground."""
        if not self.table.grid:
            return 0
        _, top, left, height, width = self._where[sample].tolist()
        unit, (down, across) = self.table.plan["unit"], self.table.grid
        at = int((row - top) * self._side[0] / height) // unit
        beside = int((col - left) * self._side[1] / width) // unit
        return min(at, down - 1) * across + min(beside, across - 1)

    def _near(self, lon: float, lat: float) -> str:
        there = np.array([self.table.column("lon"), self.table.column("lat")])
        if not np.isfinite(there).any():
            return "; its samples have no known places: name one (--sample)"
        km = _km(there, np.array([lon, lat]))
        nearest = int(np.nanargmin(km))
        return (
            f" (longitude, latitude); the nearest is {km[nearest]:.1f} km away, at "
            f"{there[0][nearest]:.5f}, {there[1][nearest]:.5f}"
        )


def _km(there: np.ndarray, here: np.ndarray) -> np.ndarray:
    """Return the distance along the Earth from longitude and latitude ``here`` (2,) to each of
    ``there`` (2, n), km. Haversines: those of near places keep their digits."""
    (lon, lat), (x, y) = np.radians(there), np.radians(here)
    half = np.sin((lat - y) / 2) ** 2 + np.cos(lat) * np.cos(y) * np.sin((lon - x) / 2) ** 2
    return 2 * EARTH_KM * np.arcsin(np.sqrt(half.clip(0, 1)))


def read_place(text: str) -> tuple[float, float]:
    """Return longitude and latitude from "13.1,52.4"; ConfigError if that is no place."""
    try:
        lon, lat = (float(part) for part in text.split(","))
    except ValueError:
        lon = lat = float("nan")
    if not (-180 <= lon <= 180 and -90 <= lat <= 90):
        raise ConfigError(
            f"{text!r} is no place: write longitude,latitude in degrees, as 13.1,52.4"
        )
    return lon, lat


def feature(corners: list[tuple[float, float]] | None, properties: dict[str, Any]) -> dict:
    """Return a GeoJSON feature (RFC 7946) of a rectangle."""
    shape = None
    if corners is not None:
        ring = [[round(value, 7) for value in corner] for corner in [*corners, corners[0]]]
        shape = {"type": "Polygon", "coordinates": [ring]}
    return {"type": "Feature", "geometry": shape, "properties": properties}
