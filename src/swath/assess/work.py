"""Go through the cells of a comparison: what is done is not done again, what was begun goes on.

Ranks measure a cell together. Processes that were started apart on one folder share the cells: each
takes one that nobody holds, and ends when all are done.
"""

from __future__ import annotations

import dataclasses
import itertools
import logging
import pathlib
import shutil
import statistics
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from functools import cached_property
from typing import Any

from swath import run as runs
from swath import units
from swath.assess.cells import FEATURES, Cell, cells, check, read, write
from swath.assess.frozen import begun, features, score_frozen
from swath.assess.seen import sentence
from swath.assess.settings import BASELINE, SEED, Assess, Way
from swath.assess.tuned import quiet, score_tuned
from swath.baselines import fit_and_score
from swath.config import ConfigError, plain
from swath.data.few import Few
from swath.data.split import select
from swath.data.store import Store
from swath.embed.table import Table
from swath.lock import Held, lock
from swath.parallel.world import World
from swath.settings import Run
from swath.train.init import Init, checksum
from swath.train.job import RESULT

log = logging.getLogger(__name__)

RUNS = "runs"
"""Folder of cells that are being trained."""
FROZEN = ("data", "model", "task", "embed", "probe", "init", "train")
"""Fields of a run that the figures of frozen features depend on, as RESULT of a trained one."""


