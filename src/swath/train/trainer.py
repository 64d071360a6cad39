"""The loop. It knows no dataset, no way of being parallel, no scheduler and no file format."""

from __future__ import annotations

import contextlib
import itertools
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from swath.batch.schedule import Schedule
from swath.batch.size import BatchSize
from swath.data.chip import Batch
from swath.parallel.mesh import Mesh
from swath.parallel.replica import Replica
from swath.parallel.world import World
from swath.span import span
from swath.tasks import Objective
from swath.train.checkpoint import Checkpoints
from swath.train.evaluate import evaluate
from swath.train.interrupt import Interrupted, Interrupts
from swath.train.profile import Profiler
from swath.train.settings import TrainSettings
from swath.train.state import TrainState
from swath.train.step import Diverged, train_step
from swath.train.usage import Usage

Figures = dict[str, Any]
Other = tuple[Objective, Callable[[], Iterable[Batch]]]
"""What is learned on the bands of a further store, and its validation part."""


class Stream(Protocol):
    """What the loop wants of a loader."""

    @property
    def waited(self) -> float:
        """Seconds for which it kept its consumer waiting."""

    def stream(
        self, start: int, batch: int, rank: int = 0, ranks: int = 1, *, even: bool = False
    ) -> Iterator[Batch]: ...


