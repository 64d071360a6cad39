"""Time of an update on 2 ranks over the same update by torch's own wrappers.

    python benchmarks/overlap.py [--rounds 20] [--models resnet18 vit_small] [--ranks 2]

Replicas against ``DistributedDataParallel``, and shards against ``fully_shard`` of the same blocks.
Ours is what the trainer calls (``train_step``): keyed draws, sums of losses and weights, the norm
of the gradient and whether it is finite. Theirs is what one writes by hand: forward, backward of
the mean loss, ``clip_grad_norm_``, AdamW. Models, batches in memory, optimiser and precision
(float32) are the same, and so are the losses, which is checked. Each rank is a process of one
thread; gloo.

Ours and theirs take turns, ours first in every other round. A time is from all ranks' begin to all
ranks' end, and a ratio that of the medians over the rounds. Prints the table of overlap.md.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from swath import here
from swath.data.chip import Batch
from swath.data.sensor import Band
from swath.models import Inputs, Model, Outputs
from swath.models.resnet import ResNet
from swath.models.vit import ViT
from swath.nn import settle
from swath.optimizers.adamw import AdamW
from swath.parallel.apply import spread
from swath.parallel.launch import launch
from swath.parallel.mesh import Mesh
from swath.parallel.replica import Replica
from swath.parallel.settings import Parallel
from swath.parallel.shard import units
from swath.parallel.world import World
from swath.train.settings import TrainSettings
from swath.train.state import TrainState
from swath.train.step import train_step

MODELS: dict[str, tuple[Model, int]] = {
    "resnet18": (ResNet(depth=18), 16),
    "vit_small": (ViT(preset="small"), 8),
}
"""With samples of an update on each rank."""
SIZE, BANDS, CLASSES, CLIP = 64, 12, 10, 1.0
WARM = 3  # first rounds, not counted

Update = Callable[[], float]
"""Does an update and returns the mean loss over all ranks."""


def network(model: Model) -> nn.Module:
    torch.manual_seed(1)
    bands = tuple(Band(name=f"B{n}") for n in range(BANDS))
    return model.build(Inputs(bands=bands, size=SIZE), Outputs(channels=CLASSES, dense=False))


def batch_of(rank: int, samples: int) -> Batch:
    draws = torch.Generator().manual_seed(rank)
    return Batch(
        image=torch.randn(samples, BANDS, SIZE, SIZE, generator=draws),
        valid=torch.ones(samples, SIZE, SIZE, dtype=torch.bool),
        target=torch.randint(CLASSES, (samples,), generator=draws),
        positions=torch.arange(samples),
        indices=torch.arange(samples),
        seed=rank,
    )


def ours(model: nn.Module, world: World, batch: Batch, sharded: bool) -> Update:
    parallel = Parallel(shard=world.ranks if sharded else 1)
    mesh = Mesh.of(world, parallel)
    model = spread(model, mesh, parallel)
    replica = Replica(model, mesh)
    state = TrainState(model, AdamW().build(model))
    samples = world.ranks * len(batch.image)
    settings = TrainSettings(samples=1 << 40, clip=CLIP)

    def loss_of(model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        loss = F.cross_entropy(model(batch.image), batch.target, reduction="sum")
        return loss, torch.tensor(float(len(batch.image)))

    def update() -> float:
        return train_step(state, [batch], loss_of, replica, settings, samples, 1.0)["loss"]

    return update


def theirs(model: nn.Module, world: World, batch: Batch, sharded: bool) -> Update:
    plain = model
    if sharded:
        for block in units(model, "block"):
            fully_shard(block)
        fully_shard(model)
    else:
        model = DistributedDataParallel(model, gradient_as_bucket_view=True)
    optimizer = AdamW().build(model)
    samples = world.ranks * len(batch.image)

    def update() -> float:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(batch.image), batch.target)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        # Batch norm's running statistics; they do not ask how many samples were seen.
        settle.settle(plain, lambda sums: sums, settle.Update(samples, samples))
        return loss.item()

    return update


def measure(name: str, sharded: bool, rounds: int, world: World) -> str:
    """Return the row of the table for one model."""
    model, samples = MODELS[name]
    batch = batch_of(world.rank, samples)
    updates = [make(network(model), world, batch, sharded) for make in (ours, theirs)]
    times: list[list[float]] = [[], []]
    for turn in range(WARM + rounds):
        losses = [0.0, 0.0]
        for which in (0, 1) if turn % 2 else (1, 0):
            dist.barrier()
            began = time.perf_counter()
            losses[which] = updates[which]()
            dist.barrier()
            if turn >= WARM:
                times[which].append(time.perf_counter() - began)
        mean = world.sum(torch.tensor(losses[1])).item() / world.ranks
        assert abs(losses[0] - mean) < 0.02 * abs(mean) + 1e-3, f"{losses[0]} is not {mean}"
    mine, bare = map(statistics.median, times)
    pairs = sorted(a / b for a, b in zip(*times, strict=True))
    quarter = len(pairs) // 4
    kind = "shards, `fully_shard`" if sharded else "replicas, `DistributedDataParallel`"
    return (
        f"| {name} | {kind} | {mine:.3f} | {bare:.3f} | {mine / bare:.3f} |"
        f" {pairs[quarter]:.3f} to {pairs[-1 - quarter]:.3f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--kinds", nargs="+", default=["replicas", "shards"])
    options = parser.parse_args()
    if here.ranks() == 1:
        with tempfile.TemporaryDirectory() as folder:
            sys.exit(launch([sys.executable, *sys.argv], options.ranks, Path(folder)))
    torch.set_num_threads(1)
    with World.start("cpu") as world:
        if world.first:
            print("| model | what, against what | ours, s | theirs, s | ratio | quartiles |")
            print("| --- | --- | --- | --- | --- | --- |", flush=True)
        for name in options.models:
            for kind in options.kinds:
                row = measure(name, kind == "shards", options.rounds, world)
                if world.first:
                    print(row, flush=True)


if __name__ == "__main__":
    main()
