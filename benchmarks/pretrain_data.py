"""The imagery of benchmarks/pretrain.py as files that stores are built from.

TerraMesh's places go apart: three are pretrained on, two (Brazil, Denmark) are held out whole, and
no pixel of them is seen before it is scored. The land cover of two of the three is learned from;
their north-eastern quarters choose between settings. BigEarthNet's patches are written as GeoTIFFs,
far from each other, for where they lie is not told.
"""

import pathlib
import zipfile

import numpy as np
import rasterio
from rasterio.transform import Affine
from rasterio.windows import Window, transform

BRAZIL, TANZANIA, CHILE, CANADA, DENMARK = (
    "282D_485L_3_3",
    "38D_378R_2_3",
    "433D_629L_3_1",
    "609U_541L_3_0",
    "637U_59R_1_3",
)
LEARNED, HELD_OUT, SEEN = (CHILE, TANZANIA), (BRAZIL, DENMARK), (CHILE, TANZANIA, CANADA)
TILE = 56
L1C = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12")
L2A = tuple(band for band in L1C if band != "B10")
RADAR = ("VV", "VH")
KINDS = {"S2L1C": L1C, "S2L2A": L2A, "S1RTC": RADAR}


def unpack(data: pathlib.Path, folder: pathlib.Path) -> None:
    """Write TerraMesh and BigEarthNet below ``folder``: KIND/whole, images to pretrain on; cover,
    tiles with their land cover in images/PART and masks/PART, for optics and for radar."""
    if (folder / "done").exists():
        return
    raw = folder / "raw"
    zipfile.ZipFile(data / "terramesh/terramesh_examples.zip").extractall(raw)
    for kind in KINDS:
        for place in dict.fromkeys((*SEEN, *LEARNED, *HELD_OUT)):
            with rasterio.open(raw / kind / f"{place}.tif") as image:
                pixels, profile = _counts(image.read(), kind), image.profile
            if place in SEEN:
                write(folder / kind / "whole" / f"{place}.tif", pixels, profile, KINDS[kind])
            if place in (*LEARNED, *HELD_OUT) and kind != "S2L2A":
                with rasterio.open(raw / "LULC" / f"{place}.tif") as cover:
                    _tiles(folder / kind / "cover", place, pixels, cover.read(), profile, kind)
    for number, patches in enumerate(sorted((data / "bigearthnet").glob("*.npz"))):
        _patches(folder, np.load(patches), number)
    (folder / "done").touch()


def _counts(pixels: np.ndarray, kind: str) -> np.ndarray:
    if kind == "S1RTC":
        return pixels.astype(np.float32)
    # Processing baseline 04.00 adds 1000; without it dark pixels are far below that.
    return np.maximum(pixels.astype(np.int32) - (1000 if pixels.min() >= 900 else 0), 1)


def _tiles(
    folder: pathlib.Path,
    place: str,
    pixels: np.ndarray,
    cover: np.ndarray,
    profile: dict,
    kind: str,
) -> None:
    height, width = pixels.shape[1:]
    for row in range(0, height, TILE):
        for col in range(0, width, TILE):
            quarter = "val" if row < height // 2 and col >= width // 2 else "train"
            part = "test" if place in HELD_OUT else quarter
            cut, name = np.s_[:, row : row + TILE, col : col + TILE], f"{place}_{row}_{col}.tif"
            where = {
                **profile,
                "transform": transform(Window(col, row, TILE, TILE), profile["transform"]),
            }
            write(folder / "images" / part / name, pixels[cut], where, KINDS[kind])
            write(folder / "masks" / part / name, cover[cut], where, ("cover",))


def _patches(folder: pathlib.Path, patches: np.lib.npyio.NpzFile, number: int) -> None:
    """Write the patches of a BigEarthNet file, 10 m a pixel: coarser bands are repeated."""
    fine, half, coarse = (patches[f"s2_{size}"] for size in ("10m", "20m", "60m"))
    bands = dict(zip(("B02", "B03", "B04", "B08"), fine.swapaxes(0, 1), strict=True))
    names = ("B05", "B06", "B07", "B8A", "B11", "B12")
    bands |= dict(zip(names, half.repeat(2, 2).repeat(2, 3).swapaxes(0, 1), strict=True))
    bands |= dict(zip(("B01", "B09"), coarse.repeat(6, 2).repeat(6, 3).swapaxes(0, 1), strict=True))
    optics = np.stack([bands[name] for name in L2A], 1)
    for kind, images, order in (("S2L2A", optics, L2A), ("S1RTC", patches["s1"], RADAR)):
        for one, image in enumerate(images):
            east, north = 300_000 + 10_000 * number, 5_000_000 + 10_000 * one
            profile = {"crs": "EPSG:32633", "transform": Affine(10, 0, east, 0, -10, north)}
            write(folder / kind / "whole" / f"patch_{number}_{one}.tif", image, profile, order)


def write(path: pathlib.Path, pixels: np.ndarray, profile: dict, bands: tuple[str, ...]) -> None:
    """Write pixels (c, h, w) placed as ``profile`` says, under the names of ``bands``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    count, height, width = pixels.shape
    if pixels.dtype == np.int32:
        pixels = pixels.astype(np.uint16)
    made = {"driver": "GTiff", "crs": profile["crs"], "transform": profile["transform"]}
    size = {"count": count, "height": height, "width": width, "dtype": pixels.dtype}
    with rasterio.open(path, "w", **made, **size) as file:
        file.write(pixels)
        file.descriptions = bands
