"""What a number in an image means: bands, wavelengths, resolution, scale, no-data.

A sensor is a YAML file in ``swath/sensors``; a user's own file works the same. A pixel value
``v`` stands for ``v * scale + offset`` of ``unit``. To add a sensor, add one file.
"""

from __future__ import annotations

import bisect
import dataclasses
import functools
import pathlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from swath.config import ConfigError, NoSuch, load, named_file
from swath.text import near

FOLDER = pathlib.Path(__file__).parent.parent / "sensors"


@dataclass(frozen=True, kw_only=True)
class Band:
    """One channel of an image."""

    name: str
    wavelength_nm: float | None = None
    """Centre wavelength in nm; None where it has no meaning (radar, elevation)."""
    width_nm: float | None = None
    """Full width at half maximum in nm."""
    gsd_m: float | None = None
    """Ground sampling distance in m."""


@dataclass(frozen=True, kw_only=True)
class Sensor:
    """The bands of an instrument and how its numbers are read."""

    HELP: ClassVar[str] = f"; for whole ones see {FOLDER}"
    name: str
    bands: tuple[Band, ...]
    scale: float = 1.0
    """Unit per count."""
    offset: float = 0.0
    unit: str = ""
    nodata: float | None = None
    """The value that means "not observed"; NaN is always no-data in float imagery."""
    colour: tuple[str, ...] = ()
    """Names of the bands shown as red, green and blue."""
    source: str = ""
    """Where these facts come from."""

    def __post_init__(self) -> None:
        names = self.names
        if not self.scale > 0:
            raise ConfigError(f"sensor {self.name}: scale={self.scale:g} must be above 0")
        twice = sorted({n for n in names if names.count(n) > 1})
        if twice:
            raise ConfigError(f"sensor {self.name}: band {', '.join(twice)} is there twice")

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the bands, in order."""
        return tuple(band.name for band in self.bands)

    def select(self, names: Iterable[str]) -> Sensor:
        """Return the sensor with the bands ``names``, in that order; ConfigError if one is
        unknown or named twice. Where a colour's band is not selected, ``colour`` becomes empty."""
        known = {band.name: band for band in self.bands}
        names = tuple(names)
        if not names:
            raise ConfigError(f"sensor {self.name}: no band is selected")
        for name in names:
            if name not in known:
                raise ConfigError(f"{self.name} has no band {name!r}{near(name, known)}")
        if len(set(names)) < len(names):
            raise ConfigError(f"bands {', '.join(names)}: one is named twice")
        return dataclasses.replace(
            self,
            bands=tuple(known[name] for name in names),
            colour=self.colour if set(self.colour) <= set(names) else (),
        )

    def observed(self, image: np.ndarray) -> np.ndarray:
        """Return where ``image``, pixels as stored of any shape, was observed, bool."""
        if image.dtype.kind == "f":
            seen = np.isfinite(image)
            return seen if self.nodata is None else seen & (image != self.nodata)
        if self.nodata is None:
            return np.ones(image.shape, bool)
        return image != self.nodata  # nothing equals NaN

    def counted(self, scale: float | None, offset: float | None) -> Sensor:
        """Return the sensor with another unit per count, or offset; None: as it is."""
        return dataclasses.replace(
            self,
            scale=self.scale if scale is None else scale,
            offset=self.offset if offset is None else offset,
        )


REGIONS_NM = (1000.0, 3000.0)
"""Where the short-wave infrared begins, and where what is seen is heat."""


def groups_of(bands: Iterable[Band]) -> tuple[int, ...]:
    """Return for each band the number of its group: bands of one pixel size and one region of the
    spectrum (visible and near infrared, short-wave, thermal) see much the same.

    Where these tell none of the bands apart, as of radar, each is a group of its own. Of
    Sentinel-2 the groups of 10 and 20 m are those of SatMAE (Cong et al. 2022, arXiv:2207.08051).
    """
    kinds = [(band.gsd_m, _region(band.wavelength_nm)) for band in bands]
    numbers = {kind: number for number, kind in enumerate(dict.fromkeys(kinds))}
    if len(numbers) == 1:
        return tuple(range(len(kinds)))
    return tuple(numbers[kind] for kind in kinds)


