"""For how long training waits for a checkpoint: written while it goes on, or before it goes on.

    python benchmarks/checkpoint.py [--rounds 8] [--preset small] [--folder /tmp]
    torchrun --nproc-per-node 2 benchmarks/checkpoint.py --shard 2

A round saves the same state in both ways, by turns, with updates in between, so that both see the
same machine, other people's work included. "Wait" is what the call takes; written behind, updates
are then slower until all is on disk, which is measured too: "lost" is the wait and that together.
torch's own distributed checkpoint saves the same tensors, in both of its ways, for comparison; it
takes no checksums and does not force what it wrote to disk. Prints the table of checkpoint.md.
"""

import argparse
import shutil
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import torch
from torch.distributed import checkpoint as torch_checkpoint

from swath.data.chip import Batch, Label
from swath.data.sensor import load_sensor
from swath.models import Inputs
from swath.models.vit import ViT
from swath.optimizers.adamw import AdamW
from swath.parallel.apply import spread
from swath.parallel.mesh import Mesh
from swath.parallel.replica import Replica
from swath.parallel.settings import Parallel
from swath.parallel.world import World
from swath.tasks.classify import Classify
from swath.train.checkpoint import Checkpoints
from swath.train.ema import Average
from swath.train.settings import TrainSettings
from swath.train.state import TrainState
from swath.train.step import train_step

SIDE, SAMPLES = 64, 16
SETTINGS = TrainSettings(samples=10**9)


class Run:
    """Something that learns, and can be saved."""

    def __init__(self, world: World, parallel: Parallel, preset: str) -> None:
        sensor = load_sensor("sentinel2_l2a")
        label = Label(kind="class", classes=tuple(map(str, range(10))))
        self.objective = Classify().bind(label, np.ones(10))
        torch.manual_seed(0)
        inputs = Inputs(bands=sensor.bands, size=SIDE)
        network = ViT(preset=preset, patch=8).build(inputs, self.objective.outputs)
        self.mesh = Mesh.of(world, parallel)
        model = spread(network.to(world.device), self.mesh, parallel)
        self.replica = Replica(model, self.mesh)
        self.state = TrainState(model, AdamW().build(model), Average(model, 1000))
        self.batch = Batch(
            image=torch.randn(SAMPLES, len(sensor.bands), SIDE, SIDE, device=world.device),
            valid=torch.ones(SAMPLES, SIDE, SIDE, dtype=torch.bool, device=world.device),
            target=torch.arange(SAMPLES, device=world.device) % 10,
            positions=torch.arange(SAMPLES),
            indices=torch.arange(SAMPLES),
            seed=1,
        )

    def update(self) -> float:
        """Return the seconds of an update."""
        begun = time.perf_counter()
        loss = self.objective.loss
        train_step(self.state, [self.batch], loss, self.replica, SETTINGS, SAMPLES, 1.0)
        return time.perf_counter() - begun

    def flat(self) -> dict[str, torch.Tensor]:
        parts = self.state.tensors()
        return {f"{part}/{name}": t for part, held in parts.items() for name, t in held.items()}


def timed(action: Callable[[], None]) -> float:
    begun = time.perf_counter()
    action()
    return time.perf_counter() - begun


def ours(run: Run, folder: Path, behind: bool) -> Callable[[], tuple[float, float, float]]:
    """Return what saves once and tells: wait, seconds until on disk, seconds lost."""
    checkpoints = Checkpoints(folder, 1, run.mesh.world, behind=behind)

    def save() -> tuple[float, float, float]:
        usual = statistics.median(run.update() for _ in range(3))
        begun = time.perf_counter()
        wait = timed(lambda: checkpoints.save(run.state))
        lost = wait
        while checkpoints.busy:
            lost += run.update() - usual
            lost += timed(checkpoints.poll)
        return wait, time.perf_counter() - begun, lost

    return save


def theirs(run: Run, folder: Path, behind: bool) -> Callable[[], tuple[float, float, float]]:
    """The same, by torch's distributed checkpoint."""
    world = run.mesh.world

    def save() -> tuple[float, float, float]:
        if world.first:
            shutil.rmtree(folder, ignore_errors=True)
        world.any(True)
        usual = statistics.median(run.update() for _ in range(3))
        begun = time.perf_counter()
        if not behind:
            wait = timed(lambda: torch_checkpoint.save(run.flat(), checkpoint_id=folder))
            return wait, wait, wait
        future = torch_checkpoint.async_save(run.flat(), checkpoint_id=folder)
        assert isinstance(future, Future)
        lost = wait = time.perf_counter() - begun
        while world.any(not future.done()):
            lost += run.update() - usual
        future.result()
        return wait, time.perf_counter() - begun, lost

    return save


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--preset", default="small")
    parser.add_argument("--shard", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--folder", default=tempfile.gettempdir(), help="which disk to write to")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    warnings.filterwarnings("ignore", message="torch.distributed is disabled")
    with World.start(options.device) as world:
        run = Run(world, Parallel(shard=options.shard), options.preset)
        run.update()
        folder = Path(options.folder) / "swath-checkpoint-benchmark"
        ways = {
            "before it goes on": ours(run, folder / "plain", False),
            "while it goes on": ours(run, folder / "behind", True),
            "torch, before": theirs(run, folder / "torch", False),
            "torch, while": theirs(run, folder / "torch_behind", True),
        }
        if world.ranks > 1:  # its thread would exchange in the group that training uses
            del ways["torch, while"]
        found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in ways}
        for number in range(options.rounds + 1):
            for name, save in ways.items():
                figures = save()
                if number:  # the first one finds its memory
                    found[name].append(figures)
        size = sum(t.numel() * t.element_size() for t in run.flat().values()) / 1e6
        update = run.update()  # by all ranks
        if world.first:
            shutil.rmtree(folder, ignore_errors=True)
            table(found, size, update)


def table(found: dict[str, list[tuple[float, float, float]]], size: float, update: float) -> None:
    print(
        f"\nstate of {size:.0f} MB (numbers of the whole model), an update takes {update:.2f} s\n"
    )
    print(
        "| written | wait, s | of the first row | lost, s | of the first row | on disk after, s |"
    )
    print("| --- | --- | --- | --- | --- | --- |")
    first = next(iter(found.values()))
    for name, rows in found.items():
        wait, disk, lost = (statistics.median(column) for column in zip(*rows, strict=True))
        waits = statistics.median(r[0] / f[0] for r, f in zip(rows, first, strict=True))
        losses = statistics.median(r[2] / f[2] for r, f in zip(rows, first, strict=True))
        print(f"| {name} | {wait:.3f} | {waits:.3f} | {lost:.3f} | {losses:.3f} | {disk:.3f} |")


if __name__ == "__main__":
    main()
