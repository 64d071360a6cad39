"""From settings to a trained model in a run folder: lets the trainer run, and keeps what it leaves.

``train`` is what the verb of the command line and a notebook call; every rank of a world calls it
alike. What it trained is scored in ``swath.train.score``.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import pathlib
from typing import Any

import torch

from swath.adapt import Adapt
from swath.config import ConfigError, plain
from swath.lock import lock
from swath.parallel.replica import Replica
from swath.parallel.world import World
from swath.train.assemble import assemble
from swath.train.begin import share
from swath.train.beginning import beginning
from swath.train.checkpoint import Checkpoints
from swath.train.describe import describe
from swath.train.export import WEIGHTS, About, save_model, weights_of
from swath.train.init import Init, settled
from swath.train.interrupt import Interrupts
from swath.train.job import TrainJob, check, claim, settings_of
from swath.train.precision import arithmetic
from swath.train.progress import ProgressLine
from swath.train.record import Recorder, note_start, read
from swath.train.trainer import Figures, Trainer
from swath.train.usage import Usage
from swath.version import VERSION

log = logging.getLogger(__name__)


def train(job: TrainJob, *, settings: Any = None, world: World | None = None) -> Figures:
    """Train to the end in ``job.folder``, going on from what is there; return the last figures.

    settings: what settings.yaml shall hold, if more than ``job`` (a Run). world: the ranks; None:
    those that the launcher started. Raises ConfigError if settings, data and folder do not fit
    together, Interrupted after a signal, Diverged if the gradient is not finite.
    """
    if world is None:
        with World.start(job.compute.device, job.parallel, job) as world:
            return train(job, settings=settings, world=world)
    folder = pathlib.Path(job.folder)
    with (
        Interrupts() as interrupts,
        arithmetic(job.train.precision, job.compute),
        contextlib.ExitStack() as held,
    ):
        data = job.open()
        about = describe(job, data)
        world.first_does(lambda: held.enter_context(lock(folder / ".lock", "swath train")))
        if job.init is not None:
            init = _settled(job.init, folder, world)
            job = dataclasses.replace(job, init=init)
            settings = settings and dataclasses.replace(settings, init=init)
        world.first_does(lambda: check(folder, settings or job))
        if job.data.stage is not None:
            world.all_do(data.stage)
        for doubt in job.doubts() if world.first else []:
            log.warning("%s", doubt)
        trainer = assemble(job, data, about, world, interrupts)
        world.first_does(lambda: claim(folder, settings or job))  # now that nothing refused it
        progress = trainer.state.progress
        if trainer.finished:
            log.info(
                "%s is finished: %d samples in %d updates; name=ANOTHER begins a new run",
                folder,
                progress.samples,
                progress.update,
            )
        elif progress.update:
            log.info("going on after update %d of %s", progress.update, folder)
        else:
            for line in beginning(trainer, data, job.updates):
                log.info("%s", line)
        if not progress.update and job.train.samples % job.batch.samples:
            log.info(
                "train.samples=%d is no multiple of batch.samples=%d: the run has %d updates, %d "
                "samples",
                job.train.samples,
                job.batch.samples,
                job.updates,
                job.updates * job.batch.samples,
            )
        with contextlib.ExitStack() as records:
            world.first_does(lambda: _begin_records(trainer, folder, records))
            trainer.run()
        chosen = _chosen(trainer)

        def export() -> None:
            data.check_same()
            export_model(trainer.checkpoints, chosen, folder, about, progress.lost, job.adapt)

        world.first_does(export)
    lines = (figures for figures in reversed(read(folder)) if figures["update"] == chosen)
    return next(lines, {"update": chosen})  # its line may be gone from a run finished before


def _settled(init: Init, folder: pathlib.Path, world: World) -> Init:
    """Return ``init`` with the checksum of its weights; all ranks of ``world`` call it together."""
    known = [init]
    world.first_does(lambda: known.append(settled(init, folder, settings_of(folder))))
    return share(known[-1], world)


def _chosen(trainer: Trainer) -> int:
    """Return the update whose weights a finished run exports; their checkpoint is whole.

    ConfigError if it is not, and no other one can stand in for it.
    """
    progress, there = trainer.state.progress, trainer.checkpoints
    if there.exports_best and (best := progress.best_update) is not None:
        if there.whole(best):
            return best
        for name, value in there.stand_in(progress.update, best).items():
            setattr(progress, name, value)
        if progress.best_update is not None:
            return progress.best_update
    if not there.whole(progress.update):
        raise ConfigError(
            f"{there.path(progress.update)}: is damaged, and it holds the model of this run; the"
            " same command makes it again from the checkpoint before"
        )
    return progress.update


def _begin_records(trainer: Trainer, folder: pathlib.Path, records: contextlib.ExitStack) -> None:
    """Let ``trainer`` record to its run folder and the terminal until ``records`` closes."""
    progress = trainer.state.progress
    evaluated = progress.evaluated == progress.samples
    recorder = records.enter_context(Recorder(folder, progress.update, evaluated=evaluated))
    every, (update, samples) = trainer.settings.record_every or 1, recorder.recorded
    if progress.samples // every > samples // every:
        log.warning(
            "%s: says nothing of updates %d to %d, which this run has made: was it cut or removed? "
            "The curve has a gap there; the model does not depend on it",
            *(recorder.path, update + 1, progress.update),
        )
    line = records.enter_context(ProgressLine(trainer.settings.samples, trainer.batch.samples))
    if not trainer.finished:
        facts = conditions(trainer.replica, trainer.usage)
        note_start(folder, {"update": progress.update, **facts})

    def record(figures: Figures) -> None:
        recorder.write(figures)
        line(figures)

    trainer.record = record


def conditions(replica: Replica, usage: Usage) -> dict[str, Any]:
    """Return what a run's figures of speed have to be read with; see docs/howto/seeing.md."""
    world, cost = replica.world, usage.cost
    gpu = world.device.type == "cuda"
    return {
        "ranks": world.ranks,
        "degrees": {n: d for n, d in plain(replica.mesh.degrees).items() if d > 1},
        "device": torch.cuda.get_device_name(world.device) if gpu else "cpu",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "swath": VERSION,
        "flops_per_sample": cost.flops,
        "tokens_per_sample": cost.tokens,
        "peak_flops_per_s": cost.peak,
        "peak_from": cost.peak_from,
    }


def export_model(
    checkpoints: Checkpoints,
    update: int,
    folder: pathlib.Path,
    about: About,
    lost: int | None = None,
    adapt: Adapt | None = None,
) -> pathlib.Path:
    """Write the model of the checkpoint after ``update`` to the run folder; return its weights.

    What ``adapt`` put beside the network in order to learn is merged into it; what the task put
    around it is left out.

    lost: the update whose weights it stands in for, if those were lost.
    """
    samples = checkpoints.numbers(update)["samples"]
    reached = dataclasses.replace(about, samples=samples, update=update, lost=lost)
    weights = about.task.merged(weights_of(checkpoints.path(update)))
    save_model(folder, weights if adapt is None else adapt.merged(weights), reached)
    return folder / WEIGHTS
