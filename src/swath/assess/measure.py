"""One cell is measured: features are scored, a network is trained further, or a baseline fitted."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

from swath.assess.cells import Cell
from swath.assess.frozen import begun, features, score_frozen
from swath.assess.plan import Plan
from swath.assess.tuned import quiet, score_tuned
from swath.assess.ways import BASELINE
from swath.baselines import fit_and_score
from swath.data.few import Few
from swath.data.store import Store
from swath.embed.table import Table
from swath.parallel.world import World


class Measuring:
    """Measures cells of ``plan`` on the ranks of ``world``, which all call together."""

    def __init__(self, plan: Plan, world: World) -> None:
        self._plan, self._world = plan, world
        self._tables: dict[pathlib.Path, Table] = {}

    def record(self, cell: Cell) -> dict[str, Any]:
        """Return the record of ``cell``, but for what it is of; an empty one on all ranks but the
        first."""
        if cell.way == BASELINE:
            return self._first(lambda: self._baseline(cell))
        way = self._plan.way(cell)
        if way.frozen:
            run, table = self._plan.run(cell), self._table(cell)
            few = Few(share=cell.share, seed=cell.seed)
            return self._first(lambda: score_frozen(run, table, str(way.kind), few))
        tries = {words: self._plan.run(cell, words) for words in self._plan.tries(cell)}
        first = next(iter(tries.values()))
        if self._plan.settings.models[cell.model] is None and first.init:
            start = dataclasses.replace(first, adapt=None, init=None)
            with quiet():
                begun(start, self._plan.begun(cell), self._world)
        return score_tuned(tries, self._plan.running(cell), self._world)

    def _first(self, measured: Any) -> dict[str, Any]:
        found: list[dict[str, Any]] = []
        self._world.first_does(lambda: found.append(measured()))
        return found[0] if found else {}

    def _table(self, cell: Cell) -> Table:
        """Return the features of the network that ``cell`` begins with."""
        place = self._plan.begun(cell)
        if place not in self._tables:
            run = self._plan.run(cell)
            with quiet():
                begun(run, place, self._world)
                self._tables[place] = features(run, place, self._world)
        return self._tables[place]

    def _baseline(self, cell: Cell) -> dict[str, Any]:
        run = self._plan.run(cell)
        (one,) = (b for b in self._plan.settings.baselines if b.title == cell.model)
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
