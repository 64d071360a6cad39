"""Checkpoints of a run: written whole, found again, pruned.

``checkpoints/00000120/`` is the state after update 120: tensors as safetensors, numbers as JSON, a
checksum of each. A damaged one is noticed and the one before it is used. Nothing is unpickled.
"""

from __future__ import annotations

import json
import logging
import pathlib
import shutil
from typing import Any

import safetensors.torch
from torch import Tensor

from swath.config import ConfigError
from swath.parallel.world import World
from swath.train import job
from swath.train.files import Damaged, check_folder, remove_leftovers, write_folder
from swath.train.state import TrainState

log = logging.getLogger(__name__)

NUMBERS = "state.json"
Tensors = dict[str, dict[str, Tensor]]
"""By file and name."""


class Checkpoints:
    """The checkpoints below ``folder``; rank 0 writes, every rank reads.

    keep: how many of the newest stay. run: facts of the run that a state belongs to (such as what
    its store held); a state of other facts is not restored. settings: the run's, a TrainJob; a
    state of settings with another result is not restored either.
    """

    def __init__(
        self,
        folder: pathlib.Path,
        keep: int,
        world: World,
        run: dict[str, Any] | None = None,
        settings: job.TrainJob | None = None,
    ) -> None:
        self.folder = folder
        self.keep = keep
        self.world = world
        self.run = run or {}
        self.settings = settings

    def move(self, world: World) -> None:
        """Go on with the ranks of ``world``; between two saves."""
        self.world = world

    def updates(self) -> list[int]:
        """Return the updates after which there is a checkpoint, ascending."""
        names = (p.name for p in self.folder.glob("[0-9]*") if p.is_dir())
        return sorted(int(name) for name in names if name.isdigit())

    def path(self, update: int) -> pathlib.Path:
        return self.folder / f"{update:08d}"

    def save(self, state: TrainState) -> None:
        """Write ``state``, then remove what is no longer kept. All ranks call it together.

        ConfigError on all of them if it cannot be written; the checkpoints before are intact.
        """
        whole = self._collect(state)
        self.world.first_does(lambda: self._write(*whole))

    def _collect(self, state: TrainState) -> tuple[Tensors, dict[str, Any]]:
        """Return tensors and numbers of the whole state. All ranks call it: here each holds all,
        but ranks that hold parts of a model must exchange them before one can write."""
        settings = None if self.settings is None else job.result(self.settings)
        return state.tensors(), {"run": self.run, "settings": settings, **state.numbers()}

    def _write(self, tensors: Tensors, numbers: dict[str, Any]) -> None:
        files = {
            f"{part}.safetensors": safetensors.torch.save(
                {name: value.detach().cpu().contiguous() for name, value in members.items()}
            )
            for part, members in tensors.items()
        }
        files[NUMBERS] = json.dumps(numbers, indent=1).encode()
        remove_leftovers(self.folder)
        write_folder(self.path(numbers["update"]), files)
        self._prune()

    def _prune(self) -> None:
        newest = self.updates()[-self.keep :]
        # The best of each kept one too: an older one may have to do if the newest is damaged.
        kept = {*newest, *(self._numbers(update).get("best_update") for update in newest)}
        for update in self.updates():
            if update not in kept:
                # Renamed first, so that a kill in the middle leaves no half checkpoint by its name.
                doomed = self.path(update).rename(self.folder / f".{update:08d}.old")
                shutil.rmtree(doomed, ignore_errors=True)

    def restore(self, state: TrainState) -> bool:
        """Put the newest undamaged checkpoint into ``state``; return whether there was one.

        ConfigError if it belongs to a run on other data or of other settings.
        """
        newest = -1

        def look() -> None:
            nonlocal newest
            newest = self._newest()

        self.world.first_does(look)
        update = self.world.number(newest)
        if update < 0:
            return False
        numbers = self._numbers(update)
        told, found = numbers.get("settings"), numbers["run"]
        if told is not None and self.settings is not None:
            where = self.path(update) / NUMBERS
            job.compare(self.folder.parent, told, self.settings, where)
        for name, value in self.run.items():
            if found.get(name) != value:
                raise ConfigError(
                    f"{self.path(update)}: the run began with {name} {found.get(name)}, now it is"
                    f" {value}; put the old one back or choose another run folder"
                )
        state.restore(self._tensors(update), numbers)
        return True

    def load(self, update: int) -> tuple[Tensors, dict[str, Any]]:
        """Return tensors and numbers after ``update``; Damaged if they are."""
        check_folder(self.path(update))
        return self._tensors(update), self._numbers(update)

    def _tensors(self, update: int) -> Tensors:
        files = self.path(update).glob("*.safetensors")
        return {file.stem: safetensors.torch.load_file(file) for file in files}

    def _numbers(self, update: int) -> dict[str, Any]:
        try:
            return json.loads((self.path(update) / NUMBERS).read_text())
        except (OSError, ValueError):
            return {}  # damaged, which the checksum tells whoever wants to restore it

    def _newest(self) -> int:
        """Return the newest update that can be gone on from; -1 if there is none."""
        for update in reversed(self.updates()):
            try:
                check_folder(self.path(update))
                best = self._numbers(update).get("best_update")
                if best is not None:
                    check_folder(self.path(best))
            except Damaged as problem:
                log.warning("checkpoint damaged: %s; the one before it is used", problem)
                continue
            return update
        if self.updates():
            log.warning("no checkpoint in %s is whole; the run starts anew", self.folder)
        return -1
