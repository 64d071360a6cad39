"""Which value of an image means "not observed", and how it is put where that is so."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from swath.config import ConfigError
from swath.data.sensor import Sensor
from swath.geo.channel import Channel


def mark(
    values: np.ndarray, observed: np.ndarray, nodata: float | None, channel: Channel
) -> np.ndarray:
    """Return ``values`` (h, w) with ``nodata`` exactly where they were not ``observed``: an
    observed value that happens to be ``nodata`` moves by one count. ConfigError if ``nodata`` is
    None and needed."""
    if nodata is None:
        if not observed.all():
            raise ConfigError(
                f"{channel.file.path}: channel {channel.number} was not observed everywhere and "
                "nothing says which value means no-data; give nodata"
            )
        return values
    clash = observed & (values == nodata)  # never so for NaN
    if clash.any():
        values[clash] = nodata + (1 if nodata < np.iinfo(values.dtype).max else -1)
    values[~observed] = nodata
    return values


def no_data(
    asked: float | None, sensor: Sensor, channels: Sequence[Channel], dtype: np.dtype
) -> float | None:
    """Return the value that means "not observed" in imagery of ``dtype``: NaN in real numbers,
    else what was asked for, or what the files or the sensor say; None if nothing says it."""
    if dtype.kind == "f":
        return float("nan")
    if asked is not None and not _fits(asked, dtype):
        raise ConfigError(f"nodata={asked:g} cannot occur in {dtype} imagery")
    said = (asked, *(channel.nodata for channel in channels), sensor.nodata)
    return next((int(n) for n in said if n is not None and _fits(n, dtype)), None)


def _fits(value: float, dtype: np.dtype) -> bool:
    limits = np.iinfo(dtype)
    return bool(limits.min <= value <= limits.max) and float(value).is_integer()
