"""What can be wrong with a dataset: found before its store is built, sample by sample, and after.

What the settings and the contents tell is checked before anything is packed, for packing can take
hours. What needs the labels is known when they are counted.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from swath.config import ConfigError
from swath.data.chip import IGNORE, Chip, Contents
from swath.data.plausible import check_scale, strays, suspicions, thinned
from swath.data.split import TEST, Selection, Split, select
from swath.data.touch import cut_objects

if TYPE_CHECKING:
    from swath.data.stats import BandStats
    from swath.data.store import Store

log = logging.getLogger(__name__)

_LOOKED_AT = 16  # chips whose pixels are looked at


def check_contents(contents: Contents) -> None:
    """Raise ConfigError if a dataset announces what no store can hold."""
    if contents.grouped_pixels and not contents.label.per_pixel:
        raise ConfigError(
            f"the dataset groups pixels by {', '.join(contents.grouped_pixels)}, but its label is "
            f"a {contents.label.kind}, which no pixel has; leave them out of grouped_pixels, "
            "and give each chip one number"
        )


def check_chip(chip: Chip, contents: Contents, index: int) -> None:
    """Raise ConfigError if a label or place of ``chip`` is not within ``contents``; the store
    itself checks shapes and types."""
    label, classes = contents.label, len(contents.label.classes)
    who = f"sample {index} ({chip.name})"
    found: np.ndarray = np.asarray(chip.label) if chip.label is not None else np.zeros(0)
    if label.kind in ("class", "mask"):
        known = found[found != IGNORE] if label.kind == "mask" else found[found != -1]
        wrong = np.unique(known[(known < 0) | (known >= classes)])
        if len(wrong):
            raise ConfigError(
                f"{who}: label {', '.join(map(str, wrong.tolist()))} is outside the class map of "
                f"{classes} classes (0..{classes - 1})"
            )
    if label.kind == "flags" and not np.isin(found, (0, 1)).all():
        raise ConfigError(f"{who}: flags must be 0 or 1, are {np.unique(found).tolist()}")
    if chip.given is not None and chip.given not in contents.given:
        raise ConfigError(
            f"{who}: is published as {chip.given}, which its contents do not announce "
            f"(given={contents.given})"
        )
    if chip.where is not None and not 0 <= chip.where.ground < len(contents.grounds):
        raise ConfigError(f"{who}: is on ground {chip.where.ground}, which is not in its contents")


def check_pixels(chips: Sequence[Chip], contents: Contents) -> None:
    """Raise ConfigError if pixels of ``chips`` cannot be what their sensor says."""
    some = chips[:: max(1, len(chips) // _LOOKED_AT)]
    names = f"{some[0].name} and {len(some) - 1} others" if len(some) > 1 else some[0].name
    for modality in contents.modalities:
        images = [chip.images[modality.name] for chip in some]
        bands = [
            np.concatenate([thinned(image[i]) for image in images])
            for i in range(len(modality.sensor.bands))
        ]
        check_scale(modality.sensor, [b[modality.sensor.observed(b)] for b in bands], names)


def check_split(split: Split, contents: Contents) -> None:
    """Raise ConfigError if a store of ``contents`` cannot be split so, before it is built."""
    if split.by == "given" and "train" not in contents.given:
        named = ", ".join(contents.given)
        why = f"it names samples for {named} only" if named else "nothing says the part of a sample"
        raise ConfigError(
            f"split.by=given: this dataset was published without a split to train on ({why}); set "
            f"build.split.by={_better(contents)}"
        )
    given = ("given",) if "train" in contents.given else ()
    known = ("random", *given, *contents.groupings)
    if split.by not in known:
        placed = contents.grounds or split.by != "block"
        why = "" if placed else " (its images have no place on the Earth)"
        raise ConfigError(
            f"split.by={split.by}: this dataset is not grouped by {split.by!r}{why}; there are "
            f"{', '.join(known)}; set build.split.by={_better(contents)}"
        )


def _better(contents: Contents) -> str:
    return next(iter(contents.groupings), "random")


def warn_of_parts(store: Store, train: Selection) -> None:
    """Say which parts are empty or too small, and why, and which classes the test part cannot
    score. Too few groups are no error: a model can be trained, but not scored."""
    for part in ("val", "test"):
        selection = select(store, train.split, part)
        asked = train.split.by == "given" or getattr(train.split, part)
        if asked and not len(selection.indices):
            log.warning("%s: the %s part is empty: %s", store.path, part, selection.why_empty())
    split, total = train.split, int(train.table.sizes.sum())
    things = "the samples" if store.contents.label.kind == "none" else "what is labelled"
    share = 1 - split.val - split.test if split.train is None else split.train
    if split.by != "given" and 2 * train.size < share * total:
        log.warning(
            "split by=%s: training has %.0f %% of %s, not the %.0f %% asked for: %s, and each part "
            "takes at least one%s; %s",
            *(split.by, 100 * train.size / total, things, 100 * share, train.groups_told),
            *(" of each class" if train.table.counts.shape[1] and split.stratify else "",),
            train.smaller,
        )
    tested = train.table.counts[train.parts == TEST].sum(0)
    lost = np.flatnonzero((tested == 0) & (train.table.counts.sum(0) > 0))
    if len(lost) and (train.parts == TEST).any():
        named = ", ".join(store.contents.label.classes[i] for i in lost)
        log.warning("split by=%s: nothing to test on of %s", train.split.by, named)


def warn_of_cut_objects(store: Store, train: Selection) -> None:
    """Say how many polygons (or regions) the line between training and testing cuts."""
    cut = cut_objects(select(store, train.split, "test"), train)
    if cut is not None and cut.both:
        log.warning(
            "split by=%s: of %d %ss in the test part, %d lie in training too (%.0f %% of the test "
            "windows show one); build.split.by=%s keeps each on one side",
            *(train.split.by, cut.tested, cut.grouping, cut.both, 100 * cut.share, cut.grouping),
        )


def check_bands(store: Store, bands: dict[str, list[BandStats]]) -> None:
    """Raise ConfigError if a band was never observed, or holds what nothing is; warn of values far
    from all others, and of what reflectance hardly ever is."""
    empty = [b.name for found in bands.values() for b in found if not b.pixels]
    if empty:
        raise ConfigError(
            f"{store.path}: band {', '.join(empty)} is no-data in every training sample; leave "
            "the band out, or correct the sensor's no-data value"
        )
    for name, found in bands.items():
        known = np.array([(band.p02, band.p50, band.p98) for band in found])
        for told, impossible in strays(found):
            if impossible:
                raise ConfigError(f"{store.path}: training pixels of {name}: {told}")
            log.warning("%s: training pixels of %s: %s", store.path, name, told)
        for told in suspicions(store.modality(name).sensor, known):
            log.warning("%s: training pixels of %s: %s", store.path, name, told)