class Plan:
    """A comparison that was checked as far as can be before anything is measured."""

    def __init__(self, settings: Assess) -> None:
        """ConfigError if settings of a task, weights or words are not there or do not fit."""
        self.settings, self.folder = settings, settings.place
        self.cells = cells(settings)
        self._tables: dict[pathlib.Path, Table] = {}
        self._loaded: dict[tuple[str, str, bool, str], Run] = {}
        for cell in self.cells:
            for words in self.tries(cell):
                self.run(cell, words)

    @cached_property
    def weights(self) -> dict[tuple[str, int], Init | None]:
        """The models by name and seed, with the checksum of each one's file."""
        found = {}
        for name, seed in itertools.product(self.settings.models, self.settings.seeds):
            init = self.settings.models[name]
            if init is not None:
                init = dataclasses.replace(init, from_=init.from_.replace(SEED, str(seed)))
                init = dataclasses.replace(init, sha256=checksum(init.file))
            found[name, seed] = init
        return found

    @cached_property
    def stores(self) -> dict[str, str]:
        """Of each task the fingerprint of its store."""
        return {
            cell.task: Store.open(self.run(cell).data.store).fingerprint
            for cell in {cell.task: cell for cell in self.cells}.values()
        }

    @cached_property
    def seen(self) -> list[str]:
        """For each task and model a sentence on whether its weights saw the places tested on."""
        found = []
        for cell in {cell.task: cell for cell in self.cells}.values():
            data = self.run(cell).data
            test = select(Store.open(data.store), data.split, "test")
            for model in self.settings.models:
                every = [self.weights[model, seed] for seed in self.settings.seeds]
                weights = {init.from_: init for init in every if init is not None}
                if weights:
                    found.append(sentence(cell.task, model, test, list(weights.values())))
        return found

    def way(self, cell: Cell) -> Way:
        return Way() if cell.way == BASELINE else self.settings.way(cell.way)

    def tries(self, cell: Cell) -> tuple[str, ...]:
        """Return the words that are tried in ``cell``, at least the empty one."""
        return self.way(cell).tries or ("",)

    def run(self, cell: Cell, words: str = "") -> Run:
        """Return the run of ``cell``, with weights, seed and labels, and with ``words``."""
        way, init = self.way(cell), self.weights.get((cell.model, cell.seed))
        scratch = init is None
        key = (cell.task, cell.way, scratch, words)
        if key not in self._loaded:
            own = way.scratch if scratch and way.scratch is not None else way.words
            self._loaded[key] = self._load(cell, [*(own or ()), *filter(None, [words])])
        found = self._loaded[key]
        if scratch and found.adapt is not None and found.adapt.freezes:
            init = Init(from_=str(self.begun(cell)))  # what it keeps are the numbers of the seed
        few = None if cell.share == 1 else Few(share=cell.share, seed=cell.seed)
        data = dataclasses.replace(found.data, labels=few)
        return dataclasses.replace(found, init=init, seed=cell.seed, data=data)

    def _load(self, cell: Cell, words: Sequence[str]) -> Run:
        """Return the settings of the task of ``cell`` with ``words``, begun with weights that are
        put in later: some ways need them."""
        task = self.settings.tasks[cell.task]
        try:
            own = runs.load(*task.run)
            own.job()
            for name, at in (("init", "models"), ("data.labels", "shares"), ("adapt", "ways")):
                if getattr(own.data if "." in name else own, name.rpartition(".")[2]) is not None:
                    raise ConfigError(f"{name} has no effect there: {at} say it; leave it out")
            return runs.load(*task.run, *words, "init.from=models")
        except ConfigError as error:
            raise ConfigError(f"tasks.{cell.task}, {cell.way}: {error}") from error

    def begun(self, cell: Cell) -> pathlib.Path:
        """Return the folder of the network that ``cell`` begins with, and of its features."""
        folder = self.folder / FEATURES / cell.task / cell.model
        init = self.settings.models[cell.model]
        return folder / str(cell.seed) if init is None or SEED in init.from_ else folder

    def of(self, cell: Cell) -> dict[str, Any]:
        """Return what the figures of ``cell`` depend on, beside its name."""
        run, way = self.run(cell, self.tries(cell)[0]), self.way(cell)
        frozen = way.kind in ("knn", "linear")
        if cell.way == BASELINE:
            (one,) = (b for b in self.settings.baselines if b.title == cell.model)
            told: dict[str, Any] = {"baseline": plain(one, defaults=False)}
            fields: tuple[str, ...] = ("data",)
        else:
            fields = FROZEN if frozen else RESULT
            init = self.weights[cell.model, cell.seed]
            told = {"weights": init and init.sha256, "tries": list(way.tries)}
        told |= {name: plain(getattr(run, name), defaults=False) for name in fields}
        told["data"].pop("store", None)
        if frozen:  # nothing is trained: of how it is done only the arithmetic counts
            told["train"] = {k: v for k, v in told["train"].items() if k == "precision"}
        if isinstance(told.get("init"), dict):
            told["init"] = {k: v for k, v in told["init"].items() if k in ("bands", "missing")}
        return {"store": self.stores[cell.task], "kind": way.kind or BASELINE, **told}

    def figure(self, cell: Cell) -> str:
        """Return the figure that tables show of the task of ``cell``."""
        best = getattr(self.run(cell).task, "best", "loss")
        return self.settings.tasks[cell.task].figure or best

    def running(self, cell: Cell) -> pathlib.Path:
        """Return the folder of the runs of ``cell``."""
        folder = self.folder / RUNS / cell.task / cell.way / cell.model
        return folder / f"{cell.share:g}-{cell.seed}"

    def lock(self, cell: Cell) -> pathlib.Path:
        """Return the file that a process holds while it measures ``cell``: cells of one network's
        features have one, for they make them."""
        if self.way(cell).kind in ("knn", "linear"):
            return self.begun(cell) / ".assess.lock"
        path = cell.file(self.folder)
        return path.with_name(f".{path.stem}.lock")

    def measure(self, cell: Cell, world: World) -> dict[str, Any]:
        """Return the record of ``cell``, but for what it is of; all ranks call."""
        way, few = self.way(cell), Few(share=cell.share, seed=cell.seed)
        found: list[dict[str, Any]] = []
        if cell.way == BASELINE:
            world.first_does(lambda: found.append(self._baseline(cell)))
        elif way.kind != "train":
            run = self.run(cell)
            place = self.begun(cell)
            if place not in self._tables:
                with quiet():
                    begun(run, place, world)
                    self._tables[place] = features(run, place, world)
            table = self._tables[place]
            world.first_does(lambda: found.append(score_frozen(run, table, str(way.kind), few)))
        else:
            tries = {words: self.run(cell, words) for words in self.tries(cell)}
            first = next(iter(tries.values()))
            if self.settings.models[cell.model] is None and first.init:
                start = dataclasses.replace(first, adapt=None, init=None)
                with quiet():
                    begun(start, self.begun(cell), world)
            found.append(score_tuned(tries, self.running(cell), world))
        return found[0] if found else {}

    def _baseline(self, cell: Cell) -> dict[str, Any]:
        run = self.run(cell)
        (one,) = (b for b in self.settings.baselines if b.title == cell.model)
        with quiet():
            figures = fit_and_score(
                one,
                Store.open(run.data.store),
                run.data.split,
                bands=run.data.bands,
                labels=run.data.labels,
                seed=cell.seed,
                threads=run.compute.threads or 1,
            )
        kept = {name: value for name, value in figures.items() if isinstance(value, float)}
        return {"figures": kept, "labels": figures["train"]}


