"""Signals that ask a process to leave: SIGTERM and SIGUSR1 of schedulers, SIGINT of Ctrl-C."""

import contextlib
import signal
from collections.abc import Callable, Iterable, Iterator
from types import FrameType
from typing import Any

SCHEDULER = (signal.SIGTERM, signal.SIGUSR1)
LEAVE = (*SCHEDULER, signal.SIGINT)


@contextlib.contextmanager
def handled(
    numbers: Iterable[signal.Signals], handler: Callable[[int, FrameType | None], Any]
) -> Iterator[None]:
    """Let ``handler`` have the signals in the block, and put back who had them; main thread."""
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
