"""Checkpoints of a run: each rank writes its share, any number of ranks reads them again.

``checkpoints/00000120/`` is the state after update 120: tensors as safetensors, an index of their
pieces and the numbers as JSON, a checksum of each file. How many ranks there were and what each of
them held does not matter to those that go on with it. A damaged one is noticed and the one before
it is used. If the best one is damaged, the run goes back to where it can be made again; where there
is no such checkpoint, the best of the others stands in for it. Nothing is unpickled.
"""

from __future__ import annotations

import contextlib
import json
import logging
import pathlib
import shutil
import time
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch.distributed.checkpoint import DefaultLoadPlanner, load

from swath.config import ConfigError
from swath.files import (
    Damaged,
    Sum,
    check_folder,
    close_folder,
    drop_folder,
    open_folder,
    remove_leftovers,
)
from swath.parallel.world import World
from swath.train import job
from swath.train.division import Division
from swath.train.state import TrainState
from swath.train.tensors import INDEX, Index, Reader, read_index
from swath.train.writing import Writing

log = logging.getLogger(__name__)

NUMBERS = "state.json"
T = TypeVar("T")


class Checkpoints:
    """The checkpoints below ``folder``; all ranks write them and read them together.

    keep: how many of the newest stay. run: facts of the run that a state belongs to (such as what
    its store held); a state of other facts is not restored. settings: the run's, a TrainJob; a
    state of settings with another result is not restored either. behind: write while training goes
    on, from a copy in the CPU's memory. check: raises what speaks against another checkpoint, on
    rank 0, before it is begun.
    """

    def __init__(
        self,
        folder: pathlib.Path,
        keep: int,
        world: World,
        run: dict[str, Any] | None = None,
        settings: job.TrainJob | None = None,
        behind: bool = False,
        check: Callable[[], None] | None = None,
    ) -> None:
        self.folder = folder
        self.keep = keep
        self.run = run or {}
        self.settings = settings
        self.behind = behind
        self.check = check
        self._writing: Writing | None = None
        self.move(world)

    def move(self, world: World) -> None:
        """Go on with the ranks of ``world``; a write under way is left unfinished, as by a kill."""
        if self._writing is not None:
            self._writing.join()
        self.world = world
        self._division = Division(world)
        self._writing = None

    def updates(self) -> list[int]:
        """Return the updates after which there is a checkpoint, ascending."""
        names = (p.name for p in self.folder.glob("[0-9]*") if p.is_dir())
        return sorted(int(name) for name in names if name.isdigit())

    def path(self, update: int) -> pathlib.Path:
        return self.folder / f"{update:08d}"

    def save(self, state: TrainState) -> None:
        """Write ``state``, then remove what is no longer kept. All ranks call it together.

        With ``behind`` it returns when ``state`` may change again; :meth:`poll` or :meth:`finish`
        then say how it went. Only one is written at a time: another waits for the one before.
        ConfigError on all ranks if it cannot be written; the checkpoints before are intact.
        """
        self.finish()
        settings = None if self.settings is None else job.result(self.settings)
        numbers = {"run": self.run, "settings": settings, **state.numbers()}
        path = self.path(numbers["update"])
        files = self._division.files(state.tensors(), copy=self.behind)
        self.world.first_does(lambda: self._open(path))
        self._writing = Writing(path, files)
        if self.world.first:
            self._writing.words = {
                NUMBERS: json.dumps(numbers, indent=1).encode(),
                INDEX: self._division.index,
            }
        self._writing.start()
        if not self.behind:
            self.finish()

    def _open(self, path: pathlib.Path) -> None:
        if self.check is not None:
            self.check()
        remove_leftovers(self.folder)
        open_folder(path)

    @property
    def busy(self) -> bool:
        """Whether a write is under way; the same on all ranks."""
        return self._writing is not None

    def poll(self) -> None:
        """Finish the write under way if all ranks are through with theirs. All ranks call it
        together, between updates. ConfigError on all of them if it went wrong on one."""
        if self._writing is None:
            return
        if self.world.any(self._writing.is_alive()):
            self._complain(self._writing)
        else:
            self.finish()

    def finish(self) -> None:
        """Wait until the write under way, if there is one, is on disk, however long that takes.
        Calls and errors as in :meth:`poll`."""
        writing, self._writing = self._writing, None
        if writing is None:
            return
        pause = 0.001
        # Asked again and again: a single exchange that lasts as long would be taken for dead.
        while self.world.any(writing.is_alive()):
            self._complain(writing)
            time.sleep(pause)
            pause = min(1.0, 1.5 * pause)
        try:
            shares = _together(self.world, writing.result)
        except Exception:
            if self.world.first:
                drop_folder(writing.path)
            raise
        sums = {name: entry for share in shares for name, entry in share.items()}
        self.world.first_does(lambda: self._close(writing.path, sums))

    def _complain(self, writing: Writing) -> None:
        if self.world.first or writing.is_alive():
            writing.complain()

    def _close(self, path: pathlib.Path, sums: dict[str, Sum]) -> None:
        try:
            close_folder(path, sums)
        except (OSError, ConfigError):
            drop_folder(path)
            raise
        self._prune()

    def _prune(self) -> None:
        newest = self.updates()[-self.keep :]
        # The best of each kept one too: an older one may have to do if the newest is damaged.
        kept = {*newest, *(self.numbers(update).get("best_update") for update in newest)}
        for update in self.updates():
            if update not in kept:
                # Renamed first, so that a kill in the middle leaves no half checkpoint by its name.
                doomed = self.path(update).rename(self.folder / f".{update:08d}.gone")
                shutil.rmtree(doomed, ignore_errors=True)

    def restore(self, state: TrainState) -> bool:
        """Put the newest undamaged checkpoint into ``state``; return whether there was one.

        All ranks call it together. ConfigError if it belongs to a run on other data or of other
        settings, or its tensors are not those of ``state``.
        """
        update, numbers = self._newest()
        if update < 0:
            return False
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
        self._read(update, state)
        state.take(numbers)
        return True

    def _read(self, update: int, state: TrainState) -> None:
        """Fill the tensors of ``state``: each rank reads the pieces that it holds a part of."""
        index = read_index(self.path(update))
        state.make_room(_moments(index))
        flat = {f"{part}/{n}": t for part, held in state.tensors().items() for n, t in held.items()}
        self._compare(update, index, flat)

        def read() -> None:
            planner = DefaultLoadPlanner(flatten_state_dict=False, flatten_sharded_tensors=False)
            with torch.no_grad(), warnings.catch_warnings():
                # Each rank finds its pieces by itself, which torch takes for being alone.
                warnings.filterwarnings("ignore", message="torch.distributed is disabled")
                reader = Reader(index[name] for name in flat)
                load(flat, storage_reader=reader, planner=planner, no_dist=True)

        _together(self.world, read)

    def _compare(self, update: int, index: Index, held: dict[str, torch.Tensor]) -> None:
        """Raise ConfigError on all ranks unless they hold what ``index`` tells, and no more."""

        def mine() -> None:
            for name, tensor in held.items():
                stored = index.get(name)
                if stored is None or stored.shape != tuple(tensor.shape):
                    there = "not there" if stored is None else f"of shape {list(stored.shape)}"
                    raise ConfigError(
                        f"{self.path(update)}: {name} is {there}, the model's is of shape"
                        f" {list(tensor.shape)}; the model's code has changed since. Put it back or"
                        " choose another run folder"
                    )

        _together(self.world, mine)
        # Some ranks hold some layers only, but somebody has to hold each.
        held_here = torch.tensor([name in held for name in index], dtype=torch.float32)
        nobody = self.world.sum(held_here.to(self.world.device)) == 0
        left = [name for name, is_left in zip(index, nobody.tolist(), strict=True) if is_left]
        if left:
            raise ConfigError(
                f"{self.path(update)}: the model has no {left[0]} ({len(left)} such tensors in"
                " all); the model's code has changed since. Put it back or choose another run"
                " folder"
            )

    def whole(self, update: int) -> bool:
        """Return whether the checkpoint after ``update`` is as it was written. All ranks ask
        together, and each looks into its share of the files; what is wrong is said."""
        problem = self._problem(update)
        if problem is not None:
            self._warn("checkpoint damaged: %s", problem)
        return problem is None

    def stand_in(self, update: int, lost: int) -> dict[str, int | float | None]:
        """Return what the state after ``update`` says of its best evaluation, now that the weights
        of that one, after ``lost``, are damaged: best, best_update and lost, by their names.

        In its place comes the newest whole checkpoint that was the best when it was written, if
        there is one. All ranks call it together.
        """
        there: list[int] = []
        self.world.first_does(
            lambda: there.extend(
                u for u in self.updates() if u <= update and self._best_update(u) == u != lost
            )
        )
        while (found := self.world.number(there.pop() if there else -1)) >= 0:
            if self.whole(found):
                break
        self._warn(
            "the best weights so far, after update %d, are lost: %s",
            lost,
            f"those after update {found} are the best of the others"
            if found >= 0
            else "there are no others; the next evaluation counts as the best",
        )
        best = self.numbers(found)["best"] if found >= 0 else None
        return {"best": best, "best_update": found if found >= 0 else None, "lost": lost}

    def numbers(self, update: int) -> dict[str, Any]:
        """Return all that is no tensor in the checkpoint after ``update``; {} if it is damaged."""
        try:
            return json.loads((self.path(update) / NUMBERS).read_text())
        except (OSError, ValueError):
            return {}

    def _best_update(self, update: int) -> int | None:
        return self.numbers(update).get("best_update")

    def _newest(self) -> tuple[int, dict[str, Any]]:
        """Return the newest update that can be gone on from, and its numbers; -1 if there is none.

        Rather one whose best is whole, or still to come: then the run ends as if nothing had been
        damaged.
        """
        there: list[int] = []
        self.world.first_does(lambda: there.extend(self.updates()))
        any_there = bool(self.world.number(len(there)))
        passed: list[int] = []
        damaged: set[int] = set()
        spoiled: list[tuple[int, int]] = []  # whole ones, and their best ones, which are not
        while (update := self.world.number(there.pop() if there else -1)) >= 0:
            if update not in damaged and self.whole(update):
                best = self._best_update(update) if self.exports_best else None
                if best is None or (best not in damaged and self.whole(best)):
                    break
                damaged.add(best)
                spoiled.append((update, best))
            passed.append(update)
        numbers = {}
        if update < 0 and spoiled:
            update, lost = spoiled[0]
            numbers = self.stand_in(update, lost)
        if passed and update >= 0:
            self._warn("the checkpoint after update %d is used", update)
        elif any_there and update < 0:
            self._warn("no checkpoint in %s is whole; the run starts anew", self.folder)
        for one in passed:
            if one > update:
                self.world.first_does(partial(self._set_aside, self.path(one)))
        return update, {**self.numbers(update), **numbers}

    def _warn(self, text: str, *words: object) -> None:
        if self.world.first:  # all ranks know the same
            log.warning(text, *words)

    @property
    def exports_best(self) -> bool:
        return self.settings is None or self.settings.select == "best"

    def _set_aside(self, path: pathlib.Path) -> None:
        # By its number it would count among the newest, and what is saved from now on would not.
        aside = path.with_name(f"{path.name}.damaged")
        shutil.rmtree(aside, ignore_errors=True)
        with contextlib.suppress(OSError):  # whoever only reads goes on without
            path.rename(aside)

    def _problem(self, update: int) -> str | None:
        """Return how the checkpoint after ``update`` is damaged, as any rank found; None if not."""

        def look() -> str | None:
            try:
                check_folder(self.path(update), self.world.rank, self.world.ranks)
            except Damaged as problem:
                return str(problem)
            return None

        return next(filter(None, _together(self.world, look)), None)


def _moments(index: Index) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
    split = [(name.partition("/"), stored) for name, stored in index.items()]
    return {n: (s.dtype, s.shape) for (part, _, n), s in split if part == "optimizer"}


def _together(world: World, action: Callable[[], T]) -> list[T]:
    """Return what ``action`` returns on each rank; if it fails on one, raise on all."""
    mine: Any = None
    error: Exception | None = None
    try:
        mine = action()
    except Exception as problem:
        error = problem
    if world.group is None:
        if error is not None:
            raise error
        return [mine]
    told: list = [None] * world.ranks
    why = None if error is None else (isinstance(error, ConfigError), str(error))
    dist.all_gather_object(told, (mine, why), group=world.group)
    if error is not None:
        raise error
    failed = [(rank, *problem) for rank, (_, problem) in enumerate(told) if problem is not None]
    if failed:
        # What the user can mend comes first: others may have stumbled over it.
        rank, mendable, text = max(failed, key=lambda entry: entry[1])
        raise ConfigError(text) if mendable else RuntimeError(f"rank {rank} failed: {text}")
    return [answer for answer, _ in told]
