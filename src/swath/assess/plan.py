"""A comparison that was checked: the run of each cell, where it lies, and what weights it has."""

from __future__ import annotations

import dataclasses
import itertools
import pathlib
from collections.abc import Sequence
from functools import cached_property

from swath import run as runs
from swath.assess.cells import FEATURES, Cell, cells
from swath.assess.seen import sentence
from swath.assess.settings import SEED, Assess
from swath.assess.tuned import quiet
from swath.assess.ways import Way
from swath.config import ConfigError, kind_of
from swath.data.few import Few
from swath.data.split import select
from swath.data.store import Store
from swath.settings import Run
from swath.train.init import Init, checksum

RUNS = "runs"
"""Folder of cells that are being trained."""


class Plan:
    """A comparison that was checked as far as can be before anything is measured."""

    def __init__(self, settings: Assess) -> None:
        """ConfigError if settings of a task, weights or words are not there or do not fit."""
        self.settings, self.folder = settings, settings.place
        self.cells = cells(settings)
        self._tasks: dict[str, Run] = {}
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
    def firsts(self) -> dict[str, Cell]:
        """The first cell of each task: what is asked of a task, it can tell."""
        return {cell.task: cell for cell in reversed(self.cells)}

    @cached_property
    def stores(self) -> dict[str, str]:
        """Of each task the fingerprint of its store."""
        return {
            task: Store.open(self.run(cell).data.store).fingerprint
            for task, cell in self.firsts.items()
        }

    @cached_property
    def seen(self) -> list[str]:
        """For each task and model a sentence on whether its weights saw the places tested on."""
        found = []
        for task in self.settings.tasks:
            data = self.run(self.firsts[task]).data
            test = select(Store.open(data.store), data.split, "test")
            for model in self.settings.models:
                every = [self.weights[model, seed] for seed in self.settings.seeds]
                weights = {init.from_: init for init in every if init is not None}
                if weights:
                    found.append(sentence(task, model, test, list(weights.values())))
        return found

    def way(self, cell: Cell) -> Way:
        return self.settings.way(cell.way)

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
            if cell.task not in self._tasks:
                own = runs.load(*task.run)
                _check_task(own)
                self._tasks[cell.task] = own
            with quiet():  # what loading says of the task's settings was said
                return runs.load(*task.run, *words, "init.from=models")
        except ConfigError as error:
            raise ConfigError(f"tasks.{cell.task}, {cell.way}: {error}") from error

    def begun(self, cell: Cell) -> pathlib.Path:
        """Return the folder of the network that ``cell`` begins with, and of its features."""
        folder = self.folder / FEATURES / cell.task / cell.model
        init = self.settings.models[cell.model]
        return folder / str(cell.seed) if init is None or SEED in init.from_ else folder

    def figure(self, task: str) -> str:
        """Return the figure that tables show of ``task``."""
        best = getattr(self.run(self.firsts[task]).task, "best", "loss")
        return self.settings.tasks[task].figure or best

    def running(self, cell: Cell) -> pathlib.Path:
        """Return the folder of the runs of ``cell``."""
        folder = self.folder / RUNS / cell.task / cell.way / cell.model
        return folder / f"{cell.share:g}-{cell.seed}"

    def lock(self, cell: Cell) -> pathlib.Path:
        """Return the file that a process holds while it measures ``cell``: cells of one network's
        features have one, for they make them."""
        if self.way(cell).frozen:
            return self.begun(cell) / ".assess.lock"
        path = cell.file(self.folder)
        return path.with_name(f".{path.stem}.lock")


def _check_task(run: Run) -> None:
    """Raise ConfigError unless ``run`` is to be trained, learns labels, and leaves to a comparison
    what that says."""
    task = run.job().task
    if task.labels is None:
        raise ConfigError(
            f"task.kind={kind_of(type(task))} is a pretraining: it reads no labels, so there is"
            " nothing to score. Name the settings of a run that learns labels, as task.kind="
            "classify or segment; the weights of a pretraining go to models, as models:"
            f" {{pretrained: {{from: {run.place}}}}}"
        )
    for name, at in (("init", "models"), ("data.labels", "shares"), ("adapt", "ways")):
        if getattr(run.data if "." in name else run, name.rpartition(".")[2]) is not None:
            raise ConfigError(f"{name} has no effect there: {at} say it; leave it out")
