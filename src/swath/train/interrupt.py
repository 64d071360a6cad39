"""Signals that ask a run to leave: SIGTERM and SIGUSR1 of schedulers, SIGINT of Ctrl-C.

The first one lets the update in work finish; the run then saves and leaves with exit code 75,
after Ctrl-C with 130 (:mod:`swath.exits`). The second one leaves at once, without saving. What
saves as it goes along, such as a map, leaves at once and with the same codes.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import NoReturn

from swath import exits
from swath.parallel.end import GOES_ON
from swath.signals import LEAVE, SCHEDULER, handled


class Interrupted(SystemExit):
    """The run saved itself and leaves; the process ends with ``code``."""

    def __init__(self, message: str, code: int = exits.LEFT) -> None:
        super().__init__(code)
        self.message = message

    def __str__(self) -> str:
        return self.message


@contextlib.contextmanager
def leaving_at_once() -> Iterator[None]:
    """Let signals of schedulers raise Interrupted in the block: for verbs of which all that is done
    so far is saved. Call it in the main thread."""

    def leave(number: int, frame: FrameType | None) -> NoReturn:
        raise Interrupted(f"{signal.Signals(number).name} ended it. {GOES_ON}")

    with handled(SCHEDULER, leave):
        yield


class Interrupts:
    """Watches for the signals inside a ``with`` block, in the main thread; elsewhere for none."""

    def __init__(self) -> None:
        self.pending: str | None = None
        """Name of the signal that came, or None."""
        self._held = contextlib.ExitStack()

    def __bool__(self) -> bool:
        """Whether this process was asked to leave."""
        return self.pending is not None

    @property
    def code(self) -> int:
        """The exit code of a process that leaves because of the signal."""
        return exits.INTERRUPTED if self.pending == "SIGINT" else exits.LEFT

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            self._held.enter_context(handled(LEAVE, self._note))
        return self

    def __exit__(self, *_: object) -> None:
        self._held.close()

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.pending is not None:
            if number == signal.SIGINT:
                raise KeyboardInterrupt  # a notebook's kernel lives on
            os._exit(exits.LEFT)
        self.pending = signal.Signals(number).name
