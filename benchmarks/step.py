"""Time of an update through the Trainer over the same update in a bare PyTorch loop.

    python benchmarks/step.py [--updates 30] [--threads 2] [--models resnet18 vit_small]

The two take turns, update by update, in one process, so that both see the same machine, other
people's work included. The Trainer does all that it does in a run: it reads a store, normalises,
sums losses and weights, checks the gradient, writes metrics.jsonl and TensorBoard and asks for
signals. The bare loop has its batches in memory, ready. Both take 4 microbatches, clip, and step
AdamW over equal parameters. Prints the table of step.md.

What the Trainer's store reads ahead it may read while the bare update runs; on a machine with no
idle core that slows the bare update instead. "Data wait" is inside the Trainer's time.
"""

import argparse
import dataclasses
import statistics
import tempfile
import time
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from swath.batch.size import BatchSize
from swath.data.build import build
from swath.data.settings import DataSettings
from swath.data.split import Split
from swath.datasets.synthetic import Synthetic
from swath.models import Model
from swath.models.resnet import ResNet
from swath.models.vit import ViT
from swath.nn.settle import Update, settle
from swath.optimizers.adamw import AdamW
from swath.parallel.world import World
from swath.tasks.classify import Classify
from swath.train.assemble import assemble
from swath.train.describe import describe, network
from swath.train.interrupt import Interrupts
from swath.train.job import TrainJob
from swath.train.precision import arithmetic
from swath.train.record import Recorder
from swath.train.settings import Compute, TrainSettings

MODELS: dict[str, Model] = {"resnet18": ResNet(depth=18), "vit_small": ViT(preset="small")}
BATCH = BatchSize(samples=64, micro=16)
WARM = 3  # first updates, not counted: kernels are chosen, memory is found, modules are imported


class Bare:
    """The update as one writes it by hand."""

    def __init__(self, model: nn.Module, images: torch.Tensor, targets: torch.Tensor) -> None:
        self.model, self.images, self.targets = model, images, targets
        self.optimizer = AdamW().build(model)

    def update(self) -> None:
        self.optimizer.zero_grad()
        batches = zip(self.images.split(BATCH.micro), self.targets.split(BATCH.micro), strict=True)
        for image, target in batches:
            loss = F.cross_entropy(self.model(image), target, reduction="sum") / BATCH.samples
            loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        # Batch norm's running statistics; they do not ask how many samples were seen.
        settle(self.model, lambda sums: sums, Update(BATCH.samples, BATCH.samples))


def measure(model: Model, store: str, updates: int, threads: int, folder: Path) -> dict[str, float]:
    """Return seconds of an update (medians), and medians of the ratios of neighbouring updates."""
    job = TrainJob(
        folder=str(folder),
        data=DataSettings(store=store),
        model=model,
        task=Classify(),
        batch=BATCH,
        train=TrainSettings(
            samples=BATCH.samples * (updates + WARM), checkpoint_seconds=None, select="last"
        ),
        compute=Compute(device="cpu", threads=threads),
    )
    data = job.data.open()
    about = describe(job, data)
    ours: list[Clocks] = []
    theirs: list[Clocks] = []
    with (
        Interrupts() as interrupts,
        arithmetic("fp32", job.compute),
        Recorder(folder, 0) as records,
    ):
        trainer = assemble(job, data, about, World.alone(), interrupts)
        trainer.validation = None
        first = next(trainer.loader.stream(0, BATCH.samples))
        images = torch.randn(BATCH.samples, *first.image.shape[1:])
        other = network(dataclasses.replace(job, seed=1), about)
        bare = Bare(other, images, first.target.repeat(BATCH.passes))
        resumed = clocks()

        def record(figures: dict) -> None:
            nonlocal resumed
            records.write(figures)
            middle = clocks()
            bare.update()
            done = clocks()
            ours.append((middle[0] - resumed[0], middle[1] - resumed[1]))
            theirs.append((done[0] - middle[0], done[1] - middle[1]))
            resumed = clocks()

        trainer.record = record
        before = trainer.loader.waited
        trainer.run()
    wait = (trainer.loader.waited - before) / sum(wall for wall, _ in ours)
    pairs = list(zip(ours, theirs, strict=True))[WARM:]
    ratios = sorted(mine[0] / bare[0] for mine, bare in pairs)
    return {
        "trainer": statistics.median(mine[0] for mine, _ in pairs),
        "bare": statistics.median(bare[0] for _, bare in pairs),
        "ratio": statistics.median(ratios),
        "low": ratios[len(ratios) // 4],
        "high": ratios[-1 - len(ratios) // 4],
        "work": statistics.median(mine[1] / bare[1] for mine, bare in pairs),
        "wait": wait,
    }


Clocks = tuple[float, float]


def clocks() -> Clocks:
    """Seconds on the wall, and of processor time in all threads of this process."""
    return time.perf_counter(), time.process_time()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--updates", type=int, default=30)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--size", type=int, default=64, help="side of a sample in pixels")
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        store = f"{place}/store"
        samples = Synthetic(samples=512, size=options.size, bands=12, label="class", classes=10)
        build(samples, store, Split(by="random"), progress=False)
        print(
            "| model | Trainer, s | bare loop, s | ratio | quartiles | processor time | data wait |"
        )
        print("| --- | --- | --- | --- | --- | --- | --- |")
        for name in options.models:
            folder = Path(place) / name
            f = measure(MODELS[name], store, options.updates, options.threads, folder)
            print(
                f"| {name} | {f['trainer']:.3f} | {f['bare']:.3f} | {f['ratio']:.3f} |"
                f" {f['low']:.3f} to {f['high']:.3f} | {f['work']:.3f} | {f['wait']:.1%} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
