"""A scene as files lie on disk, seen as one image: bands of several resolutions on one grid.

``Imagery`` says which files and bands; ``Imagery.open`` checks them and gives a ``Scene``, which
reads any window in the native type of the files. Cutting chips and labels are left to
``swath.datasets``.
"""

from __future__ import annotations

import dataclasses
import datetime
import functools
import pathlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from swath.config import ConfigError
from swath.data.chip import Ground
from swath.data.nodata import mark, no_data
from swath.data.plausible import check_scale, levels
from swath.data.product import pixel_m, warn_of_offset
from swath.data.sensor import Sensor, load_sensor, of_your_own, sensors
from swath.geo import warp
from swath.geo.channel import Channel
from swath.geo.raster import check_crs, crs_name, extent
from swath.geo.tiles import Tiles
from swath.geo.window import Window

if TYPE_CHECKING:
    from odc.geo.geobox import GeoBox


class NoData(ConfigError):
    """A band of a scene has no data anywhere."""


@dataclass(frozen=True, kw_only=True)
class Georeference:
    """A place on the Earth, taken instead of what the files say."""

    crs: str
    """Coordinate reference system, such as "EPSG:32633"."""
    transform: tuple[float, ...] | None = None
    """The affine transform's a, b, c, d, e, f: (a, e) is the pixel size, (c, f) the outer corner
    of the upper left pixel. None: as the files say. With a transform of its own, every file must
    have the same pixels."""

    def __post_init__(self) -> None:
        if self.transform is not None and len(self.transform) != 6:
            raise ConfigError(f"transform has {len(self.transform)} numbers; it takes 6 (a..f)")


