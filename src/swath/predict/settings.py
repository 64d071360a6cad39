"""How a scene is mapped: which one, how its windows overlap, what is written beside the classes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from swath.config import ConfigError
from swath.data.imagery import Imagery
from swath.fields import free

FOLDER = "map"
"""Folder of maps in a run folder."""
SCORES = "scores.json"
"""File in a run folder with the figures of the model and of its map."""


@dataclass(frozen=True, kw_only=True)
class Predict:
    """How ``swath predict`` maps a scene."""

    scene: Imagery | None = None
    """The imagery to map; None: the scene that the store was built from."""
    tile: int | None = None
    """Side in pixels of a window that the model sees. None: as in training. Networks of
    convolutions take larger ones, which are faster and have more surroundings."""
    overlap: float = 0.5
    """Share of a window's side that its neighbour also covers, 0 up to below 1; where windows
    overlap their answers are blended. 0.5 computes each pixel four times. A model of one answer a
    window maps the middle of each: the closer to 1, the finer."""
    edge: int = 0
    """Pixels along each side of a window whose answers are thrown away."""
    symmetries: Literal[1, 4, 8] = 1
    """Views of each window that are averaged: itself, 4 quarter turns, or these mirrored too; so
    many times slower. Sensible where training turned and flipped samples."""
    probabilities: bool = False
    """Also write the probability of each class."""
    uncertainty: bool = False
    """Also write the entropy of the probabilities, 0 (certain) to 1 (all classes alike)."""
    windows_at_once: int | None = free(None)
    """Windows in one pass through the model; None: as many as hold 2**16 px on a processor (one of
    256 x 256), and 2**20 on a GPU. The map is the same, bit for bit: where several
    computed together would differ in the last digit from each alone, they are computed alone."""

    def __post_init__(self) -> None:
        if self.tile is not None and self.tile < 1:
            raise ConfigError(f"tile={self.tile} px is no window")
        if not 0 <= self.overlap < 1:
            raise ConfigError(
                f"overlap={self.overlap:g} is a share of the window's side: 0 <= it < 1"
            )
        if self.edge < 0:
            raise ConfigError(f"edge={self.edge} px cannot be negative")
        if self.windows_at_once is not None and self.windows_at_once < 1:
            raise ConfigError(f"windows_at_once={self.windows_at_once} must be at least 1")


def stem(scene: str) -> str:
    """Return what the files of a map of ``scene`` are called, without suffix."""
    return re.sub(r"[^\w.-]+", "_", scene) or "map"
