"""What folders of images have in common: which bands the files hold, and what these mean."""

from __future__ import annotations

import pathlib
from dataclasses import dataclass

from swath.data import files
from swath.data.dataset import Dataset
from swath.data.imagery import Imagery
from swath.data.sensor import Sensor, load_sensor
from swath.geo.channel import Channel


@dataclass(frozen=True, kw_only=True)
class Images(Dataset):
    """Settings of a dataset of images that are each one file with all its bands."""

    path: str
    """The folder of the images."""
    sensor: str = "rgb"
    """Name of a sensor that ships with Swath, or a YAML file like those."""
    scale: float | None = None
    """Unit per count, such as 1 for files that hold reflectance itself; None: the sensor's."""
    offset: float | None = None
    """What a count of 0 stands for, in the sensor's unit; None: the sensor's."""
    bands: tuple[str, ...] | None = None
    """Bands to use, in this order; None: all that the images have."""
    order: tuple[str, ...] | None = None
    """Bands of an image, channel by channel, "-" for none, as in [B02, B03, B04, "-"]; None: as the
    files describe them."""
    nodata: float | None = None
    """Pixel value that means "not observed"; None: as the files say, else the sensor."""
    licence: str = ""
    """Licence of the images and their labels; kept in the store."""
    source: str = ""
    """Attribution, as the licence wants it; kept in the store."""

    def counted(self) -> Sensor:
        """Return the sensor, as the files count."""
        return load_sensor(self.sensor).counted(self.scale, self.offset)

    def assume(self, scene: Imagery) -> Imagery:
        return scene.taken_for(self.sensor, self.scale, self.offset)

    def channels(self, image: pathlib.Path, sensor: Sensor) -> dict[str, Channel]:
        """Return where each band of ``sensor`` is in the file ``image``."""
        imagery = Imagery(
            path=str(image),
            sensor=self.sensor,
            bands=self.bands,
            order=self.order,
            nodata=self.nodata,
        )
        return files.channels(imagery, sensor)
