"""One sample as it lies on disk (``Chip``), many as the model sees them (``Batch``), and what a
collection of them contains (``Contents``). None of them knows where it came from or what is
learned from it."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from swath.data.sensor import Band, Sensor

if TYPE_CHECKING:
    from torch import Tensor

IGNORE = 255
"""Class id of a pixel without a label, in every mask."""


@dataclass(frozen=True, kw_only=True)
class Modality:
    """One array of a store: what is stored for every sample, and what its numbers mean."""

    name: str
    sensor: Sensor
    """Its bands are the stored ones, in the stored order."""
    height: int
    """In pixels, of every sample."""
    width: int
    dtype: str
    """numpy's name of the native type, such as "uint16"."""


@dataclass(frozen=True, kw_only=True)
class Label:
    """What is known about every sample.

    class: one class id. flags: a 0/1 for every class. mask: a class id for every pixel (IGNORE
    where unknown). value: numbers for the sample. raster: numbers for every pixel (NaN unknown).
    none: nothing, for pretraining.
    """

    kind: Literal["class", "flags", "mask", "value", "raster", "none"]
    classes: tuple[str, ...] = ()
    """Names of the classes; of a value or raster: those of the quantities."""
    colours: tuple[str, ...] = ()
    """"#rrggbb" per class; empty: chosen from a palette."""
    unit: str = ""
    """Of the quantities."""

    @property
    def per_pixel(self) -> bool:
        """Whether each pixel has a label, not the sample."""
        return self.kind in ("mask", "raster")

    @property
    def has_classes(self) -> bool:
        """Whether it says which classes there are, one or several."""
        return self.kind in ("class", "flags", "mask")

    @property
    def has_quantities(self) -> bool:
        """Whether it says how much there is of something."""
        return self.kind in ("value", "raster")

    def known(self, pixels: np.ndarray) -> np.ndarray:
        """Return where (..., h, w) the label of a pixel is known, in all of its quantities.

        pixels: (..., h, w) class ids, or (..., t, h, w) of a raster.
        """
        return ~np.isnan(pixels).any(-3) if self.kind == "raster" else pixels != IGNORE


@dataclass(frozen=True, kw_only=True)
class Ground:
    """A grid of pixels on the Earth from which samples were cut."""

    name: str
    height: int
    """In pixels."""
    width: int
    transform: tuple[float, ...] | None = None
    """From column and row to place: affine a, b, c, d, e, f; None: not georeferenced."""
    crs: str | None = None
    """"EPSG:32633", or WKT."""


@dataclass(frozen=True, kw_only=True)
class Contents:
    """What a dataset or a store holds, apart from the pixels."""

    modalities: tuple[Modality, ...]
    label: Label
    grounds: tuple[Ground, ...] = ()
    groupings: tuple[str, ...] = ()
    """Names of the ways in which samples are grouped for splits."""
    grouped_pixels: tuple[str, ...] = ()
    """Those of the groupings that group pixels, not samples."""
    given: tuple[str, ...] = ()
    """The parts (train, val, test) of a published split, if any."""
    centred: bool = False
    """A sample is a window, and its label is that of its centre pixel alone."""
    licence: str = ""
    source: str = ""
    """Attribution, as the licence wants it."""


@dataclass(frozen=True)
class Where:
    """Place of a sample: upper left pixel and extent in ``Contents.grounds[ground]``."""

    ground: int
    row: int
    col: int
    height: int
    width: int


@dataclass(kw_only=True)
class Chip:
    """One sample, in numpy, as a dataset hands it to the builder."""

    name: str
    images: dict[str, np.ndarray]
    """For each modality (c, h, w) of its native type."""
    label: np.ndarray | int | float | None = None
    """By Label.kind: an int, (k,), (h, w), (t,) or (t, h, w)."""
    groups: dict[str, np.ndarray | int] = field(default_factory=dict)
    """For each grouping a number, or (h, w) int32 of them; -1: in none."""
    where: Where | None = None
    when: datetime.datetime | None = None
    given: Literal["train", "val", "test"] | None = None
    """The publisher's split."""


