"""A hyperspectral cube with a ground-truth image: a window around each labelled pixel.

This is how Indian Pines, Pavia or Salinas are published. A sample's label is that of its centre
pixel, so windows of neighbouring pixels share most of their pixels: with ``by: random`` nearly
every test window contains training pixels. "region" keeps each connected patch of one class
together; it needs classes with several regions (``min_regions``). "block" keeps squares together.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from swath.config import ConfigError
from swath.data.chip import Chip, Contents, Ground, Label, Modality, Where
from swath.data.dataset import Dataset
from swath.data.imagery import Imagery
from swath.data.sensor import Band, Sensor, load_sensor
from swath.datasets._array import load_array


@dataclass(frozen=True, kw_only=True)
class Cube(Dataset):
    """Windows around the labelled pixels of one hyperspectral image; it is held in memory."""

    image: str
    """The cube: .npy or .mat (h, w, bands), or a raster (ENVI, GeoTIFF, ...)."""
    labels: str
    """The ground truth, (h, w), in the same kinds of file."""
    image_key: str | None = None
    """Variable in a .mat file that holds the cube; None: the only one of three dimensions."""
    labels_key: str | None = None
    """Variable in a .mat file that holds the labels; None: the only one of two dimensions."""
    sensor: str | None = None
    """Sensor by name or file; None: bands are numbered and have no wavelengths."""
    classes: tuple[str, ...] = ()
    """Names of label values 1, 2, ...; empty: "class 1", ... . Other values are unlabelled."""
    window: int = 9
    """Height and width of a sample in pixels, odd. The image is mirrored at its edges."""
    every: int = 1
    """Take each n-th band: 1 all of them, 4 the first, fifth, ninth, ..."""
    min_regions: int = 1
    """Leave out classes with fewer connected regions than this; 3 lets each be split by region."""
    block: int = 16
    """Side of the squares of the grouping "block", in pixels."""
    licence: str = ""
    """Licence of the data; kept in the store."""
    source: str = ""
    """Attribution, as the licence wants it; kept in the store."""

    def __post_init__(self) -> None:
        if self.window < 1 or self.window % 2 == 0:
            raise ConfigError(f"window={self.window} must be odd, so that it has a centre pixel")
        for name in ("every", "min_regions", "block"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)} must be at least 1")

    def open(self) -> CubeSource:
        return CubeSource(self)

    def assume(self, scene: Imagery) -> Imagery:
        return scene.taken_for(self.sensor)


class CubeSource:
    """The labelled pixels of a cube, in reading order."""

    def __init__(self, settings: Cube) -> None:
        self.settings = settings
        cube = load_array(settings.image, 3, settings.image_key)
        truth = load_array(settings.labels, 2, settings.labels_key).values
        values = cube.values
        if values.shape[:2] != truth.shape:
            raise ConfigError(
                f"{settings.labels}: has {truth.shape[0]} x {truth.shape[1]} pixels, but "
                f"{settings.image} has {values.shape[0]} x {values.shape[1]}"
            )
        half = settings.window // 2
        if half >= min(truth.shape):
            raise ConfigError(f"window={settings.window} is too large for {truth.shape} pixels")
        sensor = self._sensor(values.shape[2])
        truth, classes, regions = _classes(truth, settings)
        self._truth, self._regions = truth, regions
        self._pixels = np.argwhere(truth >= 0)
        bands = np.ascontiguousarray(values[:, :, :: settings.every].transpose(2, 0, 1))
        self._padded = np.pad(bands, ((0, 0), (half, half), (half, half)), mode="reflect")
        self.contents = Contents(
            modalities=(
                Modality(
                    name="cube",
                    sensor=sensor,
                    height=settings.window,
                    width=settings.window,
                    dtype=values.dtype.name,
                ),
            ),
            label=Label(kind="class", classes=classes),
            grounds=(
                Ground(
                    name="cube",
                    height=truth.shape[0],
                    width=truth.shape[1],
                    transform=cube.transform,
                    crs=cube.crs,
                ),
            ),
            groupings=("pixel", "region", "block"),
            centred=True,
            licence=settings.licence,
            source=settings.source,
        )

    def _sensor(self, bands: int) -> Sensor:
        s = self.settings
        if s.sensor is None:
            names = [f"b{i:03d}" for i in range(1, bands + 1)]
            whole = Sensor(name="cube", bands=tuple(Band(name=n) for n in names))
        else:
            whole = load_sensor(s.sensor)
        if len(whole.bands) != bands:
            raise ConfigError(
                f"{s.image}: has {bands} bands, but sensor {whole.name} has {len(whole.bands)}"
            )
        kept = [band.name for band in whole.bands[:: s.every]]
        sensor = whole.select(kept)
        if not sensor.colour:  # the kept band nearest to each colour, or some spread ones
            at = [min(int(len(kept) * q), len(kept) - 1) for q in (0.6, 0.4, 0.2)]
            lengths = [b.wavelength_nm for b in sensor.bands]
            if all(length is not None for length in lengths):
                known = np.array(lengths, np.float64)
                at = [int(np.abs(known - nm).argmin()) for nm in (650, 550, 460)]
            sensor = replace(sensor, colour=tuple(kept[i] for i in at))
        return sensor

    def __len__(self) -> int:
        return len(self._pixels)

    def chip(self, index: int) -> Chip:
        row, col = (int(v) for v in self._pixels[index])
        size, block = self.settings.window, self.settings.block
        width = self._truth.shape[1]
        return Chip(
            name=f"{row:05d}_{col:05d}",
            images={"cube": self._padded[:, row : row + size, col : col + size]},
            label=int(self._truth[row, col]),
            groups={
                "pixel": row * width + col,
                "region": int(self._regions[row, col]),
                "block": (row // block) * -(-width // block) + col // block,
            },
            where=Where(0, row - size // 2, col - size // 2, size, size),
        )


def _classes(truth: np.ndarray, s: Cube) -> tuple[np.ndarray, tuple[str, ...], np.ndarray]:
    """Return class ids (h, w; -1 unlabelled), class names and region ids (h, w; -1 none)."""
    from scipy.ndimage import label

    values = [int(v) for v in np.unique(truth[truth > 0])] if truth.size else []
    if truth.dtype.kind == "f" and not np.array_equal(truth, np.rint(truth)):
        raise ConfigError(f"{s.labels}: holds fractions, not class numbers")
    beyond = [v for v in values if s.classes and v > len(s.classes)]
    if beyond:
        raise ConfigError(
            f"{s.labels}: label values {beyond} are outside the class map; {len(s.classes)} "
            "classes are named"
        )
    names = s.classes or tuple(f"class {v}" for v in range(1, max(values, default=0) + 1))
    ids = np.full(truth.shape, -1, np.int64)
    regions = np.full(truth.shape, -1, np.int64)
    kept: list[str] = []
    first = 0
    for value in values:
        here, found = label(truth == value)
        if found < s.min_regions:
            continue
        ids[here > 0] = len(kept)
        regions[here > 0] = here[here > 0] - 1 + first
        kept.append(names[value - 1])
        first += int(found)
    if not kept:
        raise ConfigError(
            f"{s.labels}: no class has {s.min_regions} regions or more; there are {len(values)} "
            "classes; lower min_regions"
        )
    return ids, tuple(kept), regions
