"""How pixels are shown: which bands as colours, and between which values from dark to bright."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from swath.data.chip import Modality
from swath.data.sensor import Sensor
from swath.data.stats import unplain

if TYPE_CHECKING:
    from swath.data.store import Store

_NODATA_GREY = 0.85
_LOOKED_AT = 16  # samples of a scene that say how dark and how bright it is
_MIDDLE, _LEAST_POWER = 0.35, 0.4  # brightness of a scene's median, and how far it is lightened


def colour_bands(sensor: Sensor, colour: str | tuple[str, ...] = "true") -> tuple[str, ...]:
    """Return the bands to show as red, green and blue, or one to show as grey.

    colour: "true": the sensor's own, else those nearest to the eye's; "false": near infrared, red,
        green, so that plants are red; or names of bands.
    """
    names = sensor.names
    if isinstance(colour, tuple):
        sensor.select(colour)  # raises if there is none of that name
        return colour
    if colour == "true" and sensor.colour and set(sensor.colour) <= set(names):
        return sensor.colour
    waves = [(b.wavelength_nm, b.name) for b in sensor.bands if b.wavelength_nm is not None]
    if len(waves) >= 3:
        wanted = (842, 665, 560) if colour == "false" else (665, 560, 490)
        near = tuple(min(waves, key=lambda w: abs(w[0] - nm))[1] for nm in wanted)
        if len(set(near)) == 3:
            return near
    if sensor.colour and set(sensor.colour) <= set(names):
        return sensor.colour
    return tuple(names[2::-1]) if len(names) >= 3 else (names[0],)


def stretched(
    image: np.ndarray, observed: np.ndarray, limits: np.ndarray | None = None
) -> np.ndarray:
    """Return bands (1 or 3, h, w) as (h, w, 3) in 0..1, light grey where not ``observed`` (h, w).

    limits: what is shown as 0 and as 1 in each band (c, 2), or also the power that is taken of what
        is between (c, 3); None: its own 2nd and 98th percentile.
    """
    pixels = image.astype(np.float32)
    if limits is None:
        seen = [band[observed] for band in pixels]
        limits = np.array([np.percentile(v, (2, 98)) if v.size else (0, 1) for v in seen])
    low, high = limits[:, :1, None], limits[:, 1:2, None]
    with np.errstate(invalid="ignore"):
        scaled = np.clip((pixels - low) / np.maximum(high - low, 1e-12), 0, 1)
    if limits.shape[1] > 2:
        scaled = scaled ** limits[:, 2:, None].astype(np.float32)
    scaled = np.broadcast_to(scaled, (3, *scaled.shape[1:])).transpose(1, 2, 0).copy()
    scaled[~observed] = _NODATA_GREY
    return scaled


def shown(
    image: np.ndarray,
    modality: Modality,
    limits: np.ndarray | None = None,
    colour: str | tuple[str, ...] = "true",
) -> np.ndarray:
    """Return ``image`` (c, h, w) as (h, w, 3) in 0..1: each colour between its ``limits``, as
    :func:`limits_of` tells them (None: its 2 % and its 98 % value in the image), light grey where
    there is no data."""
    sensor = modality.sensor
    pixels = image[_places(sensor, colour)]
    return stretched(pixels, np.all(sensor.observed(pixels), 0), limits)


def limits_of(
    store: Store,
    modality: Modality,
    indices: np.ndarray,
    colour: str | tuple[str, ...] = "true",
) -> np.ndarray:
    """Return how samples ``indices`` are shown, for each colour (n, 1 or 3, 3): from the 2 % to the
    98 % value of the scene that each was cut from, to the power that lightens a scene whose median
    would be dark. Of several scenes some are far darker than others, and would be black between the
    limits of all.

    They are taken from a few samples of the scene; where the store knows one ground at most, from
    the training part.
    """
    chosen = _places(modality.sensor, colour)
    stats = unplain(store.attributes["stats"])[modality.name]
    every = _lightened(np.array([(stats[i].p02, stats[i].p50, stats[i].p98) for i in chosen]))
    found = np.broadcast_to(every, (len(indices), *every.shape)).copy()
    ground = store.column("where")[:, 0].astype(np.int64)
    if len(store.contents.grounds) < 2:
        return found
    for number in np.unique(ground[indices]).tolist():
        mine = np.flatnonzero(ground == number)
        some = mine[np.linspace(0, len(mine) - 1, min(_LOOKED_AT, len(mine))).astype(int)]
        read = store.read(some, (modality.name,), label=False).result()[modality.name]
        pixels = read[:, chosen].swapaxes(0, 1)
        seen = np.all(modality.sensor.observed(pixels), 0)
        if number >= 0 and seen.any():
            values = np.percentile(pixels[:, seen], (2, 50, 98), axis=1).T
            found[ground[indices] == number] = _lightened(values)
    return found


def _lightened(values: np.ndarray) -> np.ndarray:
    """Return low, high and power (c, 3) from low, median and high (c, 3) of the colours: the power,
    one for all, brings the median to ``_MIDDLE`` if it is darker."""
    low, middle, high = values.T
    share = np.clip(((middle - low) / np.maximum(high - low, 1e-12)).mean(), 1e-6, _MIDDLE)
    power = max(np.log(_MIDDLE) / np.log(share), _LEAST_POWER)
    return np.stack([low, high, np.full(len(low), power)], 1)


def stretch(store: Store) -> str:
    """Return between which values :func:`limits_of` shows pixels, in words."""
    whole = "scene" if len(store.contents.grounds) > 1 else "training part"
    return (
        f"each colour from the 2 % to the 98 % value of the {whole}, lightened where that is dark"
    )


def _places(sensor: Sensor, colour: str | tuple[str, ...]) -> list[int]:
    return [sensor.names.index(name) for name in colour_bands(sensor, colour)]
