"""An update of one rank gone through on fake tensors: what it holds at the peak, what travels.

By the functions that a real update calls, in their order (swath.train.step); only the one question
that needs values, whether the gradient is finite, is left out.

Many microbatches are not gone through one by one: beyond a few, each adds the same. So exchanges,
and in a pipeline memory, of two small numbers of them are continued along a straight line.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from swath.config import ConfigError
from swath.data.chip import Batch, Known, Label
from swath.models import Inputs
from swath.nn.settle import Update
from swath.nn.teacher import Teacher
from swath.parallel.apply import spread
from swath.parallel.arguments import Arguments, arguments_of
from swath.parallel.count import counted
from swath.parallel.couples import Couples
from swath.parallel.dry import Held, Traffic, accumulated, borders, held, opened, pretended, traffic
from swath.parallel.fill import hollow, make_room
from swath.parallel.live import GATHERED, OTHER, Live
from swath.parallel.local import local
from swath.parallel.mesh import Mesh
from swath.parallel.pipeline import Border, Pipeline
from swath.parallel.replica import Replica
from swath.parallel.settings import Degrees
from swath.tasks import Objective
from swath.train.adapted import build, factors, optimizer
from swath.train.ema import Average
from swath.train.job import TrainJob
from swath.train.precision import AUTOCAST, DTYPES

PARAMETERS, GRADIENTS, OPTIMISER, AVERAGE = "parameters", "gradients", "optimiser", "average"
TEACHER = "teacher"


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes of one rank at the peak of an update, by what they are for."""

    parameters: int = 0
    """And buffers."""
    gradients: int = 0
    """Those kept from microbatch to microbatch or to the end of the update."""
    optimiser: int = 0
    average: int = 0
    """The moving average of the weights."""
    teacher: int = 0
    """Weights of a teacher, which follow those that learn."""
    gathered: int = 0
    """Parameters of other ranks while a unit is computed with."""
    activations: int = 0
    """What the backward pass needs, and all that is on its way: gradients of activations, buffers
    of exchanges, microbatches."""

    @property
    def total(self) -> int:
        return sum(dataclasses.asdict(self).values())


@dataclass(frozen=True, kw_only=True)
class Share:
    """What one rank holds and exchanges."""

    rank: int
    of: Inputs
    """What its microbatches are like."""
    at: dict[str, int]
    """Its number along the axes on which ranks differ in what they hold."""
    memory: Memory
    held: tuple[Held, ...]
    traffic: tuple[Traffic, ...]
    """Of an update."""


