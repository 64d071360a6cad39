"""Whether pixels can be what their sensor says: reflectance is known to lie between 0 and about 1.

A file of reflectance 0..1 that is read as counts of 0.0001 trains as well as any other, and then
maps nothing right. Only what cannot be is an error. Counts of a night or of deep water are small,
so a small number alone says nothing; fractions of a count over the whole range do. Units other
than reflectance (decibel, plain counts) have no such bounds.

What can be, but hardly ever is, is a suspicion, told with its figures. Somewhere in a scene some
band is dark: shadow, water, plants in red, snow at 1.6 um, anything at 1.375 um. Where none is, an
offset may have been forgotten; only desert and closed cloud look like that as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from swath.config import ConfigError
from swath.data.sensor import Sensor

if TYPE_CHECKING:
    from swath.data.normalize import Normalizer
    from swath.data.stats import BandStats

QUANTILES = (0.02, 0.5, 0.98)
"""What is looked at of each band."""

_FEWEST = 32  # pixels that tell something
_ENOUGH = 8192  # pixels of a sample that are looked at
_BRIGHTEST = 2.0  # reflectance of half a scene; cloud and snow reach 1.3, sun glint 2 in places
_BRIGHT = 1.6  # of its brightest pixels
_NEGATIVE = -0.05  # reflectance; water comes out at -0.02 where the atmosphere was overcorrected
_DARK = (0.095, 0.45)  # darkest band's darkest pixels: Sentinel-2 with 1000 added, Landsat level 1
_FAR, _FAR_HALF = 5.0, 3.0  # deviations between medians and training: of any band, of half of them
_SHIFT, _ALIKE = 0.07, 0.03  # reflectance that all bands are shifted by, and their deviation in it
_FELT = 0.5  # deviations that such a shift has at least: a median may differ from a mean by less
_DARKEST = 0.1  # reflectance that the largest number of a type must reach
_STRAY = 10.0  # deviations of a band, in what nearly all of its pixels span; of radar, 1 or so
_HUGE = 1e30  # a number that nothing measured in any unit has
_COUNTS = 2.0  # counts that nearly all of a scene in real counts exceeds somewhere


def thinned(sample: np.ndarray) -> np.ndarray:
    """Return some thousand pixels of ``sample``, evenly spread: enough to tell a scale."""
    return np.ravel(sample)[:: max(1, sample.size // _ENOUGH)]


def levels(samples: Iterable[np.ndarray]) -> np.ndarray:
    """Return :data:`QUANTILES` (b, 3) of each band's observed pixels; NaN where there are few."""
    some = [thinned(sample) for sample in samples]
    none = np.full(len(QUANTILES), np.nan)
    return np.array([np.quantile(s, QUANTILES) if len(s) >= _FEWEST else none for s in some])


