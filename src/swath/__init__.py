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

import types
from typing import TYPE_CHECKING, Any

import swath.predict
import swath.report
import swath.train
from swath.version import VERSION as __version__  # noqa: F401

if TYPE_CHECKING:
    from swath.config import ConfigError
    from swath.run import Run, baseline, build, evaluate, load

__all__ = ["ConfigError", "Run", "baseline", "build", "evaluate", "load"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'swath' has no attribute {name!r}")
    from swath import config, run

    return getattr(config if name == "ConfigError" else run, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Verb(types.ModuleType):
    """A room that is a verb as well: ``swath.train`` is a package, ``swath.train(run)`` trains."""

    def __call__(self, *args: Any, **options: Any) -> Any:
        from swath import run

        return getattr(run, self.__name__.rpartition(".")[2])(*args, **options)


for _room in (swath.train, swath.predict, swath.report):
    _room.__class__ = _Verb
