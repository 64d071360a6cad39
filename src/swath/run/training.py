"""Verbs that make a model: it is trained, written as it stands, or only laid out on ranks."""

from __future__ import annotations

import pathlib
from typing import TYPE_CHECKING, Any

from swath.config import ConfigError
from swath.run.scene import built_from
from swath.run.start import named, one_process
from swath.run.store import built_once
from swath.settings import Run
from swath.train.job import check

if TYPE_CHECKING:
    from swath.train.dry import Layout

BY_CHIP = "a pixel counts in every chip that shows it"
"""How figures of the model, chip by chip, count what they are made from."""


@named
def prepare(run: Run) -> None:
    """Build the store that ``run`` trains on, unless it is there; in one process.

    ConfigError, before anything is gathered, if the run folder belongs to other settings.
    """
    run.job()
    check(run.place, run)
    built_once(run)


@named
def train(run: Run) -> dict[str, Any]:
    """Train, or go on training, in the run folder; return the last figures, as in metrics.jsonl."""
    job = run.job()
    if run.build is not None:
        prepare(run)
    from swath.train.setup import train as trained

    return trained(job, settings=run)


def after_training(run: Run, figures: dict[str, Any]) -> str:
    """Return where the model is that :func:`train` left, how good it is, and what can be done next.

    figures: as ``train`` returned them.
    """
    from swath.data.store import Store
    from swath.tasks import figure
    from swath.train.export import WEIGHTS
    from swath.train.heldout import has_test
    from swath.train.progress import scores

    every = scores(figures)
    told = "  ".join(f"{name} {value:.4f}" for name, value in every)
    doubts = [figure(name.rpartition("/")[2]).doubt(value) for name, value in every]
    labelled = run.task is not None and run.task.labels is not None
    if told and labelled and Store.open(run.data.store).contents.label.per_pixel:
        told += f"  ({BY_CHIP})"
    verbs = ["predict"] if labelled and (run.predict.scene or built_from(run)) else []
    tested = has_test(run.data)
    if tested and run.task is not None and not run.task.taught:  # else its teacher is gone
        verbs += ["evaluate"]
    elif not labelled:
        classes = Store.open(run.data.store).contents.label.kind in ("class", "mask")
        verbs += ["probe" if tested and classes else "embed"]
    verbs += [*(["baseline"] if run.baselines and tested else []), "report"]
    chosen = f"{run.place / WEIGHTS}: the model after update {figures['update']}"
    after = ", ".join(f"swath {verb} {run.place}" for verb in verbs)
    lines = [f"{chosen}{'  ' if told else ''}{told}", *dict.fromkeys(filter(None, doubts))]
    return "\n".join([*lines, f"next: {after}"])


def export(run: Run) -> pathlib.Path:
    """Write the model of a run that is not at its end, as it stands; return its weights' file.

    It is that of the best evaluation so far, or of the newest checkpoint. ``train`` still goes on
    with the run, and writes the model of the end in its place.
    """
    from swath.train.unfinished import export as exported

    one_process("export")
    return exported(run.job())


def export_for(run: Run, names: str) -> pathlib.Path:
    """Write the model of a run by the ``names`` of other programs, "timm" or "hf"; return where.

    ConfigError for other names, or a network that others do not have.
    """
    from swath.train.foreign import LAYOUTS, write_foreign

    one_process("export")
    if names not in LAYOUTS:
        raise ConfigError(f"--names={names}: there are {' and '.join(LAYOUTS)}")
    return write_foreign(run.place, names)


@named
def dry_run(run: Run, ranks: int) -> Layout:
    """Return how training would lie on ``ranks`` ranks: memory, exchanges, updates; starts none.

    No pixels are read: what samples look like is told by the store, or, where there is none yet, by
    headers and labels of the files that ``build`` names. ConfigError if neither is there, or if the
    settings do not fit so many ranks.
    """
    from swath.data.store import Store
    from swath.train.dry import lay_out

    one_process("train --dry-run")
    job = run.job()
    if Store.exists(run.data.store):
        contents = Store.open(run.data.store, unfinished=True).contents
    elif run.build is not None:
        contents = run.build.dataset.open().contents
    else:
        raise ConfigError(
            f"{run.data.store}: there is no store, and no build: that says what samples look like;"
            " a dry run has to know their bands, size and classes. Build the store, or describe"
            " samples like them, as build.dataset={kind: synthetic, size: 224, bands: 12, label:"
            " class, classes: 19}"
        )
    missing = next((one.store for one in run.data.also if not Store.exists(one.store)), None)
    if missing is not None:
        raise ConfigError(
            f"data.also: {missing}: there is no store; build it first, for a dry run has to know"
            " the bands and the size of its samples, or leave it out"
        )
    also = [Store.open(one.store, unfinished=True).contents for one in run.data.also]
    return lay_out(job, contents, ranks, also=also)
