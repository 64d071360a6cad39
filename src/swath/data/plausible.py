"""Whether pixels can be what their sensor says: reflectance is known to lie between 0 and about 1.

A file of reflectance 0..1 that is read as counts of 0.0001 trains as well as any other, and then
maps nothing right. Only what cannot be is an error. Counts of a night or of deep water are small,
so a small number alone says nothing; fractions of a count over the whole range do. Units other
than reflectance (decibel, plain counts) have no such bounds.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from swath.config import ConfigError
from swath.data.sensor import Sensor

_FEWEST = 32  # pixels that tell something
_ENOUGH = 8192  # pixels of a sample that are looked at
_BRIGHTEST = 10.0  # reflectance; sun glint reaches about 2, saturated counts of Sentinel-2 6.6
_DARKEST = 0.1  # reflectance that the largest number of a type must reach
_COUNTS = 2.0  # counts that nearly all of a scene in real counts exceeds somewhere


def thinned(sample: np.ndarray) -> np.ndarray:
    """Return some thousand pixels of ``sample``, evenly spread: enough to tell a scale."""
    return np.ravel(sample)[:: max(1, sample.size // _ENOUGH)]


def check_scale(sensor: Sensor, samples: Iterable[np.ndarray], where: str) -> None:
    """Raise ConfigError if pixels cannot be counts of ``sensor``.

    samples: observed pixels as stored, of some band or place each; of any shape.
    where: what they were read from, for the message.
    """
    if sensor.unit != "reflectance":
        return
    pixels = np.concatenate([thinned(sample) for sample in samples])
    pixels = pixels[np.isfinite(pixels) & (pixels != 0)]  # 0 is often no-data, said or not
    if len(pixels) < _FEWEST:
        return
    half, most = (float(q) for q in np.quantile(np.abs(pixels), (0.5, 0.98)))
    found = f"{where}: pixels are {pixels.dtype}, {pixels.min():.4g} to {pixels.max():.4g}"
    each = f"sensor {sensor.name} reads them as counts of {sensor.scale:g}"
    if sensor.offset:
        each += f" from {sensor.offset:g} on"
    own = "or name a sensor file of your own with another scale and offset"

    def means(value: float) -> str:
        return f"{value * sensor.scale + sensor.offset:.3g}"

    if pixels.dtype.kind in "iu":
        top = int(np.iinfo(pixels.dtype).max)
        if top * sensor.scale + sensor.offset < _DARKEST:
            raise ConfigError(
                f"{found}; {each}, so that {top}, the largest number of that type, is a "
                f"reflectance of {means(top)}. They look like a picture made for the eye: take the "
                f"original files, or set scale and offset beside sensor, {own}"
            )
    elif sensor.scale < 0.01 and most <= _COUNTS and np.mean(pixels != np.rint(pixels)) > 0.5:
        raise ConfigError(
            f"{found}; {each}, so that nearly all are a reflectance below {means(most)}. They look "
            f"like reflectance itself: set scale: 1{_no_offset(sensor)} beside sensor, {own}"
        )
    if half * sensor.scale + sensor.offset > _BRIGHTEST:
        raise ConfigError(
            f"{found}; {each}, so that half of them are a reflectance above {means(half)}, which "
            f"nothing has. Set the scale of a count beside sensor, such as scale: 1e-4, {own}; or "
            "set nodata, if these mean that nothing was observed"
        )


def _no_offset(sensor: Sensor) -> str:
    return ", offset: 0" if sensor.offset else ""
