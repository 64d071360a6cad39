"""Where the bands are in a folder as ESA delivers it: the SAFE layout of Sentinel-2 products.

    S2A_MSIL2A_....SAFE/GRANULE/<tile>/IMG_DATA/R10m/T32UQD_..._B02_10m.jp2    level 2A
    S2A_MSIL1C_....SAFE/GRANULE/<tile>/IMG_DATA/T32UQD_..._B02.jp2             level 1C

Level 2A has a band in several resolutions; the instrument saw it in one, and that file is taken.

Source: ESA, Sentinel-2 Products Specification Document, section on the granule's structure.
"""

from __future__ import annotations

import logging
import pathlib
import re
from typing import TYPE_CHECKING

from swath.config import ConfigError

if TYPE_CHECKING:
    from odc.geo.geobox import GeoBox

    from swath.data.sensor import Sensor


log = logging.getLogger(__name__)


def image_folders(path: pathlib.Path) -> list[pathlib.Path]:
    """Return the folders below ``path`` in which its bands are: itself, or those of a product.

    ``path`` may be a product, or its IMG_DATA. ConfigError if a product is not whole, or has
    several tiles.
    """
    granules = sorted(path.glob("GRANULE/*/IMG_DATA"))
    if path.suffix == ".SAFE" and not granules:
        raise ConfigError(
            f"{path}: has no GRANULE/*/IMG_DATA inside, as a product of Sentinel-2 has; unpack it "
            "whole"
        )
    if len(granules) > 1:
        raise ConfigError(
            f"{path}: has {len(granules)} tiles; take one as the scene, such as path: {granules[0]}"
        )
    root = granules[0] if granules else path
    return [root, *sorted(f for f in root.glob("R*m") if re.fullmatch(r"R\d+m", f.name))]


def holds_product(path: pathlib.Path) -> str:
    """Return what to write if a product lies in the folder ``path``; "" if none does."""
    inside = sorted(path.glob("*.SAFE"))
    return f"It holds {inside[0].name}: path may be that folder, {inside[0]}" if inside else ""


def warn_of_offset(path: pathlib.Path, sensor: Sensor) -> None:
    """Say so if the metadata of the product ``path`` give counts another offset than ``sensor``
    has: since baseline 04.00 it is -1000 counts, and reflectance would come out 0.1 too high."""
    for name, tag in (("MTD_MSIL2A.xml", "BOA_ADD_OFFSET"), ("MTD_MSIL1C.xml", "RADIO_ADD_OFFSET")):
        file = path / name
        text = file.read_text(errors="replace") if file.is_file() else ""
        found = {float(n) for n in re.findall(rf"<{tag}[^>]*>\s*(-?[\d.]+)\s*<", text)}
        said = sensor.offset / sensor.scale
        if len(found) == 1 and abs(counts := found.pop() - said) > 0.5:
            log.warning(
                "%s: %s is %g counts, but sensor %s has %g: reflectance comes out wrong by %g; set "
                "offset: %g beside sensor",
                file,
                tag,
                counts + said,
                sensor.name,
                said,
                -counts * sensor.scale,
                (counts + said) * sensor.scale,
            )


def pixel_m(grid: GeoBox) -> float:
    """Return the edge of a pixel in m (of a degree at the equator, where the CRS has degrees)."""
    degrees = grid.crs is not None and grid.crs.geographic
    return abs(grid.affine.determinant) ** 0.5 * (111_320.0 if degrees else 1.0)


def native(band: str, sizes: dict[str, float | None], sensor: Sensor) -> str | None:
    """Return which of several files has ``band`` in the pixels that the instrument saw; None if
    that cannot be told.

    sizes: file -> edge of its pixels in m, None where nobody knows it.
    """
    gsd = next(b.gsd_m for b in sensor.bands if b.name == band)
    if gsd is None:
        return None
    off = {file: max(size / gsd, gsd / size) for file, size in sizes.items() if size}
    near = [file for file in off if off[file] < 1.01 * min(off.values())]
    return near[0] if len(near) == 1 and len(off) == len(sizes) else None