def check_scale(sensor: Sensor, samples: Sequence[np.ndarray], where: str) -> None:
    """Raise ConfigError if pixels cannot be counts of ``sensor``.

    samples: observed pixels as stored, of each band; of any shape.
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

    for band, sample in zip(sensor.names, samples, strict=False):
        seen = thinned(sample)
        seen = seen[np.isfinite(seen) & (seen != 0)]
        middle = float(np.median(seen)) if len(seen) >= _FEWEST else 0.0
        if len(seen) >= _FEWEST and middle * sensor.scale + sensor.offset < _NEGATIVE:
            taken = "their offset seems to be taken off already: set offset: 0 beside sensor, or "
            again = taken if sensor.offset < 0 else ""
            raise ConfigError(
                f"{where}: half of the pixels of band {band} are below {middle:.4g}; {each}, so "
                f"that they are a reflectance below {means(middle)}, which nothing has. If another "
                f"sensor took them, say which; {again}set nodata, if they "
                "mean that nothing was observed"
            )


def suspicions(sensor: Sensor, bands: np.ndarray) -> Iterator[str]:
    """Yield what is hardly ever so of reflectance, a sentence each.

    bands: :data:`QUANTILES` (b, 3) of each band, as stored; NaN if there were no pixels.
    """
    if sensor.unit != "reflectance" or np.isnan(bands).all():
        return
    low, _, high = bands.T * sensor.scale + sensor.offset
    read = f"sensor {sensor.name}, scale {sensor.scale:g} and offset {sensor.offset:g}"
    for wrong, value, which in (
        (low < _NEGATIVE, low, "darkest 2 % are below"),
        (high > _BRIGHT, high, "brightest 2 % are above"),
    ):
        if wrong.any():
            told = ", ".join(f"{sensor.names[i]} {value[i]:.3g}" for i in np.flatnonzero(wrong)[:6])
            yield (
                f"the {which} a reflectance that is rare ({told}), read with {read}. Check these, "
                "and that pixels which were not observed are marked by nodata"
            )
    waves = [band.wavelength_nm or 0.0 for band in sensor.bands]
    if len(low) < 3 or not any(400 < nm < 700 or 1300 < nm < 2500 for nm in waves):
        return  # plants are bright in near infrared
    darkest = int(np.nanargmin(low))
    if not low[darkest] >= _DARK[0]:
        return
    if low[darkest] >= _DARK[1]:
        hint = "so do counts of Landsat, level 1: if these are such, set sensor: landsat8_oli"
    elif sensor.offset == 0:
        hint = (
            "so do Sentinel-2 products of processing baseline 04.00 and later (since January "
            "2022), which hold 1000 counts more: if this is one, set offset: -0.1 beside sensor"
        )
    else:
        hint = "if it is none, check scale and offset beside sensor"
    yield (
        f"no band is dark anywhere: the darkest 2 % of {sensor.names[darkest]}, the darkest band,"
        f" reach a reflectance of {low[darkest]:.3g}, read with {read}. Desert and closed cloud "
        f"look so; {hint}"
    )


def strays(found: Iterable[BandStats]) -> Iterator[tuple[str, bool]]:
    """Yield of each band that a few pixels, far from all others, would switch off when it is
    divided by its deviation: a sentence, and whether the value is one that nothing has."""
    for band in found:
        span = band.p98 - band.p02
        value = max(band.low, band.high, key=lambda end: abs(end - band.p50))
        told = f"{value:.9g}" if abs(value) < 1e9 else str(np.float32(value))  # finds it again
        if abs(value) >= _HUGE or (span > 0 and band.std > _STRAY * span):
            yield (
                f"band {band.name}: nearly all pixels are {band.p02:.4g} to {band.p98:.4g}, yet "
                f"some are {told}, so that the deviation is {band.std:.3g} and the band, "
                "divided by it, says nothing. If that value means that nothing was observed, set "
                f"nodata: {told} beside sensor, and build the store again",
                abs(value) >= _HUGE,
            )


def unlike(made: Normalizer, here: Normalizer, medians: np.ndarray) -> str:
    """Return in what the bands of a scene lie far from what a model was trained on; "" if nowhere,
    or if that is not known.

    made: the model's, which knows means and deviations if it standardizes; here: the same for the
    scene's scale and offset. medians: of each band, as stored (b,).
    """
    if not made.from_statistics:
        return ""
    mean, deviation = np.array(here.shift), np.array(here.factor)
    scale, offset = np.array(here.scale), np.array(here.offset)
    off = (medians - mean) / deviation
    shift = (medians - mean) * scale
    far = np.abs(off) > _FAR
    if np.mean(np.abs(off) > _FAR_HALF) >= 0.5:
        far = np.abs(off) > _FAR_HALF
    reflectance = set(here.unit) == {"reflectance"} and len(shift) > 2
    alike = (
        reflectance
        and abs(shift.mean()) > _SHIFT
        and shift.std() < _ALIKE
        and np.median(np.abs(off)) > _FELT
    )
    if not far.any() and not alike:
        return ""
    shown = np.flatnonzero(far if far.any() else np.ones_like(far))[:6]
    told = ", ".join(
        f"{here.bands[i]} {medians[i] * scale[i] + offset[i]:.3g} (trained on "
        f"{mean[i] * scale[i] + offset[i]:.3g} +- {deviation[i] * scale[i]:.2g})"
        for i in shown
    )
    said = f"medians of bands lie far from what the model was trained on: {told}"
    if alike:
        return (
            f"{said}; all by about {shift.mean():.2g}: check offset beside sensor, here and there"
        )
    return f"{said}; expect little of a map of what it has not seen, and check scale and offset"


def _no_offset(sensor: Sensor) -> str:
    return ", offset: 0" if sensor.offset else ""
