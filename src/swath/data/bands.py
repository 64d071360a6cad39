"""Which modality of a store has the bands that a model is given, and how large its images are."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from swath.config import ConfigError
from swath.data import layout
from swath.data.chip import Contents, Modality

Channel: TypeAlias = tuple[Modality, int]
"""A modality, and the place of a band in it."""


def image_grid(contents: Contents, channels: Sequence[Channel]) -> tuple[int, int]:
    """Return height and width of images: of the label if it is a map, else of the finest band."""
    if contents.label.per_pixel:
        return layout.grid(contents)
    finest = max((m for m, _ in channels), key=lambda m: m.height * m.width)
    return finest.height, finest.width


def find_bands(contents: Contents, names: Sequence[str] | None, where: str) -> list[Channel]:
    """Return the modality and the place in it of each band named, or of all bands.

    where: the store that has such contents.
    ConfigError if there is no such band, or several: then B02 is written as s2/B02.
    """
    there = [(m, i) for m in contents.modalities for i in range(len(m.sensor.bands))]
    if names is None:
        return there
    by_name: dict[str, list[tuple[Modality, int]]] = {}
    for m, i in there:
        for name in (m.sensor.bands[i].name, f"{m.name}/{m.sensor.bands[i].name}"):
            by_name.setdefault(name, []).append((m, i))
    found = []
    for name in names:
        fitting = by_name.get(name, [])
        if len(fitting) > 1:
            several = ", ".join(f"{m.name}/{name}" for m, _ in fitting)
            raise ConfigError(f"data.bands: {name!r} is in several images; write one of {several}")
        if not fitting:
            near = difflib.get_close_matches(name, by_name, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {_listed(by_name)}"
            raise ConfigError(f"data.bands: {where} has no band {name!r}; {hint}")
        if fitting[0] in found:
            raise ConfigError(f"data.bands: {name!r} is named twice")
        found.append(fitting[0])
    return found


def _listed(by_name: Mapping[str, Sequence[tuple[Modality, int]]]) -> str:
    """Return the first 20 bands in words, each once: by its own name, or as s2/B02 if several
    images have one of that name."""
    shared = {name for name, fitting in by_name.items() if len(fitting) > 1}
    once = [n for n in by_name if n not in shared and ("/" not in n or n.split("/")[1] in shared)]
    return ", ".join(once[:20]) + (f" and {len(once) - 20} more" if len(once) > 20 else "")
