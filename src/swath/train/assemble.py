"""The trainer of a run, put together from its settings: network, optimiser, checkpoints, data."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from swath.config import ConfigError
from swath.data.chip import Batch
from swath.data.loader import Loader
from swath.data.opened import Data
from swath.data.split import Part
from swath.parallel.apply import spread
from swath.parallel.fill import spread_hollow
from swath.parallel.mesh import Mesh
from swath.parallel.replica import Replica
from swath.parallel.world import World
from swath.train.adapted import factors, optimizer
from swath.train.begin import begin
from swath.train.checkpoint import Checkpoints
from swath.train.cost import Cost, cost
from swath.train.describe import fingerprint, network
from swath.train.ema import Average
from swath.train.export import About
from swath.train.interrupt import Interrupts
from swath.train.job import TrainJob
from swath.train.precision import AUTOCAST, DTYPES
from swath.train.profile import Profiler
from swath.train.state import TrainState
from swath.train.trainer import Other, Trainer
from swath.train.usage import Usage


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
        frozen = job.adapt is not None and job.adapt.freezes
        begin(job.init, about, replica.model, world, frozen=frozen)
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
