"""Features as they are: k nearest neighbours and a linear layer on a network left as it began.

The network is the one that the task would train, begun with the model's weights, so that bands,
patches and image sizes are adapted as they are for training; or with random ones, of the seed.
"""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

import numpy as np

from swath import here
from swath.config import ConfigError, plain
from swath.data.few import Few, drawn, fewer
from swath.data.split import NONE, PARTS, TRAIN, select
from swath.data.store import Store
from swath.embed.labels import Labels
from swath.embed.probe import KINDS, answer, choose
from swath.embed.samples import embed_samples
from swath.embed.table import NO_CLASS, Table
from swath.files import json_sum, read_json, write_json
from swath.parallel.world import World, pick_device
from swath.settings import Run
from swath.tasks import Confusion
from swath.train.begin import begin
from swath.train.describe import describe, network
from swath.train.export import load_model, save_model
from swath.train.precision import arithmetic
from swath.train.score import data_of

BEGUN = "begun.json"
"""Beside such a network: a checksum of the weights and settings that it was made of."""


def begun(run: Run, folder: pathlib.Path, world: World) -> None:
    """Write to ``folder`` the network of ``run`` with the weights it would begin with, unless that
    very one is there; all ranks call."""

    def write() -> None:
        job = dataclasses.replace(run, adapt=None).job()
        about = describe(job, job.data.open())
        # Weights are known by their checksum; with some, seed and labels are the cells' own.
        init = job.init and dataclasses.replace(job.init, from_="")
        what = dataclasses.replace(about, counts=None, seed=0 if init else about.seed)
        of = {"of": json_sum([plain(init), {name: plain(v) for name, v in vars(what).items()}])}
        path = folder / BEGUN
        if path.exists() and read_json(path) == of:
            return
        path.unlink(missing_ok=True)  # what is written now is neither until it is whole
        with arithmetic(job.train.precision, job.compute):
            model = network(job, about)
            if job.init is not None:
                begin(job.init, about, model, World.alone(), frozen=True)
        folder.mkdir(parents=True, exist_ok=True)
        save_model(folder, model.state_dict(), about)
        write_json(path, of)

    world.first_does(write)


def features(run: Run, folder: pathlib.Path, world: World) -> Table:
    """Return the features of the store of ``run`` by the network in ``folder``, made first if they
    are not there."""
    model = load_model(folder)
    return embed_samples(
        model,
        data_of(run.job(), model),
        run.embed,
        folder,
        device=pick_device(run.compute.device),
        precision=run.train.precision,
        compute=run.compute,
        windows_at_once=run.predict.windows_at_once,
        world=world,
    )


def check_classes(store: Store, way: str) -> None:
    """Raise ConfigError unless the labels of ``store`` are classes, as features are scored by."""
    kind = store.contents.label.kind
    if kind not in KINDS:
        raise ConfigError(
            f"{store.path}: its labels are of kind {kind}; {way} tells classes apart, of samples or"
            " of pixels: leave it out for this task, by tasks.NAME.ways"
        )


def score_frozen(run: Run, table: Table, method: str, few: Few) -> dict[str, Any]:
    """Return the figures on the test part of ``method`` ("knn" or "linear"), which learns from few
    labels of the training part; and how many these are, as labels (samples or places) and vectors.

    The labels are classes. What is scored on is the same for every share. ConfigError if a part has
    none.
    """
    data = run.data.open()
    label = data.store.contents.label
    parts, labels = table.column("part"), table.column("label")
    if few.share < 1:
        labels = np.where(parts == TRAIN, _drawn(run, data.store, table, few), labels)
    train, test = (
        choose(parts, labels, PARTS[part], run.probe.most, few.seed) for part in ("train", "test")
    )
    for part, some in (("training", train), ("test", test)):
        if not len(some):
            raise ConfigError(f"{data.store.path}: no vector of the {part} part has a class")
    answers = answer(
        method,
        table.vectors(train),
        labels[train],
        table.vectors(test),
        label.classes,
        run.probe,
        few.seed,
        run.compute.threads or here.cores(),
    )
    truth = labels[test]
    return {
        "figures": Confusion.count(truth, answers, label.classes).finish(),
        "labels": drawn(fewer(select(data.store, run.data.split, "train"), few)),
        "vectors": len(train),
    }


def _drawn(run: Run, store: Store, table: Table, few: Few) -> np.ndarray:
    """Return the class int32 (n,) of vectors as the drawn training labels alone have it; no class
    where none of them is."""
    every = fewer(select(store, run.data.split, "all"), few)
    mine = np.where(every.parts == TRAIN, TRAIN, NONE).astype(np.uint8)
    labels = Labels(dataclasses.replace(every, parts=mine), tuple(table.grid), table.plan["unit"])
    parts, classes = labels.of(np.arange(store.samples))
    return np.where(parts == TRAIN, classes, NO_CLASS).reshape(-1)
