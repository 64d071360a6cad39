"""A run for the tests of launching: the small trainer behind the command line's last words."""

from __future__ import annotations

import os
import pathlib
import re
import socket
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any
from unittest import mock

from swath import cli
from swath.parallel.settings import Parallel
from swath.parallel.world import World
from tests.train.small import trainer

QUICK = Parallel(start_seconds=20, lost_seconds=4)

Action = Callable[[], None]

_TORCHS = re.compile(
    r"^(?:(?:\[rank\d+\]:)?\[[WIE]\d{4} |Exception raised from |frame #|<omitting).*\n|^\n", re.M
)


def training(
    folder: pathlib.Path,
    parallel: Parallel = QUICK,
    *,
    settings: Any = None,
    device: str = "cpu",
    at: Callable[[World, int], None] = lambda world, update: None,
) -> Action:
    """Return an action that trains in ``folder`` and calls ``at`` after each update."""

    def action() -> None:
        with World.start(device, parallel, settings) as world:
            made, _ = trainer(folder, world)
            update = made._update

            def updating() -> None:
                update()
                at(world, made.state.progress.update)

            made._update = updating
            with made.interrupts:
                made.run()

    return action


def spoken(out: pathlib.Path, told: dict[str, Any], action: Action) -> None:
    """Do ``action`` as the command line would, in the environment ``told``; what is said on stderr
    goes to the file ``out``."""
    with out.open("ab", buffering=0) as file:
        os.dup2(file.fileno(), 2)
    sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115 (as long as the process lives)
    for name in [n for n in os.environ if n.startswith(("SLURM_", "TORCHELASTIC_"))]:
        del os.environ[name]
    os.environ.update({name: str(value) for name, value in told.items()})
    with mock.patch.object(cli, "app", action):
        cli.main()


def exported(rank: int, ranks: int, port: int) -> dict[str, Any]:
    """Return what a launcher says to a rank on this computer that keeps the port itself."""
    return {
        "RANK": rank,
        "LOCAL_RANK": rank,
        "WORLD_SIZE": ranks,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
    }


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


class Started:
    """Ranks that do ``actions`` in processes of their own; None: that one never starts."""

    def __init__(
        self,
        pool: Any,
        folder: pathlib.Path,
        actions: Sequence[Action | None],
        told: Callable[[int, int, int], dict[str, Any]] = exported,
        port: int | None = None,
    ) -> None:
        port = port or free_port()
        ranks = len(actions)
        self._words = [folder / f"{rank}-{port}.err" for rank in range(ranks)]
        self.processes = [
            action and pool.start(spoken, self._words[rank], told(rank, ranks, port), action)
            for rank, action in enumerate(actions)
        ]

    def codes(self, seconds: float, stopped: int | None = None) -> list[int | None]:
        """Return the exit codes; None for those that never started or did not end in time.

        stopped: a rank that will not end, and need not be awaited.
        """
        deadline = time.monotonic() + seconds
        living = [process for process in self.processes if process]
        for process in living:
            if stopped is None or process is not self.processes[stopped]:
                process.join(max(0.0, deadline - time.monotonic()))
        codes = [process and process.exitcode for process in self.processes]
        for process in living:
            process.kill()
            process.join()
        return codes

    def words(self) -> list[str]:
        """Return what each rank said on stderr, without what torch's own threads may log there of
        connections that break."""
        every = [path.read_text() if path.exists() else "" for path in self._words]
        return [_TORCHS.sub("", text) for text in every]
