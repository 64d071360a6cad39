"""Which scenes, or squares of ground, show the same place: those go into the same part of a split.

Within a CRS, rectangles of pixels are compared exactly, and edges that merely meet are no overlap.
Between two CRS, outlines in longitude and latitude are, and what meets is taken to overlap: two
neighbours too many in one group cost little, one place in training and test spoils the score.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

_INSET = 0.25  # of a pixel, so that edges that meet do not overlap


@dataclass(frozen=True)
class Footprint:
    """A rectangle on the Earth."""

    crs: str
    bounds: tuple[float, float, float, float]
    """Left, bottom, right, top, in units of the CRS."""
    pixel: float
    """Edge of a pixel, in the same units."""


def bounds(transform: Sequence[float], row: int, col: int, height: int, width: int) -> Any:
    """Return what (left, bottom, right, top) of the CRS a window of pixels lies within."""
    a, b, c, d, e, f = transform
    corners = [(col, row), (col + width, row), (col, row + height), (col + width, row + height)]
    x = [a * i + b * j + c for i, j in corners]
    y = [d * i + e * j + f for i, j in corners]
    return min(x), min(y), max(x), max(y)


def same_place(footprints: Sequence[Footprint]) -> list[int]:
    """Return for each footprint the number of its place: those that overlap, directly or by way of
    others, have one number. Numbers count up in the order of first appearance."""
    import shapely
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    count = len(footprints)
    pairs: list[np.ndarray] = [np.zeros((2, 0), np.int64)]
    systems = sorted({f.crs for f in footprints})
    for crs in systems:
        mine = np.array([i for i, f in enumerate(footprints) if f.crs == crs])
        boxes = np.array([footprints[i].bounds for i in mine])
        inset = _INSET * np.array([footprints[i].pixel for i in mine])[:, None]
        shapes = shapely.box(*(boxes + inset * np.array([1, 1, -1, -1])).T)
        pairs.append(mine[shapely.STRtree(shapes).query(shapes, predicate="intersects")])
    if len(systems) > 1:
        outlines = np.array([_outline(f) for f in footprints], dtype=object)
        pairs.append(shapely.STRtree(outlines).query(outlines, predicate="intersects"))
    one, other = np.concatenate(pairs, axis=1)
    graph = coo_matrix((np.ones(len(one), bool), (one, other)), shape=(count, count))
    _, group = connected_components(graph, directed=False)
    number: dict[int, int] = {}
    return [number.setdefault(g, len(number)) for g in group.tolist()]


def _outline(footprint: Footprint) -> Any:
    import rasterio.warp
    import shapely

    edge = shapely.segmentize(
        shapely.box(*footprint.bounds), max(footprint.pixel, _span(footprint) / 16)
    )
    x, y = shapely.get_coordinates(edge).T
    lon, lat = rasterio.warp.transform(footprint.crs, "EPSG:4326", x, y)
    return shapely.make_valid(shapely.Polygon(np.column_stack([lon, lat])))


def _span(footprint: Footprint) -> float:
    left, bottom, right, top = footprint.bounds
    return max(right - left, top - bottom)
