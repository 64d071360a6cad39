"""What ``swath assess`` compares: models, on tasks, in ways, with shares of labels, over seeds."""

from __future__ import annotations

import dataclasses
import pathlib
import re
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from swath.baselines import Baseline
from swath.config import ConfigError
from swath.train.init import Init

SEED = "{seed}"
"""In the path of a model's weights: the seed of the cell."""
BASELINE = "baseline"
"""The way of a baseline."""


@dataclass(frozen=True, kw_only=True)
class Way:
    """One way to put a model to work on a task."""

    kind: Literal["knn", "linear", "train"] | None = None
    """knn, linear: its features as they are, as `swath probe` scores them. train: it is trained
    further, as `swath train` does. None: as the way is called; train, if it is no known one."""
    words: tuple[str, ...] | None = None
    """Of kind train: key=value words over the task's settings, as adapt.kind=full. None: those of
    the way's name (probe, full, lora)."""
    scratch: tuple[str, ...] | None = None
    """In place of `words` for a model with random weights, which may need another rate. None: the
    same, but for adapt.kind=full: without layers of different rates."""
    tries: tuple[str, ...] = ()
    """Of kind train: words of which each is tried, as optim.lr=1e-3; the one that is best on the
    validation part is scored. Every model has the same choice."""
    models: tuple[str, ...] | None = None
    """Names of the models that go this way; None: all."""

    def __post_init__(self) -> None:
        frozen = self.kind in ("knn", "linear")
        for name in ("words", "scratch", "tries"):
            if frozen and getattr(self, name):
                raise ConfigError(
                    f"{name} has no effect on kind={self.kind}, which trains nothing; how it is"
                    " done is set by probe.NAME=... in a task's run"
                )
        for word in (*(self.words or ()), *(self.scratch or ()), *self.tries):
            if "=" not in word:
                raise ConfigError(f"{word!r} is no key=value word, such as optim.lr=1e-3")


KNOWN = {
    "knn": Way(kind="knn"),
    "linear": Way(kind="linear"),
    "probe": Way(kind="train", words=("adapt={kind: probe}",)),
    "full": Way(kind="train", words=("adapt={kind: full}",), scratch=()),
    "lora": Way(kind="train", words=("adapt={kind: lora}",)),
}
"""Ways by name."""


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
        own, known = self.ways[name] or Way(), KNOWN.get(name, Way(kind="train", words=()))
        if own.words is not None:  # then nothing of the known one is left
            known = dataclasses.replace(known, scratch=None)
        fields = {f.name: getattr(own, f.name) for f in dataclasses.fields(own)}
        given = {name: value for name, value in fields.items() if value not in (None, ())}
        if own.scratch == ():
            given["scratch"] = ()
        return dataclasses.replace(known, **given)
