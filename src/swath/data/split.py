"""Which samples, or pixels, are trained on, validated on and tested on.

Neighbouring pixels are alike. If some are trained on and others tested on, the score says how
well a model remembers, so a split takes whole groups: blocks, polygons, regions. On Indian Pines
the same forest scores 0.84 on random pixels and 0.43 on regions of its own (the recipe's
results.md).

A split is a pure function of a table of groups and of its settings; nothing is drawn in order,
so a group added to a store leaves the luck of the others as it was.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, fields
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from swath.config import ConfigError
from swath.data import census as censuses
from swath.data.census import ANY, SAMPLES, Census
from swath.data.chip import IGNORE, Contents, Label
from swath.data.draw import uniform

if TYPE_CHECKING:
    from swath.data.store import Store

TRAIN, VAL, TEST, NONE = 0, 1, 2, 255
PARTS = {"train": TRAIN, "val": VAL, "test": TEST}
Part = Literal["train", "val", "test", "all"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Split:
    """How samples are divided into parts for training, validation and testing."""

    by: str = "block"
    """What is kept together: a grouping of the dataset ("block", "polygon", "region", ...),
    "random" (nothing: every sample for itself; neighbours leak) or "given" (as published)."""
    val: float = 0.1
    """Share for validation: it chooses the best checkpoint."""
    test: float = 0.2
    """Share for testing: it is scored once."""
    train: float | None = None
    """Largest share to train on; None: all the rest. What is over belongs to no part."""
    stratify: bool = True
    """Whether the shares hold within each class (the class that a group has most of)."""
    weigh: Literal["groups", "pixels"] = "groups"
    """What the shares count: groups, or the labelled pixels (or samples) in them."""
    seed: int = 0
    """Another seed is another split."""

    elsewhere: ClassVar = dict.fromkeys(
        ("block", "block_m"),
        "how large a block is, is set beside the dataset's kind: build.dataset.block in pixels, or "
        "build.dataset.block_m in metres (swath show --docs says which a dataset has)",
    )

    def __post_init__(self) -> None:
        for name, share in (("val", self.val), ("test", self.test), ("train", self.train)):
            if share is not None and not 0 <= share < 1:
                raise ConfigError(f"{name}={share} must be a share, 0 <= {name} < 1")
        if self.val + self.test >= 1:
            raise ConfigError(f"val={self.val} and test={self.test} leave nothing to train on")
        if self.train is not None and not 0 < self.train <= 1 - self.val - self.test + 1e-9:
            rest = 1 - self.val - self.test
            raise ConfigError(f"train={self.train} is not in 0..{rest:.3g}, what is left")
        if self.by == "given":
            for field in fields(self):
                if field.name != "by" and getattr(self, field.name) != field.default:
                    value = getattr(self, field.name)
                    raise ConfigError(f"{field.name}={value} has no effect on a split by=given")


@dataclass(frozen=True)
class GroupTable:
    """The groups of one way of grouping: what a split is made from."""

    ids: np.ndarray  # (g,) int64, ascending
    counts: np.ndarray  # (g, k) int64: labelled samples or pixels of each class; k=0: no classes
    sizes: np.ndarray  # (g,) int64: labelled samples or pixels

    @cached_property
    def classes(self) -> np.ndarray:
        """The class that each group has most of, the rarer one of equals; 0 without classes."""
        if not self.counts.shape[1]:
            return np.zeros(len(self.ids), np.int64)
        rarity = 0.5 / (1 + self.counts.sum(0))
        return (self.counts + np.where(self.counts > 0, rarity, 0)).argmax(1)


def tabulate(census: Census, label: Label) -> GroupTable:
    """Return the groups of ``census``."""
    ids, place = np.unique(census.group, return_inverse=True)
    classes = len(label.classes) if label.has_classes else 0
    counts = np.zeros((len(ids), classes), np.int64)
    sizes = np.zeros(len(ids), np.int64)
    named = census.kind != ANY
    np.add.at(counts, (place[named], census.kind[named]), census.count[named])
    counted = named if label.kind in ("class", "mask") else ~named
    np.add.at(sizes, place[counted], census.count[counted])
    return GroupTable(ids, counts, sizes)


def assign(table: GroupTable, split: Split) -> np.ndarray:
    """Return the part of each group of ``table``, uint8 (g,): TRAIN, VAL, TEST or NONE.

    Of each class, groups are taken in random order for testing, then for validation, as long as
    taking one brings the part nearer to its share; at least one group goes into each part, unless
    there are too few: training comes first, then testing.
    """
    parts = np.full(len(table.ids), TRAIN, np.uint8)
    weights = table.sizes if split.weigh == "pixels" else np.ones_like(table.sizes)
    strata = table.classes if split.stratify else np.zeros_like(table.ids)
    for stratum in np.unique(strata):
        left = np.flatnonzero(strata == stratum)
        luck = uniform(split.seed, table.ids[left], f"split {stratum}", 1)[:, 0]
        left = left[np.argsort(luck, kind="stable")]
        total = int(weights[left].sum())
        for part, share in ((TEST, split.test), (VAL, split.val)):
            taken = _take(weights[left], share * total, spare=1)
            parts[left[taken]] = part
            left = left[~taken]
        if split.train is not None:
            parts[left[~_take(weights[left], split.train * total, spare=0)]] = NONE
    return parts


def _take(weights: np.ndarray, target: float, spare: int) -> np.ndarray:
    """Return which of ``weights`` to take, in their order, to come near ``target``."""
    taken = np.zeros(len(weights), bool)
    total, free = 0, len(weights) - spare
    if target <= 0 or free < 1:
        return taken
    for i, weight in enumerate(weights.tolist()):
        if free and weight < 2 * (target - total):  # nearer with it than without
            taken[i] = True
            total, free = total + weight, free - 1
    if not taken.any():
        taken[weights.argmin()] = True  # each is too large, but a part must not be empty
    return taken


@dataclass(frozen=True)
class Selection:
    """One part of a store under a split: which samples, and which pixels of them."""

    store: Store
    split: Split
    part: Part
    indices: np.ndarray
    """Samples with something labelled in this part, int64, ascending."""
    grouping: str | None
    """The grouping whose groups :meth:`restrict` needs; None: parts are of whole samples."""
    table: GroupTable
    parts: np.ndarray
    """The part of each group of ``table``, uint8."""
    census: Census

    @property
    def counts(self) -> np.ndarray:
        """Labelled samples (pixels) of each class in this part, float64 (k,); overlaps count."""
        return self.table.counts[self._mine].sum(0).astype(np.float64)

    @property
    def size(self) -> int:
        """Labelled samples, or pixels if the label is per pixel, in this part."""
        return int(self.table.sizes[self._mine].sum())

    @property
    def _mine(self) -> np.ndarray:
        return self.parts == PARTS[self.part] if self.part != "all" else self.parts == self.parts

    def why_empty(self) -> str:
        """Return, if this part holds nothing, why that is so and what to do."""
        split, part = self.split, self.part
        if split.by == "given":
            return f"the publisher named no sample for it; {_way_out(split)}"
        share = getattr(split, part)
        if not share:
            return f"split.{part} is 0; set split.{part} to a share above 0"
        stratified = self.table.counts.shape[1] and split.stratify
        needs = "three" if part == "val" and split.test else "two"
        why = f"{self.groups_told}, and a {part} part needs {needs}, for the first is trained on"
        if stratified:
            classes = len(np.unique(self.table.classes))
            why = (
                f"{self.groups_told} for {classes} {'class' if classes == 1 else 'classes'} (a "
                f"group is of the class it has most of), and a class needs {needs} for a {part} "
                "part, for its first is trained on"
            )
        ways = [self.smaller, *(["join classes"] if stratified else [])]
        return f"split.{part}={share:g}, but {why}; {', '.join(ways)}, or choose another split.by"

    @property
    def groups_told(self) -> str:
        """How many groups there are, in words."""
        count = len(self.table.ids)
        only = "is only 1 group" if count == 1 else f"are only {count} groups"
        return f"there {only} by {self.split.by}"

    @property
    def smaller(self) -> str:
        """How to get more groups, in words; by which setting, if the dataset has one."""
        asked = self.store.attributes.get("dataset") or {}
        name = next((name for name in ("block", "block_m") if name in asked), None)
        if self.split.by != "block" or name is None:
            return "make groups smaller"
        unit = "m" if name == "block_m" else "px"
        if asked[name] is None:
            return f"set build.dataset.{name}, the edge of a block in {unit}"
        return f"make blocks smaller (build.dataset.{name} is {asked[name]:g} {unit})"

    def sample_counts(self) -> np.ndarray:
        """Return this part's labelled things of each class in each of ``indices``, (m, k) int64."""
        mine = self._mine[np.searchsorted(self.table.ids, self.census.group)]
        rows = mine & (self.census.kind != ANY)
        counts = np.zeros((len(self.indices), self.table.counts.shape[1]), np.int64)
        place = np.searchsorted(self.indices, self.census.sample[rows])
        np.add.at(counts, (place, self.census.kind[rows]), self.census.count[rows])
        return counts

    def member(self, groups: np.ndarray) -> np.ndarray:
        """Return which of ``groups`` (ids of any shape, -1: none) belong to this part."""
        place = np.searchsorted(self.table.ids, groups).clip(0, max(len(self.table.ids) - 1, 0))
        if not len(self.table.ids):
            return np.zeros(np.shape(groups), bool)
        return (self.table.ids[place] == groups) & self._mine[place]

    def restrict(self, label: np.ndarray, groups: np.ndarray | None) -> np.ndarray:
        """Return ``label`` without what belongs to other parts (IGNORE, or NaN in a raster).

        label: (..., h, w) mask or (..., t, h, w) raster.
        groups: (..., h, w) of :attr:`grouping`; None when parts are of whole samples.
        """
        if self.grouping is None or self.part == "all":
            return label
        assert groups is not None, f"restrict needs the groups of {self.grouping!r}"
        mine = self.member(groups)
        if self.store.contents.label.kind == "mask":
            return np.where(mine, label, np.asarray(IGNORE, label.dtype))
        return np.where(mine[..., None, :, :], label, np.asarray(np.nan, label.dtype))

    def share_touching(self) -> float | None:
        """Return the share of this part's windows that touch training pixels; None if unknown."""
        from swath.data.touch import share_touching

        return share_touching(self, select(self.store, self.split, "train"))

    def nearness(self) -> dict[str, float | None]:
        """Return how near this part is to the training part; see :mod:`swath.data.touch`."""
        from swath.data.touch import nearness

        return nearness(self, select(self.store, self.split, "train"))


