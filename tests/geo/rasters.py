"""Small rasters for tests, and where the real ones are."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np
import pytest
import rasterio

from swath.geo.cog import CogWriter
from swath.geo.window import Window

DATA = pathlib.Path(__file__).parents[3] / "shared" / "data"
UTM = "EPSG:32633"
CORNER = (330000.0, 5822040.0)


def place(pixel: float = 10.0, x: float = CORNER[0], y: float = CORNER[1]) -> rasterio.Affine:
    """Return the transform of a north-up raster whose upper left corner is (x, y)."""
    return rasterio.Affine(pixel, 0.0, x, 0.0, -pixel, y)


def write(
    path: pathlib.Path,
    pixels: np.ndarray,
    transform: Any = None,
    crs: str | None = UTM,
    names: tuple[str, ...] = (),
    **profile: Any,
) -> pathlib.Path:
    """Write (c, h, w) or (h, w) as a GeoTIFF (or ``driver``) and return its path."""
    pixels = pixels[None] if pixels.ndim == 2 else pixels
    path.parent.mkdir(parents=True, exist_ok=True)
    profile = {"driver": "GTiff", "transform": transform or place(), "crs": crs} | profile
    count, height, width = pixels.shape
    with rasterio.open(
        path, "w", count=count, height=height, width=width, dtype=pixels.dtype, **profile
    ) as file:
        file.write(pixels)
        for number, name in enumerate(names, 1):
            file.set_band_description(number, name)
    return path


def cog(path: pathlib.Path, pixels: np.ndarray, **about: Any) -> pathlib.Path:
    """Write (c, h, w) as a COG in one piece, at ``place()`` unless ``about`` says more."""
    count, height, width = pixels.shape
    grid = {"count": count, "height": height, "width": width, "dtype": pixels.dtype}
    writer = CogWriter(path, **(grid | {"transform": place(), "crs": UTM} | about))
    writer.write(Window(0, 0, height, width), pixels)
    return writer.finish()


def real(name: str) -> pathlib.Path:
    """Return the folder of a data set that does not ship; skip the test where it is absent."""
    if not (DATA / name).exists():
        pytest.skip(f"the data set {name} is not beside the repository")
    return DATA / name
