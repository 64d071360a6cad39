"""Swath: deep learning for Earth observation, from a laptop to a cluster.

The verbs of the command line, for notebooks and scripts. Settings are built, not parsed:

    import dataclasses

    import swath
    from swath.models.unet import UNet

    run = swath.load("recipes/brandenburg/recipe.yaml", "seed=1")
    run = dataclasses.replace(run, name="wider", model=UNet(width=48))
    swath.train(run)

Nothing is imported until it is used.
"""

import importlib
import sys
from typing import TYPE_CHECKING, Any

from swath.version import VERSION as __version__  # noqa: F401

if TYPE_CHECKING:
    from swath.assess.verb import assess
    from swath.config import ConfigError
    from swath.run import (
        Run,
        anomalies,
        baseline,
        build,
        dry_run,
        embed,
        embed_scene,
        evaluate,
        export,
        load,
        predict,
        probe,
        report,
        similar,
        train,
    )

__all__ = [
    "ConfigError",
    "Run",
    "anomalies",
    "assess",
    "baseline",
    "build",
    "dry_run",
    "embed",
    "embed_scene",
    "evaluate",
    "export",
    "load",
    "predict",
    "probe",
    "report",
    "similar",
    "train",
]

_ROOMS = ("assess", "embed", "predict", "report", "train")
"""Verbs that are packages too: ``swath.train(run)`` trains, ``swath.train.settings`` is a file."""

# Importing a package writes its name here, once. Done now and taken back, the name is left to
# __getattr__, which finds the verb.
for _room in _ROOMS:
    importlib.import_module(f"swath.{_room}")
    globals().pop(_room, None)


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'swath' has no attribute {name!r}")
    room = {"ConfigError": "swath.config", "assess": "swath.assess.verb"}.get(name, "swath.run")
    found = getattr(importlib.import_module(room), name)
    if name in _ROOMS:
        # A function, so that help() shows its signature and docstring, whose attributes are the
        # package's, those that are imported later too.
        found.__dict__ = sys.modules[f"swath.{name}"].__dict__
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