@dataclass(frozen=True, kw_only=True)
class Imagery:
    """Which raster files make up a scene, and the one grid that they are brought to."""

    path: str
    """A folder with one file per band, a product as ESA delivers it (its .SAFE folder), or one file
    with all bands."""

    sensor: str | None = None
    """Name of a sensor that ships with Swath (swath show --kinds lists them), or a YAML file like
    those. It has to be said; None is for predict.scene alone: what the store was built from."""

    scale: float | None = None
    """Unit per count, such as 1 for files that hold reflectance itself; None: the sensor's."""

    offset: float | None = None
    """What a count of 0 stands for, in the sensor's unit, such as -0.1 for Sentinel-2 products of
    processing baseline 04.00 and later; None: the sensor's."""

    bands: tuple[str, ...] | None = None
    """Bands to use, in this order. None: all of the sensor (of a single file: all that it has)."""

    files: str | dict[str, str] | None = None
    """Where each band is, within ``path``: a pattern such as "*_{band}_20m.jp2", or band: file.
    "cube.tif#3" is the third channel of a file; "netcdf:{path}/cube.nc:B2" a name in GDAL's terms.
    None: the files whose names end in the band's (..._B02.jp2, ..._B02_10m.jp2). Of several with
    pixels of different size, the one whose pixels the instrument saw (the sensor's gsd_m)."""

    order: tuple[str, ...] | None = None
    """Bands of a single file, channel by channel, "-" for a channel that is none. None: as the
    file's own band descriptions say; without any, as a sensor file of your own lists as many."""

    grid: str | None = None
    """The band whose pixels the scene has. None: the finest one's."""

    resolution_m: float | None = None
    """Pixel size in m (in units of the CRS); None: that of the grid band."""

    crs: str | None = None
    """Coordinate reference system of the scene; None: that of the grid band."""

    resampling: Literal["nearest", "bilinear", "cubic", "average"] = "bilinear"
    """How bands of another grid are brought to the scene's."""

    nodata: float | None = None
    """Value that means "not observed" in all files. None: as the files say, else the sensor."""

    georeference: Georeference | None = None
    """For files without (or with a wrong) place on the Earth."""

    when: str | None = None
    """Time of acquisition, UTC, such as 2017-02-16T10:21."""

    name: str | None = None
    """Name of the scene; None: that of ``path``."""

    def taken_for(
        self, sensor: str | None, scale: float | None = None, offset: float | None = None
    ) -> Imagery:
        """Return it as seen by ``sensor``, with this scale and offset where it says none itself."""
        return dataclasses.replace(
            self,
            sensor=sensor,
            scale=scale if self.scale is None else self.scale,
            offset=offset if self.offset is None else self.offset,
        )

    def __post_init__(self) -> None:
        if self.resolution_m is not None and self.resolution_m <= 0:
            raise ConfigError(f"resolution_m={self.resolution_m:g} is not a size in m")
        if self.files is not None and self.order is not None:
            raise ConfigError(
                "files and order: order is for one file with all bands; give one of them"
            )
        if isinstance(self.files, str) and "{band}" not in self.files:
            raise ConfigError(f"files={self.files!r} has no {{band}} in it, as in '*_{{band}}.tif'")
        if self.when is not None:
            _time(self.when)

    @property
    def known_sensor(self) -> str:
        """``sensor``; ConfigError if it is not said."""
        if self.sensor is None:
            raise ConfigError(
                f"{self.path}: which sensor took this? Say it beside path, such as sensor: "
                f"sentinel2_l2a; there are {', '.join(sensors())}. For other bands {of_your_own()}"
            )
        return self.sensor

    def open(self) -> Scene:
        """Return the scene; reads headers and a few pixels of each band.

        Raises ConfigError: the sensor is not said; a file is missing, truncated, without or with
        another CRS, or all no-data; a band is missing, or is another one by the file's own
        description; pixels cannot be what the sensor says.
        """
        from swath.data import files

        if self.crs is not None:
            check_crs(self.crs)
        if self.georeference is not None:
            check_crs(self.georeference.crs)
        sensor = load_sensor(self.known_sensor).counted(self.scale, self.offset)
        channels = files.channels(self, sensor)
        sensor = sensor.select(channels)
        if self.grid is not None and self.grid not in channels:
            raise ConfigError(f"grid: band {self.grid!r} is not among {', '.join(channels)}")
        _check_places(channels)
        grid = self._grid(channels)
        _check_overlap(grid, channels)
        found = []
        for band, channel in channels.items():
            found.append(channel.some_observed())
            if not len(found[-1]):
                raise NoData(
                    f"{channel.file.path}: band {band} has no data anywhere (every pixel is "
                    f"no-data, {channel.nodata}); leave it out with bands, or check nodata"
                )
        check_scale(sensor, found, next(iter(channels.values())).file.path)
        warn_of_offset(pathlib.Path(self.path), sensor)
        return Scene(self, sensor, grid, list(channels.values()), levels(found))

    def _grid(self, channels: dict[str, Channel]) -> GeoBox:
        first = min(channels.values(), key=lambda c: pixel_m(c.grid))
        grid = channels[self.grid].grid if self.grid else first.grid
        if self.resolution_m is None and self.crs is None:
            return grid
        found = warp.at_resolution(grid, self.resolution_m, self.crs)
        if self.resolution_m is not None and found.crs is not None and found.crs.geographic:
            raise ConfigError(
                f"resolution_m={self.resolution_m:g}: {found.crs} counts in degrees; give a CRS in "
                "metres, such as the UTM zone's"
            )
        return found


