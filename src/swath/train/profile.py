"""Traces of chosen updates on chosen ranks, for Perfetto and TensorBoard, and where the time went.

An update's trace begins with the update and ends before the next one, so that a checkpoint or an
evaluation after it is in it. It has a range for each microbatch of ``data``, ``forward`` and
``backward``, one ``exchange`` and one ``optimiser`` for the update, ``checkpoint`` and
``validation`` where there are any, and ``waiting`` wherever computing waits for other ranks.

Files are in the run folder's ``profile/``: ``rank0.10.pt.trace.json.gz`` is the trace of update 10
on rank 0, named so that TensorBoard finds it; ``rank0.10.txt`` and ``.json`` say where its time
went (:mod:`swath.train.trace`).
"""

from __future__ import annotations

import contextlib
import logging
import pathlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from swath import here
from swath.config import ConfigError
from swath.span import marked

if TYPE_CHECKING:
    from swath.parallel.world import World

log = logging.getLogger(__name__)

FOLDER = "profile"


@dataclass(frozen=True, kw_only=True)
class Profile:
    """Which updates are looked at closely; the curve is the same."""

    updates: tuple[int, ...] = ()
    """Updates, from 1. The first two are slow for reasons of their own; better take later ones."""
    ranks: tuple[int, ...] = (0,)
    """Ranks that write a trace each."""
    kind: Literal["trace", "nvtx"] = "trace"
    """trace: a trace and a table of where the time went. nvtx: only named ranges, on a GPU, for
    NVIDIA's nsys profile --capture-range=cudaProfilerApi, which writes its own."""

    def __post_init__(self) -> None:
        if any(update < 1 for update in self.updates):
            raise ConfigError(f"profile.updates={list(self.updates)}: updates count from 1")
        if self.ranks != (0,) and not self.updates:
            raise ConfigError(
                f"profile.ranks={list(self.ranks)} has no effect without updates; set"
                " profile.updates=[10], or leave it out"
            )
        if not self.ranks:
            raise ConfigError("profile.ranks is empty; name some, or leave it out for rank 0")

    def check(self, updates: int, world: World) -> None:
        """Raise ConfigError if what is asked for is not in a run of ``updates`` updates."""
        late = [update for update in self.updates if update > updates]
        if late:
            raise ConfigError(
                f"profile.updates: {late[0]} has no effect in a run of {updates} updates; name"
                f" some from 1 to {updates}"
            )
        unknown = [rank for rank in self.ranks if not 0 <= rank < world.ranks]
        if self.updates and unknown:
            raise ConfigError(
                f"profile.ranks: there is no rank {unknown[0]} among {world.ranks}; name some from"
                f" 0 to {world.ranks - 1}"
            )
        if self.updates and self.kind == "nvtx" and world.device.type != "cuda":
            raise ConfigError(
                "profile.kind=nvtx marks ranges for NVIDIA's tools, and this run is on the CPU; set"
                " profile.kind=trace"
            )


class Profiler:
    """Profiles what ``settings`` say; use as a context manager around the run.

    folder: the run folder. rank: this one's number. gpu: whether it computes on one.
    """

    def __init__(
        self,
        settings: Profile | None = None,
        folder: pathlib.Path | None = None,
        rank: int = 0,
        gpu: bool = False,
    ) -> None:
        self.settings = settings or Profile()
        self.folder, self.rank, self.gpu = folder, rank, gpu
        self._mine = set(self.settings.updates) if rank in self.settings.ranks else set()
        self._now = contextlib.ExitStack()

    def __enter__(self) -> Profiler:
        return self

    def __exit__(self, *_: object) -> None:
        self._now.close()

    def next(self, update: int) -> None:
        """End the trace that is under way, if any, and begin that of ``update`` if it is chosen."""
        self._now.close()
        if update in self._mine:
            trace = self.settings.kind == "trace"
            self._now.enter_context(self._traced(update) if trace else _nvtx())

    @contextlib.contextmanager
    def _traced(self, update: int) -> Iterator[None]:
        here.quiet_profiler()
        from torch.profiler import ProfilerActivity, profile, record_function

        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if self.gpu else [])]
        profiler = profile(activities=activities, acc_events=True)  # else torch warns
        with profiler:
            # TensorBoard takes ranges of this name for steps.
            with marked(record_function), record_function(f"ProfilerStep#{update}"):
                yield
            if self.gpu:
                _wait_for_gpu()
        self._write(profiler, update)

    def _write(self, profiler: Any, update: int) -> None:
        from swath.train.trace import told, where_time_went

        assert self.folder is not None, "nowhere to write to"
        folder = self.folder / FOLDER
        name = f"rank{self.rank}.{update}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            aside = folder / f".{name}.pt.trace.json.gz"
            profiler.export_chrome_trace(str(aside))
            found = where_time_went(aside, update, self.rank)
            (folder / f"{name}.json").write_text(found.as_json())
            (folder / f"{name}.txt").write_text(told(found))
            aside.rename(folder / aside.name[1:])
        except OSError as error:  # a run is worth more than its trace
            log.warning("%s: the trace of update %d cannot be written: %s", folder, update, error)
        else:
            log.info("%s: where the time of update %d went", folder / f"{name}.txt", update)


@contextlib.contextmanager
def _nvtx() -> Iterator[None]:
    """Mark spans for NVIDIA's tools, and let them record, inside the block."""
    import torch

    with torch.cuda.profiler.profile(), marked(torch.cuda.nvtx.range):
        yield


def _wait_for_gpu() -> None:
    import torch

    torch.cuda.synchronize()
