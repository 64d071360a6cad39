"""Small stores of several sensors, with places and times, for tests of what a batch knows."""

import dataclasses
import datetime
import pathlib
from dataclasses import dataclass

from swath.data.build import build
from swath.data.chip import Chip
from swath.data.sensor import load_sensor
from swath.data.split import Split
from swath.datasets.synthetic import Synthetic, SyntheticSource

HALF = Split(by="random", val=0.2, test=0.2)


@dataclass(frozen=True, kw_only=True)
class Sensed(Synthetic):
    """Invented samples of bands of a sensor; of every third neither place nor time is known."""

    sensor: str = "rgb"
    names: tuple[str, ...] = ("red", "green", "blue")
    renamed: str = ""
    """Names of the bands in place of the sensor's."""
    gsd: float | None = 10.0
    """None: neither the ground nor the sensor says it."""

    def open(self) -> SyntheticSource:
        source = SyntheticSource(self)
        modality = source.contents.modalities[0]
        sensor = dataclasses.replace(
            load_sensor(self.sensor).select(self.names), scale=1.0, offset=0.0, unit="count"
        )
        named = zip(self.renamed.split() or self.names, sensor.bands, strict=True)
        bands = tuple(dataclasses.replace(band, name=name) for name, band in named)
        if self.gsd is None:
            bands = tuple(dataclasses.replace(band, gsd_m=None) for band in bands)
        sensor = dataclasses.replace(sensor, bands=bands)
        (ground,) = source.contents.grounds
        a = None
        if self.gsd is not None:
            a = (self.gsd, 0.0, 500000.0, 0.0, -self.gsd, 5800000.0)
        source.contents = dataclasses.replace(
            source.contents,
            modalities=(dataclasses.replace(modality, sensor=sensor),),
            grounds=(dataclasses.replace(ground, transform=a),),
        )
        plain = source.chip

        def chip(index: int) -> Chip:
            found = plain(index)
            if index % 3 == 2:
                return dataclasses.replace(found, where=None)
            noon = datetime.datetime(2018, 1, 1, 12, tzinfo=datetime.UTC)
            return dataclasses.replace(found, when=noon + datetime.timedelta(days=9 * index))

        source.chip = chip  # type: ignore[method-assign]
        return source


def made(folder: pathlib.Path, sensor: str, names: str, split: Split = HALF, **settings) -> str:
    """Return the path of a store of the bands ``names``, words apart."""
    bands = tuple(names.split())
    one = Sensed(
        **{"sensor": sensor, "names": bands, "bands": len(bands), "label": "none", "samples": 30}
        | settings
    )
    build(one, folder, split, progress=False)
    return str(folder)


def three(folder: pathlib.Path) -> tuple[str, str, str]:
    """Return stores of Sentinel-2 (4 bands, 16 px of 10 m), Landsat 8 (3 bands, 8 px of 30 m) and
    Sentinel-1 (VV and VH, 16 px of 10 m), 30 samples each."""
    return (
        made(folder / "s2", "sentinel2_l1c", "B02 B03 B04 B08", size=16),
        made(folder / "l8", "landsat8_oli", "B4 B3 B6", size=8, gsd=30.0, seed=1),
        made(folder / "s1", "sentinel1_grd", "VV VH", size=16, dtype="float32", seed=2),
    )
