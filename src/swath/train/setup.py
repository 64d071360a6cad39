"""From settings to a trained model in a run folder: builds the parts, lets the trainer run.

``train`` is what the verb of the command line and a notebook call; every rank of a world calls it
alike. What it trained is scored in ``swath.train.score``.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import json
import logging
import pathlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from swath import units
from swath.adapt import Adapt
from swath.config import ConfigError, plain
from swath.data.chip import Batch
from swath.data.loader import Loader
from swath.data.opened import Data
from swath.data.sensor import Band
from swath.data.split import Part
from swath.data.views import Viewer
from swath.lock import lock
from swath.models import Inputs
from swath.parallel.apply import spread
from swath.parallel.fill import spread_hollow
from swath.parallel.mesh import Mesh
from swath.parallel.replica import Replica
from swath.parallel.world import World
from swath.train.adapted import build, factors, optimizer
from swath.train.begin import begin, share
from swath.train.checkpoint import Checkpoints
from swath.train.cost import Cost, cost
from swath.train.ema import Average
from swath.train.export import WEIGHTS, About, save_model, weights_of
from swath.train.heldout import Further, Trained
from swath.train.init import Init, settled
from swath.train.interrupt import Interrupts
from swath.train.job import TrainJob, check, claim, settings_of
from swath.train.precision import AUTOCAST, DTYPES, arithmetic
from swath.train.profile import Profiler
from swath.train.progress import ProgressLine
from swath.train.record import Recorder, note_start, read
from swath.train.state import TrainState
from swath.train.trainer import Figures, Other, Trainer
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
            log.info(
                "%s%s samples to learn from, %s updates",
                _parameters(trainer.replica),
                units.count(sum(len(d.select("train").indices) for d in (data, *data.also))),
                units.count(job.updates),
            )
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


def _parameters(replica: Replica) -> str:
    """Return how many parameters learn; nothing where a rank knows only its stage of a pipeline."""
    if replica.mesh.degrees.pipeline > 1:
        return ""
    count = sum(p.numel() for p in replica.model.parameters() if p.requires_grad)
    return f"{units.count(count)} parameters, "


def _chosen(trainer: Trainer) -> int:
    """Return the update whose weights a finished run exports; their checkpoint is whole.

    ConfigError if it is not, and no other one can stand in for it.
    """
    progress, there = trainer.state.progress, trainer.checkpoints
    if trainer.settings.select == "best" and (best := progress.best_update) is not None:
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


def assemble(
    job: TrainJob, data: Data, about: About, world: World, interrupts: Interrupts
) -> Trainer:
    """Return the trainer of ``job``, where the newest checkpoint of its folder left it."""
    replica = _first_replica(about, job, world)
    # After the replica, which may put other parameters in place of the model's own.
    rates = factors(job, about.inputs, about.outputs)
    state = TrainState(replica.model, optimizer(job, replica.model, rates))
    if job.train.ema is not None:
        state.average = Average(replica.model, job.train.ema)
    folder = pathlib.Path(job.folder) / "checkpoints"
    facts = {"store": fingerprint(data)}
    checkpoints = Checkpoints(
        folder,
        job.train.keep,
        world,
        facts,
        job,
        behind=job.train.checkpoint_async,
        check=data.check_same,
    )
    if not checkpoints.restore(state) and job.init is not None:
        begin(job.init, about, replica.model, world)
        if state.average is not None:  # it was taken from random weights
            state.average = Average(replica.model, state.average.samples)
    job.profile.check(job.updates, world)
    trainer = Trainer(
        state=state,
        replica=replica,
        objective=about.bind(),
        loader=data.training(
            micro=job.batch.micro,
            seed=job.seed,
            augment=job.augment,
            views=job.task.wants,
            prefetch=job.compute.prefetch,
            device=world.device,
        ),
        batch=job.batch,
        schedule=job.schedule,
        settings=job.train,
        checkpoints=checkpoints,
        interrupts=interrupts,
        validation=_validation(job, data, replica),
        others=_others(job, data, about, replica),
        usage=Usage(staging=data.store.staging, compiled=job.compute.compile),
        profiler=Profiler(
            job.profile, pathlib.Path(job.folder), world.rank, world.device.type == "cuda"
        ),
    )
    if not trainer.finished:  # else no rate is told, and none has to be measured
        trainer.usage.cost = _cost(about, job, world)
    return trainer


def _cost(about: About, job: TrainJob, world: World) -> Cost:
    """Return what a sample costs and what a rank can; known to rank 0, which records."""
    if not world.first:
        return Cost()
    wants, size = job.task.wants, about.inputs.size
    return cost(
        lambda: job.task.fitted(about.model.build(about.inputs, about.outputs), job.train.samples),
        about.inputs,
        world.device,
        job.train.precision,
        job.compute.machine,
        passes=3 if job.adapt is None else job.adapt.passes,
        sides=None if wants is None else [side for side, _ in wants.kinds(size, size)],
    )


def make_replica(model: nn.Module, job: TrainJob, world: World) -> Replica:
    """Return ``model``, which each rank of ``world`` has whole, as they hold it together, with the
    weights of rank 0."""
    mesh = Mesh.of(world, job.parallel)
    with torch.no_grad():
        world.broadcast([*model.parameters(), *model.buffers()])
    return _replica(spread(model, mesh, job.parallel, **_how(job)), mesh, job)


def _first_replica(about: About, job: TrainJob, world: World) -> Replica:
    """Return the untrained network of ``about`` as the ranks of ``world`` hold it together."""
    mesh = Mesh.of(world, job.parallel)

    def first() -> nn.Module:
        return network(job, about).to(DTYPES[job.train.precision])

    degrees = mesh.degrees
    if degrees.shard * degrees.tensor * degrees.pipeline == 1:  # each rank has it whole anyway
        return make_replica(first().to(world.device), job, world)
    return _replica(spread_hollow(first, mesh, job.parallel, **_how(job)), mesh, job)


def _how(job: TrainJob) -> dict[str, Any]:
    return {"compile": job.compute.compile, "narrow": AUTOCAST.get(job.train.precision)}


def _replica(model: nn.Module, mesh: Mesh, job: TrainJob) -> Replica:
    autocast = AUTOCAST.get(job.train.precision)
    return Replica(model, mesh, autocast=autocast, bucket=job.parallel.bucket << 20)


def fingerprint(data: Data) -> str:
    """Return a short word that differs for stores, or splits of them, with other content."""
    store, part = data.store, data.select("train")
    known = {name: store.attributes.get(name) for name in ("census", "stats", "checksum")}
    contents = plain(store.contents, defaults=False)
    told = json.dumps([contents, store.samples, known], sort_keys=True).encode()
    told += part.parts.tobytes() + b"".join(fingerprint(one).encode() for one in data.also)
    return hashlib.sha256(told).hexdigest()[:16]


def _validation(job: TrainJob, data: Data, replica: Replica) -> Any:
    loader = held_out_loader(job, data, "val", replica.world.device)
    if len(loader.selection.indices):
        return functools.partial(sweep, loader, replica)
    if job.train.evaluate_every is not None:
        raise ConfigError(
            f"train.evaluate_every={job.train.evaluate_every} has no effect: the split of"
            f" {job.data.store} has no validation part: {loader.selection.why_empty()}; or leave"
            " evaluate_every out"
        )
    return None


def _others(job: TrainJob, data: Data, about: About, replica: Replica) -> dict[str, Other]:
    """Return, for each further store with a validation part, by name, the objective on its bands
    and what gives this rank's microbatches of it."""
    found: dict[str, Other] = {}
    for one in data.also:
        loader = held_out_loader(job, one, "val", replica.world.device)
        if not len(loader.selection.indices):
            continue
        name = one.settings.store.rstrip("/").rpartition("/")[2]
        if name in found:  # of stores of one name, in other folders
            name = f"{name}-{len(found)}"
        own = dataclasses.replace(about.inputs, bands=one.bands)
        objective = dataclasses.replace(about, inputs=own).bind()
        found[name] = objective, functools.partial(sweep, loader, replica)
    return found


def held_out_loader(job: TrainJob, data: Data, part: Part, device: torch.device) -> Loader:
    """Return a loader of a part to be scored on; views of a sample depend on its index alone."""
    return data.loader(
        part,
        micro=job.batch.micro,
        augment=None if job.task.wants is None else job.augment,
        views=job.task.wants,
        prefetch=job.compute.prefetch,
        device=device,
    )


def sweep(loader: Any, replica: Replica) -> Iterator[Batch]:
    """Yield this rank's microbatches of all that ``loader`` has, each sample once."""
    mesh = replica.mesh  # the ranks as they are now
    return loader.sweep(mesh.data_rank, mesh.data_ranks, even=replica.in_step)


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
