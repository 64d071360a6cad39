"""All settings that make a trained model, and the run folder that belongs to them.

A run folder keeps its settings in ``settings.yaml``. Started again with other ones it is refused:
half a curve from one experiment and half from another is worth nothing.
"""

from __future__ import annotations

import pathlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

from swath.batch.schedule import Schedule
from swath.batch.size import BatchSize
from swath.config import ConfigError, dump
from swath.data.augment import Augment
from swath.data.loader import DataSettings
from swath.models import Model
from swath.optimizers import Optimizer
from swath.optimizers.adamw import AdamW
from swath.tasks import Task
from swath.train.files import write_file
from swath.train.settings import FREE, Compute, TrainSettings

SETTINGS = "settings.yaml"


@dataclass(frozen=True, kw_only=True)
class TrainJob:
    """What :func:`swath.train.setup.train` needs to know; the fields of Run that make the model."""

    folder: str
    """The run folder: checkpoints, figures and the trained model."""
    data: DataSettings
    augment: Augment = field(default_factory=Augment)
    model: Model
    task: Task
    batch: BatchSize = field(default_factory=BatchSize)
    optim: Optimizer = field(default_factory=AdamW)
    schedule: Schedule = field(default_factory=Schedule)
    train: TrainSettings = field(default_factory=TrainSettings)
    compute: Compute = field(default_factory=Compute)
    seed: int = 0

    def __post_init__(self) -> None:
        if self.train.samples < self.batch.samples:
            raise ConfigError(
                f"train.samples={self.train.samples} is less than one update of"
                f" batch.samples={self.batch.samples}; nothing would be learned"
            )
        try:
            self.schedule.check(self.train.samples)
        except ConfigError as error:
            raise ConfigError(f"schedule: {error}") from error


RESULT = ("seed", "data", "augment", "model", "task", "batch", "optim", "schedule", "train")
"""Fields that the result depends on; where the store lies (data.store) does not count, what is in
it is checked against the checkpoint."""


def claim(folder: pathlib.Path, settings: Any) -> None:
    """Make ``folder`` the run folder of ``settings``, a TrainJob or a Run.

    ConfigError, naming the first difference, if it belongs to settings with another result.
    """
    path = folder / SETTINGS
    text = dump(settings)
    if path.exists():
        try:
            before = yaml.safe_load(path.read_text())
        except yaml.YAMLError as error:
            raise ConfigError(f"{path}: not YAML: {error}; restore or remove it") from error
        now = yaml.safe_load(text)
        for name in RESULT:
            for where, old, new in _differences(before.get(name), now.get(name), name):
                if where != "data.store" and where not in [f"train.{free}" for free in FREE]:
                    raise ConfigError(
                        f"{folder} belongs to other settings: {where} was {old!r} there and is"
                        f" {new!r} now; set it back, or choose another folder for this run"
                    )
    folder.mkdir(parents=True, exist_ok=True)
    write_file(path, text.encode())


def _differences(old: Any, new: Any, where: str) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(old, dict) and isinstance(new, dict):
        for name in dict.fromkeys([*new, *old]):
            yield from _differences(old.get(name), new.get(name), f"{where}.{name}")
    elif old != new:
        yield where, old, new