@dataclass
class Rehearsal:
    """An update of ``job`` for the samples and outputs given, on ranks laid out by ``degrees``."""

    job: TrainJob
    inputs: Inputs
    objective: Objective
    label: Label
    degrees: Degrees

    def __post_init__(self) -> None:
        self.autocast = AUTOCAST.get(self.job.train.precision)
        self.device = "cpu" if self.job.compute.device == "cpu" else "gpu"
        self.even = self.degrees.shard * self.degrees.tensor > 1
        self._borders: list[Border] | None = None
        self._fed = self.inputs
        # Made among real tensors: they have values, which a task may draw by. Among fake ones
        # torch's own numpy() would give whatever is in memory.
        values = np.arange(self.job.batch.micro)
        self._positions = torch.from_numpy(values)
        self._positions.numpy = lambda **_: values.copy()  # type: ignore[method-assign]

    @property
    def _grows(self) -> bool:
        """Whether memory does with the number of microbatches."""
        return self.degrees.pipeline > 1 or isinstance(self.objective.loss, Couples)

    def build(self) -> nn.Module:
        model = build(self.job, self.inputs, self.objective.outputs)
        return model.to(DTYPES[self.job.train.precision])

    def share(self, rank: int, microbatches: int, most: int | None, fed: Inputs) -> Share:
        """Return what ``rank`` has to do with ``microbatches`` microbatches like ``fed``."""
        self._fed = fed
        numbers = self._numbers(microbatches, most)
        with pretended(rank, self.degrees.ranks) as world:
            mesh = opened(world, self.job.parallel)
            model = spread(hollow(self.build), mesh, self.job.parallel, narrow=self.autocast)
            if isinstance(model, Pipeline):
                self._known_borders()
            with FakeTensorMode(allow_non_fake_inputs=True):
                try:
                    found = self._updates(model, mesh, microbatches, numbers)
                except DataDependentOutputException as error:
                    raise ConfigError(
                        f"--dry-run: the model or the task asks for a tensor's value ({error}), "
                        "and tensors have none in a dry run; draw by batch.positions.numpy(), or "
                        "leave --dry-run out"
                    ) from error
            at = {axis: mesh.at(axis) for axis in ("pipeline", "spatial")}
        return Share(
            rank=rank,
            of=fed,
            at={axis: n for axis, n in at.items() if getattr(self.degrees, axis) > 1},
            memory=_memory([memory for memory, _, _ in found], numbers, microbatches, self._grows),
            held=tuple(found[0][2]),
            traffic=_traffic([rows for _, rows, _ in found], numbers, microbatches),
        )

    def _numbers(self, microbatches: int, most: int | None) -> list[int]:
        """Return the numbers of microbatches to go through; two are to be continued."""
        ranks = self.degrees.pipeline
        # Beyond these each microbatch finds as many others in flight, and gradients there already.
        numbers = [1, 3] if ranks == 1 else [ranks + 1, ranks + 2]
        if ranks > 1 and self.job.parallel.schedule == "gpipe":
            numbers = [2, 3]
        if self.job.parallel.schedule == "interleaved":
            numbers = [2 * ranks, 3 * ranks]  # whole rounds
        return [microbatches] if microbatches <= (numbers[1] if most is None else most) else numbers

    def _updates(
        self, model: nn.Module, mesh: Mesh, microbatches: int, numbers: list[int]
    ) -> list[tuple[dict[str, int], list[Traffic], list[Held]]]:
        """Go through an update for each of ``numbers``, among fake tensors."""
        job, found = self.job, []
        live = Live(lambda: live.name(GRADIENTS, accumulated(model)))
        with live:
            make_room(model, mesh.world.device, offload=False)
            bucket = job.parallel.bucket << 20
            replica = Replica(model, mesh, autocast=self.autocast, bucket=bucket)
            replica.check(job.batch.passes)
            learner = self._optimizer(model)
            pairs = _on_shares(learner)
            self._first_step(learner)
            average = None if job.train.ema is None else Average(model, job.train.ema)
            if isinstance(model, Pipeline):
                pipeline, (first,) = model, self._batches(1)
                known = self._known_borders()
                loss_of = self.objective.loss
                replica.call(lambda _, batch: pipeline.know(loss_of, batch, known), first)
                del first
            live.name(PARAMETERS, [*model.parameters(), *model.buffers()])
            teachers = [module for module in model.modules() if isinstance(module, Teacher)]
            live.name(TEACHER, [t for one in teachers for t in one.state_dict().values()])
            live.name(OPTIMISER, _states(learner))
            live.name(AVERAGE, [] if average is None else average.tensors.values())
            update = Update(job.batch.samples, job.batch.samples)
            for number in numbers:
                live.begin()
                with counted() as volume:
                    replica.gradients(self._batches(number), self.objective.loss, job.batch.samples)
                    live.name(GRADIENTS, (p.grad for p in replica.parameters))
                    norm = replica.norm()
                    if job.train.clip is not None:
                        replica.clip(norm, job.train.clip)
                    _step(learner, pairs)
                    replica.settle(update)
                    if average is not None:
                        average.update(model, job.batch.samples)
                found.append((live.at_peak(), traffic(volume, mesh), held(model)))
        return found

    def _optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        rates = factors(self.job, self.inputs, self.objective.outputs)
        made = optimizer(self.job, model, rates)
        for group in made.param_groups:
            if self.device == "gpu" and not group.get("fused"):
                group["foreach"] = True  # as torch chooses on GPUs
        return made

    def _first_step(self, learner: torch.optim.Optimizer) -> None:
        """Let it remember all that it does after an update."""
        for group in learner.param_groups:
            for p in group["params"]:
                p.grad = torch.zeros_like(p)
        learner.step()
        learner.zero_grad()

    def _known_borders(self) -> list[Border]:
        if self._borders is None:
            parallel, given = self.job.parallel, self._given
            self._borders = borders(self.build, self.degrees, parallel, given, self.autocast)
        return self._borders

    def _given(self, network: nn.Module) -> Arguments:
        """Return what ``network`` is called with for a microbatch."""
        (batch,) = self._batches(1)
        image = batch.image.to(next(network.parameters()).dtype)
        batch = dataclasses.replace(batch, image=image)
        return arguments_of(self.objective.loss, network, batch)

    def _shape(self) -> tuple[int, ...]:
        size = self._fed.size
        return self.job.batch.micro, len(self._fed.bands), size, size

    def _batches(self, number: int) -> Iterator[Batch]:
        """Yield microbatches as a loader would, one by one."""
        micro, _, size, _ = shape = self._shape()
        many = len(self.label.classes)
        targets: dict[str, tuple[int, ...]] = {
            "class": (micro,),
            "flags": (micro, many),
            "mask": (micro, size, size),
            "value": (micro, many),
            "raster": (micro, many, size, size),
        }
        kind = torch.float32 if self.label.has_quantities else torch.int64
        target = None if self.job.task.labels is None else targets.get(self.label.kind)
        wants = self.job.task.wants
        sides = [] if wants is None else [side for side, _ in wants.kinds(size, size)]
        asks = self.job.model.asks
        for _ in range(number):
            where, when = (
                torch.zeros(micro, 2, dtype=torch.float64) if name in asks else None
                for name in ("where", "when")
            )
            yield Batch(
                image=torch.zeros(shape),
                valid=torch.ones((micro, size, size), dtype=torch.bool),
                target=None if target is None else torch.zeros(target, dtype=kind),
                positions=self._positions,
                indices=self._positions,
                seed=0,
                keys=self._positions,
                known=Known(bands=self._fed.bands, where=where, when=when, keys=self._positions),
                views=tuple(torch.zeros(*shape[:2], side, side) for side in sides),
                seen=tuple(torch.ones(micro, side, side, dtype=torch.bool) for side in sides),
            )


