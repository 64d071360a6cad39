"""Settings as text: every value, where it was written, and what it means.

The text is YAML and loads again, so ``swath show recipe.yaml > mine.yaml`` is a way to begin a
recipe of one's own.
"""

import dataclasses
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

from swath.config import Choice, ConfigError, docs, find, kind_of, kinds, plain
from swath.text import as_yaml


def explain(
    settings: Any, places: Mapping[str, str], *, meanings: bool = False, below: str = ""
) -> str:
    """Return ``settings`` as YAML, each line with the place that its value comes from.

    places: as :func:`swath.config.trace` returns them; what is missing there is a default.
    meanings: write each field's docstring above it.
    below: show only this part, such as "train"; ConfigError if there is none.
    """
    for name in filter(None, below.split(".")):
        if not dataclasses.is_dataclass(settings) or not hasattr(settings, name):
            have = [f.name for f in dataclasses.fields(settings)] if settings is not None else []
            raise ConfigError(
                f"{below}: there is no {name!r}; there are {', '.join(have) or 'none'}"
            )
        settings = getattr(settings, name)
    lines = list(_lines(settings, below, places, 0, meanings))
    width = min(60, max((len(text) for text, place in lines if place), default=0))
    return "\n".join(f"{text:<{width}}  # {place}" if place else text for text, place in lines)


def _lines(
    settings: Any, path: str, places: Mapping[str, str], depth: int, meanings: bool
) -> Iterator[tuple[str, str]]:
    """Yield (text, place) for every line; place "" for lines that hold no value."""
    pad = "  " * depth
    if not dataclasses.is_dataclass(settings) or isinstance(settings, type):
        yield pad + _flow(plain(settings)), places.get(path, "default")
        return
    if isinstance(settings, Choice):
        yield f"{pad}kind: {kind_of(type(settings))}", places.get(f"{path}.kind", "default")
    notes = docs(type(settings)) if meanings else {}
    for field in dataclasses.fields(settings):
        if not field.init:
            continue
        below, value = f"{path}.{field.name}".lstrip("."), getattr(settings, field.name)
        if field.name in notes:
            yield from (
                (f"{pad}# {line}", "") for line in _wrapped(notes[field.name], 96 - len(pad))
            )
        if dataclasses.is_dataclass(value):
            has_lines = bool(dataclasses.fields(value)) or isinstance(value, Choice)
            yield f"{pad}{field.name}:" + ("" if has_lines else " {}"), ""
            yield from _lines(value, below, places, depth + 1, meanings)
        else:
            yield f"{pad}{field.name}: {_flow(plain(value))}", _place(below, places)


def _place(path: str, places: Mapping[str, str]) -> str:
    """Return where ``path``, or the first thing inside it, was written."""
    inside = (places[p] for p in places if p == path or p.startswith((path + ".", path + "[")))
    return next(inside, "default")


def _flow(value: Any) -> str:
    return as_yaml(value, flow=True).removesuffix("\n").removesuffix("\n...")


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(" ".join(text.split()), max(width, 40))


def collections(choices: Mapping[str, type[Choice]]) -> Iterator[tuple[str, str, str]]:
    """Yield (field, kind, what it is) for everything that ships with Swath."""
    for name, choice in choices.items():
        for kind in kinds(choice):
            first = (find(choice, kind).__doc__ or "").strip().splitlines() or [""]
            yield name, kind, first[0]
