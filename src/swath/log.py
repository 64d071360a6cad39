"""What a program says to a person while it works: short lines on stderr.

Modules write with ``logging.getLogger(__name__)``; a command calls :func:`start` once. What is
for programs (metrics.jsonl) does not come this way.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, TextIO

FORMAT = "%(asctime)s %(message)s"


class _Lines(logging.Formatter):
    """The time and the message; warnings and errors say what they are."""

    def __init__(self, prefix: str) -> None:
        super().__init__(FORMAT, "%H:%M:%S")
        self._prefix = prefix

    def format(self, record: logging.LogRecord) -> str:
        said = logging.makeLogRecord(record.__dict__)
        level = f"{record.levelname.lower()}: " if record.levelno >= logging.WARNING else ""
        said.msg, said.args = f"{self._prefix}{level}{record.getMessage()}", None
        return super().format(said)


def start(*, rank: int = 0, ranks: int = 1, stream: TextIO | None = None) -> None:
    """Send what Swath says to ``stream`` (None: stderr); calling it again replaces the former.

    rank, ranks: of several processes the first says everything, the others only warnings, with
        their number.
    """
    logger = logging.getLogger("swath")
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(_Lines(f"[{rank}] " if ranks > 1 else ""))
    logger.addHandler(handler)
    logger.propagate = False
    logger.setLevel(logging.INFO if rank == 0 else logging.WARNING)


@contextmanager
def bar(shown: bool, what: str, total: int) -> Iterator[Any]:
    """Give a function that advances a progress bar on stderr, by 1 or as many as it is told.

    shown: False gives one that shows nothing.
    """
    if not shown or not total:
        yield lambda count=1: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn("{task.description:>10}"), BarColumn(), MofNCompleteColumn())
    before = sys.stderr
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as made:
        task = made.add_task(what, total=total)
        with _lines_above(before):
            yield lambda count=1: made.advance(task, count)


@contextmanager
def _lines_above(before: TextIO) -> Iterator[None]:
    """Let lines that went to ``before`` go to stderr as it is now, for a bar has taken that over
    to draw itself anew below them."""
    moved = [
        handler
        for handler in logging.getLogger("swath").handlers
        if isinstance(handler, logging.StreamHandler) and handler.stream is before
    ]
    for handler in moved:
        handler.setStream(sys.stderr)
    try:
        yield
    finally:
        for handler in moved:
            handler.setStream(before)


@contextmanager
def counter(shown: bool, what: str) -> Iterator[Any]:
    """Give a function that is told how many are done, and of how many; the first time, a bar begins
    that shows them."""
    with ExitStack() as stack:
        step: Any = None
        known = 0

        def told(done: int, total: int) -> None:
            nonlocal step, known
            step = step or stack.enter_context(bar(shown, what, total))
            step(done - known)
            known = done

        yield told
