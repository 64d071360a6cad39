"""``Run``: the root of all settings, a frozen tree that dumps to the YAML that made it.

What has to be agreed between rooms is checked here, where all settings are known; what needs the
data is checked by the room that reads it. What is done with a run is in ``swath.run``.
"""

from __future__ import annotations

import dataclasses
import pathlib
import re
from dataclasses import dataclass, field

from swath.adapt import Adapt
from swath.baselines import Baseline
from swath.batch.schedule import Schedule
from swath.batch.size import BatchSize
from swath.config import Choice, ConfigError
from swath.data.augment import Augment
from swath.data.dataset import Dataset
from swath.data.settings import DataSettings
from swath.data.split import Split
from swath.embed.settings import Anomaly, Embed, Probe
from swath.fields import free
from swath.models import Model
from swath.optimizers import Optimizer
from swath.optimizers.adamw import AdamW
from swath.parallel.settings import Parallel
from swath.predict.settings import Predict
from swath.tasks import Task
from swath.train.init import Init
from swath.train.job import TrainJob
from swath.train.profile import Profile
from swath.train.settings import Compute, TrainSettings

COLLECTIONS: dict[str, type[Choice]] = {
    "build.dataset": Dataset,
    "model": Model,
    "task": Task,
    "adapt": Adapt,
    "optim": Optimizer,
    "baselines": Baseline,
}
"""Where in the settings something is chosen by its kind, and from which collection."""


@dataclass(frozen=True, kw_only=True)
class BuildSettings:
    """How the store ``data.store`` is made from files."""

    dataset: Dataset
    """The files and their labels."""
    split: Split = field(default_factory=Split)
    """Which parts are trained, validated and tested on; band statistics come from the training
    part alone."""
    compress: bool = True
    """Pack pixels without loss: 38 % of the bytes for Sentinel-2, read at 6,700 samples/s (12 x 120
    x 120) by 2 cores where unpacked ones come at 40,000 (benchmarks/loading.md)."""
    threads: int = free(4)
    """Samples read at a time."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """All settings of a run; what they leave out is chosen by the defaults shown."""

    name: str = "run"
    """What the run is called; its folder is runs/NAME."""
    seed: int = 0
    """Of everything random: first weights, order of samples, augmentation, drop-out."""
    folder: str | None = free(None)
    """Where checkpoints, figures and maps go; None: runs/NAME."""
    build: BuildSettings | None = None
    """How to make the store from files; None: it is there already."""
    data: DataSettings
    """Which store, bands and normalisation."""
    augment: Augment = field(default_factory=Augment)
    """How samples are varied in training."""
    model: Model | None = None
    """The network; needed to train."""
    task: Task | None = None
    """What is learned; needed to train."""
    init: Init | None = None
    """Weights to begin with, as init: {from: runs/pretrained}; null: random ones."""
    adapt: Adapt | None = None
    """What of them learns, and how fast; null: all of it, alike."""
    batch: BatchSize = field(default_factory=BatchSize)
    """Samples of an update and of a microbatch."""
    optim: Optimizer = field(default_factory=AdamW)
    """How gradients change weights."""
    schedule: Schedule = field(default_factory=Schedule)
    """The learning rate over the run."""
    train: TrainSettings = field(default_factory=TrainSettings)
    """How long, and what is kept."""
    compute: Compute = free(factory=Compute)
    """What the machine chooses."""
    parallel: Parallel = free(factory=Parallel)
    """How the model is spread over ranks."""
    profile: Profile = free(factory=Profile)
    """Which updates are looked at closely."""
    predict: Predict = field(default_factory=Predict)
    """How a scene is mapped."""
    embed: Embed = field(default_factory=Embed)
    """Which features are taken from the model."""
    anomaly: Anomaly = field(default_factory=Anomaly)
    """What is strange among these features."""
    probe: Probe = field(default_factory=Probe)
    """How these features are scored without further training."""
    baselines: tuple[Baseline, ...] = ()
    """What the model must beat, fitted and scored on the same parts."""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[\w.-]+", self.name):
            raise ConfigError(f"name={self.name!r} names a folder: letters, digits, _ . - only")
        if not 0 <= self.seed < 2**32:
            raise ConfigError(f"seed={self.seed}: a seed is a number from 0 to {2**32 - 1}")
        if (self.model is None) != (self.task is None):
            lacking = "model" if self.model is None else "task"
            raise ConfigError(f"there is no {lacking}: training needs a model and a task")
        if self.build is not None and self.data.split is not None:
            raise ConfigError(
                "data.split beside build.split: the store is made with build.split and its "
                "statistics with it; set that one, and leave data.split out"
            )
        if self.model is not None:
            self.job()  # raises what the settings of training have against each other

    @property
    def place(self) -> pathlib.Path:
        """The run folder."""
        return pathlib.Path(self.folder or f"runs/{self.name}")

    def job(self) -> TrainJob:
        """Return the part of the settings that training needs; ConfigError if it is not there."""
        if self.model is None or self.task is None:
            raise ConfigError("there is no model and no task to train; add model: and task:")
        mine = {f.name: getattr(self, f.name) for f in dataclasses.fields(TrainJob)}
        return TrainJob(**{**mine, "folder": str(self.place)})