def prepare(settings: Assess) -> Plan:
    """Return the plan of ``settings``, with the stores of its tasks built; in one process.

    ConfigError as for :class:`Plan`, and if a record is there of other settings.
    """
    plan = Plan(settings)
    for cell in {cell.task: cell for cell in plan.cells}.values():
        runs.built_once(plan.run(cell))
    for cell in plan.cells:
        if (record := read(cell, plan.folder)) is not None:
            check(cell, plan.folder, record, plan.of(cell))
    return plan


def assess(settings: Assess, world: World | None = None) -> Plan:
    """Measure every cell that was not measured yet; return the plan, whose records are all there.

    All ranks of ``world`` call; None: those that the launcher started.
    """
    plan = prepare(settings)
    if world is None:
        run = plan.run(plan.cells[0])
        with World.start(run.compute.device, run.parallel, settings) as world:
            _go_through(plan, world)
    else:
        _go_through(plan, world)
    return plan


def _go_through(plan: Plan, world: World) -> None:
    progress = Progress(plan)
    while True:
        with ExitStack() as held:
            number = world.number(_taken(plan, world, held))
            if number == len(plan.cells):
                return
            cell = plan.cells[number]
            if world.first:
                progress.begins(cell)
            began = time.perf_counter()
            record = plan.measure(cell, world)
            seconds = time.perf_counter() - began
            if world.first:
                figure = plan.figure(cell)
                if figure not in record["figures"]:
                    raise ConfigError(
                        f"tasks.{cell.task}.figure: there is no {figure!r} among the figures of"
                        f" {cell}; there are {', '.join(sorted(record['figures']))}"
                    )
                write(cell, plan.folder, {"of": plan.of(cell), "seconds": seconds, **record})
                if not plan.settings.keep:
                    shutil.rmtree(plan.running(cell), ignore_errors=True)
                progress.ended(cell, record, seconds)


def _taken(plan: Plan, world: World, held: ExitStack) -> int:
    """Return what :func:`_take` does, on the first rank; 0 on the others."""
    taken = [0]
    world.first_does(lambda: taken.append(_take(plan, held)))
    return taken[-1]


def _take(plan: Plan, held: ExitStack) -> int:
    """Return the number of a cell that nobody measures, now locked by ``held``; the number of all
    cells once they are measured. Waits while others are at the rest."""
    while True:
        missing = False
        for number, cell in enumerate(plan.cells):
            if read(cell, plan.folder) is not None:
                continue
            missing = True
            path = plan.lock(cell)
            path.parent.mkdir(parents=True, exist_ok=True)
            with ExitStack() as mine, suppress(Held):  # by another process
                mine.enter_context(lock(path, "swath assess"))
                if read(cell, plan.folder) is None:
                    held.enter_context(mine.pop_all())
                    return number
        if not missing:
            return len(plan.cells)
        time.sleep(0.5)


class Progress:
    """Says which cell is measured, what came of it, and for how long it may go on."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._seconds: dict[tuple[str, str], list[float]] = defaultdict(list)
        for cell in plan.cells:
            if (record := read(cell, plan.folder)) is not None:
                self._seconds[cell.task, cell.way].append(record["seconds"])

    def begins(self, cell: Cell) -> None:
        if not any(self._seconds.values()):
            log.info("%d cells to measure; the first is %s", len(self._plan.cells), cell)

    def ended(self, cell: Cell, record: dict[str, Any], seconds: float) -> None:
        self._seconds[cell.task, cell.way].append(seconds)
        missing = [c for c in self._plan.cells if read(c, self._plan.folder) is None]
        name = self._plan.figure(cell)
        done = len(self._plan.cells) - len(missing)
        log.info(
            "%d of %d  %s: %s %.4f  (%s)%s",
            *(done, len(self._plan.cells), cell, name, record["figures"][name]),
            units.seconds(seconds),
            f"; about {units.seconds(self.left(missing))} left" if missing else "",
        )

    def left(self, missing: Sequence[Cell]) -> float:
        """Return about how many seconds ``missing`` will take: as long as the cells of that task
        and way, or of all, if none of them was measured yet."""
        every = [s for some in self._seconds.values() for s in some]
        return sum(
            statistics.fmean(self._seconds[cell.task, cell.way] or every) for cell in missing
        )
