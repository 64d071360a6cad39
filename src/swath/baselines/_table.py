"""From a store to tables: one row of features and a label for every labelled pixel or sample.

Pixels are taken from the ground they lie on, put together from the samples: each pixel once,
however many samples overlap there, and its neighbourhood whole, not cut off where a sample ends.
Samples without a ground are grounds of their own. Everything comes in shards of bounded size.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from swath.baselines import Features, Problem
from swath.baselines._features import MARGIN, columns, of_pixels, of_samples
from swath.config import ConfigError
from swath.data.bands import find_bands
from swath.data.chip import IGNORE, Modality
from swath.data.draw import bits
from swath.data.mosaic import mosaic
from swath.data.split import Selection
from swath.data.store import Store

_BYTES = 128 << 20  # of a shard, about
_GROUND = 40  # bits of a row's id that number the pixel on its ground


@dataclass(frozen=True)
class Table:
    """Rows of features with what is to be predicted, and an id of each that nothing else has."""

    ids: np.ndarray  # (n,) int64
    x: np.ndarray  # (n, f) float32, NaN where not observed
    y: np.ndarray  # (n,) class ids, (n, k) flags or (n, t) values


@dataclass(frozen=True)
class Chosen:
    """Some bands of one modality."""

    modality: Modality
    places: list[int] = field(default_factory=list)

    def observed(self, image: np.ndarray) -> np.ndarray:
        """Return the chosen bands of (..., c, h, w) as float64, NaN where not observed."""
        found = image[..., self.places, :, :].astype(np.float64)
        return np.where(self.modality.sensor.observed(found), found, np.nan)


class Tables:
    """The labelled rows of a store."""

    def __init__(self, store: Store, features: Features, bands: tuple[str, ...] | None) -> None:
        kind = store.contents.label.kind
        if kind == "none":
            raise ConfigError(f"{store.path}: has no labels, so there is no baseline to fit")
        self.store, self.features = store, features
        self.chosen = _chosen(store, bands)
        self.per_pixel = store.contents.label.per_pixel or store.contents.centred
        names = _names(self.chosen)
        sensors = [c.modality.sensor for c in self.chosen for _ in c.places]
        what = {"class": "class", "mask": "class", "flags": "flags"}.get(kind, "value")
        self.problem = Problem(
            kind=what,  # type: ignore[arg-type]
            names=store.contents.label.classes or ("value",),
            columns=columns(names, features, whole=not self.per_pixel),
            units=tuple((s.scale, s.offset) for s in sensors),
        )

    def shards(self, selection: Selection) -> Iterator[Table]:
        """Yield the labelled rows of ``selection``, none of them twice."""
        if not self.per_pixel:
            yield from self._samples(selection)
            return
        ground = self.store.column("where")[selection.indices, 0]
        for number in np.unique(ground[ground >= 0]).tolist():
            yield from self._ground(selection, number, selection.indices[ground == number])
        for index in selection.indices[ground < 0].tolist():
            yield from self._alone(selection, index)

    def _samples(self, selection: Selection) -> Iterator[Table]:
        pixels = sum(len(c.places) * c.modality.height * c.modality.width for c in self.chosen)
        step = max(1, _BYTES // (8 * pixels))
        for start in range(0, len(selection.indices), step):
            some = selection.indices[start : start + step]
            read = self.store.read(some, [c.modality.name for c in self.chosen]).result()
            images = [c.observed(read[c.modality.name]) for c in self.chosen]
            yield self._known(some, of_samples(images, self.features), read["label"])

    def _ground(self, selection: Selection, ground: int, mine: np.ndarray) -> Iterator[Table]:
        store = self.store
        label = mosaic(store, ground, "label", mine)
        if selection.grouping is not None:
            groups = mosaic(store, ground, selection.grouping, mine, grouping=True)
            label = selection.restrict(label[None], groups[None])[0]
        where = store.column("where").astype(np.int64)
        there = np.flatnonzero(where[:, 0] == ground)  # neighbours may be of any part
        covered = np.zeros(label.shape[-2:], bool)
        for row, col, height, width in where[there, 1:].tolist():
            covered[max(row, 0) : row + height, max(col, 0) : col + width] = True
        images = [mosaic(store, ground, c.modality.name, there) for c in self.chosen]
        yield from self._pixels(images, covered, label, ground)

    def _alone(self, selection: Selection, index: int) -> Iterator[Table]:
        groups = (selection.grouping,) if selection.grouping else ()
        read = self.store.read([index], groups=groups).result()
        label = selection.restrict(read["label"], read[f"groups/{groups[0]}"] if groups else None)[
            0
        ]
        height, width = self.store.grid
        if self.store.contents.centred:
            centre = np.full((height, width), IGNORE, np.int64)
            centre[height // 2, width // 2] = label
            label = centre
        y, x = np.arange(height), np.arange(width)
        images = []
        for c in self.chosen:
            rows, cols = y * c.modality.height // height, x * c.modality.width // width
            images.append(read[c.modality.name][0][:, rows[:, None], cols])
        grounds = len(self.store.contents.grounds)
        yield from self._pixels(images, np.ones((height, width), bool), label, grounds + index)

    def _pixels(
        self, images: list[np.ndarray], covered: np.ndarray, label: np.ndarray, ground: int
    ) -> Iterator[Table]:
        """Yield the rows of the labelled pixels of one ground, a strip at a time."""
        height, width = covered.shape
        raster = self.store.contents.label.kind == "raster"
        known = ~np.isnan(label).all(0) if raster else (label != IGNORE) & (label >= 0)
        bands = sum(len(c.places) for c in self.chosen)
        step = max(2 * MARGIN, _BYTES // (8 * bands * width))
        for top in range(0, height, step):
            rows, cols = np.nonzero(known[top : top + step])
            if not len(rows):
                continue
            margin = MARGIN if self.features == "neighbourhood" else 0
            above, left = max(0, top - margin), max(0, int(cols.min()) - margin)
            part = np.s_[above : top + step + margin, left : int(cols.max()) + 1 + margin]
            strip = np.concatenate(
                [
                    np.where(covered[part], c.observed(image[:, *part]), np.nan)
                    for c, image in zip(self.chosen, images, strict=True)
                ]
            )
            x = of_pixels(strip, rows + top - above, cols - left, self.features)
            rows = rows + top
            y = label[:, rows, cols].T if raster else label[rows, cols]
            yield self._known((ground << _GROUND) + rows * width + cols, x, y)

    def _known(self, ids: np.ndarray, x: np.ndarray, y: np.ndarray) -> Table:
        """Return the rows whose label is known."""
        if self.problem.kind == "class":
            keep = y >= 0
            if len(self.problem.names) <= IGNORE:
                keep &= y != IGNORE
            y = y.astype(np.int64)
        elif self.problem.kind == "flags":
            keep = (y != IGNORE).all(1)
        else:
            keep = ~np.isnan(y).all(1)
        return Table(ids[keep].astype(np.int64), x[keep], y[keep])


def _chosen(store: Store, bands: tuple[str, ...] | None) -> list[Chosen]:
    """Return the bands as a model sees them, in its order: neighbours of one modality together."""
    channels = find_bands(store.contents, bands, store.path)
    found = itertools.groupby(channels, key=lambda channel: channel[0].name)
    return [Chosen(store.modality(name), [i for _, i in some]) for name, some in found]


def _names(chosen: list[Chosen]) -> list[str]:
    """Return the name of each band, with its modality where several chosen bands have one name."""
    whole = [(c.modality.name, c.modality.sensor.bands[i].name) for c in chosen for i in c.places]
    bare = [band for _, band in whole]
    return [band if bare.count(band) == 1 else f"{image}/{band}" for image, band in whole]


@dataclass(frozen=True)
class Sample:
    """Fold over tables: at most ``rows`` of their rows, drawn evenly.

    A row is taken if the random key of its id is among the smallest. So the choice depends
    neither on the shards nor on their order, and rows come out in the order of their keys.
    """

    rows: int
    seed: int

    def map(self, shard: Table) -> tuple[np.ndarray, Table, int]:
        keys = bits(self.seed, shard.ids, "baseline", 1)[:, 0]
        return self._least(keys, shard, len(keys))

    def merge(
        self, left: tuple[np.ndarray, Table, int], right: tuple[np.ndarray, Table, int]
    ) -> tuple[np.ndarray, Table, int]:
        both = [np.concatenate(pair) for pair in zip(_rows(left), _rows(right), strict=True)]
        return self._least(both[0], Table(*both[1:]), left[2] + right[2])

    def finish(self, state: tuple[np.ndarray, Table, int]) -> tuple[Table, int]:
        """Return the rows taken, and how many there were."""
        return state[1], state[2]

    def _least(self, keys: np.ndarray, table: Table, seen: int) -> tuple[np.ndarray, Table, int]:
        order = np.lexsort([table.ids, keys])[: self.rows]
        return keys[order], Table(table.ids[order], table.x[order], table.y[order]), seen


def _rows(state: tuple[np.ndarray, Table, int]) -> list[np.ndarray]:
    keys, table, _ = state
    return [keys, table.ids, table.x, table.y]
