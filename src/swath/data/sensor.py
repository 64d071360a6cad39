"""What a number in an image means: bands, wavelengths, resolution, scale, no-data.

A sensor is a YAML file in ``swath/sensors``; a user's own file works the same. A pixel value
``v`` stands for ``v * scale + offset`` of ``unit``. To add a sensor, add one file.
"""

from dataclasses import dataclass


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
