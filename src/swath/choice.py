"""What is chosen by its ``kind``: the collections of models, tasks, datasets and the like.

A kind is the name of a module in the choice's package (``mae`` is ``models/mae.py``), or an import
path (``mylab.unet:UNet``). There is no registry: a collection is its folder.
"""

import importlib
import importlib.util
import pkgutil
import traceback
from dataclasses import dataclass
from typing import ClassVar, TypeVar

from swath.text import ConfigError, near


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Settings picked by ``kind``; the concrete ones live one per module in ``package``."""

    package: ClassVar[str]


C = TypeVar("C", bound=Choice)


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


def members(choice: type[C]) -> dict[str, type[C]]:
    """Return the classes that ship with Swath by kind, but for those whose file is broken."""
    found = {}
    for kind in kinds(choice):
        try:
            found[kind] = find(choice, kind)
        except ConfigError:
            continue
    return found


def find(choice: type[C], kind: str) -> type[C]:
    """Return the class that ``kind`` names; raise ConfigError with a suggestion, or with the file
    that is broken."""
    module, _, attribute = (kind if ":" in kind else f"{choice.package}.{kind}:").partition(":")
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not (module + ".").startswith(error.name + "."):
            raise _broken(module, error) from error  # it is there, and lacks a library
        raise ConfigError(
            f"no {choice.__name__.lower()} {kind!r}{near(kind, kinds(choice))}"
        ) from error
    except Exception as error:
        raise _broken(module, error) from error
    if attribute and not hasattr(found, attribute):
        raise ConfigError(f"{module} has no class {attribute!r}{near(attribute, vars(found))}")
    own = [c for c in vars(found).values() if isinstance(c, type) and c.__module__ == module]
    fitting = (
        [getattr(found, attribute)] if attribute else [c for c in own if issubclass(c, choice)]
    )
    if len(fitting) != 1 or not (isinstance(fitting[0], type) and issubclass(fitting[0], choice)):
        raise ConfigError(f"{kind!r} is not one {choice.__name__}; name it as module:Class")
    return fitting[0]


def _broken(module: str, error: Exception) -> ConfigError:
    """Return what to say of a ``module`` that cannot be imported: its file, the line and why."""
    try:
        spec = importlib.util.find_spec(module)
    except Exception:  # the package that it is in is broken
        return _broken(module.rpartition(".")[0], error)
    file = module if spec is None or spec.origin is None else spec.origin
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == file]
    place = f"{file}:{lines[-1]}" if lines else file
    return ConfigError(f"{place}: cannot be imported: {type(error).__name__}: {error}")
