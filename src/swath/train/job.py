"""All settings that make a trained model, and the run folder that belongs to them.

A run folder keeps its settings in ``settings.yaml``, and every checkpoint those that the result
depends on. Started again with other ones it is refused: half a curve from one experiment and half
from another is worth nothing. Fields that a later release adds take their defaults in older
folders.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import typing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import yaml

from swath.adapt import Adapt
from swath.batch.schedule import Schedule
from swath.batch.size import BatchSize
from swath.config import ConfigError, build, dump, kind_of, plain
from swath.data.augment import Augment
from swath.data.opened import Data
from swath.data.settings import DataSettings
from swath.fields import default_of, free, free_fields
from swath.files import write_file
from swath.models import Model
from swath.optimizers import Optimizer
from swath.optimizers.adamw import AdamW
from swath.parallel.settings import Parallel
from swath.tasks import Task
from swath.text import beside
from swath.train.init import Init
from swath.train.profile import Profile
from swath.train.settings import Compute, TrainSettings

SETTINGS = "settings.yaml"


@dataclass(frozen=True, kw_only=True)
class TrainJob:
    """What :func:`swath.train.setup.train` needs to know; the fields of Run that make the model."""

    folder: str = free()
    """The run folder: checkpoints, figures and the trained model."""
    seed: int = 0
    data: DataSettings
    augment: Augment = field(default_factory=Augment)
    model: Model
    task: Task
    init: Init | None = None
    adapt: Adapt | None = None
    batch: BatchSize = field(default_factory=BatchSize)
    optim: Optimizer = field(default_factory=AdamW)
    schedule: Schedule = field(default_factory=Schedule)
    train: TrainSettings = field(default_factory=TrainSettings)
    compute: Compute = free(factory=Compute)
    parallel: Parallel = free(factory=Parallel)
    profile: Profile = free(factory=Profile)

    def __post_init__(self) -> None:
        if self.train.samples < self.batch.samples:
            raise ConfigError(
                f"train.samples={self.train.samples} is less than one update of"
                f" batch.samples={self.batch.samples}; nothing would be learned"
            )
        if self.adapt is not None and self.adapt.freezes and self.init is None:
            raise ConfigError(
                f"adapt.kind={kind_of(type(self.adapt))} keeps the weights that the run begins"
                " with, and these would be random: say whose they are by init.from, or leave"
                " adapt out"
            )
        if self.adapt is not None and not self.adapt.cuts and self.parallel.pipeline > 1:
            raise ConfigError(
                f"parallel.pipeline={self.parallel.pipeline}: with adapt.kind="
                f"{kind_of(type(self.adapt))} only the last piece would have something to learn;"
                " set pipeline=1, and shard or replicate in its place"
            )
        for degree in ("pipeline", "spatial"):
            if self.task.wants is not None and getattr(self.parallel, degree) > 1:
                raise ConfigError(
                    f"parallel.{degree}={getattr(self.parallel, degree)}: task.kind="
                    f"{kind_of(type(self.task))} compares several views of each sample, each of "
                    f"which a rank computes as a whole; set {degree}=1, and shard or replicate in "
                    "its place"
                )
        if self.data.labels is not None and self.task.labels is None:
            raise ConfigError(
                f"data.labels has no effect on task.kind={kind_of(type(self.task))}, which reads no"
                " labels; leave it out"
            )
        if self.data.balance and self.task.labels is None:
            raise ConfigError(
                f"data.balance={self.data.balance:g} balances classes, and task.kind="
                f"{kind_of(type(self.task))} reads no labels; leave it out"
            )
        self.task.check(self.batch.samples, self.batch.micro)
        wants = self.task.wants
        if wants is not None and not wants.whole and "gsd_m" in self.model.asks:
            raise ConfigError(
                f"model.positions=metres: task.kind={kind_of(type(self.task))} compares pieces of "
                "samples that are resized, each by another factor, so their pixels are of no one "
                "size; set model.positions=waves, or compare whole samples at their own size: "
                "task.views={global: {scale: [1, 1]}}"
            )
        if self.data.also and "bands" in self.model.asks and self.parallel.pipeline > 1:
            raise ConfigError(
                f"parallel.pipeline={self.parallel.pipeline}: a pipeline takes microbatches of "
                "one shape, and stores of several sensors (data.also, model.embed=wavelengths) may "
                "differ in it; set pipeline=1, and shard or replicate in its place"
            )
        if self.task.taught and self.train.ema is not None:
            raise ConfigError(
                f"train.ema={self.train.ema} beside task.kind={kind_of(type(self.task))}: its "
                "teacher is such an average already; leave ema out, and set task.memory"
            )
        try:
            self.schedule.check(self.train.samples)
        except ConfigError as error:
            raise ConfigError(f"schedule: {error}") from error

    def open(self) -> Data:
        """Return the data of the run, with what the model heeds; ConfigError if they do
        not fit together."""
        labels = self.task.labels is not None
        return self.data.open(labels=labels, asks=self.model.asks)

    @property
    def select(self) -> Literal["best", "last"]:
        """Which weights are exported. A teacher is no yardstick for what its student has learned,
        as it moves along: of runs with one those of the end, unless asked otherwise."""
        return self.train.select or ("last" if self.task.taught else "best")

    def doubts(self) -> list[str]:
        """Return warnings of settings that may be meant, and mostly are not."""
        wants = self.task.wants
        if wants is None or wants.seasons or self.augment.varies:
            return []
        return [
            f"task.kind={kind_of(type(self.task))} compares views of a sample, and these differ by"
            " where they are cut alone, which is easily found by their colours: vary them, as"
            " augment={flips: true, gain: 0.1, offset: 0.2, noise: 0.1}"
        ]

    @property
    def updates(self) -> int:
        """Updates of the whole run: a last one that would pass train.samples is not begun."""
        return self.train.samples // self.batch.samples


FREE = free_fields(TrainJob)
"""What may change in a run: no result depends on it. Where the store lies (data.store) does not
count, what is in it is checked against the checkpoint."""
RESULT = tuple(f.name for f in dataclasses.fields(TrainJob) if f.name not in FREE)
"""Fields that the result depends on, but for what is free in them."""
MAPPED = (*FREE, "train.precision")
"""What may differ when a trained model maps a scene."""
SCORED = (*MAPPED, "data.bands", "data.split", "batch")
"""What may differ when a trained model is scored: the verb heeds it, or checks it for itself."""


def claim(folder: pathlib.Path, settings: Any) -> None:
    """Make ``folder`` the run folder of ``settings``, a TrainJob or a Run; see :func:`check`."""
    check(folder, settings)
    folder.mkdir(parents=True, exist_ok=True)
    write_file(folder / SETTINGS, dump(settings).encode())


def check(folder: pathlib.Path, settings: Any) -> None:
    """Raise ConfigError, naming the first difference, if ``folder`` belongs to settings with
    another result than ``settings``, a TrainJob or a Run. Writes nothing."""
    path = folder / SETTINGS
    if path.exists():
        compare(folder, _read(path), settings, path)


def compare(
    folder: pathlib.Path,
    before: dict[str, Any],
    settings: Any,
    path: pathlib.Path,
    *,
    free: tuple[str, ...] = FREE,
    then: str = "set it back, as swath train {folder} does, or begin another run with name=ANOTHER",
) -> None:
    """Raise ConfigError, naming the first difference, if settings ``before``, which ``path`` in
    the run folder ``folder`` holds, give another result than ``settings``.

    free: what may differ, with all below it. then: what to do about another difference.
    """
    for name, now in result(settings).items():
        # A model or task typed into a notebook cannot be found by its name, only be equal.
        if _as_json(before.get(name)) == now:
            continue
        for where, old, new in _differences(_as_json(_completed(before, name, path)), now, name):
            if where == "init.sha256" and new is None:  # whatever the run began with
                continue
            if not any(f"{where}.".startswith(f"{allowed}.") for allowed in free):
                raise ConfigError(
                    f"{folder} belongs to other settings: {where} was {old!r} there and is"
                    f" {new!r} now; {then.format(folder=folder)}"
                )


def check_trained(folder: pathlib.Path, settings: Any, free: tuple[str, ...] = SCORED) -> None:
    """Raise ConfigError, naming the first difference, if ``settings``, a TrainJob or a Run, ask for
    another model than the one in ``folder``: scoring and mapping take that one as it is.

    free: what may differ, with all below it.
    """
    before = settings_of(folder)
    if before is not None:
        then = (
            "a trained model is taken as it is: name {folder} in place of the recipe, for the "
            "settings that it was trained with, or train another with name=ANOTHER"
        )
        compare(folder, before, settings, folder / SETTINGS, free=free, then=then)


def settings_of(folder: pathlib.Path) -> dict[str, Any] | None:
    """Return the settings that the run folder was made with; None if there are none.

    ConfigError if they are damaged.
    """
    path = folder / SETTINGS
    return _read(path) if path.exists() else None


def sorted_arguments(
    arguments: Sequence[str | pathlib.Path],
) -> tuple[list[pathlib.Path], list[str]]:
    """Return files and words of what was typed; a run folder stands for its settings.yaml, and for
    itself as the folder of the run, wherever that was when it was made; a store for data.store.

    Raises ConfigError for what is neither, and if there is nothing.
    """
    files: list[pathlib.Path] = []
    words: list[str] = []
    if "=" in arguments:
        raise ConfigError("a word has no spaces around its =: key=value, as seed=1")
    for argument in arguments:
        path = pathlib.Path(argument)
        # Not Path.exists, which raises where a word is longer than a name can be.
        there = os.path.exists(path)
        if "=" in str(argument) and not there:
            words.append(str(argument))
        elif there and (path / "zarr.json").exists():
            words.append(f"data.store={json.dumps(str(path))}")
        elif there and path.is_dir():
            if not (path / SETTINGS).exists():
                raise ConfigError(
                    f"{argument}: no run folder: there is no {SETTINGS} in it; name a recipe, or "
                    f"the folder that swath train has written to{_runs(path)}"
                )
            files.append(path / SETTINGS)
            words.insert(0, f"folder={json.dumps(str(path))}")  # first: what is typed wins
        elif there or path.suffix in (".yaml", ".yml"):
            files.append(path)
        else:
            raise ConfigError(
                f"{str(argument)!r} is neither a file, nor a run folder, nor key=value, as seed=1"
                f"{beside(path) or _runs(path.parent)}"
            )
    if not files and not words:
        raise ConfigError(
            f"name a settings file, such as mine.yaml, or a run folder, such as runs/NAME"
            f"{_runs(pathlib.Path('runs'))}"
        )
    return files, words


def _runs(folder: pathlib.Path) -> str:
    """Return the end of a message: the run folders in ``folder``; "" if there are none."""
    runs = sorted(str(path.parent) for path in folder.glob(f"*/{SETTINGS}"))
    return (
        f"; run folders are {', '.join(runs[:8])}{', ...' if len(runs) > 8 else ''}" if runs else ""
    )


def result(settings: Any) -> dict[str, Any]:
    """Return those of ``settings`` that the result depends on, as JSON holds them."""
    return {name: _as_json(plain(getattr(settings, name))) for name in RESULT}


def _as_json(value: Any) -> Any:
    return json.loads(json.dumps(value, default=str))


def _read(path: pathlib.Path) -> dict[str, Any]:
    """Return what ``path`` holds; ConfigError if that can be no run's settings."""
    why = "it does not hold the settings of a run"
    try:
        found = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        found, why = None, f"not YAML: {error}"
    required = {
        f.name for f in dataclasses.fields(TrainJob) if default_of(f) is dataclasses.MISSING
    }
    if not isinstance(found, dict) or not found.keys() >= required - {"folder"}:
        raise ConfigError(
            f"{path} is damaged ({why}), so nobody can say which run this folder belongs to; put"
            " the file back as it was, or choose another folder for this run"
        )
    return found


def _completed(before: dict[str, Any], name: str, path: pathlib.Path) -> Any:
    """Return the settings ``name`` of an older run as this release writes them."""
    known = {f.name: f for f in dataclasses.fields(TrainJob)}
    if name not in before:
        return plain(default_of(known[name]))
    try:
        return plain(build(typing.get_type_hints(TrainJob)[name], before[name], f"{path}: {name}"))
    except ConfigError as error:
        raise ConfigError(
            f"{path.parent} belongs to other settings, of which this release cannot make sense:"
            f" {error}. Choose another folder for this run, or go on with the release that began it"
        ) from error


def _differences(old: Any, new: Any, where: str) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(old, dict) and isinstance(new, dict):
        for name in dict.fromkeys([*new, *old]):
            yield from _differences(old.get(name), new.get(name), f"{where}.{name}")
    elif old != new:
        yield where, old, new
