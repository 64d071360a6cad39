"""Which settings a verb heeds: a word that could have no effect on it is refused.

A recipe is written for all verbs, and each takes from it what it needs. A word typed behind a verb
is meant for that verb: one that it does not heed is a mistake, unless it repeats what the run
folder was made with, as in ``swath predict mine.yaml name=second optim.lr=3e-4``, where it only
says which run is meant.
"""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import Any

from swath.config import ConfigError, plain, written
from swath.settings import Run
from swath.train.job import FREE, RESULT, settings_of, sorted_arguments

_ANY = ("name", "folder")
_STORE = ("build", "data.store")
_RANKS = tuple(f"parallel.{name}" for name in ("start_seconds", "lost", "lost_seconds"))
_FEATURES = ("embed", "data", "predict.windows_at_once", "train.precision", "compute")
HEEDED = {
    "evaluate": ("data", "batch", "train.precision", "compute", "parallel"),
    "predict": ("predict", "build.dataset", "train.precision", "compute", *_RANKS),
    "embed": (*_FEATURES, *_RANKS),
    "embed --scene": (*_FEATURES, "predict", *_RANKS),
    "similar": _FEATURES,
    "anomalies": ("anomaly", "seed", *_FEATURES),
    "probe": ("probe", "seed", *_FEATURES),
    "report": ("data", "predict.scene", "build.dataset", "train.precision", "compute"),
    "export": ("data.store",),
    "baseline": (
        *_STORE,
        "data.split",
        "data.bands",
        "data.labels",
        "seed",
        "compute.threads",
        "baselines",
    ),
    "data build": _STORE,
    "data find": ("build.dataset",),
    "data fetch": ("build.dataset",),
    "data show": (*_STORE, "data.split"),
    "data stats": (*_STORE, "data.split"),
}
"""What each verb heeds, with all below it. Training heeds everything: it writes it to the run
folder, for the other verbs."""

_FURTHER = ("data.bands", "data.split")
"""What a store of data.also has of its own."""
_OF_SAMPLES = ("embed", "similar", "anomalies", "probe")
_TRAINED = ("evaluate", "predict", *_OF_SAMPLES, "embed --scene", "report", "export")
"""Verbs that take a trained model as it is and compare themselves what made it."""

_INSTEAD = {
    ("evaluate", "build"): "the store is scored as it was built; another one is data.store",
    ("evaluate", "predict"): "it scores the maps that swath predict has made",
    **{
        (verb, path): why
        for verb in (*_OF_SAMPLES, "embed --scene")
        for path, why in (
            ("build", "the store is taken as it was built; another one is data.store"),
            ("predict", "vectors are of the store's samples; of a scene, swath embed --scene"),
        )
    },
    ("predict", "data.store"): "predict.scene is what is mapped",
    ("predict", "build"): "predict.scene is what is mapped",
    ("predict", "batch"): "predict.windows_at_once is how many windows go together",
    ("report", "build"): "it shows the store as it was built",
    ("report", "predict"): "it shows the maps that swath predict has made",
    ("data build", "seed"): "build.split.seed is that of the split",
    ("data build", "data.split"): "build.split is the store's split",
}


def check(verb: str, arguments: Sequence[str | pathlib.Path], run: Run) -> None:
    """Raise ConfigError for the first word among ``arguments`` that ``verb`` would not heed in
    ``run``, which they describe."""
    if verb not in HEEDED:
        return
    before = settings_of(run.place)
    for word in sorted_arguments(arguments)[1]:
        for path in written(word):
            known, there = _found(before, path) if before is not None else (False, None)
            if known and there == _found(plain(run), path)[1]:
                continue
            if _within(path, _FURTHER) and run.data.is_further:
                raise ConfigError(
                    f"{word!r}: {path} has no effect on {run.data.store}, which is one of data.also"
                    " and is read with the bands and the split that it has there; leave it out"
                )
            if _within(path, (*_ANY, *HEEDED[verb])):
                continue
            if known and verb in _TRAINED and _within(path, RESULT) and not _within(path, FREE):
                continue  # the verb itself says what was trained
            instead = (why for (v, p), why in _INSTEAD.items() if v == verb and _within(path, [p]))
            why = next((f": {why}" for why in instead), "")
            raise ConfigError(f"{word!r}: {path} has no effect on swath {verb}{why}; leave it out")


def _within(path: str, places: Sequence[str]) -> bool:
    return any(f"{path}.".startswith(f"{place}.") for place in places)


def _found(tree: Any, path: str) -> tuple[bool, Any]:
    """Return whether ``tree`` has a value at ``path``, and the value."""
    for name in path.split("."):
        if not isinstance(tree, dict) or name not in tree:
            return False, None
        tree = tree[name]
    return True, list(tree) if isinstance(tree, tuple) else tree
