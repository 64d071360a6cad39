"""BigEarthNet: Sentinel-2 patches of 1.2 km, optionally with Sentinel-1, with several classes each.

Version 1 (2019): a folder per patch with a GeoTIFF per band and <patch>_labels_metadata.json; 43
classes, or the 19 made of them; the published split comes as lists. Version 2 (reBEN, 2024): a
folder per tile with such patch folders, and one metadata table with 19 classes and the split.
Which of the two a folder holds is seen from the table.

Sources: Sumbul et al. 2019, arXiv:1902.06148; Sumbul et al. 2021, arXiv:2105.07921; Clasen et al.
2024, arXiv:2407.03653.
"""

from __future__ import annotations

import csv
import datetime
import pathlib
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from swath.config import ConfigError, no_such
from swath.data.chip import Chip, Contents, Label, Modality
from swath.data.dataset import Dataset
from swath.data.sensor import load_sensor
from swath.datasets._corine import CLASSES_19, CLASSES_43, TO_19
from swath.datasets._places import PARTS, Place, blocks, lay, parts_in, read_lists
from swath.files import read_json

S2 = {
    "s2_10m": (("B02", "B03", "B04", "B08"), 120),
    "s2_20m": (("B05", "B06", "B07", "B8A", "B11", "B12"), 60),
    "s2_60m": (("B01", "B09"), 20),
}
S1 = {"s1": (("VV", "VH"), 120)}
_STEP = 1200.0  # m from one patch of a tile to the next
_NAME = re.compile(r"^(S2[A-D]_MSIL2A_(\d{8}T\d{6}).*?)_(\d+)_(\d+)$")


@dataclass(frozen=True, kw_only=True)
class BigEarthNet(Dataset):
    """The patches of a BigEarthNet folder, version 1 or 2."""

    path: str
    """Version 1: the folder of patch folders (BigEarthNet-v1.0). Version 2: the folder of tile
    folders (BigEarthNet-S2)."""
    metadata: str | None = None
    """Version 2: metadata.csv, or metadata.parquet (which needs pyarrow). None: version 1."""
    s1: str | None = None
    """Folder of the Sentinel-1 patches, which adds the modality s1; None: Sentinel-2 alone."""
    classes: Literal[19, 43] = 19
    """43 is there for version 1 only."""
    splits: dict[str, str] = field(default_factory=dict)
    """Version 1: part -> list of patches, for train, val and test. Others are left out."""
    exclude: tuple[str, ...] = ()
    """Version 1: lists of patches to leave out, as those under snow or clouds."""
    block_m: float = 12_000.0
    """Edge in m of the squares of the grouping "block"."""

    def __post_init__(self) -> None:
        if self.metadata is not None:
            for name in ("splits", "exclude"):
                if getattr(self, name):
                    raise ConfigError(f"{name} has no effect on version 2: its table tells it")
            if self.classes == 43:
                raise ConfigError("classes=43: version 2 has 19 classes only")

    def open(self) -> BigEarthNetSource:
        return BigEarthNetSource(self)


@dataclass
class _Patch:
    """What is known of a patch before its pixels are read."""

    name: str
    folder: pathlib.Path
    classes: list[str]
    given: str | None = None
    s1: pathlib.Path | None = None
    place: Place | None = None
    country: str = ""