@dataclass(kw_only=True)
class Trainer:
    """Advances ``state`` from where it is to the end of the run."""

    state: TrainState
    replica: Replica
    objective: Objective
    loader: Stream
    batch: BatchSize
    schedule: Schedule
    settings: TrainSettings
    checkpoints: Checkpoints
    interrupts: Interrupts
    validation: Callable[[], Iterable[Batch]] | None = None
    """This rank's microbatches of the validation part; None: there is no such part."""
    others: Mapping[str, Other] = field(default_factory=dict)
    """Further validation parts, by the name of their store; what is best they do not decide."""
    record: Callable[[Figures], None] = print
    """Takes the figures of updates and evaluations; called on rank 0."""
    usage: Usage = field(default_factory=Usage)
    profiler: Profiler = field(default_factory=Profiler)

    def __post_init__(self) -> None:
        self._saved, self._recorded = self._moment, self.state.progress.samples
        self._clock = self._saved_at = time.perf_counter()
        self.move(self.replica.mesh)

    def run(self) -> None:
        """Train to the end. Raises Interrupted, after saving, if a signal asked to leave."""
        with self.usage.timed(self.replica.world.device), self.profiler:
            self._run()

    def _run(self) -> None:
        late = False
        while True:
            # Before saving, so that a checkpoint knows of the evaluation at its update.
            if self._evaluation_due() and not self._evaluate():
                self._leave()
            if late or self._reached(self.settings.checkpoint_every, self._saved[0]):
                self._save_changes()
            if self.finished:
                break
            self._update()
            self.checkpoints.poll()
            leave, late = self._asked()
            if leave:
                self._leave()
        self._save_changes()
        self.checkpoints.finish()

    def move(self, mesh: Mesh | World) -> None:
        """Go on with the ranks of ``mesh`` from the next update; the curve does not notice."""
        self.replica.move(mesh)
        self.checkpoints.move(self.replica.world)
        mesh = self.replica.mesh
        self.usage.begin(mesh.world, self.state.progress.samples, self.loader.waited)
        self.replica.check(self.batch.passes)
        passes = len(self.batch.mine(mesh.data_rank, mesh.data_ranks))
        even = self.replica.in_step
        self._passes = -(-self.batch.passes // mesh.data_ranks) if even else passes
        self._batches = self.loader.stream(
            self.state.progress.samples,
            self.batch.samples,
            mesh.data_rank,
            mesh.data_ranks,
            even=even,
        )

    @property
    def finished(self) -> bool:
        """Whether another update would pass the end, or patience has run out."""
        progress, patience = self.state.progress, self.settings.patience
        if patience is not None and progress.stale >= patience:
            return True
        return progress.samples + self.batch.samples > self.settings.samples

    def _update(self) -> None:
        factor = self.schedule.factor(self.state.progress.samples, self.settings.samples)
        self.profiler.next(self.state.progress.update + 1)
        try:
            with self.usage.counted():
                figures = train_step(
                    self.state,
                    itertools.islice(self._batches, self._passes),
                    self.objective.loss,
                    self.replica,
                    self.settings,
                    self.batch.samples,
                    factor,
                )
        except Diverged:  # on all ranks
            self.checkpoints.finish()
            raise
        every = self.settings.record_every
        if every == 0 or self._reached(every, self._recorded) or self.finished:
            self._record({**figures, **self._speed()})

    def _evaluate(self) -> bool:
        """Score the validation part; False if a signal came in the middle."""
        assert self.validation is not None, "evaluation without a validation part"
        progress, average = self.state.progress, self.state.average
        worn = average.worn_by(self.state.model) if average else contextlib.nullcontext()
        every = {"val": (self.objective, self.validation)}
        every |= {f"val@{name}": other for name, other in self.others.items()}
        told: Figures = {}
        with span("validation"), worn:
            for part, (objective, batches) in every.items():
                figures = evaluate(
                    self.replica, objective, batches(), lambda: bool(self.interrupts)
                )
                if figures is None:
                    return False
                told |= {f"{part}/{name}": figure for name, figure in figures.items()}
        progress.evaluated = progress.samples
        self._record(told)
        value = told[f"val/{self.objective.best}"]
        if not self._is_better(value):
            progress.stale += 1
            return True
        progress.best, progress.best_update = value, progress.update
        progress.stale = 0
        self.save()  # the weights of the best are kept by keeping the checkpoint
        return True

    def _is_better(self, value: float) -> bool:
        best = self.state.progress.best
        if math.isnan(value):  # nothing to judge by was labelled; then the last weights must do
            return False
        if best is None:
            return True
        return value > best if self.objective.larger_is_better else value < best

    def _evaluation_due(self) -> bool:
        progress = self.state.progress
        if self.validation is None or progress.evaluated == progress.samples:
            return False
        return self.finished or self._reached(self.settings.evaluate_every, progress.evaluated)

    def _reached(self, every: int | None, last: int) -> bool:
        """Whether a multiple of ``every`` samples lies after ``last`` and not after now."""
        return every is not None and self.state.progress.samples // every > last // every

    def _asked(self) -> tuple[bool, bool]:
        """Whether to leave and whether to save now, as any rank sees it; in one exchange."""
        limit = self.settings.checkpoint_seconds
        late = limit is not None and time.perf_counter() - self._saved_at > limit
        leave, save = self.replica.world.any_of([bool(self.interrupts), late])
        return leave, save

    def save(self) -> None:
        """Write a checkpoint of the state as it is."""
        self._tick()
        with span("checkpoint"):
            self.checkpoints.save(self.state)
        self._saved, self._saved_at = self._moment, time.perf_counter()

    @property
    def _moment(self) -> tuple[int, int]:
        """Samples seen, and those seen at the last evaluation: they tell states apart."""
        return self.state.progress.samples, self.state.progress.evaluated

    def _save_changes(self) -> None:
        if self._saved != self._moment:
            self.save()

    def _leave(self) -> None:
        self._save_changes()
        self.checkpoints.finish()
        raise Interrupted(
            f"{self.interrupts.pending or 'another rank'}: saved after update"
            f" {self.state.progress.update}; the same command goes on from there",
            self.interrupts.code,
        )

    def _record(self, figures: Figures) -> None:
        if self.replica.world.first:
            progress = self.state.progress
            self.record({"update": progress.update, "samples": progress.samples, **figures})

    def _speed(self) -> Figures:
        """Return rate of learning and figures of time since the last record; on all ranks."""
        self._tick()
        self._recorded = self.state.progress.samples
        return {
            "lr": max(group["lr"] for group in self.state.optimizer.param_groups),
            **self.usage.figures(self._recorded, self.loader.waited),
            "seconds": self.state.progress.seconds,
        }

    def _tick(self) -> None:
        now = time.perf_counter()
        self.state.progress.seconds += now - self._clock
        self._clock = now
