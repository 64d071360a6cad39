"""Which pixels of a scene a classification delivered with it calls cloud.

    sensor          band      cloud
    sentinel2_l2a   SCL       values 3 (shadow), 8 and 9 (cloud, medium and high), 10 (thin cirrus)
    landsat*        QA_PIXEL  bits 1 (dilated cloud), 2 (cirrus), 3 (cloud), 4 (shadow)

Sources: ESA, Sentinel-2 Level-2A Algorithm Theoretical Basis Document, scene classification; USGS,
Landsat Collection 2 Level-1 and Level-2 data format control books (QA_PIXEL).
"""

from __future__ import annotations

import pathlib
from dataclasses import dataclass, replace

import numpy as np

from swath.config import ConfigError
from swath.data import files
from swath.data.imagery import Imagery, Scene
from swath.data.sensor import Band, Sensor
from swath.geo.channel import Channel, File
from swath.geo.raster import is_gdal_name
from swath.geo.window import Window

KNOWN: dict[str, tuple[str, tuple[int, ...], tuple[int, ...]]] = {
    "sentinel2_l2a": ("SCL", (3, 8, 9, 10), ()),
    "landsat7_etm": ("QA_PIXEL", (), (1, 2, 3, 4)),
    "landsat8_oli": ("QA_PIXEL", (), (1, 2, 3, 4)),
}
"""For a sensor the band of its classification, and the values, or bits, that mean cloud."""
GSD_M = {"SCL": 20.0, "QA_PIXEL": 30.0}
"""Pixel size of a classification."""


@dataclass(frozen=True, kw_only=True)
class Clouds:
    """How much cloud a chip may have, and what tells it."""

    most: float = 0.1
    """Largest share of a chip's classified pixels that are cloud, 0..1."""

    band: str | None = None
    """Name of the classification, at the end of its file's name or as a channel is described; None:
    the sensor's own (SCL of sentinel2_l2a, QA_PIXEL of Landsat)."""

    file: str | None = None
    """Where it is: a pattern within the scene's folder, or a path with "{scene}", the scene's name,
    or "{path}", its path, as in masks/{scene}.tif or "netcdf:{path}:SCL". None: found by
    ``band``."""

    values: tuple[int, ...] | None = None
    """Values that mean cloud; None: the sensor's."""

    bits: tuple[int, ...] | None = None
    """Bits, counted from 0, any of which means cloud, where the classification is made of bits."""

    def __post_init__(self) -> None:
        if not 0 <= self.most < 1:
            raise ConfigError(
                f"clouds.most={self.most:g} must be a share below 1; leave clouds out to keep all"
            )
        if self.values is not None and self.bits is not None:
            raise ConfigError("clouds: give values or bits, not both")
        if (self.values, self.bits) in (((), None), (None, ())):
            raise ConfigError("clouds: name at least one of values, or of bits")

    def of(self, imagery: Imagery, channel: int | None = None, mask: str | None = None) -> Mask:
        """Return the clouds of the scene ``imagery``; ConfigError if nothing tells them.

        channel: of a series, the one of the scene's date. mask: the file, where it is known.
        """
        name = imagery.known_sensor
        known = KNOWN.get(name)
        band = self.band or (known[0] if known else None) or ("mask" if self.file else None)
        told = (self.values, self.bits) != (None, None)
        if band is None or (known is None and not told):
            raise ConfigError(
                f"clouds: nobody knows what tells clouds for sensor {name} (known: "
                f"{', '.join(KNOWN)}); say it, such as clouds: {{most: {self.most:g}, band: CLOUD, "
                "values: [1]}, or leave clouds out"
            )
        values, bits = (self.values or (), self.bits or ()) if told else known[1:]  # type: ignore[index]
        sensor = Sensor(name=name, bands=(Band(name=band, gsd_m=GSD_M.get(band)),))
        file = mask or self.file
        if file is None and not pathlib.Path(imagery.path).is_dir():
            return Mask(_described(imagery, band), values, bits)
        written = None if file is None else _written(file, imagery, channel)
        only = replace(
            imagery,
            bands=(band,),
            files=None if written is None else {band: written},
            order=None,
            grid=None,
            nodata=None,
        )
        try:
            (found,) = files.channels(only, sensor).values()
        except ConfigError as error:
            raise ConfigError(
                f"clouds: {error}. Say where the classification is with clouds.file, or leave "
                "clouds out"
            ) from error
        return Mask(found, values, bits)


def _described(imagery: Imagery, band: str) -> Channel:
    """Return the channel of the scene's one file that is described as ``band``."""
    place = imagery.georeference
    file = File(imagery.path, place.crs, place.transform) if place else File(imagery.path)
    if band not in file.descriptions:
        there = ", ".join(d or "-" for d in file.descriptions)
        raise ConfigError(
            f"clouds: {imagery.path}: no channel is described as {band} (there are {there}). Say "
            "where the classification is with clouds.file, or leave clouds out"
        )
    return Channel(file, file.descriptions.index(band) + 1)


def _written(file: str, imagery: Imagery, channel: int | None) -> str:
    name = file.replace("{path}", imagery.path).replace("{scene}", str(imagery.name))
    if not is_gdal_name(name):
        if name == file and not pathlib.Path(name).is_absolute():
            found = sorted(pathlib.Path(imagery.path).glob(name))
            if len(found) != 1:
                raise ConfigError(
                    f"clouds.file={file!r}: {len(found)} files in {imagery.path} match; it has to "
                    "be one"
                )
            name = str(found[0])
        name = str(pathlib.Path(name).absolute())
    return name if channel is None else f"{name}#{channel}"


@dataclass
class Mask:
    """The classification of one scene."""

    channel: Channel
    values: tuple[int, ...]
    bits: tuple[int, ...]

    def share(self, scene: Scene, window: Window) -> float:
        """Return the share of the classified pixels under ``window`` of ``scene`` that are cloud;
        0 where none is classified."""
        found, known = self.channel.on(scene.grid, window, "nearest")
        if self.bits:
            cloud = np.bitwise_and(found.astype(np.int64), sum(1 << b for b in self.bits)) > 0
        else:
            cloud = np.isin(found, self.values)
        return float((cloud & known).sum() / max(1, known.sum()))

    def close(self) -> None:
        self.channel.file.close()
