"""A run that has not come to its end: how far it is, and its model as it stands.

The end of a run writes its model. Before that there are checkpoints; from them the best model so
far can be taken, and the run can still be gone on with afterwards.
"""

from __future__ import annotations

import pathlib
from typing import Any

from swath.config import ConfigError
from swath.lock import lock
from swath.parallel.world import World
from swath.train.checkpoint import Checkpoints
from swath.train.describe import describe, fingerprint
from swath.train.export import newest_state
from swath.train.job import TrainJob, check
from swath.train.setup import export_model


def export(job: TrainJob) -> pathlib.Path:
    """Write the model of the unfinished run in ``job.folder``: that of its best evaluation so far,
    or of its newest checkpoint if the run's ``select`` is last or nothing was evaluated. Return its
    weights' file.

    ConfigError if the folder belongs to other settings or holds no whole checkpoint, or if it is
    being trained there.
    """
    folder = pathlib.Path(job.folder)
    data = job.open()
    about = describe(job, data)
    with lock(folder / ".lock", "swath export"):
        check(folder, job)
        facts = {"store": fingerprint(data)}
        there = Checkpoints(folder / "checkpoints", job.train.keep, World.alone(), facts, job)
        update, numbers = _chosen(there, job.select)
        if numbers["run"] != facts:
            raise ConfigError(
                f"{there.path(update)}: was trained on another store than {job.data.store} is now; "
                "set data.store to that one"
            )
        return export_model(there, update, folder, about, numbers.get("lost"), job.adapt)


def how_far(folder: pathlib.Path) -> tuple[int, int] | None:
    """Return the samples seen at the newest checkpoint of a run folder, and those of the whole run;
    None if the run is at its end, or nothing says."""
    numbers = newest_state(folder)
    try:
        train, batch = (numbers["settings"][name] for name in ("train", "batch"))
        at, whole, patience = numbers["samples"], train["samples"], train["patience"]
        early = patience is not None and numbers["stale"] >= patience
        return None if early or at + batch["samples"] > whole else (at, whole)
    except (LookupError, TypeError):
        return None


def _chosen(there: Checkpoints, select: str) -> tuple[int, dict[str, Any]]:
    """Return the update whose weights are taken, and the numbers of the run's state."""
    for newest in reversed(there.updates()):
        if not there.whole(newest):
            continue
        numbers = there.numbers(newest)
        best = numbers.get("best_update") if select == "best" else None
        if best is not None and not there.whole(best):
            numbers |= there.stand_in(newest, best)
            best = numbers["best_update"]
        return newest if best is None else best, numbers
    raise ConfigError(
        f"{there.folder}: there is no whole checkpoint to take a model from; swath train writes "
        "one at least every train.checkpoint_seconds, and when it is stopped by a signal"
    )
