"""From numbers as stored to numbers a network likes, without losing sight of what was not observed.

``Normalize`` says how; ``Normalizer`` holds the numbers that follow from it for the bands of one
run. It is part of a trained model, and the same object normalises chips in training and windows
of a scene in mapping.
"""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from swath.config import ConfigError
from swath.data.sensor import Sensor

if TYPE_CHECKING:
    from torch import Tensor

    from swath.data.stats import BandStats

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Normalize:
    """How pixel values become inputs of a network."""

    kind: Literal["standardize", "scale", "none"] = "standardize"
    """standardize: subtract the mean and divide by the standard deviation of each band, both over
    observed training pixels. scale: the sensor's unit, such as reflectance. none: as stored."""
    clip: float | None = None
    """Largest distance from the mean, in standard deviations; what is farther is set to it.
    None: no limit."""

    def __post_init__(self) -> None:
        if self.clip is not None and self.kind != "standardize":
            raise ConfigError(
                f"clip={self.clip} has no effect with kind={self.kind}: it counts standard "
                f"deviations; leave it out or set kind: standardize"
            )
        if self.clip is not None and self.clip <= 0:
            raise ConfigError(f"clip={self.clip} must be above 0, or null for no limit")


@dataclass(frozen=True, kw_only=True)
class Normalizer:
    """What is done to each band: (value - shift) / factor; tuples are in the order of the bands."""

    bands: tuple[str, ...]
    shift: tuple[float, ...]
    factor: tuple[float, ...]
    nodata: tuple[float | None, ...]
    """The stored value that means "not observed"; NaN always does."""
    clip: float | None = None
    scale: tuple[float, ...]
    """Unit per count of the images it was made for."""
    offset: tuple[float, ...]
    unit: tuple[str, ...]

    @property
    def from_statistics(self) -> bool:
        """Whether shift and factor are means and deviations of training pixels, not a scale."""
        as_stored = all(f == 1 for f in self.factor)
        scaled = all(math.isclose(f * s, 1) for f, s in zip(self.factor, self.scale, strict=True))
        return not as_stored and not scaled

    def __call__(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return normalised pixels, float32 with 0 where not observed, and the observed, bool.

        image: (b, c, h, w) as stored, of any type; both results are (b, c, h, w) on its device.
        """
        import torch

        if image.shape[1] != len(self.bands):
            raise ConfigError(
                f"the model takes {len(self.bands)} bands ({', '.join(self.bands)}), the image has "
                f"{image.shape[1]}"
            )

        def per_band(values: Sequence[float], dtype: torch.dtype) -> Tensor:
            return torch.tensor(values, dtype=dtype, device=image.device).view(-1, 1, 1)

        wide = image.dtype in (torch.int32, torch.int64, torch.uint32, torch.float64)
        dtype = torch.float64 if wide else torch.float32  # float32 holds 24 bits
        scaled = image.to(dtype, copy=True)  # a new tensor: from here on in place
        marks = [math.nan if v is None else v for v in self.nodata]  # nothing equals NaN
        absent = scaled == per_band(marks, dtype)
        if image.is_floating_point():
            absent |= ~scaled.isfinite()
        scaled.sub_(per_band(self.shift, dtype)).div_(per_band(self.factor, dtype))
        if self.clip is not None:
            scaled.clamp_(-self.clip, self.clip)
        # Nearly all microbatches are whole. To ask is cheap here, and a wait on a device.
        if image.device.type != "cpu" or absent.view(torch.uint8).amax():
            scaled.masked_fill_(absent, 0.0)
        return scaled.float(), absent.logical_not_()

    def of(self, sensors: Sequence[Sensor]) -> Normalizer:
        """Return what does the same to images of other sensors, one for each band: reflectance
        0..1 where it was counts, say, or counts with another offset. Their no-data counts."""
        shift, factor = list(self.shift), list(self.factor)
        unlike = []
        for i, known in enumerate(zip(self.scale, self.offset, self.unit, strict=True)):
            here = sensors[i]
            if known == (here.scale, here.offset, here.unit):
                continue
            scale, offset, unit = known
            if unit != here.unit or not unit:
                unlike.append(i)
                continue
            # A pixel v is a v + b in counts of the images that this was made for.
            a, b = here.scale / scale, (here.offset - offset) / scale
            shift[i], factor[i] = (shift[i] - b) / a, factor[i] / a
        if unlike:
            log.warning(
                "sensor %s counts %s in %g %s, the model was trained on counts of %g %s; they are "
                "taken for the same",
                sensors[unlike[0]].name,
                ", ".join(self.bands[i] for i in unlike),
                *(sensors[unlike[0]].scale, sensors[unlike[0]].unit or "(unit not said)"),
                *(self.scale[unlike[0]], self.unit[unlike[0]] or "(unit not said)"),
            )
        return dataclasses.replace(
            self,
            shift=tuple(shift),
            factor=tuple(factor),
            nodata=tuple(_nodata(sensor) for sensor in sensors),
            scale=tuple(sensor.scale for sensor in sensors),
            offset=tuple(sensor.offset for sensor in sensors),
            unit=tuple(sensor.unit for sensor in sensors),
        )

    def only(self, places: Sequence[int]) -> Normalizer:
        """Return the Normalizer of some of the bands."""

        def some(values: tuple[Any, ...]) -> tuple[Any, ...]:
            return tuple(values[i] for i in places)

        return Normalizer(
            bands=some(self.bands),
            shift=some(self.shift),
            factor=some(self.factor),
            nodata=some(self.nodata),
            clip=self.clip,
            scale=some(self.scale),
            offset=some(self.offset),
            unit=some(self.unit),
        )


def normalizer(
    settings: Normalize, bands: Sequence[tuple[Sensor, int]], stats: Sequence[BandStats] | None
) -> Normalizer:
    """Return the Normalizer of ``bands``, each a sensor and a place in its bands.

    stats: of the same bands, over training pixels; needed to standardize.
    Raises ConfigError if a band was never observed, so that nothing is known of it.
    """
    names = tuple(sensor.bands[i].name for sensor, i in bands)
    shift, factor = [0.0] * len(bands), [1.0] * len(bands)
    if settings.kind == "scale":
        shift = [-sensor.offset / sensor.scale for sensor, _ in bands]
        factor = [1 / sensor.scale for sensor, _ in bands]
    if settings.kind == "standardize":
        assert stats is not None, "standardize needs statistics"
        unseen = [s.name for s in stats if not s.pixels]
        if unseen:
            raise ConfigError(
                f"no training pixel of band {', '.join(unseen)} was observed, so it cannot be "
                f"standardized; leave it out (data.bands) or look at no-data (swath data stats)"
            )
        shift = [s.mean for s in stats]
        factor = [s.std or 1.0 for s in stats]  # a constant band becomes 0
    return Normalizer(
        bands=names,
        shift=tuple(shift),
        factor=tuple(factor),
        nodata=tuple(_nodata(sensor) for sensor, _ in bands),
        clip=settings.clip,
        scale=tuple(sensor.scale for sensor, _ in bands),
        offset=tuple(sensor.offset for sensor, _ in bands),
        unit=tuple(sensor.unit for sensor, _ in bands),
    )


def _nodata(sensor: Sensor) -> float | None:
    return None if sensor.nodata is None or math.isnan(sensor.nodata) else float(sensor.nodata)
