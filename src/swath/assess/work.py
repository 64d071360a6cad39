"""Go through the cells of a comparison: what is done is not done again, what was begun goes on.

Ranks measure a cell together. Processes that were started apart on one folder share the cells: each
takes one that nobody holds, and ends when all are done.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import Any

from swath import run as runs
from swath.assess.cells import Cell, check, read, write
from swath.assess.fits import check_weights
from swath.assess.frozen import check_classes
from swath.assess.identity import asked, of
from swath.assess.measure import Measuring
from swath.assess.plan import Plan
from swath.assess.progress import Progress
from swath.assess.settings import Assess
from swath.config import ConfigError
from swath.data.store import Store
from swath.lock import Held, lock
from swath.parallel.world import World


def prepare(settings: Assess) -> Plan:
    """Return the plan of ``settings``, with the stores of its tasks built; in one process.

    ConfigError as for :class:`Plan`, if a store's labels do not suit a way, weights fit a network
    no more than that, or a record is there of other settings.
    """
    plan = Plan(settings)
    found = ((cell, read(cell, plan.folder)) for cell in plan.cells)
    records = {cell: record for cell, record in found if record is not None}
    for cell, record in records.items():  # before anything is gathered
        check(cell, plan.folder, record, {"store": record["of"].get("store"), **asked(plan, cell)})
    for cell in plan.firsts.values():
        runs.built_once(plan.run(cell))
    for cell in {(cell.task, cell.way): cell for cell in plan.cells}.values():
        if plan.way(cell).frozen:
            check_classes(Store.open(plan.run(cell).data.store), cell.way)
    for cell, record in records.items():
        check(cell, plan.folder, record, of(plan, cell))
    check_weights(plan, [cell for cell in plan.cells if cell not in records])
    return plan


def assess(settings: Assess, world: World | None = None) -> Plan:
    """Measure every cell that was not measured yet; return the plan, whose records are all there.

    All ranks of ``world`` call; None: those that the launcher started.
    """
    plan = prepare(settings)
    go_through(plan, world)
    return plan


def go_through(
    plan: Plan, world: World | None = None, after: Callable[[], object] = lambda: None
) -> None:
    """Measure every cell of ``plan`` that was not measured yet. after: is called by the first rank
    when one is."""
    if world is None:
        run = plan.run(plan.cells[0])
        with World.start(run.compute.device, run.parallel, plan.settings) as world:
            return go_through(plan, world, after)
    progress, measuring = Progress(plan), Measuring(plan, world)
    while True:
        with ExitStack() as held:
            number = world.number(_taken(plan, world, held))
            if number == len(plan.cells):
                return None
            cell = plan.cells[number]
            if world.first:
                progress.begins(cell)
            began = time.perf_counter()
            try:
                record = measuring.record(cell)
            except ConfigError as error:
                raise ConfigError(f"{cell}: {error}") from error
            record["seconds"] = time.perf_counter() - began
            if world.first:
                _keep(plan, cell, record)
                progress.ended(cell, record)
        if world.first:
            after()


def _keep(plan: Plan, cell: Cell, record: dict[str, Any]) -> None:
    figure = plan.figure(cell.task)
    if figure not in record["figures"]:
        raise ConfigError(
            f"tasks.{cell.task}.figure: there is no {figure!r} among the figures of"
            f" {cell}; there are {', '.join(sorted(record['figures']))}"
        )
    write(cell, plan.folder, {"of": of(plan, cell), **record})
    if not plan.settings.keep:
        shutil.rmtree(plan.running(cell), ignore_errors=True)


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
