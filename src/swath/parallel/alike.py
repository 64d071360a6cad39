"""Whether ranks have the same settings and versions, and how a message names ranks."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any


def as_json(value: Any) -> str:
    """Return ``value`` as JSON; what JSON does not know as text."""
    return json.dumps(value, default=str)


def digest(facts: Mapping[str, Any]) -> str:
    """Return a checksum of ``facts``: equal where they are."""
    return hashlib.sha256(as_json(facts).encode()).hexdigest()


def listed(ranks: Iterable[int]) -> str:
    """Return ``ranks 0-3, 7``, or ``rank 7``."""
    found = sorted(ranks)
    runs: list[list[int]] = []
    for rank in found:
        if runs and runs[-1][-1] == rank - 1:
            runs[-1].append(rank)
        else:
            runs.append([rank])
    parts = [f"{run[0]}-{run[-1]}" if len(run) > 2 else ", ".join(map(str, run)) for run in runs]
    return f"rank{'s' if len(found) > 1 else ''} {', '.join(parts)}"


def first_difference(
    theirs: Mapping[str, Any], mine: Mapping[str, Any]
) -> tuple[str, str, str] | None:
    """Return the first field that differs, its value in ``mine`` and in ``theirs``, as text."""
    for name in dict.fromkeys([*theirs, *mine]):
        values = [json.dumps(of[name]) if name in of else "not there" for of in (mine, theirs)]
        if values[0] != values[1]:
            return name, values[0], values[1]
    return None


def flat(settings: Any, path: str = "") -> dict[str, Any]:
    """Return nested settings as one level, ``optim.lr`` and so on."""
    if not isinstance(settings, Mapping) or not settings:
        return {path: settings}
    found: dict[str, Any] = {}
    for name, value in settings.items():
        found |= flat(value, f"{path}.{name}".lstrip("."))
    return found
