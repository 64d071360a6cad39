"""Verbs on the store: it is built, its files are found and fetched, its samples are drawn."""

from __future__ import annotations

import pathlib
from typing import TYPE_CHECKING

from swath import here
from swath.config import ConfigError, kind_of
from swath.data.split import Part
from swath.datasets import stac
from swath.run.start import named, one_process
from swath.settings import Run

if TYPE_CHECKING:
    from swath.data.store import Store


@named
def build(run: Run, progress: bool = True) -> Store:
    """Return the store of ``run``, built first, or further, if the settings say how."""
    from swath.data.store import Store

    if run.build is None:
        return Store.open(run.data.store)
    one_process("data build")
    from swath.data.build import build as made

    return made(
        run.build.dataset,
        run.data.store,
        run.build.split,
        threads=run.build.threads,
        compress=run.build.compress,
        progress=progress,
    )


def built_once(run: Run) -> None:
    """Build the store in this process, unless others were started beside it: they would collide."""
    if here.ranks() == 1:
        build(run)
        return
    from swath.data.store import Store

    if not Store.exists(run.data.store):
        raise ConfigError(
            f"{run.data.store}: there is no store, and {here.ranks()} processes cannot build it at "
            "once; run swath data build first"
        )


def find(run: Run) -> list[str]:
    """Return a line on each item that a STAC catalogue has for ``run.build.dataset``."""
    return stac.about(_catalogue(run).find())


def fetch(run: Run, progress: bool = True) -> pathlib.Path:
    """Fetch the files of what :func:`find` tells; return the folder that they are in."""
    dataset = _catalogue(run)
    one_process("data fetch")
    dataset.fetch(dataset.find(), progress)
    return pathlib.Path(dataset.folder) / dataset.collection


def _catalogue(run: Run) -> stac.Stac:
    dataset = None if run.build is None else run.build.dataset
    if isinstance(dataset, stac.Stac):
        return dataset
    kind = "not there" if dataset is None else f"of kind {kind_of(type(dataset))}"
    raise ConfigError(
        f"this verb looks into a STAC catalogue, and build.dataset is {kind}; set it, as "
        "build.dataset={kind: stac, catalogue: URL, collection: sentinel-2-l2a, ...}"
    )


def pictures(run: Run, samples: int = 12, part: Part = "train") -> list[pathlib.Path]:
    """Draw chips with their labels, and the split on the ground; return the files, by the store."""
    from swath.data.picture import chips_picture, split_picture
    from swath.data.shards import is_address

    one_process("data show")
    if is_address(run.data.store):
        raise ConfigError(
            f"{run.data.store}: pictures are written beside the store, and this is an address; "
            "copy the store to a folder, and set data.store to that"
        )
    store = build(run)
    folder = pathlib.Path(run.data.store)
    chips, split = (folder.with_name(f"{folder.name}-{what}.png") for what in ("chips", "split"))
    chips_picture(store, chips, samples, part)
    split_picture(store, split, run.data.split)
    return [chips, split]


def statistics(run: Run) -> None:
    """Print samples, classes by part, and bands of the store, which is built first if need be."""
    from rich.console import Console

    from swath.data.summary import summary

    Console().print(summary(build(run), run.data.split))