def _on_shares(learner: torch.optim.Optimizer) -> list[tuple[nn.Parameter, nn.Parameter]]:
    """Let ``learner`` step on this rank's shares themselves; return parameters and their shares.

    The numbers are the same, and so is the memory; but DTensor would work out for hundreds of
    tensors at once how each result is laid out, which took half of the time of a dry run.
    """
    pairs = []
    for group in learner.param_groups:
        whole: list[nn.Parameter] = group["params"]
        own = [nn.Parameter(local(p.detach()), p.requires_grad) for p in whole]
        group["params"] = own
        pairs += list(zip(whole, own, strict=True))
    return pairs


def _step(learner: torch.optim.Optimizer, shares: list[tuple[nn.Parameter, nn.Parameter]]) -> None:
    for p, own in shares:
        own.grad = None if p.grad is None else local(p.grad)
    learner.step()
    for _, own in shares:
        own.grad = None


def _states(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    found: list[Any] = [v for state in optimizer.state.values() for v in state.values()]
    return [value for value in found if isinstance(value, Tensor)]


def _memory(peaks: list[dict[str, int]], numbers: list[int], wanted: int, grows: bool) -> Memory:
    """grows: by as much for each microbatch, as buffers of a pipeline do, or samples kept
    for a second pass."""
    names = (PARAMETERS, GRADIENTS, OPTIMISER, AVERAGE, TEACHER, GATHERED, OTHER)
    values = {name: [peak.get(name, 0) for peak in peaks] for name in names}
    if not grows:
        return Memory(**{name: each[-1] for name, each in values.items()})
    return Memory(
        **{name: round(_continued(each, numbers, wanted)) for name, each in values.items()}
    )


def _traffic(updates: list[list[Traffic]], numbers: list[int], wanted: int) -> tuple[Traffic, ...]:
    rows = []
    for row in updates[-1]:
        key = row.kind, row.members
        same = [one for update in updates for one in update if (one.kind, one.members) == key]
        calls, payload, wire = (
            _continued([getattr(one, name) for one in same], numbers, wanted)
            for name in ("calls", "bytes", "wire")
        )
        rows.append(dataclasses.replace(row, calls=calls, bytes=payload, wire=wire))
    return tuple(sorted(rows, key=lambda one: -one.bytes))


def _continued(values: Sequence[float], numbers: list[int], wanted: int) -> float:
    """Return the value for ``wanted`` microbatches from those for ``numbers`` of them."""
    if len(numbers) == 1:
        return values[0]
    (few, many), (less, more) = numbers, values
    return more + (wanted - many) * (more - less) / (many - few)
