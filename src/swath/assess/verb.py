"""The verb ``swath assess``: settings from what was typed, processes that help, what is told."""

from __future__ import annotations

import contextlib
import logging
import pathlib
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from swath import config, here
from swath.assess.settings import Assess
from swath.config import ConfigError
from swath.train.job import sorted_arguments

if TYPE_CHECKING:
    from swath.parallel.world import World

log = logging.getLogger(__name__)


def load(arguments: Sequence[str | pathlib.Path]) -> Assess:
    """Return the comparison that YAML files and then ``key=value`` words describe."""
    if not arguments:
        raise ConfigError("swath assess needs a file that says what is compared, as assess.yaml")
    for one in map(str, arguments):
        if "=" not in one and not one.endswith((".yaml", ".yml")):
            raise ConfigError(
                f"{one}: is no settings file (FILE.yaml) and no word (seeds=[0]); swath assess"
                " takes a file that says what is compared: docs/howto/assess.md shows one"
            )
    return config.load(Assess, *sorted_arguments(arguments))


def prepare(settings: Assess) -> None:
    """Build the stores of all tasks and check all that can be; in one process."""
    from swath.assess.work import prepare as prepared

    prepared(settings)


def assess(settings: Assess | str | pathlib.Path, *words: str, world: World | None = None) -> str:
    """Measure what was not measured yet, and write tables and page, which lie there as far as it is
    after each cell and when it is stopped; return the tables as text, and where they are. settings:
    or a file that says them, over which ``words`` (key=value) are laid.

    ConfigError if models, tasks or ways do not go together, or records are of other ones.
    """
    from swath.assess import table, work
    from swath.assess.shown import Shown

    if not isinstance(settings, Assess):
        settings = load([settings, *words])
    plan = work.prepare(settings)
    shown = Shown(plan)
    first = not here.rank() and (world is None or world.first)
    try:
        work.go_through(plan, world, after=shown.now_and_then)
    finally:
        files = shown.write() if first else []
    if not first:
        return ""
    found = table.rows(plan)
    told = [table.text(table.blocks(plan, found)), "", *table.verdicts(plan, found)]
    return "\n".join([*told, *table.remarks(plan, found), *plan.seen, *map(str, files)])


@contextlib.contextmanager
def helped(arguments: Sequence[str], settings: Assess, jobs: int) -> Iterator[None]:
    """Let ``jobs`` - 1 more processes share the cells with this one inside the block. One that is
    killed or fails is told of: the others have measured its cells."""
    if jobs == 1:
        yield
        return
    prepare(settings)
    command = [sys.executable, "-m", "swath", "assess", *arguments]
    others = [
        subprocess.Popen(command, env=here.sharing(jobs), stdout=subprocess.DEVNULL)
        for _ in range(jobs - 1)
    ]
    try:
        yield
        codes = [other.wait() for other in others]
    finally:
        for other in others:
            other.terminate()
            other.wait()
    if early := [str(code) for code in codes if code]:
        log.warning(
            "%d of %d jobs ended early (exit code %s); the others measured their cells",
            *(len(early), jobs, ", ".join(early)),
        )
