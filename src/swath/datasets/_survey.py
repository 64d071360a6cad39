"""What is known of one scene before it is cut: its pixels' kind, and which chips are worth having.

A survey reads a scene once, window by window, and may be kept as a note, so that a build that was
cut short, or a store that is finished, does not read it again. A note counts as long as the files
and the settings are the same.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import math
import os
import pathlib
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from swath.config import ConfigError, build, plain
from swath.data import layout
from swath.data.chip import Ground, Label
from swath.data.imagery import NoData, Scene
from swath.data.sensor import Sensor
from swath.datasets import _footprints
from swath.datasets._footprints import Footprint
from swath.datasets._labels import Burn, Elsewhere, Raster
from swath.datasets._listed import Listed
from swath.files import read_json, write_json
from swath.geo.window import Window, windows

if TYPE_CHECKING:
    from swath.datasets._gather import Gather

SMALL, EMPTY, CLOUDY, UNSEEN, UNLABELLED, OUTSIDE_AREA = (
    "scenes smaller than a chip",
    "scenes without data",
    "chips with too much cloud",
    "chips observed too little",
    "scenes without a label",
    "chips outside the area",
)
"""Why scenes and chips are left out."""


@dataclass(frozen=True)
class Survey:
    """What one scene is, and its chips."""

    files: list[list[Any]]
    """Name, size and time of change of each file: see :meth:`swath.geo.channel.File.state`."""
    content: dict[str, str]
    """See :attr:`swath.data.imagery.Scene.content`."""
    ground: Ground | None
    """None: there is nothing in it."""
    sensor: Sensor | None
    dtype: str
    label: Label | None
    pixel_m: float
    chips: list[list[int]]
    """Row, column and number of the square of ground (of ``squares``) of each chip."""
    squares: list[list[int]]
    """Row and column of each square, ``block_m`` wide, in units of it; rows count southward."""
    left_out: dict[str, int]
    """Why scenes and chips were left out -> how many."""

    def window(self, number: int, size: int) -> Window:
        row, col, _ = self.chips[number]
        return Window(row, col, size, size)

    def footprints(self, block_m: float | None) -> list[Footprint]:
        """Return the squares that its chips lie in; without squares, the scene as a whole."""
        assert self.ground is not None and self.ground.transform is not None
        crs, place = str(self.ground.crs), self.ground.transform
        pixel = abs(place[0]) + abs(place[1])
        if block_m is None:
            whole = _footprints.bounds(place, 0, 0, self.ground.height, self.ground.width)
            return [Footprint(crs, whole, pixel)]
        edges = [(col * block_m, -(row + 1) * block_m) for row, col in self.squares]
        return [Footprint(crs, (x, y, x + block_m, y + block_m), pixel) for x, y in edges]


def survey(one: Listed, how: Gather, notes: pathlib.Path | None) -> Survey:
    """Return what there is to know of a scene; from its note, if that still holds."""
    asked = layout.to_json({"scene": plain(one.imagery), "how": how.surveyed()})
    note = None
    if notes is not None:
        name = str(one.imagery.name)
        note = notes / f"{hashlib.sha256(name.encode()).hexdigest()[:16]}.json"
        found = _read(note, asked)
        if found is not None:
            return found
    made = _look(one, how)
    if note is not None:
        with contextlib.suppress(OSError):  # a finished store may lie where nobody may write
            note.parent.mkdir(parents=True, exist_ok=True)
            write_json(note, {"asked": asked, "found": layout.to_json(plain(made))})
    return made


def _read(note: pathlib.Path, asked: Any) -> Survey | None:
    try:
        known = read_json(note)
        if known["asked"] != asked:
            return None
        found = build(Survey, layout.from_json(known["found"]), str(note))
    except (ConfigError, KeyError, TypeError):
        return None  # absent, or torn
    for name, *state in found.files:
        try:
            now = os.stat(name)
        except OSError:
            return None
        if state != [now.st_size, now.st_mtime_ns]:
            return None
    return found


def _look(one: Listed, how: Gather) -> Survey:
    nothing = Survey([], {}, None, None, "", None, 0.0, [], [], {})
    try:
        image = one.imagery.open()
    except NoData:
        return dataclasses.replace(nothing, left_out={EMPTY: 1})
    with image:
        if min(image.height, image.width) < how.chip:
            return dataclasses.replace(nothing, files=_files(image), left_out={SMALL: 1})
        try:
            marks = how.marks(image)
        except Elsewhere:
            return dataclasses.replace(nothing, files=_files(image), left_out={UNLABELLED: 1})
        squares, places = _cut(image, how)
        kept, left_out = _choose(image, places, one, how)
        return Survey(
            files=_files(image),
            content=image.content,
            ground=image.ground,
            sensor=image.sensor,
            dtype=image.dtype.name,
            label=marks.label if marks else None,
            pixel_m=abs(image.grid.affine.determinant) ** 0.5,
            chips=kept,
            squares=squares,
            left_out=left_out,
        )


def _files(image: Scene) -> list[list[Any]]:
    """Return name, size and time of change of every file that the scene is read from."""
    return [list(file) for file in dict.fromkeys(tuple(f) for some in image.state() for f in some)]


def _cut(image: Scene, how: Gather) -> tuple[list[list[int]], list[tuple[Window, int]]]:
    """Return the squares of ground, and every chip with the number of its square."""
    chip, stride = how.chip, how.stride or how.chip
    if how.block_m is None:
        found = windows(image.height, image.width, chip, stride)
        return [[0, 0]], [(window, 0) for window in found]
    a, b, left, d, e, top = tuple(image.grid.affine)[:6]
    crs = image.grid.crs
    if crs is None or crs.geographic or b or d or a < 0 or e > 0:
        raise ConfigError(
            f"{image.name}: block_m={how.block_m:g} needs a scene with north up in a CRS that "
            "counts in metres; give scenes a crs such as the UTM zone's, or leave block_m out"
        )
    if how.block_m < chip * max(a, -e):
        raise ConfigError(
            f"{image.name}: block_m={how.block_m:g} is narrower than a chip of {chip} px, "
            f"{chip * max(a, -e):g} m; make it a few times that, such as {4 * chip * max(a, -e):g}"
        )
    squares: list[list[int]] = []
    places: list[tuple[Window, int]] = []
    rows = _lines(-top, -e, image.height, how.block_m)
    cols = _lines(left, a, image.width, how.block_m)
    for row, first, last in rows:
        for col, start, stop in cols:
            height, width = last - first, stop - start
            if min(height, width) < chip:
                continue
            squares.append([row, col])
            for w in windows(height, width, chip, stride):
                window = Window(first + w.row, start + w.col, chip, chip)
                places.append((window, len(squares) - 1))
    return squares, places


def _lines(start: float, step: float, count: int, size: float) -> list[tuple[int, int, int]]:
    """Return (number, first pixel, one past the last) of each stretch of ``size`` that ``count``
    pixels from ``start`` on lie in; a pixel belongs to where its middle lies."""
    out = []
    number = int((start + step / 2) // size)
    first = 0
    while first < count:
        last = min(count, max(first, math.ceil(((number + 1) * size - start) / step - 0.5)))
        if last > first:
            out.append((number, first, last))
        first, number = last, number + 1
    return out


def _choose(
    image: Scene, places: list[tuple[Window, int]], one: Listed, how: Gather
) -> tuple[list[list[int]], dict[str, int]]:
    """Return the chips that are clear and observed enough, and why others are not taken."""
    mask = how.clouds.of(one.imagery, one.channel, one.mask) if how.clouds is not None else None
    dropped: Counter[str] = Counter()
    kept = []
    inside = _inside(image, [window for window, _ in places], how.area)
    for (window, square), here in zip(places, inside, strict=True):
        if not here:
            dropped[OUTSIDE_AREA] += 1
        elif mask is not None and how.clouds and mask.share(image, window) > how.clouds.most:
            dropped[CLOUDY] += 1
        elif how.observed > 0 and image.valid(window).mean() < how.observed:
            dropped[UNSEEN] += 1
        else:
            kept.append([window.row, window.col, square])
    if mask is not None:
        mask.close()
    return kept, dict(dropped)


def _inside(image: Scene, places: list[Window], area: tuple[float, ...] | None) -> list[bool]:
    """Return which windows have their middle in ``area``."""
    import rasterio.warp

    if area is None:
        return [True] * len(places)
    west, south, east, north = area
    middles = [image.grid.affine @ (w.col + w.width / 2, w.row + w.height / 2) for w in places]
    x, y = [m[0] for m in middles], [m[1] for m in middles]
    found = rasterio.warp.transform(str(image.grid.crs), "EPSG:4326", x, y)
    pairs = zip(found[0], found[1], strict=True)
    return [west <= lon < east and south <= lat < north for lon, lat in pairs]


def opened(one: Listed, how: Gather) -> tuple[Scene, Burn | Raster | None]:
    """Return the scene and its labels, to read chips of."""
    image = one.imagery.open()
    return image, how.marks(image)
