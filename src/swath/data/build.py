"""From a dataset to a finished store, which can be killed at any moment and taken up again.

Pixels first, shard by shard: a shard is on disk whole or not at all. What follows is computed
from the pixels on disk alone, so it comes out the same after any number of interruptions: the
census of labels, the split, the band statistics of the training part. The mark that the store is
finished comes last.

A pixel that no band observed has no label in the store, whatever the dataset says of it: nothing
can be learned or scored there. So it counts nowhere: not in a loss, a score, a split's shares, a
baseline, or the score of a map, which has no answer there either.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import pathlib
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

from swath import here
from swath.config import ConfigError, kind_of, plain
from swath.data import layout, stats
from swath.data.census import SAMPLES, CensusFold, pack, unpack
from swath.data.check import (
    check_bands,
    check_chip,
    check_contents,
    check_pixels,
    check_split,
    warn_of_cut_objects,
    warn_of_parts,
)
from swath.data.chip import IGNORE, Chip
from swath.data.dataset import Dataset, Source
from swath.data.fold import fit
from swath.data.places import known
from swath.data.shards import is_address, nearby
from swath.data.split import Split, select
from swath.data.store import Store
from swath.fields import free_fields
from swath.lock import lock
from swath.log import bar

log = logging.getLogger(__name__)

_NOTES = ".found"  # folder in a store: what its dataset keeps, so as not to look for it again
_CENSUS_BYTES = 64 << 20  # labels read at a time


def build(
    dataset: Dataset,
    out: str | os.PathLike[str],
    split: Split,
    *,
    threads: int | None = None,
    compress: bool = True,
    progress: bool = True,
    **options: Any,
) -> Store:
    """Return the finished store of ``dataset`` in ``out``; what is there already is kept.

    out: a folder, or an address such as s3://bucket/x.

    threads: samples read at a time; None: one per core. It does not change the store.
    options: go to :meth:`Store.create`, such as shard_bytes.

    Raises ConfigError if ``out`` was built from other settings (naming the first that differs),
    a sample cannot be read or is not what its dataset announced, a class has no training sample,
    a band has no data, the disk is full, or another process builds there. Apart from the first,
    run it again when that is mended: it goes on where it stopped.
    """
    if not Store.exists(out):
        kind, other = kind_of(type(dataset)), nearby(os.fspath(out))
        near = f" (there is {other})" if other else ""
        log.info("%s: there is no store yet%s; building it, kind %s", out, near, kind)
    else:  # before the files are looked through, which may take long
        _check_settings(Store.open(out, unfinished=True), dataset, split, compress)
    local = not is_address(os.fspath(out)) and not os.path.isfile(out)
    source = dataset.resume(pathlib.Path(out) / _NOTES if local else None, progress)
    check_contents(source.contents)
    check_split(split, source.contents)
    if Store.exists(out):
        store = _begin(dataset, source, out, split, compress, options)
        if _sealed(store) and not store.missing():
            return store  # without a lock: it may lie where nobody may write
    with _alone(out):
        store = _begin(dataset, source, out, split, compress, options)
        _go_on(store, source, split, threads, progress)
    return store


def _alone(out: str | os.PathLike[str]) -> contextlib.AbstractContextManager[None]:
    if is_address(os.fspath(out)) or os.path.isfile(out):
        return contextlib.nullcontext()
    return lock(pathlib.Path(out) / ".lock", "swath data build")


def _go_on(store: Store, source: Source, split: Split, threads: int | None, progress: bool) -> None:
    """Write what is missing of ``store``, and finish it."""
    shards = store.missing()
    if _sealed(store) and not shards:
        return  # another process has just finished it
    if shards:
        _check_origins(store, source)
    lacking = sum(len(s) for s in shards)
    if lacking < store.samples:
        log.info("%s: going on; %d of %d samples to read", store.path, lacking, store.samples)
    with bar(progress, "samples", lacking) as step:
        _write(store, source, shards, threads, step)
    if store.done:  # only a lost shard was put back, now or by a process that died then
        store.update(checksum=store.sum())
        return
    census = take_census(store, progress)
    if not len(unpack(census[SAMPLES]).sample):
        raise ConfigError(
            f"{store.path}: no pixel is labelled that some band observed; correct the labels, or "
            "the sensor's no-data value"
        )
    store.update(split=plain(split), census=census)
    train = select(store, split, "train")
    warn_of_parts(store, train)
    warn_of_cut_objects(store, train)
    with bar(progress, "statistics", len(store.contents.modalities)) as step:
        bands = {}
        for modality in store.contents.modalities:
            bands[modality.name] = stats.modality_statistics(train, modality)
            step()
    check_bands(store, bands)
    store.finish(stats=stats.plain(bands), checksum=store.sum())
    told = ", ".join(f"the {what} of {count}" for what, count in known(store).items())
    log.info("%s: %d samples; known are %s", store.path, store.samples, told)


def _sealed(store: Store) -> bool:
    """Return whether it is done and summed; the checksum is None while shards are put back."""
    return store.done and store.attributes.get("checksum") is not None


def _check_origins(store: Store, source: Source) -> None:
    """Raise ConfigError if a ground is not read from the file that the store was begun with."""
    known, found = store.attributes.get("origins"), getattr(source, "origins", None)
    if not known or not found:
        return
    for ground, before, now in zip(store.contents.grounds, known, found, strict=True):
        changed = [band for band in before if before[band] != now.get(band)]
        if changed:
            raise ConfigError(
                f"{store.path}: cannot go on: the file of {ground.name} that holds "
                f"{', '.join(changed[:5])}{', ...' if len(changed) > 5 else ''} is another than "
                "when the store was begun, and the store would be of two; put that file back, or "
                "delete the store, or build into another folder"
            )


def _begin(
    dataset: Dataset,
    source: Source,
    out: str | os.PathLike[str],
    split: Split,
    compress: bool,
    options: dict[str, Any],
) -> Store:
    asked = {"dataset": plain(dataset), "split": plain(split)}
    if not Store.exists(out):
        if os.path.exists(out) and not os.path.isdir(out):
            raise ConfigError(f"{out}: is a file; a store is a folder")
        if not len(source):
            raise ConfigError(f"{asked['dataset']['kind']}: the dataset has no samples")
        origins = getattr(source, "origins", None)  # of a scene, not of pictures in folders
        told = {**asked, "origins": origins} if origins else asked
        left_out = getattr(source, "left_out", None)
        told = {**told, "left_out": left_out} if left_out else told
        return Store.create(out, source.contents, len(source), compress=compress, **options, **told)
    store = Store.open(out, unfinished=True)
    _check_settings(store, dataset, split, compress)
    if len(source) != store.samples or not _same(plain(source.contents), plain(store.contents)):
        raise ConfigError(
            f"{out}: the files of the dataset changed since the store was begun "
            f"({store.samples} samples then, {len(source)} now); build into another folder"
        )
    return store


def _check_settings(store: Store, dataset: Dataset, split: Split, compress: bool) -> None:
    """Raise ConfigError if ``store`` was built with other settings, naming the first."""
    different = differing(store, dataset, split)
    different = different or _differing(store.attributes["compress"], compress, "compress")
    if different:
        raise ConfigError(
            f"{store.path}: was built from other settings: {different}; "
            "build into another folder, or delete this one"
        )


def differing(store: Store, dataset: Dataset, split: Split) -> str | None:
    """Return the first setting that ``store`` was not built with, in words; None if it was built
    with all of them. No file of the dataset is looked at."""
    asked = {"dataset": plain(dataset)}
    there = dict(store.attributes)
    free = free_fields(type(dataset))  # such as how many files are fetched at a time
    for tree in (asked["dataset"], found := dict(there.get("dataset") or {})):
        for name in free:
            tree.pop(name, None)
    there["dataset"] = found
    if store.done:  # an unfinished store holds pixels only, which do not depend on the split
        asked["split"] = plain(split)
    told = (_differing(there.get(name), value, name) for name, value in asked.items())
    return next(filter(None, told), None)


def _differing(there: Any, asked: Any, path: str) -> str | None:
    """Return the first setting of ``asked`` that is not so in ``there``, in words."""
    if isinstance(there, dict) and isinstance(asked, dict):
        for key in [*asked, *(k for k in there if k not in asked)]:
            found = _differing(there.get(key), asked.get(key), f"{path}.{key}")
            if found:
                return found
        return None
    if _same(there, asked):
        return None
    return f"{path} is {_said(there)} in the store and {_said(asked)} in the settings"


def _said(value: Any) -> str:
    return "not set" if value is None else repr(value)


def _same(one: Any, other: Any) -> bool:
    """Return whether two plain values are equal; NaN, a no-data value, is equal to NaN."""
    return layout.to_json(one) == layout.to_json(other)


def _write(
    store: Store, source: Source, shards: list[range], threads: int | None, step: Any
) -> None:
    """Read the samples of ``shards`` in threads; write each shard while the next one is read."""
    threads = threads or here.cores()
    checked = False
    written: Future[None] | None = None
    with ThreadPoolExecutor(threads) as readers, ThreadPoolExecutor(1) as writer:

        def chip(index: int) -> Chip:
            found = source.chip(index)
            check_chip(found, store.contents, index)
            step()
            return _unlabelled_where_unseen(found, store)

        try:
            for shard in shards:
                chips = list(readers.map(chip, shard))
                if not checked:
                    check_pixels(chips, store.contents)
                    checked = True
                if written is not None:
                    written.result()
                written = writer.submit(store.write_many, shard.start, chips)
            if written is not None:
                written.result()
        except BaseException:
            readers.shutdown(cancel_futures=True)
            raise


def _unlabelled_where_unseen(chip: Chip, store: Store) -> Chip:
    """Return ``chip`` without labels on pixels that no band of no image observed."""
    label = store.contents.label
    if chip.label is None or not label.per_pixel:
        return chip
    height, width = store.grid
    seen = np.zeros((height, width), bool)
    for modality in store.contents.modalities:
        there = modality.sensor.observed(chip.images[modality.name])
        rows = np.arange(height) * modality.height // height
        cols = np.arange(width) * modality.width // width
        seen |= np.any(there, 0)[rows[:, None], cols]
    if seen.all():
        return chip
    known = np.asarray(chip.label)
    nothing = known.dtype.type(IGNORE if label.kind == "mask" else np.nan)
    return dataclasses.replace(chip, label=np.where(seen, known, nothing))


def take_census(store: Store, progress: bool = False) -> dict[str, str]:
    """Return the census of samples, and of each grouping of pixels, packed; see swath.data.census.

    It reads every label once.
    """
    label = store.contents.label
    names = [SAMPLES, *store.contents.grouped_pixels]
    height, width = store.grid
    step = max(1, _CENSUS_BYTES // (8 * height * width)) if label.per_pixel else 65536
    taken = {}
    with bar(progress, "labels", len(names) * store.samples) as told:
        for name in names:

            def shards(name: str = name) -> Iterator[Any]:
                groups = () if name == SAMPLES else (name,)
                for start in range(0, store.samples, step):
                    some = np.arange(start, min(start + step, store.samples))
                    read = store.read(some, (), label=True, groups=groups).result()
                    yield some, read.get("label"), read[f"groups/{name}"] if groups else None
                    told(len(some))

            taken[name] = pack(fit(CensusFold(label), shards()))
    return taken
