"""A run for the tests of launching: the small trainer behind the command line's last words."""

from __future__ import annotations

import os
import pathlib
import sys
import time
from collections.abc import Callable
from typing import Any
from unittest import mock

from swath import cli
from swath.parallel.settings import Parallel
from swath.parallel.world import World
from tests.train.small import trainer

QUICK = Parallel(start_seconds=20, lost_seconds=5)


def spoken(out: str, told: dict[str, Any], action: Callable[[], None]) -> None:
    """Do ``action`` as the command line would, in the environment ``told``; what is said on stderr
    goes to the file ``out``."""
    with open(out, "ab", buffering=0) as file:
        os.dup2(file.fileno(), 2)
    sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115 (as long as the process)
    for name in [n for n in os.environ if n.startswith(("SLURM_", "TORCHELASTIC_"))]:
        del os.environ[name]
    os.environ.update({name: str(value) for name, value in told.items()})
    with mock.patch.object(cli, "app", action):
        cli.main()


def rank_of(ranks: int, rank: int, port: int) -> dict[str, Any]:
    """Return what a launcher says to a rank that has to open the port itself."""
    return {
        "RANK": rank,
        "LOCAL_RANK": rank,
        "WORLD_SIZE": ranks,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
    }


def training(
    folder: str,
    parallel: Parallel = QUICK,
    settings: Any = None,
    slow: float = 0.0,
    at: Callable[[World, int], None] = lambda world, update: None,
) -> Callable[[], None]:
    """Return an action that trains in ``folder``, ``slow`` seconds longer for each update, and
    calls ``at`` after each."""

    def action() -> None:
        with World.start("cpu", parallel, settings) as world:
            made, lines = trainer(pathlib.Path(folder), world)

            def record(figures: dict[str, Any]) -> None:
                lines.append(figures)

            made.record = record
            update = made._update

            def updating() -> None:
                update()
                time.sleep(slow)
                at(world, made.state.progress.update)

            made._update = updating
            with made.interrupts:
                made.run()

    return action