def select(store: Store, split: Split | None, part: Part) -> Selection:
    """Return ``part`` of ``store`` under ``split``, or under the store's own.

    Raises ConfigError if the store has no such grouping, or a class has samples but none of them
    to train on.
    """
    contents: Contents = store.contents
    missing = [name for name in ("split", "census") if name not in store.attributes]
    if missing:
        raise ConfigError(
            f"{store.path}: has no {' and no '.join(missing)}; make it with `swath data build`"
        )
    if split is None:
        split = Split(**store.attributes["split"])
    known = ("random", "given", *contents.groupings)
    if split.by not in known:
        raise ConfigError(
            f"split by={split.by}: the store {store.path} has no such grouping; "
            f"there are {', '.join(known)}"
        )
    grouping = split.by if split.by in contents.grouped_pixels else None
    census = censuses.unpack(store.attributes["census"][grouping or SAMPLES])
    if grouping is None and split.by in contents.groupings:
        census = censuses.regroup(census, store.column(f"groups/{split.by}"))
    table = tabulate(census, contents.label)
    if split.by == "given":
        parts = store.column("given")[table.ids].astype(np.uint8)
        if (parts == NONE).all():
            raise ConfigError(
                f"split by=given: the samples of {store.path} were published without a split"
            )
    else:
        parts = assign(table, split)
    mine = parts == PARTS[part] if part != "all" else np.ones(len(parts), bool)
    rows = mine[np.searchsorted(table.ids, census.group)]
    indices = np.unique(census.sample[rows])
    if part == "train":
        _check(table, parts, split, contents.label)
    return Selection(store, split, part, indices, grouping, table, parts, census)


def _check(table: GroupTable, parts: np.ndarray, split: Split, label: Label) -> None:
    trained = table.counts[parts == TRAIN].sum(0)
    lost = [i for i in np.flatnonzero((trained == 0) & (table.counts.sum(0) > 0))]
    named = ", ".join(repr(label.classes[i]) for i in lost)
    if not (parts == TRAIN).any():
        raise ConfigError(f"split by={split.by}: nothing to train on; {_way_out(split)}")
    if lost and label.kind == "flags":
        log.warning("split by=%s: no training sample has %s", split.by, named)
    elif lost:
        groups = "; ".join(
            f"{label.classes[i]!r} is in {int((table.counts[:, i] > 0).sum())} group(s)"
            for i in lost
        )
        raise ConfigError(
            f"split by={split.by}: no training sample of {named} ({groups}); {_way_out(split)}"
        )


def _way_out(split: Split) -> str:
    if split.by == "given":
        return "choose a split of our own, such as by=block or by=random"
    return "try another seed, smaller shares or smaller groups, or leave the class out"
