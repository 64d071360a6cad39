"""Training further, with few labels or all: as `swath train` does it, scored as `swath evaluate`
does.

Of several words that are tried each trains a run; the validation part chooses, and the test part is
scored once.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import pathlib
from collections.abc import Iterator
from typing import Any

from swath.config import ConfigError
from swath.data.few import drawn
from swath.parallel.world import World
from swath.settings import Run
from swath.train.export import read_about
from swath.train.score import score
from swath.train.setup import train


def score_tuned(tries: dict[str, Run], folder: pathlib.Path, world: World) -> dict[str, Any]:
    """Return the figures on the test part of the best of ``tries``: runs by the words that make
    them differ; and how the others did on the validation part. Each goes on if it was begun.

    ConfigError if there are several and no validation part to choose by.
    """
    validated: dict[str, float] = {}
    runs: dict[str, Run] = {}
    best: str | None = None
    for number, (words, run) in enumerate(tries.items()):
        runs[words] = run = dataclasses.replace(run, folder=str(folder / f"try-{number}"))
        with quiet():
            figures = train(run.job(), settings=run, world=world)
        objective = read_about(run.place).bind()
        value = figures.get(f"val/{objective.best}")
        if value is None and len(tries) > 1:
            raise ConfigError(
                f"{run.data.store}: the split has no validation part, so nothing can choose between"
                f" {', '.join(tries)}; set split.val, or leave tries out"
            )
        if value is not None:
            validated[words] = value
        sign = 1 if objective.larger_is_better else -1
        if best is None or (value is not None and sign * value > sign * validated[best]):
            best = words
    assert best is not None, "there is at least one run"
    with quiet():
        found = score(runs[best].job(), world=world)
    figures = {name: value for name, value in found.items() if isinstance(value, float)}
    beside = ("share_touching", "share_same_object", "other_store")
    chosen = {"chosen": best, "validated": validated} if len(tries) > 1 else {}
    return {
        "figures": {name: value for name, value in figures.items() if name not in beside},
        "labels": drawn(runs[best].data.open().select("train")),
        **{name: found[name] for name in beside if found.get(name) is not None},
        **chosen,
    }


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Let training inside the block say nothing but warnings: cells are many."""
    log = logging.getLogger("swath")
    level = log.level
    log.setLevel(logging.WARNING)
    try:
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere):
            yield
    finally:
        log.setLevel(level)
