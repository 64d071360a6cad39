"""The laws of learning here: what every task must obey, whatever it learns.

One rank = two = three; one microbatch = many; resumed = unbroken; a score does not depend on how
the samples are sharded nor on the order of the shards. Each law is a function that fails by
assertion, so that it can also be shown to fail where it must: ``mean_of_ranks`` is what
``DistributedDataParallel`` does unless told otherwise, ``mean_of_passes`` what most loops do
that accumulate gradients.

A :class:`Case` is a task on labels of one kind. Its samples are invented from their positions,
and very uneven in what is labelled, for that is where the two ways part.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from swath.config import ConfigError, find, kind_of, kinds
from swath.data import draw
from swath.data.augment import Augment
from swath.data.chip import IGNORE, Batch, Label
from swath.data.sensor import Band
from swath.data.views import Viewer
from swath.models import Inputs
from swath.models.mae import MAE
from swath.nn.settle import Update, settle
from swath.optimizers.adamw import AdamW
from swath.parallel.replica import Replica
from swath.parallel.world import World
from swath.tasks import Objective, Task
from swath.train.state import TrainState

BANDS, SIZE, CLASSES = 3, 6, ("water", "forest", "town")
INPUTS = Inputs(bands=tuple(Band(name=f"B{i}") for i in range(BANDS)), size=SIZE)
BATCH, UPDATES = 12, 4  # samples in an update, updates in a run
SMALL: dict[str, dict] = {  # the rest are small as they are
    "dino": {"width": 4, "prototypes": 8},
    "moco": {"width": 4, "predictor": (8,)},
}
EXACT = {"rtol": 0.0, "atol": 1e-10}  # float64; a wrong rule is off by 1e-3 and more


@dataclass(frozen=True)
class Case:
    """A task bound to labels of one kind."""

    task: Task
    label: Label

    def __str__(self) -> str:
        return f"{kind_of(type(self.task))}-{self.label.kind}"

    def objective(self) -> Objective:
        return self.task.bind(self.label, np.array([30.0, 20.0, 10.0]), INPUTS)

    def model(self, dropout: float) -> nn.Module:
        """Return what is trained of a small network in float64, the same at every call."""
        return self.task.fitted(self.network(dropout), BATCH * UPDATES).double()

    def network(self, dropout: float) -> nn.Module:
        torch.manual_seed(0)
        outputs = self.objective().outputs
        if outputs.masked:
            filling = MAE(patch=2, width=8, depth=1, heads=2, decoder_depth=1, decoder_heads=2)
            return filling.build(INPUTS, outputs)
        layers: list[nn.Module] = [
            nn.Conv2d(BANDS, 8, 3, padding=1),
            nn.Tanh(),
            nn.Dropout(dropout),
            nn.Conv2d(8, outputs.channels, 1),
        ]
        if not outputs.dense:
            layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        return nn.Sequential(*layers)

    def batch(self, positions: range) -> Batch:
        """Return the microbatch of the samples at ``positions``, keyed by them alone."""
        images, targets = zip(*(sample(self.label.kind, p) for p in positions), strict=True)
        at = torch.tensor(positions)
        image, target = (torch.from_numpy(np.stack(each)) for each in (images, targets))
        # Where there is no label, what was observed is as uneven.
        valid = torch.ones(len(at), SIZE, SIZE, dtype=torch.bool)
        if self.label.kind == "none":
            valid = target.bool()
        image = image * valid[:, None]
        views: tuple[Tensor, ...] = ()
        seen: tuple[Tensor, ...] = ()
        if self.task.wants is not None:
            observed = valid[:, None].expand(-1, BANDS, -1, -1)
            viewer = Viewer(self.task.wants, Augment(gain=0.3))
            views, seen = viewer(image, observed, np.array(positions), 7)
        return Batch(
            image=image,
            valid=valid,
            target=None if self.label.kind == "none" else target,
            positions=at,
            indices=at,
            seed=1000 + positions[0],
            keys=torch.from_numpy(draw.keys(7, np.array(positions), "task")),
            views=views,
            seen=tuple(each.all(1) for each in seen),
        )


class Observed(Case):
    """A case that takes all views for observed."""

    def batch(self, positions: range) -> Batch:
        return dataclasses.replace(super().batch(positions), seen=())


@functools.cache
def sample(kind: str, position: int) -> tuple[np.ndarray, np.ndarray]:
    """Return image and label of the sample at ``position``, for labels of ``kind``; for none the
    pixels that were observed."""
    draw = np.random.default_rng([11, position])
    image = draw.normal(size=(BANDS, SIZE, SIZE))
    k, hidden = len(CLASSES), draw.random()  # of one sample nearly all is known, of another
    pixels = draw.random((SIZE, SIZE)) < hidden  # next to nothing
    if kind == "class":
        return image, np.int64(-1 if hidden > 0.6 else image.mean((1, 2)).argmax())
    if kind == "flags":
        flags = (image.mean((1, 2)) > 0).astype(np.uint8)
        return image, np.where(draw.random(k) < hidden, np.uint8(IGNORE), flags)
    if kind == "mask":
        return image, np.where(pixels, IGNORE, image.argmax(0)).astype(np.uint8)
    if kind == "none":
        return image, ~pixels
    if kind == "value":
        value = image.mean((1, 2)) + 0.3
        return image, np.where(draw.random(k) < hidden, np.nan, value)
    return image, np.where(pixels, np.nan, image**2)


def cases() -> list[Case]:
    """Return every task of the collection with every kind of label that it accepts."""
    found = []
    for kind in kinds(Task):
        accepted, task = 0, find(Task, kind)(**SMALL.get(kind, {}))
        every = ("class", "flags", "mask", "value", "raster")
        for label_kind in ("none",) if task.labels is None else every:
            case = Case(task, Label(kind=label_kind, classes=CLASSES))
            try:
                case.objective()
            except ConfigError:
                continue
            found.append(case)
            accepted += 1
        assert accepted, f"task {kind} accepts no kind of label with its default settings"
    return found


Rule = Callable[[nn.Module, World, list[Batch], Objective], None]
"""Leaves the gradient of an update in the parameters; takes this rank's microbatches."""


