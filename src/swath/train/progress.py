"""What a person sees of a run: one line that renews itself, or, in a log file, one now and then."""

from __future__ import annotations

import sys
import time
from collections import deque
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from swath import units

_WINDOW, _ENOUGH = 300.0, 10.0  # seconds that the time left is told from, at most and at least


class ProgressLine:
    """Shows the figures of a run of ``total`` samples on stderr; use as a context manager.

    batch: samples of an update; a last one that would pass ``total`` is not begun.
    every: seconds between lines where stderr is not a terminal.
    """

    def __init__(
        self, total: int, batch: int = 1, every: float = 30.0, console: Console | None = None
    ) -> None:
        self.total, self.every = total - total % batch, every
        self._rate = Rate()
        self.console = console or Console(file=sys.stderr, soft_wrap=True, highlight=False)
        self._printed = -float("inf")
        self._bar: Progress | None = None
        if self.console.is_terminal:
            self._bar = Progress(
                BarColumn(20), TextColumn("{task.description}"), console=self.console
            )
            self._task = self._bar.add_task("first update", total=total)

    def __enter__(self) -> ProgressLine:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar:
            self._bar.stop()

    def __call__(self, figures: dict[str, Any]) -> None:
        """Show what :class:`~swath.train.trainer.Trainer` records."""
        scored = "loss" not in figures
        rate = None if scored else self._rate(figures["seconds"], figures["samples"])
        text = line(figures, self.total, rate)
        if self._bar and not scored:
            self._bar.update(self._task, completed=figures["samples"], description=text)
        elif scored or time.monotonic() - self._printed >= self.every:
            self.console.print(text, markup=False)
            self._printed = self._printed if scored else time.monotonic()


class Rate:
    """Samples/s over the last minutes, evaluations and checkpoints included.

    The first update, which warms things up, does not count. The rate of single updates jumps with
    all that a machine does beside them, and the time left with it.
    """

    def __init__(self) -> None:
        self._points: deque[tuple[float, int]] = deque()

    def __call__(self, seconds: float, samples: int) -> float | None:
        """Return the rate after an update of the run at ``seconds``; None: too early to tell."""
        points = self._points
        if not points or seconds - points[-1][0] >= 1:
            points.append((seconds, samples))
        while len(points) > 2 and seconds - points[1][0] >= _WINDOW:
            points.popleft()
        since, learned = seconds - points[0][0], samples - points[0][1]
        return learned / since if since >= _ENOUGH else None


def line(figures: dict[str, Any], total: int, rate: float | None = None) -> str:
    """Return one line of figures, units spelt; ``total``: samples of the whole run; ``rate``:
    samples/s that the time left is told from, None if it cannot be yet."""
    parts = [f"update {figures['update']}", f"samples {units.count(figures['samples'])}"]
    if "loss" not in figures:
        return "  ".join(parts + [f"{name} {value:.4f}" for name, value in scores(figures)])
    parts += [f"loss {figures['loss']:.4f}", f"lr {figures['lr']:.2e}"]
    speed = figures["samples_per_s"]
    parts += [f"{units.count(speed) if speed >= 10 else f'{speed:.2g}'} samples/s"]
    shares = (("data_wait", "data wait"), ("exchange_wait", "exchange wait"))
    shown = [(word, figures[name]) for name, word in shares if figures.get(name, 0) >= 0.005]
    parts += [f"{word} {share:.0%}" for word, share in shown]
    if figures["skipped"]:
        parts.append("skipped: gradient not finite")
    if rate is not None:
        parts.append(f"{units.seconds((total - figures['samples']) / rate)} left")
    return "  ".join(parts)


def scores(figures: dict[str, Any]) -> list[tuple[str, float]]:
    """Return the figures of an evaluation that are defined and not of single classes."""
    overall = [(name, value) for name, value in figures.items() if name.count("/") == 1]
    return [(name, value) for name, value in overall if value is not None and value == value]
