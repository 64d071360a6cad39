"""What is chosen by its ``kind``: the collections of models, tasks, datasets and the like.

A kind is the name of a module in the choice's package (``mae`` is ``models/mae.py``), or an import
path (``mylab.unet:UNet``). There is no registry: a collection is its folder.
"""

import importlib
import pkgutil
from dataclasses import dataclass
from typing import ClassVar

from swath.text import ConfigError, near


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Settings picked by ``kind``; the concrete ones live one per module in ``package``."""

    package: ClassVar[str]


def kind_of(cls: type[Choice]) -> str:
    """Return the ``kind`` that names ``cls`` in a settings file."""
    inside = cls.package + "."
    if cls.__module__.startswith(inside):
        return cls.__module__.removeprefix(inside)
    return f"{cls.__module__}:{cls.__qualname__}"


def kinds(choice: type[Choice]) -> list[str]:
    """Return the kinds that ship with Swath: the modules of the choice's package."""
    package = importlib.import_module(choice.package)
    return sorted(m.name for m in pkgutil.iter_modules(package.__path__) if m.name[0] != "_")


def find(choice: type[Choice], kind: str) -> type[Choice]:
    """Return the class that ``kind`` names; raise ConfigError with a suggestion."""
    module, _, attribute = (kind if ":" in kind else f"{choice.package}.{kind}:").partition(":")
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not (module + ".").startswith(error.name + "."):
            raise  # the module exists; something that it imports does not
        raise ConfigError(
            f"no {choice.__name__.lower()} {kind!r}{near(kind, kinds(choice))}"
        ) from error
    if attribute and not hasattr(found, attribute):
        raise ConfigError(f"{module} has no class {attribute!r}{near(attribute, vars(found))}")
    own = [c for c in vars(found).values() if isinstance(c, type) and c.__module__ == module]
    fitting = (
        [getattr(found, attribute)] if attribute else [c for c in own if issubclass(c, choice)]
    )
    if len(fitting) != 1 or not (isinstance(fitting[0], type) and issubclass(fitting[0], choice)):
        raise ConfigError(f"{kind!r} is not one {choice.__name__}; name it as module:Class")
    return fitting[0]