def sums(model: nn.Module, world: World, mine: list[Batch], task: Objective) -> None:
    """Our rule: sums of losses over sums of weights, over all microbatches of all ranks."""
    Replica(model, world).gradients(mine, task.loss, BATCH)


def mean_of_ranks(model: nn.Module, world: World, mine: list[Batch], task: Objective) -> None:
    """A wrong rule: each rank's mean loss over its own samples, averaged over ranks."""
    model.zero_grad()
    weight = sum((task.loss(model, batch)[1] for batch in mine), torch.zeros(()))
    for batch in mine:
        torch.manual_seed(batch.seed)
        (task.loss(model, batch)[0] / weight.clamp(min=1e-9) / world.ranks).backward()
    world.sum_all([p.grad for p in model.parameters() if p.grad is not None])


def mean_of_passes(model: nn.Module, world: World, mine: list[Batch], task: Objective) -> None:
    """A wrong rule: the mean of the microbatches' mean losses."""
    model.zero_grad()
    for batch in mine:
        torch.manual_seed(batch.seed)
        loss, weight = task.loss(model, batch)
        (loss / weight.clamp(min=1e-9) / len(mine) / world.ranks).backward()
    world.sum_all([p.grad for p in model.parameters() if p.grad is not None])


def learned(
    case: Case,
    rule: Rule = sums,
    micro: int = 2,
    dropout: float = 0.0,
    stop: int | None = None,
    world: World | None = None,
) -> Tensor:
    """Return the parameters after a short run; ``stop`` breaks and resumes it after that update."""
    world = world or World.start("cpu")
    objective, state = begun(case, dropout)
    for update in range(UPDATES):
        first = update * BATCH
        atoms = [range(p, p + micro) for p in range(first, first + BATCH, micro)]
        mine = [case.batch(atom) for atom in atoms[world.rank :: world.ranks]]
        rule(state.model, world, mine, objective)
        state.optimizer.step()
        settle(state.model, world.sum, Update(BATCH, first + BATCH))
        state.progress.update += 1
        if update + 1 == stop:
            tensors, numbers = copy.deepcopy(state.tensors()), json.dumps(state.numbers())
            objective, state = begun(case, dropout)
            torch.manual_seed(99)  # a new process has another generator
            put_back(state, tensors, json.loads(numbers))
    assert state.progress.update == UPDATES
    return nn.utils.parameters_to_vector(state.model.parameters()).detach()


