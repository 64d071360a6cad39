"""Few labels: a share of the training part's, drawn by seed.

What is drawn are samples, or, where the split divides pixels, its groups (polygons, regions): an
image that is labelled, or a place that is. Of each class the same share of them is drawn, and at
least one of each class that is there; of one seed, what a smaller share draws is among what a
larger one draws. Images stay what they are: statistics of bands are those of the whole training
part, for they need no labels.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from swath.config import ConfigError
from swath.data import census as censuses
from swath.data.census import SAMPLES
from swath.data.draw import uniform
from swath.data.split import NONE, PARTS, TRAIN, Selection, tabulate


@dataclass(frozen=True, kw_only=True)
class Few:
    """Which of the training part's labels are learned from."""

    share: float
    """Of the samples, or of the groups of a split that divides pixels, above 0, up to 1; of each
    class alike, and at least one of each."""
    seed: int = 0
    """Another seed draws others; of one seed, a smaller share is part of a larger one."""

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ConfigError(f"share={self.share:g} must be above 0 and at most 1, as 0.01")


def fewer(selection: Selection, few: Few) -> Selection:
    """Return ``selection``, the training part or all, in which training labels that were not drawn
    belong to no part."""
    label = selection.store.contents.label
    census, table, parts = selection.census, selection.table, selection.parts
    if selection.grouping is None:  # samples are drawn, also where the split takes blocks of them
        whole = np.full(selection.store.samples, NONE, np.uint8)
        whole[census.sample] = parts[np.searchsorted(table.ids, census.group)]
        census = censuses.unpack(selection.store.attributes["census"][SAMPLES])
        table = tabulate(census, label)
        parts = whole[table.ids]
    mine = np.flatnonzero(parts == TRAIN)
    mine = mine[np.argsort(uniform(few.seed, table.ids[mine], "labels")[:, 0], kind="stable")]
    kept = np.zeros(len(mine), bool)
    for stratum in np.unique(table.classes[mine]):
        places = np.flatnonzero(table.classes[mine] == stratum)
        kept[places[: max(1, round(few.share * len(places)))]] = True
    for counts in table.counts[mine].T:  # a class may be nowhere the most frequent one
        kept[np.flatnonzero(counts)[:1]] = True
    drawn = parts.copy()
    drawn[mine[~kept]] = NONE
    indices = selection.indices
    if selection.part != "all":
        rows = (drawn == PARTS[selection.part])[np.searchsorted(table.ids, census.group)]
        indices = np.unique(census.sample[rows])
    return dataclasses.replace(selection, indices=indices, census=census, table=table, parts=drawn)


def drawn(selection: Selection) -> int:
    """Return how many samples, or groups of pixels, with labels are in a selection's part."""
    if selection.grouping is None:  # parts are of samples, though a split may take blocks of them
        return len(selection.indices)
    mine = selection.parts == PARTS[selection.part]
    return int((mine & (selection.table.sizes > 0)).sum())
