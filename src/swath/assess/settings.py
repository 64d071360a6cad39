"""What ``swath assess`` compares: models, on tasks, in ways, with shares of labels, over seeds."""

from __future__ import annotations

import pathlib
import re
from dataclasses import dataclass, field
from typing import ClassVar

from swath.assess.ways import BASELINE, KNOWN, Way
from swath.baselines import Baseline
from swath.config import ConfigError
from swath.train.init import Init

SEED = "{seed}"
"""In the path of a model's weights: the seed of the cell."""


@dataclass(frozen=True, kw_only=True)
class Downstream:
    """A task that models are put to."""

    run: tuple[str, ...]
    """What `swath train` would be given: settings files, then key=value words."""
    figure: str | None = None
    """The figure that tables and pictures show; None: the one that chooses the best checkpoint."""
    ways: tuple[str, ...] | None = None
    """Names of the ways for this task; None: all."""


@dataclass(frozen=True, kw_only=True)
class Assess:
    """Everything that is compared: each model, task, way, share of labels and seed together."""

    HELP: ClassVar[str] = "; docs/howto/assess.md shows a whole file"

    name: str = "assess"
    """What the comparison is called; its folder is assess/NAME."""
    folder: str | None = None
    """Where records, tables and the page go; None: assess/NAME."""
    models: dict[str, Init | None]
    """Weights by a name of yours, as mae: {from: runs/mae}; null: the same network with random
    weights, as scratch: null. With {seed} in the path, runs/mae-{seed}, each seed has weights of
    its own, so that deviations count what differs between pretrainings."""
    tasks: dict[str, Downstream]
    """Tasks by a name of yours, as landuse: {run: [landuse.yaml]}."""
    ways: dict[str, Way | None] = field(default_factory=lambda: {"knn": None, "full": None})
    """How models are put to work, by name; null: as known by that name (knn, linear, probe, full,
    lora)."""
    shares: tuple[float, ...] = (0.01, 0.1, 1.0)
    """Shares of the training part's labels that are learned from; see data.labels."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Of everything random, the draw of labels too; the split is that of the task's settings."""
    baselines: tuple[Baseline, ...] = ()
    """Stand beside the models, fitted on the same labels."""
    keep: bool = False
    """Keep the run folders of trained cells; they hold a model each."""

    def __post_init__(self) -> None:
        for what in ("models", "tasks", "ways", "shares", "seeds"):
            if not getattr(self, what):
                raise ConfigError(f"{what} is empty; there is nothing to compare")
        for name in (self.name, *self.models, *self.tasks, *self.ways):
            if not re.fullmatch(r"\w[\w.-]*", name):
                raise ConfigError(f"{name!r} names a folder: letters, digits, _ . - only")
        if BASELINE in self.ways:
            raise ConfigError(
                f"ways.{BASELINE}: baselines go by this name; call the way otherwise, as"
                f" my-{BASELINE}"
            )
        for share in self.shares:
            if not 0 < share <= 1:
                raise ConfigError(f"shares={list(self.shares)}: each is above 0 and at most 1")
        for what in ("shares", "seeds"):
            if len(set(getattr(self, what))) < len(getattr(self, what)):
                raise ConfigError(f"{what}={list(getattr(self, what))}: one is there twice")
        for name, way in self.ways.items():
            if way is None and name not in KNOWN:
                raise ConfigError(
                    f"ways.{name}: only {', '.join(KNOWN)} are known by their name; say what it"
                    f" does, as {name}: {{words: [adapt.kind=full, optim.lr=1e-3]}}"
                )
            self._check_names(f"ways.{name}.models", way.models if way else None, self.models)
        for name, task in self.tasks.items():
            self._check_names(f"tasks.{name}.ways", task.ways, self.ways)

    def _check_names(self, where: str, names: tuple[str, ...] | None, known: dict) -> None:
        for name in names or ():
            if name not in known:
                raise ConfigError(f"{where}: there is no {name!r}, only {', '.join(known)}")

    @property
    def place(self) -> pathlib.Path:
        """The folder of the comparison."""
        return pathlib.Path(self.folder or f"assess/{self.name}")

    def way(self, name: str) -> Way:
        """Return the way called ``name`` with what is left out filled in."""
        return Way() if name == BASELINE else (self.ways[name] or Way()).filled(name)
