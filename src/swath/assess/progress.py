"""What a person is told while cells are measured: which, what came of it, and for how long yet.

Ways differ by a factor of hundreds, and so do shares of the labels where features are scored. So
the time left is told of cells of a kind that was timed; of others, that they were not.
"""

from __future__ import annotations

import logging
import statistics
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from swath import units
from swath.assess.cells import Cell, read
from swath.assess.plan import Plan

log = logging.getLogger(__name__)

Kind = tuple[str, str, float | None]
"""Of cells that take about as long: task, way and, unless it trains, the share of the labels."""


class Progress:
    """Tells of the cells of ``plan``."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._seconds: dict[Cell, float] = {}
        self._told: set[Kind] = set()
        self._mine = 0
        self._look()
        self._before = len(self._seconds)

    def begins(self, cell: Cell) -> None:
        """Tell of ``cell`` if it is the first of its kind."""
        kind = self._kind(cell)
        if kind in self._told:
            return
        if not self._told:
            log.info("%d of %d cells are to be measured", len(self._missing()), len(self._cells))
        self._told.add(kind)
        if not any(self._kind(done) == kind for done in self._seconds):
            log.info("now %s", cell)

    def ended(self, cell: Cell, record: dict[str, Any]) -> None:
        """Tell the figure of ``cell``, and for how long it may go on."""
        self._mine += 1
        self._look()
        missing, name = self._missing(), self._plan.figure(cell.task)
        log.info(
            "%d of %d  %s: %s %.4f  (%s)%s",
            *(len(self._seconds), len(self._cells), cell, name, record["figures"][name]),
            units.seconds(record["seconds"]),
            f"; {self.left(missing)}" if missing else "",
        )

    def left(self, missing: Sequence[Cell]) -> str:
        """Return about how long ``missing`` cells will take, as long as others of their kind; and
        of how many nothing is known yet, by their ways."""
        timed = defaultdict(list)
        for cell, seconds in self._seconds.items():
            timed[self._kind(cell)].append(seconds)
        known = [cell for cell in missing if self._kind(cell) in timed]
        # Others may measure beside this process, of which there are as many as have been so far.
        abreast = max(1.0, (len(self._seconds) - self._before) / max(1, self._mine))
        took = sum(statistics.fmean(timed[self._kind(cell)]) for cell in known) / abreast
        new = [cell for cell in missing if self._kind(cell) not in timed]
        if not new:
            return f"about {units.seconds(took)} left"
        kinds = ", ".join(dict.fromkeys(self._named(cell) for cell in new))
        if not known:
            return f"{len(missing)} left, not timed yet ({kinds})"
        told = f"about {units.seconds(took)} for {len(known)}, the others not timed yet ({kinds})"
        return f"{len(missing)} left: {told}"

    def _kind(self, cell: Cell) -> Kind:
        trains = self._plan.way(cell).kind == "train"
        return cell.task, cell.way, None if trains else cell.share

    def _named(self, cell: Cell) -> str:
        """Return what cells like ``cell`` are called, which were not timed yet."""
        begun = any((c.task, c.way) == (cell.task, cell.way) for c in self._seconds)
        return f"{cell.task} {cell.way}" + (" with more labels" if begun else "")

    @property
    def _cells(self) -> list[Cell]:
        return self._plan.cells

    def _missing(self) -> list[Cell]:
        return [cell for cell in self._cells if cell not in self._seconds]

    def _look(self) -> None:
        """Take in the records that are new, those of other processes, too."""
        for cell in self._missing():
            if (record := read(cell, self._plan.folder)) is not None:
                self._seconds[cell] = record["seconds"]
