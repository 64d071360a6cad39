"""What is said while a bar is drawn stands on lines of its own."""

import io
import logging
import re
import sys

from swath import log


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_lines_stand_above_a_bar(monkeypatch):
    """They went to the end of the bar's line, and the next bar over them."""
    shown = Terminal()
    monkeypatch.setattr(sys, "stderr", shown)
    monkeypatch.setenv("TERM", "xterm")
    logger = logging.getLogger("swath")
    before = logger.handlers[:], logger.propagate, logger.level
    try:
        log.start()
        (handler,) = logger.handlers
        with log.counter(True, "labels") as told:
            told(1, 3)
            logger.info("halfway")
            told(3, 3)
        assert handler.stream is shown
        logger.info("done")
    finally:
        logger.handlers[:], logger.propagate, level = before
        logger.setLevel(level)
    lines = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", shown.getvalue()).replace("\r", "\n").split("\n")
    assert [line[9:] for line in lines if re.match(r"\d\d:\d\d:\d\d ", line)] == ["halfway", "done"]
    assert any("labels" in line and "3/3" in line for line in lines)
