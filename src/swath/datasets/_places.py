"""Samples that have places on the Earth but no common image: grounds and blocks for them.

One ground is laid under all samples of a CRS, on their own grid of pixels. Blocks are squares of
that CRS, so where two zones meet, neighbours can fall into different blocks.
"""

from __future__ import annotations

import csv
import pathlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from swath.config import ConfigError, no_such
from swath.data.chip import Ground, Where

PARTS: dict[str, Literal["train", "val", "test"]] = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
"""What publishers call the parts of their split, in names of folders and in lists."""


def parts_in(given: Iterable[str | None]) -> tuple[str, ...]:
    """Return which parts there are among those of all samples, in the usual order."""
    there = set(given)
    return tuple(part for part in ("train", "val", "test") if part in there)


@dataclass(frozen=True)
class Place:
    """Where a sample lies: CRS, outer corner of the upper left pixel, pixel size, extent in px."""

    crs: str
    x: float
    y: float
    pixel: float  # of the CRS's unit; rows run north to south
    height: int
    width: int


def lay(places: Sequence[Place | None]) -> tuple[tuple[Ground, ...], list[Where | None]]:
    """Return the grounds under ``places`` and each place on its ground."""
    by_crs: dict[tuple[str, float], list[Place]] = {}
    for place in places:
        if place is not None:
            by_crs.setdefault((place.crs, place.pixel), []).append(place)
    keys = sorted(by_crs)
    grounds: list[Ground] = []
    corners: list[tuple[float, float]] = []
    for crs, pixel in keys:
        here = by_crs[crs, pixel]
        left, top = min(p.x for p in here), max(p.y for p in here)
        right = max(p.x + p.width * pixel for p in here)
        bottom = min(p.y - p.height * pixel for p in here)
        corners.append((left, top))
        grounds.append(
            Ground(
                name=crs if len(crs) < 20 else f"ground {len(grounds)}",
                height=round((top - bottom) / pixel),
                width=round((right - left) / pixel),
                transform=(pixel, 0.0, left, 0.0, -pixel, top),
                crs=crs,
            )
        )
    found: list[Where | None] = []
    for place in places:
        if place is None:
            found.append(None)
            continue
        number = keys.index((place.crs, place.pixel))
        left, top = corners[number]
        row, col = round((top - place.y) / place.pixel), round((place.x - left) / place.pixel)
        found.append(Where(number, row, col, place.height, place.width))
    return tuple(grounds), found


def blocks(places: Sequence[Place | None], size: float) -> np.ndarray:
    """Return the number of the square, ``size`` of the CRS's unit wide, under each middle."""
    squares = []
    for place in places:
        if place is None:
            squares.append(("", 0, 0))
            continue
        x = place.x + place.width * place.pixel / 2
        y = place.y - place.height * place.pixel / 2
        squares.append((place.crs, int(-y // size), int(x // size)))
    numbers = {s: i for i, s in enumerate(sorted({s for s in squares if s[0]}))}
    return np.array([numbers.get(s, -1) for s in squares], np.int64)


def read_lists(lists: dict[str, str]) -> dict[str, str]:
    """Return the part of each sample that is named in ``lists`` (part -> file).

    A file has one sample a line, the name first if there are commas; a path or suffix of an image
    is taken off.
    """
    found: dict[str, str] = {}
    for part, file in lists.items():
        if part not in PARTS:
            raise ConfigError(f"splits: {part!r} is none of {', '.join(PARTS)}")
        try:
            with open(file, newline="") as lines:
                names = [row[0].strip() for row in csv.reader(lines) if row and row[0].strip()]
        except FileNotFoundError as error:
            raise no_such(file) from error
        except OSError as error:
            raise ConfigError(f"{file}: cannot be read: {error.strerror}") from error
        for name in names:
            stem = pathlib.PurePosixPath(name).name
            for suffix in (".jpg", ".jpeg", ".png", ".tif", ".tiff"):
                stem = stem.removesuffix(suffix)
            if found.setdefault(stem, PARTS[part]) != PARTS[part]:
                raise ConfigError(f"{file}: {stem} is in the list of {found[stem]} too")
    return found