def _region(wavelength_nm: float | None) -> int | None:
    return None if wavelength_nm is None else bisect.bisect(REGIONS_NM, wavelength_nm)


def check_light(wanted: Iterable[Band], there: Iterable[Band], where: str) -> None:
    """Raise ConfigError if bands of one name, ``wanted`` by a model and in ``there``, see no light
    in common: B2 is green for Landsat 7 and blue for Landsat 8. where: begins the message."""
    wanted = tuple(wanted)
    if apart := other_light(wanted, there):
        told = ", ".join(
            f"{a.name} at {b.wavelength_nm:g} nm, not {a.wavelength_nm:g}" for a, b in apart
        )
        raise ConfigError(
            f"{where}{made_for(wanted)}; here is {told}: another instrument's colours under the "
            "same names. Correct the sensor if it is the wrong one, or train a model on this one"
        )


def other_light(wanted: Iterable[Band], there: Iterable[Band]) -> list[tuple[Band, Band]]:
    """Return the bands of ``wanted`` and ``there`` that have one name and no light in common."""
    known = {band.name: band for band in there}
    return [(b, known[b.name]) for b in wanted if b.name in known and _apart(b, known[b.name])]


def made_for(bands: Iterable[Band]) -> str:
    """Return in words which bands a model takes, and which of our sensors have them."""
    wanted = {band.name: band.wavelength_nm for band in bands}
    have = [
        name
        for name, sensor in shipped().items()
        if wanted.items() <= {band.name: band.wavelength_nm for band in sensor.bands}.items()
    ]
    of = f" of {' or '.join(have)}" if have else ""
    return f"the model takes {len(wanted)} bands ({', '.join(wanted)}){of}"


def _apart(one: Band, other: Band) -> bool:
    if one.wavelength_nm is None or other.wavelength_nm is None:
        return False
    # Where no width is known, 10 % of the wavelength, which is that of a broad band.
    widths = [b.width_nm or 0.1 * (b.wavelength_nm or 0) for b in (one, other)]
    return abs(one.wavelength_nm - other.wavelength_nm) > sum(widths) / 2


def sensors() -> list[str]:
    """Return the names of the sensors that ship with Swath."""
    return sorted(file.stem for file in FOLDER.glob("*.yaml"))


@functools.cache
def shipped() -> dict[str, Sensor]:
    """Return the sensors that ship with Swath, by name; read once, for each image may ask."""
    return {name: load_sensor(name) for name in sensors()}


def about(name: str) -> str:
    """Return what the sensor of that name is: the sentence that its file begins with, and bands."""
    written = (FOLDER / f"{name}.yaml").read_text().split("\nname:")[0]
    comment = " ".join(line.removeprefix("#").strip() for line in written.splitlines())
    sensor = load_sensor(name)
    count, names = len(sensor.bands), sensor.names
    shown = ", ".join(names if count <= 13 else (*names[:2], "...", names[-1]))
    sizes = sorted({band.gsd_m for band in sensor.bands if band.gsd_m is not None})
    at = f" at {', '.join(f'{size:g}' for size in sizes)} m" if sizes else ""
    return f"{comment.split('. ')[0].removesuffix('.')}; {count} bands{at}: {shown}"


def load_sensor(name: str | pathlib.Path) -> Sensor:
    """Return the sensor of that name (see :func:`sensors`), or of the user's YAML file."""
    try:
        return load(Sensor, [named_file(name, FOLDER, "sensor")])
    except NoSuch as error:
        if is_own(name) or "did you mean" in str(error):
            raise
        raise NoSuch(f"{error}; for other bands {of_your_own()}", error.path) from error


def is_own(name: str | pathlib.Path) -> bool:
    """Return whether ``name`` is a YAML file of the user's, and no sensor that ships with Swath."""
    return pathlib.Path(name).suffix in (".yaml", ".yml")


def of_your_own(count: int = 2) -> str:
    """Return, for the end of a message, how to describe ``count`` bands of no known sensor."""
    names = [f"{{name: b{number}}}" for number in range(1, count + 1)]
    if count > 4:
        names[2:-1] = ["..."]
    return (
        'write a file of your own, such as own.yaml with the two lines "name: own" and '
        f'"bands: [{", ".join(names)}]", and set sensor: own.yaml'
    )
