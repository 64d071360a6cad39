"""Time of an update that is watched over the same update that is not.

    python benchmarks/seeing.py [--updates 100] [--models resnet18 vit_small]
    torchrun --nproc-per-node 2 benchmarks/seeing.py --threads 1

Two trainers take turns, update by update, in one process, so that both see the same machine. One
times its waits and records all figures of :mod:`swath.train.usage` after every update; the other
records samples per second alone. Both have their batches in memory and write no files. Prints a
row for each model: seconds of an update, the ratio of neighbouring updates, the same in processor
seconds of this rank, and what the figures of an update cost by themselves.
"""

import argparse
import contextlib
import dataclasses
import itertools
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from swath.batch.schedule import Schedule
from swath.batch.size import BatchSize
from swath.data.chip import Batch, Label
from swath.data.sensor import load_sensor
from swath.models import Inputs, Model
from swath.models.resnet import ResNet
from swath.models.vit import ViT
from swath.optimizers.adamw import AdamW
from swath.parallel.replica import Replica
from swath.parallel.world import World
from swath.tasks.classify import Classify
from swath.train.checkpoint import Checkpoints
from swath.train.cost import cost
from swath.train.interrupt import Interrupts
from swath.train.settings import TrainSettings
from swath.train.state import TrainState
from swath.train.trainer import Trainer
from swath.train.usage import Usage

MODELS: dict[str, Model] = {
    "resnet18, width 16": ResNet(depth=18, width=16),
    "vit, width 64": ViT(width=64, depth=4, heads=4),
    "resnet18": ResNet(depth=18),
}
BATCH = BatchSize(samples=16, micro=4)
BANDS = load_sensor("sentinel2_l2a").bands
SIZE, CLASSES, WARM = 32, 10, 5


class Unwatched(Usage):
    """What the record had before: one division."""

    _since: tuple[float, int, float, float]

    def figures(self, samples: int, data_waited: float) -> dict:
        before, now = self._since, time.perf_counter()
        self._since = (now, samples, data_waited, 0.0)
        return {"samples_per_s": (samples - before[1]) / (now - before[0])}


class InMemory:
    """The same microbatch for ever."""

    waited = 0.0

    def __init__(self, device: torch.device) -> None:
        at = torch.arange(BATCH.micro)
        self.batch = Batch(
            image=torch.randn(BATCH.micro, len(BANDS), SIZE, SIZE, device=device),
            valid=torch.ones(BATCH.micro, SIZE, SIZE, dtype=torch.bool, device=device),
            target=(at % CLASSES).to(device),
            positions=at,
            indices=at,
            seed=0,
        )

    def stream(self, *_: int, even: bool = False) -> Iterator[Batch]:
        return (dataclasses.replace(self.batch, seed=i) for i in itertools.count())


def trainer(model: Model, world: World, usage: type[Usage], folder: Path) -> Trainer:
    label = Label(kind="class", classes=tuple(f"class {i}" for i in range(CLASSES)))
    objective = Classify().bind(label, None)
    inputs = Inputs(bands=BANDS, size=SIZE)
    torch.manual_seed(0)
    network = model.build(inputs, objective.outputs).to(world.device)
    build = lambda: model.build(inputs, objective.outputs)  # noqa: E731
    return Trainer(
        state=TrainState(network, AdamW().build(network)),
        replica=Replica(network, world),
        objective=objective,
        loader=InMemory(world.device),
        batch=BATCH,
        schedule=Schedule(),
        settings=TrainSettings(samples=10**9, checkpoint_seconds=None),
        checkpoints=Checkpoints(folder, 1, world),
        interrupts=Interrupts(),
        record=lambda figures: None,
        usage=usage(cost(build, inputs, world.device, "fp32")),
    )


def measure(model: Model, updates: int, world: World, folder: Path) -> dict[str, float]:
    """Return seconds of watched and unwatched updates and of figures, and quartiles of ratios."""
    watched, bare = (trainer(model, world, usage, folder) for usage in (Usage, Unwatched))
    watching: list[float] = []
    figures = watched.usage.figures

    def timed(*known: float) -> dict:
        began = time.perf_counter()
        found = figures(*known)
        watching.append(time.perf_counter() - began)
        return found

    watched.usage.figures = timed
    spent: dict[bool, list[tuple[float, float]]] = {True: [], False: []}
    for number in range(updates + WARM):
        pair = (watched, bare) if number % 2 else (bare, watched)
        for one in pair:
            if world.group is not None:
                world.any(False)  # both begin together on all ranks
            began = clocks()
            with one.usage.timed(world.device) if one is watched else contextlib.nullcontext():
                one._update()
            done = clocks()
            spent[one is watched].append((done[0] - began[0], done[1] - began[1]))
    pairs = list(zip(spent[True], spent[False], strict=True))[WARM:]
    ratios = sorted(mine[0] / other[0] for mine, other in pairs)
    return {
        "watched": statistics.median(mine[0] for mine, _ in pairs),
        "bare": statistics.median(other[0] for _, other in pairs),
        "work": statistics.median(mine[1] / other[1] for mine, other in pairs),
        "ratio": statistics.median(ratios),
        "low": ratios[len(ratios) // 4],
        "high": ratios[-1 - len(ratios) // 4],
        "figures": statistics.median(watching[WARM:]),
    }


def clocks() -> tuple[float, float]:
    """Seconds on the wall, and of processor time in all threads of this process."""
    return time.perf_counter(), time.process_time()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--updates", type=int, default=100)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as place, World.start("cpu") as world:
        if world.first:
            print(
                "| ranks | model | watched, s | not, s | ratio | quartiles | processor time |"
                " figures, ms |"
            )
            print("| --- | --- | --- | --- | --- | --- | --- | --- |")
        for name in options.models:
            f = measure(MODELS[name], options.updates, world, Path(place))
            if world.first:
                print(
                    f"| {world.ranks} | {name} | {f['watched']:.4f} | {f['bare']:.4f} |"
                    f" {f['ratio']:.3f} | {f['low']:.3f} to {f['high']:.3f} |"
                    f" {f['work']:.3f} | {1000 * f['figures']:.2f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