class BigEarthNetSource:
    """The patches in the order of their names."""

    def __init__(self, settings: BigEarthNet) -> None:
        self.settings = settings
        root = pathlib.Path(settings.path)
        if not root.is_dir():
            raise no_such(root, "folder")
        read = _version_1 if settings.metadata is None else _version_2
        self._patches = sorted(read(root, settings), key=lambda patch: patch.name)
        if not self._patches:
            raise ConfigError(f"{root}: no patches of BigEarthNet are left to read")
        self._classes = CLASSES_19 if settings.classes == 19 else CLASSES_43
        sensor = load_sensor("sentinel2_l2a")
        radar = load_sensor("sentinel1_grd")
        self._shapes = {**S2, **(S1 if settings.s1 else {})}
        modalities = tuple(
            Modality(
                name=name,
                sensor=(radar if name == "s1" else sensor).select(bands),
                height=size,
                width=size,
                dtype="float32" if name == "s1" else "uint16",
            )
            for name, (bands, size) in self._shapes.items()
        )
        places = [patch.place for patch in self._patches]
        grounds, self._where = lay(places)
        self._blocks = blocks(places, settings.block_m)
        scenes = sorted({_scene(patch.name) for patch in self._patches})
        self._scenes = {name: number for number, name in enumerate(scenes)}
        countries = sorted({patch.country for patch in self._patches} - {""})
        self._countries = {name: number for number, name in enumerate(countries)}
        self.contents = Contents(
            modalities=modalities,
            label=Label(kind="flags", classes=self._classes),
            grounds=grounds,
            groupings=(
                *(("block",) if grounds else ()),
                "scene",
                *(("country",) if countries else ()),
            ),
            given=parts_in(patch.given for patch in self._patches),
            licence="CDLA-Permissive-1.0",
            source="BigEarthNet; contains modified Copernicus Sentinel data",
        )

    def __len__(self) -> int:
        return len(self._patches)

    def chip(self, index: int) -> Chip:
        patch = self._patches[index]
        images = {}
        for name, (bands, size) in self._shapes.items():
            folder = patch.s1 if name == "s1" else patch.folder
            assert folder is not None, f"{patch.name} was listed without Sentinel-1"
            dtype = "float32" if name == "s1" else "uint16"
            files = [folder / f"{folder.name}_{band}.tif" for band in bands]
            images[name] = np.stack([_band(file, size, dtype) for file in files])
        groups: dict[str, np.ndarray | int] = {
            "block": int(self._blocks[index]),
            "scene": self._scenes[_scene(patch.name)],
            "country": self._countries.get(patch.country, -1),
        }
        found = _NAME.match(patch.name)
        when = datetime.datetime.strptime(found[2], "%Y%m%dT%H%M%S") if found else None
        given: Any = patch.given
        return Chip(
            name=patch.name,
            images=images,
            label=np.array([name in patch.classes for name in self._classes], np.uint8),
            groups={name: groups[name] for name in self.contents.groupings},
            where=self._where[index],
            when=when.replace(tzinfo=datetime.UTC) if when else None,
            given=given,
        )


def _scene(name: str) -> str:
    found = _NAME.match(name)
    return found[1] if found else name


def _band(file: pathlib.Path, size: int, dtype: str) -> np.ndarray:
    from swath.geo.raster import open_raster

    with open_raster(file) as raster:
        if (raster.height, raster.width) != (size, size) or raster.count != 1:
            raise ConfigError(
                f"{file}: has {raster.count} x {raster.height} x {raster.width} px, expected one "
                f"band of {size} x {size}"
            )
        if raster.dtypes[0] != dtype:
            raise ConfigError(f"{file}: holds {raster.dtypes[0]}, expected {dtype}")
        try:
            return raster.read(1)
        except Exception as error:  # rasterio raises several kinds
            raise ConfigError(f"{file}: is damaged ({error})") from error


def _version_1(root: pathlib.Path, settings: BigEarthNet) -> list[_Patch]:
    given = read_lists(settings.splits)
    excluded = {name for file in settings.exclude for name in read_lists({"train": file})}
    radar = _radar_of_version_1(pathlib.Path(settings.s1)) if settings.s1 else {}
    folders = [f for f in root.iterdir() if f.is_dir() and f.name not in excluded]
    if given:
        folders = [f for f in folders if f.name in given]
    with ThreadPoolExecutor(8) as pool:
        read = list(pool.map(_patch_of_version_1, folders))
    patches = []
    for patch in read:
        if settings.classes == 19:
            patch.classes = [c for c in (TO_19[name] for name in patch.classes) if c]
        if not patch.classes:
            continue  # nothing is left of its classes: the publishers leave it out as well
        if settings.s1 and patch.name not in radar:
            raise ConfigError(f"{settings.s1}: no Sentinel-1 patch for {patch.name}")
        patch.given, patch.s1 = given.get(patch.name), radar.get(patch.name)
        patches.append(patch)
    return patches


