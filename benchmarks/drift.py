"""How far rounding carries runs apart that would be equal if sums had no order.

    python benchmarks/drift.py [--updates 200] [--rates 1e-2 1e-3] [--precisions fp64 fp32 bf16]

The same run on one rank, on two and on four: a vision transformer (4 blocks of width 32) learns
synthetic images of 16 x 16 pixels with drop path, clipping and AdamW, never the same image twice,
in updates of four microbatches of three samples. Ranks add the same gradients up in another order,
which is all that differs. As the control, one rank begins with every weight moved to the next
number that its type can hold, up or down at random: the smallest change there is.

Told for some numbers of updates, as shares: the largest difference of a loss up to there / the
distance of all weights from those of one rank. Below, the mean loss of the last
quarter of the updates, and the same run in updates of two microbatches. Prints drift.md's tables.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

from swath.data.chip import Batch, Label
from swath.data.sensor import load_sensor
from swath.models import Inputs
from swath.models.vit import ViT
from swath.optimizers.adamw import AdamW
from swath.parallel.mesh import Mesh
from swath.parallel.replica import Replica
from swath.parallel.settings import Parallel
from swath.parallel.world import World
from swath.tasks.classify import Classify
from swath.train.precision import AUTOCAST, DTYPES
from swath.train.settings import TrainSettings
from swath.train.state import TrainState
from swath.train.step import train_step

BANDS = load_sensor("rgb").bands
MODEL = ViT(patch=4, width=32, depth=4, heads=4, pool="mean", drop_path=0.2)
SIZE, SAMPLES = 16, 12
OBJECTIVE = Classify().bind(Label(kind="class", classes=("red", "green", "blue")), np.ones(3))
MARKS = (1, 5, 10, 20, 50, 100, 200, 500, 1000)
ONE, MOVED = "one rank", "one rank, weights moved"


@dataclass(frozen=True)
class Case:
    """A run, whatever it runs on."""

    precision: str
    rate: float
    micro: int
    updates: int


@dataclass(frozen=True)
class Curve:
    """What came of it."""

    losses: np.ndarray
    weights: dict[int, np.ndarray]
    """All in one vector, after some numbers of updates."""


def batch_of(first: int, micro: int) -> Batch:
    """Return the microbatch that begins with sample ``first``: which band is brightest?"""
    draws = [np.random.default_rng([5, p]) for p in range(first, first + micro)]
    images = np.stack([d.normal(size=(len(BANDS), SIZE, SIZE)) for d in draws])
    return Batch(
        image=torch.from_numpy(images),
        valid=torch.ones(micro, SIZE, SIZE, dtype=torch.bool),
        target=torch.from_numpy(images.mean((2, 3)).argmax(1)),
        positions=torch.arange(first, first + micro),
        indices=torch.arange(first, first + micro),
        seed=1000 + first,
    )


def network(case: Case, moved: bool) -> nn.Module:
    torch.manual_seed(1)
    model = MODEL.build(Inputs(bands=BANDS, size=SIZE), OBJECTIVE.outputs)
    model = model.to(DTYPES[case.precision])
    if moved:
        with torch.no_grad():
            for p in model.parameters():
                p.copy_(torch.nextafter(p, torch.randint_like(p, 2) * 2e9 - 1e9))
    return model


def learned(case: Case, world: World, moved: bool) -> Curve:
    mesh = Mesh.of(world, Parallel())
    model = network(case, moved)
    replica = Replica(model, mesh, autocast=AUTOCAST.get(case.precision))
    state = TrainState(model, AdamW(lr=case.rate).build(model))
    settings = TrainSettings(samples=SAMPLES * case.updates, clip=0.5)
    losses, weights = [], {}
    for update in range(case.updates):
        starts = range(update * SAMPLES, (update + 1) * SAMPLES, case.micro)
        mine = [batch_of(first, case.micro) for first in starts[mesh.data_rank :: mesh.data_ranks]]
        figures = train_step(state, mine, OBJECTIVE.loss, replica, settings, SAMPLES, 1.0)
        losses.append(figures["loss"])
        if update + 1 in MARKS:
            held = [p.detach().double().flatten() for p in model.parameters()]
            weights[update + 1] = torch.cat(held).numpy().copy()
    return Curve(np.array(losses), weights)


def rank(number: int, ranks: int, folder: str, cases: list[Case]) -> None:
    """Body of one of ``ranks`` processes: learn all of ``cases``; the first keeps the curves."""
    torch.set_num_threads(1)
    store = dist.FileStore(f"{folder}/{ranks}", ranks)
    dist.init_process_group("gloo", store=store, rank=number, world_size=ranks)
    curves = [learned(case, World.start("cpu"), moved=False) for case in cases]
    if number == 0:
        torch.save(curves, f"{folder}/curves-{ranks}")
    dist.destroy_process_group()


def on_ranks(ranks: int, cases: list[Case]) -> list[Curve]:
    with tempfile.TemporaryDirectory(prefix="drift-") as folder:
        mp.spawn(rank, (ranks, folder, cases), nprocs=ranks)
        return torch.load(f"{folder}/curves-{ranks}", weights_only=False)


def apart(one: Curve, other: Curve, updates: int) -> tuple[float, float]:
    """Return the largest difference of a loss up to ``updates``, and of the weights there."""
    losses = abs(other.losses - one.losses)[:updates] / abs(one.losses[:updates])
    distance = np.linalg.norm(other.weights[updates] - one.weights[updates])
    return losses.max(), float(distance / np.linalg.norm(one.weights[updates]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--updates", type=int, default=200)
    parser.add_argument("--rates", type=float, nargs="+", default=[1e-2, 1e-3])
    parser.add_argument(
        "--precisions", nargs="+", default=["fp64", "fp32", "bf16"], choices=list(DTYPES)
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    halves = Case("fp32", options.rates[0], SAMPLES // 2, options.updates)
    cases = [Case(p, r, 3, options.updates) for p in options.precisions for r in options.rates]
    found = {
        ONE: [learned(case, World.alone(), moved=False) for case in [*cases, halves]],
        MOVED: [learned(case, World.alone(), moved=True) for case in cases],
        "2 ranks": on_ranks(2, [*cases, halves]),
        "4 ranks": on_ranks(4, cases),
    }
    marks = [mark for mark in MARKS if mark <= options.updates]
    print("| precision | lr | against one rank | " + " | ".join(map(str, marks)) + " |")
    print("| --- | --- | --- |" + " --- |" * len(marks))
    for number, case in enumerate(cases):
        for name in list(found)[1:]:
            pairs = [apart(found[ONE][number], found[name][number], mark) for mark in marks]
            cells = " | ".join(f"{loss:.0e} / {distance:.0e}" for loss, distance in pairs)
            print(f"| {case.precision} | {case.rate:g} | {name} | {cells} |")
    last = options.updates // 4
    print(f"\n| mean loss of the last {last} | " + " | ".join(found) + " |")
    print("| --- |" + " --- |" * len(found))
    for number, case in enumerate(cases):
        means = [statistics.mean(curves[number].losses[-last:]) for curves in found.values()]
        cells = " | ".join(f"{mean:.5f}" for mean in means)
        print(f"| {case.precision}, lr {case.rate:g} | {cells} |")
    loss, distance = apart(found[ONE][-1], found["2 ranks"][-1], marks[-1])
    print(f"\ntwo microbatches, one rank and two, {marks[-1]} updates: {loss:g} / {distance:g}")


if __name__ == "__main__":
    main()