def put_back(state: TrainState, tensors: dict[str, dict[str, Tensor]], numbers: dict) -> None:
    """Let ``state`` go on from what another said of itself, as a checkpoint does."""
    moments = tensors["optimizer"].items()
    state.make_room({name: (value.dtype, tuple(value.shape)) for name, value in moments})
    with torch.no_grad():
        for part, members in state.tensors().items():
            for name, value in members.items():
                value.copy_(tensors[part][name])
    state.take(numbers)


def begun(case: Case, dropout: float) -> tuple[Objective, TrainState]:
    """Return the task and the state as a new process makes them."""
    model = case.model(dropout)
    return case.objective(), TrainState(model, AdamW(lr=1e-2).build(model))


def spreading_changes_nothing(case: Case, ranks: Callable, rule: Rule = sums) -> None:
    """One rank = two = three; of 4 microbatches, three ranks get 2, 1 and 1."""
    alone = learned(case, rule, micro=3, dropout=0.2)
    for number in (2, 3):
        for found in ranks(number, learned, case, rule, 3, 0.2):
            torch.testing.assert_close(found, alone, **EXACT)


def accumulation_changes_nothing(case: Case, rule: Rule = sums) -> None:
    """One microbatch of 12 = 6 of 2 = 4 of 3 = 12 of 1."""
    whole = learned(case, rule, micro=BATCH)
    for micro in (1, 2, 3):
        torch.testing.assert_close(learned(case, rule, micro=micro), whole, **EXACT)


def resuming_changes_nothing(case: Case) -> None:
    """Stopped after any update and built anew from what a checkpoint holds: the same parameters,
    to the last bit."""
    unbroken = learned(case, dropout=0.2)
    for stop in range(1, UPDATES):
        assert torch.equal(learned(case, dropout=0.2, stop=stop), unbroken)


def shards(samples: int, seed: int) -> Iterator[range]:
    """Yield runs of 1 to 5 samples that cover ``samples``, in a random order."""
    draw = np.random.default_rng(seed)
    cuts = [0]
    while cuts[-1] < samples:
        cuts.append(min(samples, cuts[-1] + int(draw.integers(1, 6))))
    parts = [range(a, b) for a, b in itertools.pairwise(cuts)]
    yield from (parts[i] for i in draw.permutation(len(parts)))


@torch.no_grad()
def order_changes_no_score(case: Case, samples: int = 40) -> None:
    """Any shards in any order: counts equal exactly, figures to 1e-12; an empty tally adds 0."""
    objective, model = case.objective(), case.model(0.0).eval()
    whole = objective.score(model, case.batch(range(samples)))
    for seed in range(3):
        total = objective.empty()
        for shard in shards(samples, seed):
            total = total + objective.score(model, case.batch(shard))
        for name, value in whole.sums.items():
            found = total.sums[name]
            if total.lists:  # joined in any order; the samples are counted from 0
                found = found[np.argsort(total.sums["index"])]
            np.testing.assert_allclose(found, value, rtol=1e-12, atol=1e-12)
        expected = whole.finish()
        assert total.finish() == {k: _near(v) for k, v in expected.items()}
    assert objective.best in expected, f"{objective.best!r} is not a figure of {case}"


@torch.no_grad()
def loss_and_score_agree(case: Case) -> None:
    """The loss among the figures is the loss that is minimised."""
    objective, model, batch = case.objective(), case.model(0.0).eval(), case.batch(range(20))
    total, weight = objective.loss(model, batch)
    assert objective.score(model, batch).finish()["loss"] == _near((total / weight).item())


@torch.no_grad()
def prediction_is_of_the_outputs_shape(case: Case) -> None:
    """Also for sizes that were not trained on: maps use larger windows."""
    objective, model = case.objective(), case.network(0.0).double().eval()
    for size in (SIZE, 2 * SIZE + 1):
        found = objective.predict(model, torch.randn(2, BANDS, size, size).double())
        grid = (size, size) if objective.outputs.dense else ()
        assert tuple(found.shape) == (2, objective.outputs.channels, *grid)


def _near(value: float) -> object:
    import pytest

    return pytest.approx(value, rel=1e-12, abs=1e-12, nan_ok=True)
