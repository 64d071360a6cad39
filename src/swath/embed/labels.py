"""Of which part and class a vector is: those of the pixels that it is made from.

Where a split divides pixels (by polygon, say), a patch is of the part that most of its labelled
pixels are in, and its class is the one that most of these have.
"""

from __future__ import annotations

import numpy as np

from swath.data.split import NONE, PARTS, Selection
from swath.embed.table import NO_CLASS

BLOCK_PIXELS = 4_000_000  # labels counted at a time


class Labels:
    """Parts and classes of the vectors of a store under a split."""

    def __init__(self, every: Selection, grid: tuple[int, ...], unit: int) -> None:
        """every: all parts together. grid: rows and columns of vectors in a sample, or none of
        both; unit: pixels of the label to a side of each."""
        self._every, self._store = every, every.store
        self._grid, self._unit = grid, unit
        label = self._store.contents.label
        self._classes = len(label.classes) if label.kind in ("class", "mask") else 0
        self._by_sample = np.full(self._store.samples, NONE, np.uint8)
        if every.grouping is None:
            rows = every.parts[np.searchsorted(every.table.ids, every.census.group)]
            self._by_sample[every.census.sample] = rows

    def of(self, samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return part uint8 and label int32 of the vectors of ``samples``, (m,) or (m, y, x)."""
        kind = self._store.contents.label.kind
        part = self._by_sample[samples]
        if kind != "mask":
            classes = np.full(len(samples), NO_CLASS, np.int32)
            if kind == "class":
                classes = self._store.column("label")[samples].astype(np.int32)
            shape = (len(samples), *self._grid)
            lead = (..., *[None] * len(self._grid))
            return np.broadcast_to(part[lead], shape), np.broadcast_to(classes[lead], shape)
        height, width = self._store.grid
        step = max(1, BLOCK_PIXELS // (height * width))
        found = [self._counted(samples[i : i + step]) for i in range(0, len(samples), step)]
        parts, classes = (np.concatenate(some) for some in zip(*found, strict=True))
        return parts, classes

    def _counted(self, samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return part and label where pixels have them, by counting."""
        grouping, k = self._every.grouping, self._classes
        groups = () if grouping is None else (grouping,)
        read = self._store.read(samples, [], groups=groups).result()
        label = read["label"].astype(np.int64)
        if grouping is None:
            part = np.broadcast_to(self._by_sample[samples][:, None, None], label.shape)
        else:
            part = parts_of(self._every, read[f"groups/{grouping}"])
        grid = self._grid or (1, 1)
        cell = np.arange(len(samples))[:, None, None] * grid[0] * grid[1]
        if self._grid:
            down = np.minimum(np.arange(label.shape[1]) // self._unit, grid[0] - 1)
            across = np.minimum(np.arange(label.shape[2]) // self._unit, grid[1] - 1)
            cell = cell + down[:, None] * grid[1] + across
        else:
            cell = np.broadcast_to(cell, label.shape)
        known = (label < k) & (part < len(PARTS))
        flat = (cell[known] * len(PARTS) + part[known]) * k + label[known]
        cells = len(samples) * grid[0] * grid[1]
        counts = np.bincount(flat, minlength=cells * len(PARTS) * k).reshape(cells, len(PARTS), k)
        best = counts.sum(2).argmax(1)
        mine = counts[np.arange(cells), best]
        empty = mine.sum(1) == 0
        shape = (len(samples), *self._grid)
        parts = np.where(empty, NONE, best).astype(np.uint8).reshape(shape)
        classes = np.where(empty, NO_CLASS, mine.argmax(1)).astype(np.int32).reshape(shape)
        return parts, classes


def parts_of(every: Selection, groups: np.ndarray) -> np.ndarray:
    """Return the part (uint8) of each of ``groups``, ids of any shape; NONE where it is none."""
    ids = every.table.ids
    place = np.searchsorted(ids, groups).clip(0, max(len(ids) - 1, 0))
    return np.where(ids[place] == groups, every.parts[place], NONE).astype(np.uint8)
