"""Which samples the page shows: of which stores of the run, and of which part of each.

They are of the test part or, where there is none, of the next best one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from swath.data.opened import Data
from swath.data.settings import DataSettings
from swath.data.split import Part, Selection
from swath.data.store import Store
from swath.report.images import evenly
from swath.report.words import whole
from swath.train.export import LoadedModel

HELD_OUT: tuple[Part, ...] = ("test", "val")
ANY: tuple[Part, ...] = (*HELD_OUT, "train")
MOST, FEWEST = 6, 2
"""Samples shown of all stores together, about, and of each."""


@dataclass(frozen=True)
class Shown:
    """The samples of one store that are shown."""

    data: Data
    selection: Selection
    indices: np.ndarray
    name: str
    """Of the store, and of the part if those of several are shown; "" if the run has one store."""

    def captioned(self, caption: str) -> str:
        return ": ".join(filter(None, [self.name, caption]))


def first_of(data: Data, parts: Sequence[Part]) -> Selection:
    """Return the first of ``parts`` that has samples; the last one, if it comes to that."""
    for part in parts[:-1]:
        if len((found := data.select(part)).indices):
            return found
    return data.select(parts[-1])


def of_each_store(model: LoadedModel, settings: DataSettings) -> list[Shown]:
    """Return some samples of each store that ``model`` learned from, without labels; a further
    store that is not there any more is left out."""
    there = tuple(one for one in settings.also if Store.exists(one.store))
    settings = dataclasses.replace(settings, also=there, weight=settings.weight if there else 1.0)
    data = settings.open(labels=False, asks=model.about.model.asks)
    stores = [dataclasses.replace(data, normalize=model.normalize), *data.also]
    selections = [first_of(one, ANY) for one in stores]
    names = [one.settings.store.rstrip("/").rpartition("/")[2] for one in stores]
    if len({one.part for one in selections}) > 1:
        names = [f"{name}, {one.part}" for name, one in zip(names, selections, strict=True)]
    each = max(FEWEST, MOST // len(stores))
    return [
        Shown(one, selection, evenly(selection.indices, each), name if there else "")
        for one, selection, name in zip(stores, selections, names, strict=True)
    ]


def told(shown: int, selections: Sequence[Selection]) -> str:
    """Return of which parts ``shown`` samples are, in words: a sentence's beginning."""
    parts = [part for part in ANY if any(one.part == part for one in selections)]
    said = f"{' and '.join(parts)} part{'s'[: len(parts) > 1]}"
    if "test" not in parts:
        said += " (there is no test part)" if "val" in parts else " (there is no other)"
    count = sum(len(one.indices) for one in selections)
    return f"{shown} of {whole(count)} samples of the {said}, spread evenly"
