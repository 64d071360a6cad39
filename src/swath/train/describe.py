"""What a run will make of its data: the model described, and its first weights."""

from __future__ import annotations

import hashlib
import json

import torch
from torch import nn

from swath.config import ConfigError, plain
from swath.data.opened import Data
from swath.data.sensor import Band
from swath.data.views import Viewer
from swath.models import Inputs
from swath.train.adapted import build
from swath.train.export import About
from swath.train.heldout import Further, Trained
from swath.train.job import TrainJob


def describe(job: TrainJob, data: Data) -> About:
    """Return what a model trained by ``job`` on ``data`` is; ConfigError if they do not fit."""
    label = data.store.contents.label
    train_part = data.select("train")
    if not len(train_part.indices):
        raise ConfigError(f"{job.data.store}: no sample is in the training part of the split")
    counts = train_part.counts if label.has_classes and data.labelled else None
    inputs = inputs_of(job, data.bands, data.grid, data.known.gsd_m)
    for other in data.also:
        inputs_of(job, other.bands, other.grid)
    return About(
        model=job.model,
        inputs=inputs,
        outputs=job.task.bind(label, counts, inputs).outputs,
        task=job.task,
        label=label,
        counts=None if counts is None else tuple(counts.tolist()),
        normalize=data.normalize,
        seed=job.seed,
        samples=0,
        update=0,
        trained=Trained(
            store=data.store.fingerprint,
            split=train_part.split,
            also=tuple(
                Further(
                    store=other.store.fingerprint,
                    split=other.select("train").split,
                    bands=other.bands,
                    normalize=other.normalize,
                )
                for other in data.also
            ),
        ),
    )


def inputs_of(
    job: TrainJob, bands: tuple[Band, ...], grid: tuple[int, int], gsd_m: float | None = None
) -> Inputs:
    """Return what a network of ``job`` is handed of samples of (height, width) ``grid``."""
    if job.task.wants is not None:
        size = Viewer(job.task.wants, job.augment).size(*grid)
        return Inputs(bands=bands, size=size)
    height, width = job.augment.size(*grid)
    if height != width:
        raise ConfigError(
            f"samples are {height} x {width} pixels, networks train on squares; set augment.crop"
        )
    return Inputs(bands=bands, size=height, gsd_m=gsd_m)


def network(job: TrainJob, about: About) -> nn.Module:
    """Return the network of ``job`` with the random first weights of its seed, on the CPU."""
    torch.manual_seed(job.seed)
    return build(job, about.inputs, about.outputs)


def fingerprint(data: Data) -> str:
    """Return a short word that differs for stores, or splits of them, with other content."""
    store, part = data.store, data.select("train")
    known = {name: store.attributes.get(name) for name in ("census", "stats", "checksum")}
    contents = plain(store.contents, defaults=False)
    told = json.dumps([contents, store.samples, known], sort_keys=True).encode()
    told += part.parts.tobytes() + b"".join(fingerprint(one).encode() for one in data.also)
    return hashlib.sha256(told).hexdigest()[:16]