@dataclass(frozen=True)
class Known:
    """What is known of images beside their pixels. A network that heeds some of it names that in
    ``asks``; nothing else is read for it."""

    bands: tuple[Band, ...] | None = None
    """Of each channel; None: those that the network was made for."""
    gsd_m: float | None = None
    """Metres from pixel to pixel; None: as the network was trained with."""
    where: Tensor | None = None
    """(b, 2) float64: latitude and longitude of the middle in degrees; NaN: unknown."""
    when: Tensor | None = None
    """(b, 2) float64: year, and day of the year, 1 to 366, with its fraction; NaN: unknown."""
    keys: Tensor | None = None
    """(b,) int64: 63 random bits of each sample, by which training withholds some of it; there with
    ``where`` or ``when``."""

    def only(self, rows: list[int]) -> Known:
        """Return what is known of the images numbered ``rows``."""
        found = {n: None if (e := getattr(self, n)) is None else e[rows] for n in _ROWS}
        return dataclasses.replace(self, **found)

    @staticmethod
    def joined(every: Sequence[Known]) -> Known:
        """Return what is known of several rows of images of one sensor, one after the other."""
        import torch

        first, *others = every
        if not others:
            return first
        listed = {n: [getattr(one, n) for one in every] for n in _ROWS}
        found: dict[str, Any] = {n: torch.cat(e) for n, e in listed.items() if e[0] is not None}
        return dataclasses.replace(first, **found)


_ROWS = ("where", "when", "keys")  # of Known, those with a row for each sample
ASKS = ("bands", "gsd_m", "where", "when")
"""What a network may ask for: the fields of Known."""


@dataclass(kw_only=True)
class Batch:
    """Samples on their way through a model: one microbatch."""

    image: Tensor
    """(b, c, h, w) float, normalised; pixels that were not observed are 0, the mean."""
    valid: Tensor
    """(b, h, w) bool: the pixel was observed in every band."""
    target: Tensor | None
    """By Label.kind: (b,), (b, k), (b, h, w), (b, t) or (b, t, h, w)."""
    positions: Tensor
    """(b,) int64: places in the endless run; in evaluation: sample indices."""
    indices: Tensor
    """(b,) int64: places in the store."""
    seed: int
    """Of everything random inside the model, such as dropout; keyed by position."""
    keys: Tensor | None = None
    """(b,) int64: 63 random bits of each sample, which the run's seed and its position determine,
    for what a task draws; in evaluation its index alone."""
    views: tuple[Tensor, ...] = ()
    """Several (b, c, h_i, w_i), varied each in its own way, for a task that compares views; then
    ``image`` is the sample as it is."""
    seen: tuple[Tensor, ...] = ()
    """For each of the views (b, h_i, w_i) bool: the pixel was observed in every band."""
    places: Tensor | None = None
    """(b,) int64, if there are views: samples with the same number show the same, be it one sample
    twice or one place at two dates."""
    counts: bool = True
    """False: only keeps step with other ranks; no loss or score of it counts."""
    known: Known = field(default_factory=Known)
    """Bands are those of the store; the others are there if the model asks for them."""
    other: Known | None = None
    """Of the samples that every second view is of; None: of those of the first."""

    @property
    def bands(self) -> tuple[Band, ...] | None:
        """Of each channel of the images."""
        return self.known.bands

    @property
    def alike(self) -> Tensor:
        """(b,) int64: samples with the same number show the same; -1: less than half was observed
        of one of the sample's views, so it can be compared with nothing."""
        found = self.indices if self.places is None else self.places
        for seen in self.seen:
            found = found.masked_fill(seen.flatten(1).double().mean(1) < 0.5, -1)
        return found

    def told(self, model: object) -> dict[str, Any]:
        """Return what ``model`` is called with beside the images: ``known``, if it asks for any."""
        return {"known": self.known} if getattr(model, "asks", ()) else {}

    def told_views(self, model: object) -> dict[str, Any]:
        """Return what ``model`` is called with beside the views: what is ``known`` of each of them,
        if it asks for any."""
        if not getattr(model, "asks", ()):
            return {}
        both = (self.known, self.other or self.known)
        return {"known": [both[number % 2] for number in range(len(self.views))]}
