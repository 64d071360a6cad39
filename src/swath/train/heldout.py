"""Whether what a model is scored on was kept from it.

A model remembers what it was trained on: a fingerprint of the store and the split. On the same
store, under another split, some of it may be in the part to score on; that is refused. A score on
another store altogether is welcome, and says that it is one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from swath.config import ConfigError, plain
from swath.data.normalize import Normalizer
from swath.data.sensor import Band
from swath.data.settings import DataSettings
from swath.data.split import Selection, Split, select
from swath.data.store import Store
from swath.data.touch import nearness


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What a model was trained on: the training part of ``split`` in a store."""

    store: str
    """The store's fingerprint: of its content, wherever it lies."""
    split: Split
    also: tuple[Further, ...] = ()
    """The further stores of its run."""

    def of(self, store: str) -> Trained | Further | None:
        """Return what it was trained on of the store with this fingerprint; None: nothing."""
        every: tuple[Trained | Further, ...] = (self, *self.also)
        return next((one for one in every if one.store == store), None)


@dataclass(frozen=True, kw_only=True)
class Further:
    """A further store that a model was trained on, and how its pixels became inputs."""

    store: str
    """As of :class:`Trained`."""
    split: Split
    bands: tuple[Band, ...]
    normalize: Normalizer


def has_test(data: DataSettings) -> bool:
    """Whether the store of ``data`` is there, and has a test part."""
    if not Store.exists(data.store):
        return False
    return len(select(Store.open(data.store), data.split, "test").indices) > 0


def held_out(test: Selection, trained: Trained) -> dict[str, Any]:
    """Return what a score on ``test`` has to be read with.

    share_touching: share of its windows that touch training pixels, None if unknown.
    share_same_object, where objects are known: of its windows that show one which was trained on as
    well. other_store: True, and only there, if the model was trained on another store.

    Raises ConfigError if something in ``test`` was trained on.
    """
    seen = trained.of(test.store.fingerprint)
    if seen is None:
        return {"share_touching": None, "other_store": True}
    if test.split == seen.split:
        return dict(test.nearness())
    train = select(test.store, seen.split, "train")
    known, of, what = shared(test, train)
    if known and test.part in ("test", "val"):
        raise ConfigError(
            f"{test.store.path}: the model was trained on {known} of the {of} {what} in the "
            f"{test.part} part of this split ({_told(test.split)}); score it under the split it "
            f"was trained with ({_told(seen.split)}), or on another store"
        )
    return dict(nearness(test, train))


def shared(test: Selection, train: Selection) -> tuple[int, int, str]:
    """Return how many things of ``test`` are in ``train`` too, of how many, and what they are:
    groups of pixels if both are divided by the same ones, else samples."""
    if test.grouping is not None and test.grouping == train.grouping:
        ids = [s.table.ids[s.member(s.table.ids)] for s in (test, train)]
        return len(np.intersect1d(*ids)), len(ids[0]), f"groups by {test.grouping}"
    return len(np.intersect1d(test.indices, train.indices)), len(test.indices), "samples"


def _told(split: Split) -> str:
    """Return ``split`` as it would be written, but for what is as usual."""
    usual = plain(Split())
    return ", ".join(f"{k}={v}" for k, v in plain(split).items() if k == "by" or v != usual[k])
