"""A run small enough for tests: keyed noise, no store, no files but the run's own."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from swath.batch.schedule import Schedule
from swath.batch.size import BatchSize
from swath.data.chip import Batch
from swath.models import Outputs
from swath.optimizers.adamw import AdamW
from swath.parallel.replica import Replica
from swath.parallel.world import World
from swath.tasks import Tally
from swath.train.checkpoint import Checkpoints
from swath.train.ema import Average
from swath.train.interrupt import Interrupts
from swath.train.settings import TrainSettings
from swath.train.state import TrainState
from swath.train.trainer import Trainer


class Keyed:
    """Microbatches whose pixels, and which pixels are labelled, follow from the position."""

    def __init__(self, micro: int = 2, spoiled: tuple[int, ...] = ()) -> None:
        self.micro, self.spoiled, self.waited = micro, spoiled, 0.0
        self.seen: list[int] = []

    def stream(
        self, start: int, batch: int, rank: int = 0, ranks: int = 1, *, even: bool = False
    ) -> Iterator[Batch]:
        while True:
            for row in range(0, batch // self.micro, ranks):
                if row + rank < batch // self.micro:
                    yield self.microbatch(start + (row + rank) * self.micro)
                elif even:
                    yield dataclasses.replace(self.microbatch(start), counts=False)
            start += batch

    def microbatch(self, start: int) -> Batch:
        positions = range(start, start + self.micro)
        self.seen += positions
        images = [np.random.default_rng(p).normal(size=(3, 4, 4)) for p in positions]
        image = torch.tensor(np.stack(images))
        target = image[:, :2].flip(2) * 0.5
        for row, p in enumerate(positions):
            target[row, :, : p % 4] = torch.nan  # 0 to 3 rows of four without a label
            if p in self.spoiled:
                image[row] = torch.inf
        return Batch(
            image=image,
            valid=torch.ones(self.micro, 4, 4, dtype=torch.bool),
            target=target,
            positions=torch.arange(start, start + self.micro),
            indices=torch.arange(start, start + self.micro),
            seed=start,
        )


class Errors(Tally):
    def finish(self) -> dict[str, float]:
        return {"loss": float(self.sums["loss"] / self.sums["weight"])}


class Squares:
    """Squared error over labelled numbers."""

    outputs = Outputs(channels=2, dense=True)
    best = "loss"
    larger_is_better = False

    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        known = batch.target.isfinite()
        off = (model(batch.image) - batch.target.nan_to_num()) * known
        return off.square().sum(), known.sum().double()

    def score(self, model: nn.Module, batch: Batch) -> Errors:
        loss, weight = self.loss(model, batch)
        return Errors({"loss": loss.double().numpy(), "weight": weight.numpy()})

    def empty(self) -> Errors:
        return Errors({"loss": np.zeros(()), "weight": np.zeros(())})


def network(dropout: float = 0.2) -> nn.Module:
    torch.manual_seed(5)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.Tanh(), nn.Dropout(dropout), nn.Conv2d(8, 2, 1)
    ).double()


SETTINGS = TrainSettings(
    samples=96, ema=30, evaluate_every=24, checkpoint_every=16, checkpoint_seconds=None, keep=2
)


def trainer(
    folder: Path, world: World | None = None, loader: Keyed | None = None, **changes: Any
) -> tuple[Trainer, list[dict]]:
    """Return a trainer that resumes what is in ``folder``, and the list that it records to."""
    settings = dataclasses.replace(SETTINGS, **changes)
    world = world or World.alone()
    model = network()
    state = TrainState(model, AdamW(lr=1e-2).build(model))
    if settings.ema:
        state.average = Average(model, settings.ema)
    checkpoints = Checkpoints(folder / "checkpoints", settings.keep, world)
    checkpoints.restore(state)
    held_out = Keyed()
    lines: list[dict] = []

    def validation() -> Iterator[Batch]:
        return (held_out.microbatch(1000 + 2 * i) for i in range(world.rank, 5, world.ranks))

    made = Trainer(
        state=state,
        replica=Replica(model, world),
        objective=Squares(),
        loader=loader or Keyed(),
        batch=BatchSize(samples=8, micro=2),
        schedule=Schedule(warmup=16),
        settings=settings,
        checkpoints=checkpoints,
        interrupts=Interrupts(),
        validation=validation,
        record=lines.append,
    )
    return made, lines


def weights(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])
