"""Partners: for a sample, another one of the same place at another date, drawn by its position.

Two samples are of one place if they were cut from the same pixels of the ground, to a quarter of a
pixel. Partners are of the same part of a split. A sample whose place was seen at one date only is
its own partner.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from swath.config import ConfigError
from swath.data import draw
from swath.data.layout import UNKNOWN_TIME
from swath.data.split import Selection

if TYPE_CHECKING:
    from swath.data.store import Store


def places(store: Store) -> np.ndarray:
    """Return a number for each sample of ``store``, int64 (n,): the same for those of one place;
    one of its own where the place is not known."""
    where = store.column("where").astype(np.float64)
    samples = np.arange(store.samples)
    keys = np.stack([np.full(store.samples, -1), samples, *np.zeros((3, store.samples), int)], 1)
    systems: dict[str, int] = {}
    for number, ground in enumerate(store.contents.grounds):
        mine = np.flatnonzero(where[:, 0] == number)
        if ground.transform is None or ground.crs is None:
            continue
        a, b, c, d, e, f = ground.transform
        _, row, col, height, width = where[mine].T
        x, y = a * col + b * row + c, d * col + e * row + f
        pixel = abs(a * e - b * d) ** 0.5
        system = np.full(len(mine), systems.setdefault(ground.crs, len(systems)))
        extent = np.round(4 * np.stack([height, width]) * pixel)
        corner = np.round(4 * np.stack([x, y]) / pixel)
        keys[mine] = np.stack([system, *corner, *extent], 1).astype(np.int64)
    return np.unique(keys, axis=0, return_inverse=True)[1].reshape(-1).astype(np.int64)


class Partners:
    """Who may be whose partner among the samples of ``selection``."""

    def __init__(self, selection: Selection) -> None:
        store, self.samples = selection.store, len(selection.indices)
        self.places = places(store)
        """Of each sample of the store."""
        when = store.column("when")
        rows = selection.indices
        rows = rows[np.lexsort((rows, when[rows], self.places[rows]))]
        place, date = self.places[rows], when[rows]
        # In this order a place is one run of samples, and a date of it a run within that.
        new_place = np.r_[True, place[1:] != place[:-1]]
        new_date = new_place | np.r_[True, date[1:] != date[:-1]]
        self._rows = rows
        self._place = _runs(new_place)
        self._date = _runs(new_date)
        self._at = np.full(store.samples, -1)
        self._at[rows] = np.arange(len(rows))
        known = date != UNKNOWN_TIME
        self._others = np.where(known, np.diff(self._place, axis=1)[:, 0], 0)
        self._others -= np.where(known, np.diff(self._date, axis=1)[:, 0], 0)

    @property
    def found(self) -> int:
        """How many samples have one."""
        return int((self._others > 0).sum())

    def of(self, indices: np.ndarray, positions: np.ndarray, seed: int) -> np.ndarray:
        """Return the partner of each sample at its position; itself where there is none."""
        at = self._at[indices]
        assert (at >= 0).all(), "samples of another part"
        others, start = self._others[at], self._place[at, 0]
        luck = draw.uniform(seed, positions, "season")[:, 0]
        chosen = start + (luck * others).astype(np.int64)
        first, end = self._date[at].T
        chosen = np.where(chosen >= first, chosen + end - first, chosen)  # over those of its date
        return np.where(others > 0, self._rows[np.where(others > 0, chosen, 0)], indices)


def check_seasons(found: int, samples: int) -> None:
    """Raise ConfigError if none of ``samples`` has a partner."""
    if not found:
        raise ConfigError(
            f"task.views.seasons=true: none of {samples} training samples was cut from the same "
            "ground as another at another date; build a store of kind scenes from several dates of "
            "the same tiles (with block_m, if they do not lie alike), or leave seasons out"
        )


def _runs(new: np.ndarray) -> np.ndarray:
    """Return first and end (n, 2) of the run that each entry is in; ``new`` says where one
    begins."""
    starts = np.flatnonzero(new)
    ends = np.r_[starts[1:], len(new)]
    run = np.cumsum(new) - 1
    return np.stack([starts[run], ends[run]], 1)
