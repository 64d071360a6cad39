"""Counts, bytes, durations, means and tables as words for people."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence

ALIKE = 1e-9
"""Figures that deviate by less are alike."""


def count(value: float) -> str:
    """Return a short count of four figures: 950, 12 000, 49.2M, 1.2G."""
    if abs(value) < 100_000:
        return f"{value:,.0f}".replace(",", " ")
    return _scaled(value, 1000, ("", "k", "M", "G", "T", "P"))


def bytes_(value: float) -> str:
    """Return bytes in binary units: 512 B, 1.5 GiB."""
    return _scaled(value, 1024, (" B", " KiB", " MiB", " GiB", " TiB", " PiB"))


def seconds(value: float) -> str:
    """Return a duration of at most two units: 0.25 s, 42 s, 3 min 20 s, 2 h 5 min, 1 d 3 h."""
    if value < 10:
        return f"{value:.2g} s" if value < 1 else f"{value:.1f} s"
    whole = round(value)
    for unit, size, below, part in (
        ("d", 86400, "h", 3600),
        ("h", 3600, "min", 60),
        ("min", 60, "s", 1),
    ):
        if whole >= size:
            rest = whole % size // part
            return f"{whole // size} {unit}" + (f" {rest} {below}" if rest else "")
    return f"{whole} s"


def deviation(values: Sequence[float]) -> float:
    """Return the standard deviation of a sample of values; 0 of a single one."""
    return statistics.stdev(values) if len(values) > 1 else 0.0


def spread(values: Sequence[float], sign: str = "") -> str:
    """Return mean and standard deviation: 0.512 ± 0.010; of a single value no deviation. It is "0"
    only where there is none. sign: "+" writes that of the mean."""
    mean, about = f"{statistics.fmean(values):{sign}.3f}", deviation(values)
    return f"{mean} ± {'0' if about < ALIKE else f'{about:.3f}'}" if len(values) > 1 else mean


def markdown(titles: Sequence[str], rows: Iterable[Sequence[str]], words: int | None = None) -> str:
    """Return a Markdown table. words: how many columns, the first ones, hold words; the others'
    figures are set to the right. None: all hold words."""
    left = len(titles) if words is None else words
    lines = [titles, ["---"] * left + ["---:"] * (len(titles) - left), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _scaled(value: float, base: int, names: tuple[str, ...]) -> str:
    step = 0
    while abs(value) >= base and step < len(names) - 1:
        value, step = value / base, step + 1
    figures = f"{value:.0f}" if step == 0 or abs(value) >= 100 else f"{value:.1f}"
    return f"{figures}{names[step]}"
