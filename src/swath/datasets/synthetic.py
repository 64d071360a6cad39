"""Invented samples that can be learned: for tests, benchmarks and a first look without data.

Smooth random fields over one common ground say what is where: the class of a pixel is the
largest of its fields, a quantity is a field itself. An image shows each class by a spectrum of
its own, plus noise. Everything follows from ``seed`` and the sample's number alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from swath.config import ConfigError
from swath.data.chip import IGNORE, Chip, Contents, Ground, Label, Modality, Where
from swath.data.dataset import Dataset
from swath.data.sensor import Band, Sensor

NODATA = 0
_WAVES = 12  # cosines that make up one field


@dataclass(frozen=True, kw_only=True)
class Synthetic(Dataset):
    """Invented samples on one ground, side by side in rows."""

    samples: int = 256
    """How many."""
    size: int = 32
    """Height and width of a sample in pixels."""
    bands: int = 4
    """Bands of the modality "fine"."""
    coarse: int = 0
    """Bands of a second modality, "coarse", with half as many rows and columns; 0: none."""
    label: Literal["class", "flags", "mask", "value", "raster", "none"] = "mask"
    """What is known about a sample; see Label."""
    classes: int = 3
    """Classes, or quantities if the label is a value or a raster."""
    noise: float = 0.5
    """Standard deviation of a pixel's noise; the classes' spectra differ by about 1."""
    unlabelled: float = 0.0
    """Share of pixels without a label (mask and raster only)."""
    nodata: float = 0.0
    """Share of samples that lack the image in one corner, a quarter of the sample."""
    dtype: Literal["uint8", "uint16", "int16", "float32"] = "uint16"
    """Type of a pixel."""
    seed: int = 0
    """Another seed is another world."""

    def __post_init__(self) -> None:
        for name, least in (("samples", 1), ("size", 4), ("bands", 1), ("coarse", 0)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name}={getattr(self, name)} must be at least {least}")
        if not 1 <= self.classes <= 254:
            raise ConfigError(f"classes={self.classes} must be 1 to 254")
        if self.coarse and self.size % 2:
            raise ConfigError(f"size={self.size} must be even for a coarse modality of half of it")
        if self.unlabelled and self.label not in ("mask", "raster"):
            raise ConfigError(f"unlabelled={self.unlabelled} has no effect on label={self.label}")

    def open(self) -> SyntheticSource:
        return SyntheticSource(self)


class SyntheticSource:
    """The samples of a :class:`Synthetic`."""

    def __init__(self, settings: Synthetic) -> None:
        self.settings = s = settings
        self.columns = math.ceil(math.sqrt(s.samples))
        rows = math.ceil(s.samples / self.columns)
        wave = np.random.default_rng([s.seed, 0])
        fields = (s.classes, _WAVES)
        angle = wave.uniform(0, 2 * np.pi, fields)
        length = wave.uniform(1.0, 4.0, fields) * s.size  # in pixels
        self._along = np.stack([np.cos(angle), np.sin(angle)]) * (2 * np.pi / length)
        self._phase = wave.uniform(0, 2 * np.pi, fields)
        self._spectra = wave.normal(0, 1, (s.classes, s.bands + s.coarse))
        pixels = s.label in ("mask", "raster")
        modalities = [self._modality("fine", s.bands, s.size, 10.0)]
        if s.coarse:
            modalities.append(self._modality("coarse", s.coarse, s.size // 2, 20.0))
        names = tuple(f"c{i}" for i in range(s.classes)) if s.label != "none" else ()
        self.contents = Contents(
            modalities=tuple(modalities),
            label=Label(kind=s.label, classes=names),
            grounds=(
                Ground(
                    name="synthetic",
                    height=rows * s.size,
                    width=self.columns * s.size,
                    transform=(10.0, 0.0, 500000.0, 0.0, -10.0, 5800000.0),
                    crs="EPSG:32633",
                ),
            ),
            groupings=("block", "patch") if pixels else ("block",),
            grouped_pixels=("patch",) if pixels else (),
            licence="CC0-1.0",
            source="Swath, invented",
        )

    def _modality(self, name: str, bands: int, size: int, gsd_m: float) -> Modality:
        sensor = Sensor(
            name=f"synthetic_{name}",
            bands=tuple(
                Band(name=f"{name[0].upper()}{i}", wavelength_nm=450.0 + 50 * i, gsd_m=gsd_m)
                for i in range(bands)
            ),
            nodata=NODATA,
            colour=tuple(f"{name[0].upper()}{min(i, bands - 1)}" for i in (2, 1, 0)),
        )
        return Modality(
            name=name, sensor=sensor, height=size, width=size, dtype=self.settings.dtype
        )

    def __len__(self) -> int:
        return self.settings.samples

    def chip(self, index: int) -> Chip:
        s = self.settings
        draw = np.random.default_rng([s.seed, 1, index])
        row, col = divmod(index, self.columns)
        y, x = np.mgrid[row * s.size : (row + 1) * s.size, col * s.size : (col + 1) * s.size]
        fields = self._fields(y, x)  # (k, h, w)
        if s.label == "class":
            shown = np.zeros_like(fields)
            shown[fields.mean((1, 2)).argmax()] = 1
        elif s.label in ("value", "raster", "none"):
            shown = fields
        else:
            shown = np.eye(s.classes)[fields.argmax(0)].transpose(2, 0, 1)
        image = np.einsum("khw,kb->bhw", shown, self._spectra)
        corner = draw.random() < s.nodata
        images = {"fine": self._counts(image[: s.bands], draw, corner)}
        if s.coarse:
            half = image[s.bands :].reshape(s.coarse, s.size // 2, 2, s.size // 2, 2).mean((2, 4))
            images["coarse"] = self._counts(half, draw, corner)
        groups: dict[str, np.ndarray | int] = {
            "block": row // 2 * ((self.columns + 1) // 2) + col // 2
        }
        if s.label in ("mask", "raster"):
            side = s.size // 2  # patches straddle samples: 1 pixel further than a multiple
            across = (self.columns * s.size) // side + 1
            groups["patch"] = ((y + 1) // side * across + (x + 1) // side).astype(np.int32)
        return Chip(
            name=f"{index:06d}",
            images=images,
            label=self._label(fields, shown, draw),
            groups=groups,
            where=Where(0, row * s.size, col * s.size, s.size, s.size),
        )

    def _fields(self, y: np.ndarray, x: np.ndarray) -> np.ndarray:
        turn = np.einsum("pkw,phx->kwhx", self._along, np.stack([y, x]).astype(np.float64))
        return np.cos(turn + self._phase[:, :, None, None]).sum(1) / math.sqrt(_WAVES / 2)

    def _counts(self, image: np.ndarray, draw: np.random.Generator, corner: bool) -> np.ndarray:
        """Turn ``image`` (about -4..4) into counts of the stored type, none of them NODATA."""
        image = image + draw.normal(0, self.settings.noise, image.shape)
        dtype = np.dtype(self.settings.dtype)
        gain, middle = (15.0, 128.0) if dtype == np.uint8 else (500.0, 5000.0)
        counts = np.clip(image * gain + middle, 1, 255 if dtype == np.uint8 else 30000)
        if dtype.kind in "iu":
            counts = np.rint(counts)
        if corner:
            counts[:, : image.shape[1] // 2, : image.shape[2] // 2] = NODATA
        return counts.astype(dtype)

    def _label(
        self, fields: np.ndarray, shown: np.ndarray, draw: np.random.Generator
    ) -> np.ndarray | int | float | None:
        kind = self.settings.label
        if kind == "none":
            return None
        if kind == "class":
            return int(shown.sum((1, 2)).argmax())
        if kind == "flags":
            return (shown.mean((1, 2)) > 0.05).astype(np.uint8)
        if kind == "value":
            return fields.mean((1, 2)).astype(np.float32)
        hidden = draw.random(fields.shape[1:]) < self.settings.unlabelled
        if kind == "mask":
            return np.where(hidden, IGNORE, fields.argmax(0)).astype(np.uint8)
        return np.where(hidden, np.nan, fields).astype(np.float32)
