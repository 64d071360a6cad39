"""A folder of class folders: the layout of EuroSAT, UC Merced, RESISC45 and many others.

    root/AnnualCrop/AnnualCrop_1.tif      or      root/train/AnnualCrop/AnnualCrop_1.jpg

A sample's class is the name of its folder; its given split that of the folder above, or comes from
lists. The GeoTIFFs of EuroSAT have 13 bands with B8A last: say so with ``order``.
"""

from __future__ import annotations

import pathlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from swath.config import ConfigError, no_such
from swath.data import files
from swath.data.chip import Chip, Contents, Label, Modality
from swath.data.nodata import mark, no_data
from swath.datasets._images import Images
from swath.datasets._places import PARTS, Place, blocks, lay, parts_in, read_lists
from swath.geo.window import Window


@dataclass(frozen=True, kw_only=True)
class Folder(Images):
    """Images of one size, in a folder for each class."""

    path: str
    """The folder that holds the class folders, or train, val and test with those inside. An image
    is one file with all its bands."""
    classes: tuple[str, ...] = ()
    """Classes to take, in the order of the class ids; empty: every folder, by name."""
    splits: dict[str, str] = field(default_factory=dict)
    """Published split: part -> file with one image name a line; parts are train, val, test."""
    block_m: float = 10_000.0
    """Edge in m of the squares of the grouping "block", if the images have places on the Earth."""

    def __post_init__(self) -> None:
        if self.block_m <= 0:
            raise ConfigError(f"block_m={self.block_m} must be more than 0")

    def open(self) -> FolderSource:
        return FolderSource(self)


class FolderSource:
    """The images of class folders, in the order of their names."""

    def __init__(self, settings: Folder) -> None:
        self.settings = settings
        self._root = pathlib.Path(settings.path)
        self._images, classes, self._given = _find(self._root, settings)
        self._ids = {name: number for number, name in enumerate(classes)}
        if settings.splits:
            lists = read_lists(settings.splits)
            self._given = {f: lists[f.stem] for f in self._images if f.stem in lists}
            if not self._given:
                raise ConfigError(f"{self._root}: the lists of splits name none of its images")
        self._sensor = settings.counted()
        channels = settings.channels(self._images[0], self._sensor)
        every = list(channels.values())
        self._file = every[0].file
        self._dtype = np.result_type(*(channel.dtype for channel in every))
        self._nodata = no_data(settings.nodata, self._sensor, every, self._dtype)
        self._size = (self._file.height, self._file.width)
        places = self._find_places()
        grounds, self._where = lay(places)
        self._blocks = blocks(places, settings.block_m)
        self.contents = Contents(
            modalities=(
                Modality(
                    name="image",
                    sensor=replace(self._sensor.select(channels), nodata=self._nodata),
                    height=self._size[0],
                    width=self._size[1],
                    dtype=self._dtype.name,
                ),
            ),
            label=Label(kind="class", classes=classes),
            grounds=grounds,
            groupings=("block",) if grounds else (),
            given=parts_in(self._given.values()),
            licence=settings.licence,
            source=settings.source,
        )

    def __len__(self) -> int:
        return len(self._images)

    def chip(self, index: int) -> Chip:
        path = self._images[index]
        channels = self.settings.channels(path, self._sensor)
        file = next(iter(channels.values())).file
        try:
            if (file.height, file.width) != self._size:
                raise ConfigError(
                    f"{path}: has {file.height} x {file.width} px, but {self._images[0]} has "
                    f"{self._size[0]} x {self._size[1]}; the images of a folder have one size"
                )
            bands = []
            for name, channel in channels.items():
                if channel.dtype != self._dtype:
                    raise ConfigError(
                        f"{path}: band {name} is {channel.dtype}, in {self._images[0]} "
                        f"{self._dtype}"
                    )
                values, observed = channel.pixels(Window(0, 0, *self._size))
                bands.append(mark(values, observed, self._nodata, channel))
        finally:
            file.close()
        given: Any = self._given.get(path)
        return Chip(
            name=f"{path.parent.name}/{path.stem}",
            images={"image": np.stack(bands)},
            label=self._ids[path.parent.name],
            groups={"block": int(self._blocks[index])} if self.contents.groupings else {},
            where=self._where[index],
            given=given,
        )

    def _find_places(self) -> list[Place | None]:
        """Return where each image lies; if the first has no place, none is looked for."""
        if self._file.grid is None:
            return [None] * len(self._images)
        with ThreadPoolExecutor(8) as pool:
            return list(pool.map(_place, self._images))


def _place(path: pathlib.Path) -> Place | None:
    from swath.geo.raster import crs_name, lacking, open_raster

    with open_raster(path) as raster:
        if lacking(raster) or not raster.crs.is_projected:
            return None
        a, _, x, _, e, y = tuple(raster.transform)[:6]
        if abs(a + e) > 1e-6 * abs(a):
            return None  # pixels are not square, or rows run south to north
        return Place(crs_name(raster.crs), x, y, a, raster.height, raster.width)


def _loose(names: list[str]) -> str:
    if not names:
        return ""
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return (
        f", but {names[0]}{more} lie in no folder. Move images into a folder for each class; for "
        "one large image with labels use kind: scene, for images with masks kind: masks"
    )


def _find(
    root: pathlib.Path, settings: Folder
) -> tuple[list[pathlib.Path], tuple[str, ...], dict[pathlib.Path, str]]:
    """Return the images by name, the classes, and the part of each image whose folder tells it."""
    if not root.is_dir():
        raise no_such(root, "folder")
    inside = sorted(f for f in root.iterdir() if f.is_dir())
    split = bool(inside) and all(f.name.lower() in PARTS for f in inside)
    tops = inside if split else [root]
    names = sorted({f.name for top in tops for f in top.iterdir() if f.is_dir()})
    missing = [name for name in settings.classes if name not in names]
    if missing:
        raise ConfigError(
            f"{root}: no folder for class {', '.join(missing)}; there are {', '.join(names)}"
        )
    classes = settings.classes or tuple(names)
    images: list[pathlib.Path] = []
    given: dict[pathlib.Path, str] = {}
    for top in tops:
        for name in classes:
            folder = top / name
            found = sorted(folder.iterdir()) if folder.is_dir() else []
            here = [f for f in found if f.suffix.lower() in files.SUFFIXES]
            images += here
            if split:
                given |= {f: PARTS[top.name.lower()] for f in here}
    if not images:
        loose = sorted(f.name for f in root.iterdir() if f.suffix.lower() in files.SUFFIXES)
        raise ConfigError(
            f"{root}: no images in class folders; expected {root}/<class>/<image>{_loose(loose)}"
        )
    return images, classes, given
