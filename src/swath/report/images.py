"""Pictures as text inside the page: data URIs of PNG and JPEG, made by GDAL."""

from __future__ import annotations

import base64
import warnings
from collections.abc import Sequence

import numpy as np

from swath.data.chip import Label
from swath.data.palette import class_colours, rgb
from swath.data.stretch import stretched

LARGEST = 1600
"""Longer side of a picture in the page, pixels; larger scenes are shown thinned."""


def jpeg(pixels: np.ndarray) -> str:
    """Return RGB uint8 (h, w, 3) as a data URI."""
    return _uri("JPEG", pixels.transpose(2, 0, 1), None, QUALITY=88)


def png(pixels: np.ndarray) -> str:
    """Return RGB uint8 (h, w, 3) as a data URI without loss."""
    return _uri("PNG", pixels.transpose(2, 0, 1), None, ZLEVEL=9)


def stretched_png(values: np.ndarray, there: np.ndarray, limits: np.ndarray) -> str:
    """Return (3, h, w) values as a data URI, dark to bright between ``limits`` (3, 2).

    there: (h, w) bool, which pixels were observed; the others are light grey.
    """
    return png((255 * stretched(values, there, limits)).astype(np.uint8))


def limits_of(values: np.ndarray, there: np.ndarray) -> np.ndarray:
    """Return the 2nd and 98th percentile (3, 2) of (3, h, w) values, of the observed pixels, or of
    all if there are none."""
    seen = values[:, there] if there.any() else values.reshape(3, -1)
    return np.percentile(seen, (2, 98), axis=1).T


def evenly(indices: np.ndarray, most: int) -> np.ndarray:
    """Return at most ``most`` of ``indices`` (n,), spread evenly from the first to the last."""
    return indices[np.linspace(0, len(indices) - 1, min(most, len(indices))).astype(int)]


def class_png(classes: np.ndarray, label: Label) -> str:
    """Return class ids uint8 (h, w) as a data URI in the classes' colours; others transparent."""
    table = dict.fromkeys(range(256), (0, 0, 0, 0))
    table |= {i: (*rgb(colour), 255) for i, colour in enumerate(class_colours(label)[:255])}
    return _uri("PNG", classes[None], table, ZLEVEL=9)


def shade_png(values: np.ndarray) -> str:
    """Return values 0..1 (h, w) as a data URI from dark (0) to bright (1); NaN is transparent."""
    stops = np.array([[13, 8, 45], [122, 28, 109], [229, 92, 48], [252, 255, 164]])
    at = np.linspace(0, 1, 255)
    ramp = np.stack([np.interp(at, np.linspace(0, 1, 4), stops[:, i]) for i in range(3)], axis=1)
    table = {i: (int(r), int(g), int(b), 255) for i, (r, g, b) in enumerate(ramp)}
    table[255] = (0, 0, 0, 0)
    known = np.isfinite(values)
    levels = (np.clip(np.where(known, values, 0), 0, 1) * 254).round()
    return _uri("PNG", np.where(known, levels, 255).astype(np.uint8)[None], table, ZLEVEL=9)


def thinned(height: int, width: int, most: int = LARGEST) -> tuple[int, int]:
    """Return the size, at most ``most`` px long, of a picture of ``height`` x ``width`` px."""
    factor = min(1.0, most / max(height, width))
    return max(1, round(height * factor)), max(1, round(width * factor))


def pick(pixels: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """Return ``pixels`` (..., h, w) thinned to ``size`` (h, w), nearest pixel."""
    rows = (np.arange(size[0]) + 0.5) * pixels.shape[-2] / size[0]
    cols = (np.arange(size[1]) + 0.5) * pixels.shape[-1] / size[1]
    return pixels[..., rows.astype(int)[:, None], cols.astype(int)]


def _uri(driver: str, bands: np.ndarray, table: dict | None, **options: int) -> str:
    import rasterio
    from rasterio.errors import NotGeoreferencedWarning
    from rasterio.io import MemoryFile

    profile = {"driver": driver, "dtype": "uint8", "count": len(bands), **options}
    quiet = warnings.catch_warnings(action="ignore", category=NotGeoreferencedWarning)
    with quiet, rasterio.Env(GDAL_PAM_ENABLED="NO"), MemoryFile() as memory:
        with memory.open(height=bands.shape[1], width=bands.shape[2], **profile) as file:
            file.write(bands)
            if table is not None:
                file.write_colormap(1, table)
        content = memory.read()
    return f"data:image/{driver.lower()};base64,{base64.b64encode(content).decode()}"
