"""Counts, bytes and durations between numbers and the words people write for them."""

from __future__ import annotations

import re

from swath.config import ConfigError

_COUNT = {"": 1, "k": 10**3, "K": 10**3, "M": 10**6, "G": 10**9, "B": 10**9, "T": 10**12}
_BYTES = {"": 1, "k": 10**3, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15} | {
    f"{letter}i": 2 ** (10 * (i + 1)) for i, letter in enumerate("KMGTP")
}
_SECONDS = {"ms": 1e-3, "s": 1.0, "": 1.0, "min": 60.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_NUMBER = r"([-+]?\d[\d_ ]*(?:\.\d+)?(?:[eE][-+]?\d+)?)"


def parse_count(text: str | float) -> int:
    """Return a whole number: 49.2M is 49 200 000; k, M, G (or B) and T are powers of 1000."""
    number, unit = _parts(text, "a count such as 1500, 40k or 49.2M")
    return _whole(text, number * _unit(text, unit, _COUNT))


def parse_bytes(text: str | float) -> int:
    """Return bytes: 256MB is 256 000 000 and 256MiB is 268 435 456."""
    number, unit = _parts(text, "bytes such as 4096, 256MB or 1.5GiB")
    return _whole(text, number * _unit(text, unit.removesuffix("B"), _BYTES))


def parse_seconds(text: str | float) -> float:
    """Return seconds: 90, 1.5h, 2d12h, 250ms, or by the clock 1:30:00 (h:m:s), 2:00 (m:s)."""
    written = str(text).strip()
    if re.fullmatch(r"\d+(:\d{1,2}){1,2}(\.\d+)?", written):
        total = 0.0
        for part in written.split(":"):
            total = total * 60 + float(part)
        return total
    piece = rf"{_NUMBER}\s*([a-z]*)\s*"
    pieces = re.findall(piece, written)
    if not pieces or re.sub(piece, "", written):
        raise ConfigError(f"{text!r} is not a duration such as 90, 30min, 1.5h or 1:30:00")
    return sum(_number(number) * _unit(text, unit, _SECONDS) for number, unit in pieces)


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


def _scaled(value: float, base: int, names: tuple[str, ...]) -> str:
    step = 0
    while abs(value) >= base and step < len(names) - 1:
        value, step = value / base, step + 1
    figures = f"{value:.0f}" if step == 0 or abs(value) >= 100 else f"{value:.1f}"
    return f"{figures}{names[step]}"


def _parts(text: str | float, wanted: str) -> tuple[float, str]:
    match = re.fullmatch(rf"{_NUMBER}\s*([A-Za-z]*)", str(text).strip())
    if not match:
        raise ConfigError(f"{text!r} is not {wanted}")
    return _number(match[1]), match[2]


def _number(written: str) -> float:
    return float(written.replace(" ", "").replace("_", ""))


def _unit(text: str | float, unit: str, known: dict[str, float] | dict[str, int]) -> float:
    if unit not in known:
        raise ConfigError(f"{text!r}: no unit {unit!r}; there are {', '.join(filter(None, known))}")
    return known[unit]


def _whole(text: str | float, value: float) -> int:
    if abs(value - round(value)) > 1e-6 * max(1.0, abs(value)) or value < 0:
        raise ConfigError(f"{text!r} is not a whole number of at least 0")
    return round(value)
