"""What a person sees of a run: one line that renews itself, or, in a log file, one now and then."""

from __future__ import annotations

import math
import sys
import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from swath import units


class ProgressLine:
    """Shows the figures of a run of ``total`` samples on stderr; use as a context manager.

    every: seconds between lines where stderr is not a terminal.
    """

    def __init__(self, total: int, every: float = 30.0, console: Console | None = None) -> None:
        self.total, self.every = total, every
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
        text = line(figures, self.total)
        scored = "loss" not in figures
        if self._bar and not scored:
            self._bar.update(self._task, completed=figures["samples"], description=text)
        elif scored or time.monotonic() - self._printed >= self.every:
            self.console.print(text, markup=False)
            self._printed = self._printed if scored else time.monotonic()


def line(figures: dict[str, Any], total: int) -> str:
    """Return one line of figures, units spelt; ``total``: samples of the whole run."""
    parts = [f"update {figures['update']}", f"samples {units.count(figures['samples'])}"]
    if "loss" not in figures:
        return "  ".join(parts + [f"{name} {value:.4f}" for name, value in _scores(figures)])
    parts += [f"loss {figures['loss']:.4f}", f"lr {figures['lr']:.2e}"]
    speed = figures["samples_per_s"]
    parts += [f"{units.count(speed) if speed >= 10 else f'{speed:.2g}'} samples/s"]
    shares = (("data_wait", "data wait"), ("exchange_wait", "exchange wait"))
    shown = [(word, figures[name]) for name, word in shares if figures.get(name, 0) >= 0.005]
    parts += [f"{word} {share:.0%}" for word, share in shown]
    if figures["skipped"]:
        parts.append("skipped: gradient not finite")
    left = (total - figures["samples"]) / figures["samples_per_s"]
    return "  ".join([*parts, f"{units.seconds(left)} left"])


def _scores(figures: dict[str, Any]) -> list[tuple[str, float]]:
    """Return the figures of an evaluation that are defined and not of single classes."""
    overall = [(name, value) for name, value in figures.items() if name.count("/") == 1]
    return [(name, value) for name, value in overall if not math.isnan(value)]