def _patch_of_version_1(folder: pathlib.Path) -> _Patch:
    file = folder / f"{folder.name}_labels_metadata.json"
    facts = read_json(file)
    unknown = [name for name in facts["labels"] if name not in TO_19]
    if unknown:
        raise ConfigError(f"{file}: labels {', '.join(unknown)} are none of the 43 classes")
    place = None
    if "coordinates" in facts and "projection" in facts:
        from rasterio.crs import CRS

        from swath.geo.raster import crs_name

        corner = facts["coordinates"]
        crs = crs_name(CRS.from_wkt(facts["projection"]))
        place = Place(crs, float(corner["ulx"]), float(corner["uly"]), 10.0, 120, 120)
    return _Patch(folder.name, folder, facts["labels"], place=place)


def _radar_of_version_1(root: pathlib.Path) -> dict[str, pathlib.Path]:
    if not root.is_dir():
        raise no_such(root, "folder")
    folders = [f for f in root.iterdir() if f.is_dir()]
    facts = (read_json(f / f"{f.name}_labels_metadata.json") for f in folders)
    return {
        fact["corresponding_s2_patch"]: folder for folder, fact in zip(folders, facts, strict=True)
    }


def _version_2(root: pathlib.Path, settings: BigEarthNet) -> list[_Patch]:
    assert settings.metadata is not None
    table = list(_table(pathlib.Path(settings.metadata)))
    patches = []
    for row in table:
        name = row["patch_id"]
        found = _NAME.match(name)
        if found is None:
            raise ConfigError(f"{settings.metadata}: {name!r} is not the name of a patch")
        patch = _Patch(name, root / found[1] / name, row["labels"])
        if row.get("split") and row["split"] not in PARTS:
            raise ConfigError(f"{settings.metadata}: split {row['split']!r} of {name} is unknown")
        patch.given = PARTS[row["split"]] if row.get("split") else None
        patch.country = row.get("country") or ""
        unknown = [label for label in patch.classes if label not in CLASSES_19]
        if unknown:
            raise ConfigError(
                f"{settings.metadata}: labels {', '.join(unknown)} of {name} are none of the 19 "
                "classes"
            )
        if settings.s1:
            radar = row["s1_name"]
            patch.s1 = pathlib.Path(settings.s1) / re.sub(r"_[^_]+_\d+_\d+$", "", radar) / radar
        patches.append(patch)
    _place_tiles(patches)
    return patches


def _table(file: pathlib.Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of the metadata: patch_id, labels (a list), split, country, s1_name, ..."""
    if not file.exists():
        raise no_such(file)
    if file.suffix == ".parquet":
        try:
            from pyarrow import parquet
        except ImportError as error:
            raise ConfigError(
                f"{file}: reading Parquet needs pyarrow: pip install pyarrow, or give the table "
                "as metadata.csv"
            ) from error
        yield from parquet.read_table(file).to_pylist()
        return
    with file.open(newline="") as lines:
        for row in csv.DictReader(lines):
            if not {"patch_id", "labels"} <= row.keys():
                raise ConfigError(f"{file}: has no columns patch_id and labels")
            # A list as pandas or numpy print it: ['Pastures' 'Urban fabric'], with or without ","
            labels = [a or b for a, b in re.findall(r"'([^']*)'|\"([^\"]*)\"", row["labels"])]
            yield {**row, "labels": labels}


def _place_tiles(patches: list[_Patch]) -> None:
    """Find where patches lie from one header per tile: names end in _<column>_<row> of the tile."""
    from swath.geo.raster import crs_name, lacking, open_raster

    corners: dict[str, tuple[str, float, float] | None] = {}
    for patch in patches:
        found = _NAME.match(patch.name)
        assert found is not None, f"{patch.name} was matched before"
        scene, col, row = found[1], int(found[3]), int(found[4])
        if scene not in corners:
            with open_raster(patch.folder / f"{patch.name}_B02.tif") as raster:
                corners[scene] = None
                if not lacking(raster):
                    left, top = raster.transform.c, raster.transform.f
                    corner = (left - col * _STEP, top + row * _STEP)
                    corners[scene] = (crs_name(raster.crs), *corner)
        known = corners[scene]
        if known is not None:
            crs, left, top = known
            patch.place = Place(crs, left + col * _STEP, top - row * _STEP, 10.0, 120, 120)
