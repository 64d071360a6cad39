"""Verbs that only read settings: they are over at once, for they import nothing that computes."""

import importlib
import json
import sys
import types
from typing import Annotated, Any

import typer

from swath import machine
from swath.cli.words import Settings


def show(
    settings: Settings = None,
    docs: Annotated[bool, typer.Option("--docs", help="with the meaning of each field")] = False,
    only: Annotated[str, typer.Option(help="show only these parts, as train,model")] = "",
    kinds: Annotated[bool, typer.Option("--kinds", help="list what can be chosen")] = False,
    machines: Annotated[bool, typer.Option("--machines", help="list computers known")] = False,
) -> None:
    """Print the resolved settings as YAML: every value, and where it was written.

    swath show --docs alone prints all fields there are, with their meanings and defaults.

    Examples: swath show mine.yaml --only train,model

    swath show --docs --only model.unet
    """
    _spare_numpy()
    from swath import config, explain
    from swath.data import sensor
    from swath.settings import COLLECTIONS, Run
    from swath.train.job import sorted_arguments

    if machines:
        for name in machine.machines():
            print(f"{name:<16}  {machine.load_machine(name).about}")
        return
    if kinds:
        rows = list(explain.collections(COLLECTIONS))
        rows += [("sensor", name, sensor.about(name)) for name in sensor.sensors()]
        name_width, kind_width = (max(len(row[i]) for row in rows) for i in (0, 1))
        for name, kind, meaning in rows:
            print(f"{name:<{name_width}}  {kind:<{kind_width}}  {meaning}")
        return
    if docs and not settings:
        print(explain.reference(Run, only))
        return
    found = config.trace(Run, *sorted_arguments(settings or []))
    print(explain.explain(*found, meanings=docs, below=only))


def schema() -> None:
    """Print the JSON schema of a settings file, with which editors complete and check it.

    Example: swath schema > swath.schema.json, and as the first line of a settings file:
    # yaml-language-server: $schema=swath.schema.json
    """
    _spare_numpy()
    from swath.schema import schema as made
    from swath.settings import Run

    print(json.dumps(made(Run), indent=1))


class _WhenUsed(types.ModuleType):
    """A module that is imported when something of it is used for the first time.

    ``importlib.util.LazyLoader`` would not do: ``import numpy`` in a second file asks the module
    for its ``__spec__``, which LazyLoader takes for a use.
    """

    def __getattr__(self, name: str) -> Any:
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        module = importlib.import_module(self.__name__)
        self.__dict__.update(module.__dict__)  # for those who have imported this one
        return getattr(module, name)


def _spare_numpy() -> None:
    """Let `import numpy` cost nothing until it is used. Verbs that only read settings import files
    that would compute with it, but do not; it took a fifth of the time of `swath show`."""
    sys.modules.setdefault("numpy", _WhenUsed("numpy"))
