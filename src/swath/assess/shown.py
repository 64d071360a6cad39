"""Tables and page of a comparison that goes on: what was measured so far can be looked at."""

from __future__ import annotations

import pathlib
import time

from swath.assess import page, table
from swath.assess.plan import Plan

SHARE = 0.05
"""Of the time, that may go into tables and page while cells are measured."""


class Shown:
    """Writes the tables and the page of ``plan`` anew; each file is whole at any moment."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._ended, self._took = -float("inf"), 0.0

    def write(self) -> list[pathlib.Path]:
        """Write them of all records that are there; return the files, none if there is no record
        yet."""
        began = time.monotonic()
        found = table.rows(self._plan)
        files = [*table.write(self._plan, found), page.write(self._plan, found)] if found else []
        self._ended = time.monotonic()
        self._took = self._ended - began
        return files

    def now_and_then(self) -> None:
        """Write them, unless that would take a good part of the time: where many cells take less
        than the page does, some go by."""
        if time.monotonic() - self._ended >= self._took / SHARE:
            self.write()
