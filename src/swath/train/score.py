"""Figures of a trained model on a part of a store; every rank of a world asks alike."""

from __future__ import annotations

import dataclasses
import logging

from swath.config import ConfigError
from swath.data.opened import Data
from swath.data.sensor import check_light
from swath.data.split import Part
from swath.parallel.world import World
from swath.train.assemble import held_out_loader, make_replica, sweep
from swath.train.evaluate import evaluate
from swath.train.export import LoadedModel, load_model
from swath.train.heldout import held_out
from swath.train.job import TrainJob
from swath.train.precision import DTYPES, arithmetic
from swath.train.sensed import normalizer_of
from swath.train.trainer import Figures

log = logging.getLogger(__name__)


def score(job: TrainJob, part: Part = "test", *, world: World | None = None) -> Figures:
    """Return the figures of the trained model in ``job.folder`` on one part of the store.

    Beside the task's figures: samples, and share_touching, the share of the part's windows that
    touch training pixels (None where that cannot be known), and other_store=True if the model was
    trained on another one. ConfigError if there is no such model, the part is empty, or some of it
    was trained on.
    """
    if world is None:
        with World.start(job.compute.device, job.parallel, job) as world:
            return score(job, part, world=world)
    loaded = load_model(job.folder, world.device)
    with arithmetic(job.train.precision, job.compute):
        data = data_of(job, loaded)
        loader = held_out_loader(job, data, part, world.device)
        if not len(loader.selection.indices):
            why = loader.selection.why_empty()
            raise ConfigError(f"{job.data.store}: the split has no {part} part: {why}")
        known = held_out(loader.selection, loaded.about.trained)
        count = len(loader.selection.indices)
        log.info("scoring %d samples of the %s part of %s", count, part, job.data.store)
        model = loaded.network.to(DTYPES[job.train.precision])
        replica = make_replica(model, job, world)
        inputs = dataclasses.replace(loaded.inputs, bands=data.bands)
        objective = dataclasses.replace(loaded.about, inputs=inputs).bind()
        figures = evaluate(replica, objective, sweep(loader, replica))
    assert figures is not None, "nothing can stop this evaluation"
    return {**figures, "samples": count, **known}


def data_of(job: TrainJob, loaded: LoadedModel) -> Data:
    """Open the store, normalised as the model was trained; by its own statistics if the model takes
    any bands and was trained on none of this sensor."""
    labels = job.task.labels is not None
    alone = job.data.alone(loaded.any_bands)
    data = alone.open(labels=labels, asks=job.model.asks)
    if loaded.any_bands:
        known = normalizer_of(loaded, data.bands, job.data.store, data.store.fingerprint)
        if known is None:
            return data
    else:
        found = tuple(band.name for band in data.bands)
        wanted = tuple(band.name for band in loaded.inputs.bands)
        if found != wanted:
            raise ConfigError(
                f"{job.data.store}: the model in {job.folder} takes bands {', '.join(wanted)}, the"
                f" data give {', '.join(found)}; set data.bands"
            )
        check_light(loaded.inputs.bands, data.bands, f"{job.data.store}: ")
        known = loaded.normalize
    sensors = [modality.sensor for modality, _ in data.channels]
    return dataclasses.replace(data, normalize=known.of(sensors))