class Scene:
    """One image (bands, height, width) on one grid, read window by window, from any thread."""

    def __init__(
        self,
        imagery: Imagery,
        sensor: Sensor,
        grid: GeoBox,
        channels: Sequence[Channel],
        seen: np.ndarray,
    ) -> None:
        self.imagery = imagery
        self.grid = grid
        self.levels = seen
        """Of each band its 2 % quantile, median and 98 % quantile (b, 3) in a few places."""
        self.dtype: np.dtype = np.result_type(*(channel.dtype for channel in channels))
        nodata = no_data(imagery.nodata, sensor, channels, self.dtype)
        self.sensor = dataclasses.replace(sensor, nodata=nodata)
        """The bands read, in order; ``nodata`` is the value that ``read`` gives where a band was
        not observed (NaN in float imagery, None if nothing says what it could be)."""
        self.height, self.width = (int(n) for n in grid.shape)
        self.name = imagery.name or pathlib.Path(imagery.path).resolve().stem
        self.when = _time(imagery.when) if imagery.when else None
        self.ground = Ground(
            name=self.name,
            height=self.height,
            width=self.width,
            transform=tuple(grid.affine)[:6],
            crs=crs_name(grid.crs),
        )
        self._channels = list(channels)
        self._tiles = Tiles(
            self.height,
            self.width,
            self._read,
            pixel_bytes=self.dtype.itemsize * len(channels),
        )

    def read(self, window: Window | None = None) -> np.ndarray:
        """Return pixels (bands, h, w) in ``dtype``; None: the whole scene.

        Where a band was not observed it has ``sensor.nodata``. A pixel's value does not depend on
        the window it is read in. Raises ConfigError if a file is damaged there; ValueError if the
        window reaches out of the scene.
        """
        return self._tiles.read(window or Window(0, 0, self.height, self.width))

    def observed(self, image: np.ndarray) -> np.ndarray:
        """Return where each band of ``image`` (bands, h, w), as read, was observed; same shape."""
        return self.sensor.observed(image)

    def valid(self, window: Window | None = None) -> np.ndarray:
        """Return where (h, w) all bands were observed."""
        return np.logical_and.reduce(self.observed(self.read(window)))

    def state(self) -> list[Any]:
        """Return, as JSON, something that is another if the files are: see :meth:`File.state`."""
        files = {channel.file.path: channel.file for channel in self._channels}
        return [file.state() for file in files.values()]

    @functools.cached_property
    def content(self) -> dict[str, str]:
        """For each band a fingerprint of the file it is read from: see :meth:`File.content`. It
        tells this scene from another of its name."""
        files = {channel.file.path: channel.file for channel in self._channels}
        known = {path: file.content() for path, file in files.items()}
        paths = [channel.file.path for channel in self._channels]
        return {band: known[path] for band, path in zip(self.sensor.names, paths, strict=True)}

    def close(self) -> None:
        """Close the files; reading again opens them anew."""
        for channel in self._channels:
            channel.file.close()

    def __enter__(self) -> Scene:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read(self, window: Window) -> np.ndarray:
        out = np.empty((len(self._channels), window.height, window.width), self.dtype)
        nodata = self.sensor.nodata
        for i, channel in enumerate(self._channels):
            values, observed = channel.on(self.grid, window, self.imagery.resampling)
            out[i] = mark(values.astype(self.dtype, copy=False), observed, nodata, channel)
        return out


def _check_places(channels: dict[str, Channel]) -> None:
    for band, channel in channels.items():
        if channel.file.grid is None:
            raise ConfigError(
                f"{channel.file.path}: band {band} {channel.file.lacks}; write it into the file "
                "(gdal_edit -a_srs ... -a_ullr ...) or give georeference (crs, transform)"
            )


def _check_overlap(grid: GeoBox, channels: dict[str, Channel]) -> None:
    for band, channel in channels.items():
        if warp.source_window(grid, channel.grid, 0) is None:
            raise ConfigError(
                f"{channel.file.path}: band {band} lies elsewhere than the scene: it covers "
                f"{extent(channel.grid)}, the scene {extent(grid)}; one of them has a wrong CRS "
                "or transform"
            )


def _time(text: str) -> datetime.datetime:
    try:
        found = datetime.datetime.fromisoformat(text)
    except ValueError as error:
        raise ConfigError(f"when={text!r} is not a time such as 2017-02-16T10:21") from error
    return found if found.tzinfo else found.replace(tzinfo=datetime.UTC)
