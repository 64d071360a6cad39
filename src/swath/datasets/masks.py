"""A folder of images with mask images: the classes of every pixel, painted.

Masks hold class numbers, or colours. Images larger than a chip are cut; each image is a ground of
its own, so that maps and pictures can put the chips back. Images need no place on the Earth.
"""

from __future__ import annotations

import functools
import glob
import pathlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from swath.config import ConfigError, no_such
from swath.data import files
from swath.data.chip import IGNORE, Chip, Contents, Ground, Label, Modality, Where
from swath.data.nodata import mark, no_data
from swath.datasets._images import Images
from swath.datasets._mask import mask_value, read_mask
from swath.datasets._places import PARTS, parts_in
from swath.geo.channel import Channel
from swath.geo.raster import crs_name
from swath.geo.window import Window, windows


@dataclass(frozen=True, kw_only=True)
class Masks(Images):
    """Images and masks in one folder tree, paired by name."""

    path: str
    """The folder that holds images and masks."""

    images: str = "images/*"
    """Pattern of the images within ``path``; ** is any depth. A folder called train, val or test
    on the way tells the given split."""

    masks: str = "masks/{stem}.*"
    """Pattern of an image's mask within ``path``: {stem} is the image's name without suffix,
    {folder} its folder."""

    classes: dict[str, str]
    """Mask value -> class name, in the order of the class ids: a number ("3"), or a colour
    ("#ff0000") if the masks are pictures. Several values may share a class."""

    others: Literal["error", "ignore"] = "error"
    """Mask values that ``classes`` does not name are an error, or unlabelled."""

    colours: tuple[str, ...] = ()
    """Colour "#rrggbb" of each class; empty: those of the masks, or chosen."""

    chip: int | None = None
    """Height and width of a chip in px; None: whole images, which are then of one size."""

    stride: int | None = None
    """Px from one chip to the next within an image; None: ``chip``."""

    block_m: float | None = None
    """Edge in m of the squares of ground that a split in space keeps together; the images then
    need a place in one CRS that counts in metres. None: an image is a block."""

    def __post_init__(self) -> None:
        if "{stem}" not in self.masks:
            raise ConfigError(
                f"masks={self.masks!r} has no {{stem}} in it, as in 'masks/{{stem}}.png'"
            )
        if not self.classes:
            raise ConfigError("classes: name at least one")
        for text in self.classes:
            mask_value(text)
        if len({text.startswith("#") for text in self.classes}) > 1:
            raise ConfigError("classes: give numbers or colours, not both")
        if self.stride is not None and (self.chip is None or not 1 <= self.stride <= self.chip):
            raise ConfigError(f"stride={self.stride} needs a chip of at least that many px")
        if len(self.names) > IGNORE:
            raise ConfigError(f"{len(self.names)} classes; at most {IGNORE} fit in a mask")
        if self.colours and len(self.colours) != len(self.names):
            raise ConfigError(f"{len(self.colours)} colours for {len(self.names)} classes")

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the classes, in the order of their ids."""
        return tuple(dict.fromkeys(self.classes.values()))

    @property
    def painted(self) -> bool:
        """Whether masks hold colours."""
        return next(iter(self.classes)).startswith("#")

    @property
    def shown(self) -> tuple[str, ...]:
        """Colours of the classes, if anything says them."""
        if self.colours or not self.painted:
            return self.colours
        first = {name: text for text, name in reversed(self.classes.items())}
        return tuple(first[name] for name in self.names)

    def open(self) -> Pairs:
        """Return the chips; reads the headers of all images. ConfigError if a mask is missing, or
        images do not fit together."""
        return Pairs(self)


@dataclass(frozen=True)
class _Head:
    """What the header of an image tells."""

    ground: Ground
    bands: tuple[str, ...]
    dtype: str
    nodata: str  # as text, since NaN is not equal to itself

    @property
    def said(self) -> str:
        return f"{self.dtype} with bands {', '.join(self.bands)} and no-data {self.nodata}"


class Pairs:
    """Chips of images and masks, in the order of the images' names; reads files as asked."""

    def __init__(self, settings: Masks) -> None:
        self.settings = settings
        self._root = pathlib.Path(settings.path)
        self._sensor = settings.counted()
        self._names = _find(self._root, settings.images)
        self._masks = [self._mask_of(name) for name in self._names]
        with ThreadPoolExecutor(4) as pool:
            heads = list(pool.map(self._head, self._names))
        first = heads[0]
        for name, head in zip(self._names, heads, strict=True):
            if head.said != first.said:
                raise ConfigError(
                    f"{self._root}: images differ: {self._names[0]} is {first.said}, "
                    f"{name} is {head.said}"
                )
        self._dtype = np.dtype(first.dtype)
        self._nodata = None if first.nodata == "none" else float(first.nodata)
        grounds = tuple(head.ground for head in heads)
        self._places = self._cut(grounds)
        self._squares = self._square_numbers(grounds)
        window = self._places[0][1]
        modality = Modality(
            name="image",
            sensor=replace(self._sensor.select(first.bands), nodata=self._nodata),
            height=window.height,
            width=window.width,
            dtype=first.dtype,
        )
        self.contents = Contents(
            modalities=(modality,),
            label=Label(kind="mask", classes=settings.names, colours=settings.shown),
            grounds=grounds,
            groupings=("block", "image"),
            given=parts_in(map(_given, self._names)),
            licence=settings.licence,
            source=settings.source,
        )

    def __len__(self) -> int:
        return len(self._places)

    def chip(self, index: int) -> Chip:
        """Return chip ``index``. ConfigError if a file is damaged, a mask has another size than
        its image, or values outside the class map."""
        number, window = self._places[index]
        name = self._names[number]
        channels = self._channels(name)
        bands = []
        for channel in channels.values():
            values, observed = channel.pixels(window)
            bands.append(mark(values.astype(self._dtype), observed, self._nodata, channel))
        next(iter(channels.values())).file.close()
        return Chip(
            name=f"{name}:{window.row}:{window.col}",
            images={"image": np.stack(bands)},
            label=read_mask(
                str(self._root / self._masks[number]),
                window,
                self.contents.grounds[number],
                self.settings.classes,
                self.settings.others,
            ),
            groups={"block": self._squares[index], "image": number},
            where=Where(number, window.row, window.col, window.height, window.width),
            given=_given(name),
        )

    def _channels(self, name: str) -> dict[str, Channel]:
        return self.settings.channels(self._root / name, self._sensor)

    def _head(self, name: str) -> _Head:
        channels = self._channels(name)
        file = next(iter(channels.values())).file
        dtype = np.result_type(*(channel.dtype for channel in channels.values()))
        nodata = no_data(self.settings.nodata, self._sensor, list(channels.values()), dtype)
        ground = Ground(name=name, height=file.height, width=file.width)
        if file.grid is not None:
            place = tuple(file.grid.affine)[:6]
            ground = replace(ground, transform=place, crs=crs_name(file.grid.crs))
        file.close()
        return _Head(ground, tuple(channels), dtype.name, "none" if nodata is None else str(nodata))

    @functools.cached_property
    def origins(self) -> list[dict[str, str]]:
        """What each ground was read from: see :attr:`swath.data.store.Store.origins`."""
        with ThreadPoolExecutor(4) as pool:
            return list(pool.map(self._content, self._names))

    def _content(self, name: str) -> dict[str, str]:
        channels = self._channels(name)
        file = next(iter(channels.values())).file
        content = file.content()
        file.close()
        return dict.fromkeys(channels, content)

    def _mask_of(self, name: str) -> str:
        path = pathlib.Path(name)
        pattern = self.settings.masks.format(stem=_literal(path.stem), folder=_literal(path.parent))
        found = [mask for mask in _files(self._root, pattern) if mask != name]
        if len(found) != 1:
            what = "no mask" if not found else f"{len(found)} masks ({', '.join(found[:3])})"
            raise ConfigError(
                f"{self._root / name}: {what} at {pattern}; correct the pattern masks"
            )
        return found[0]

    def _cut(self, grounds: tuple[Ground, ...]) -> list[tuple[int, Window]]:
        chip = self.settings.chip
        if chip is None:
            first = grounds[0]
            for other in grounds:
                if (other.height, other.width) != (first.height, first.width):
                    raise ConfigError(
                        f"{self._root}: images differ in size: {first.name} has {first.height} x "
                        f"{first.width} px, {other.name} {other.height} x {other.width}; give "
                        "chip, the size to cut them to"
                    )
            return [(i, Window(0, 0, g.height, g.width)) for i, g in enumerate(grounds)]
        for ground in grounds:
            if min(ground.height, ground.width) < chip:
                raise ConfigError(
                    f"{self._root / ground.name}: {ground.height} x {ground.width} px are too few "
                    f"for a chip of {chip}; make chip smaller"
                )
        stride = self.settings.stride or chip
        return [
            (i, window)
            for i, ground in enumerate(grounds)
            for window in windows(ground.height, ground.width, chip, stride)
        ]

    def _square_numbers(self, grounds: tuple[Ground, ...]) -> list[int]:
        """Return the block of each chip: its image, or the square of ground under its middle."""
        size = self.settings.block_m
        if size is None:
            return [number for number, _ in self._places]
        from rasterio.crs import CRS

        systems = {ground.crs for ground in grounds}
        crs = systems.pop()
        if systems or crs is None or not CRS.from_user_input(crs).is_projected:
            raise ConfigError(
                f"block_m={size:g}: the images need a place in one CRS that counts in metres; they "
                f"have {crs or 'none'}{' and others' if systems else ''}; leave block_m out"
            )
        squares = []
        for number, window in self._places:
            a, b, c, d, e, f = grounds[number].transform or ()
            col, row = window.col + window.width / 2, window.row + window.height / 2
            x, y = a * col + b * row + c, d * col + e * row + f
            squares.append((-int(y // size), int(x // size)))
        known = {square: number for number, square in enumerate(sorted(set(squares)))}
        return [known[square] for square in squares]


def _find(root: pathlib.Path, pattern: str) -> list[str]:
    if not root.is_dir():
        raise no_such(root, "folder")
    found = _files(root, pattern)
    if not found:
        raise ConfigError(f"{root}: no image matches {pattern!r}; correct the pattern images")
    return found


def _files(root: pathlib.Path, pattern: str) -> list[str]:
    return sorted(
        found.relative_to(root).as_posix()
        for found in root.glob(pattern)
        if found.suffix.lower() in files.SUFFIXES
    )


def _given(name: str) -> Literal["train", "val", "test"] | None:
    """Return the part that a folder on the way to an image tells."""
    folders = (folder.lower() for folder in pathlib.Path(name).parts[:-1])
    return next((PARTS[folder] for folder in folders if folder in PARTS), None)


def _literal(path: object) -> str:
    return glob.escape(str(path))
