"""How a verb starts: from what was typed to a run, and what is refused before work begins."""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Callable
from typing import Any, TypeVar, cast

from swath import config, here
from swath.config import ConfigError, NoSuch, place_of
from swath.settings import Run
from swath.train.job import sorted_arguments

_Verb = TypeVar("_Verb", bound=Callable[..., Any])


def load(*arguments: str | pathlib.Path) -> Run:
    """Return the run that files, run folders and ``key=value`` words describe, in that order."""
    return config.load(Run, *sorted_arguments(arguments))


def named(verb: _Verb) -> _Verb:
    """Let ``verb`` say which setting names a file that is not there."""

    @functools.wraps(verb)
    def named(run: Run, *args: Any, **more: Any) -> Any:
        try:
            return verb(run, *args, **more)
        except NoSuch as error:
            place = place_of(run, error.path)
            raise ConfigError(f"{place}: {error}" if place else str(error)) from error

    return cast(_Verb, named)


def one_process(verb: str) -> None:
    """Raise ConfigError if others were started beside this process: they would write one file."""
    if here.processes() > 1:
        raise ConfigError(
            f"swath {verb} runs as one process, and {here.processes()} were started; start it "
            "without torchrun, or with srun -n 1"
        )
