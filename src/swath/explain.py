"""Settings as text: every value, where it was written, and what it means.

The text of a recipe is YAML and loads again, so ``swath show recipe.yaml > mine.yaml`` is a way to
begin a recipe of one's own. Without a recipe there is :func:`reference`: every field that could be
set, for reading.
"""

import dataclasses
import textwrap
import typing
from collections.abc import Iterator, Mapping
from typing import Any

from swath.config import Choice, ConfigError, find, kind_of, kinds, members, plain
from swath.fields import classes_in, default_of, docs, spelt
from swath.text import as_yaml, meant, near


def explain(
    settings: Any, places: Mapping[str, str], *, meanings: bool = False, below: str = ""
) -> str:
    """Return ``settings`` as YAML, each line with the place that its value comes from.

    places: as :func:`swath.config.trace` returns them; what is missing there is a default.
    meanings: write each field's docstring above it.
    below: show only this part, such as "train", or these, as "train,optim.lr"; ConfigError if there
        is none.
    """
    parts = _listed(below) or [""]
    lines: list[tuple[str, str]] = []
    for part in parts:
        inside = _inside(settings, part)
        told = list(_lines(inside, part, places, 0, meanings))
        if len(parts) > 1:
            lines += [(f"# {part}", "")]
        lines += told
    width = min(60, max((len(text) for text, place in lines if place), default=0))
    return "\n".join(f"{text:<{width}}  # {place}" if place else text for text, place in lines)


def _listed(below: str) -> list[str]:
    return [part.strip() for part in below.split(",") if part.strip()]


def _inside(settings: Any, below: str) -> Any:
    for name in filter(None, below.split(".")):
        known = dataclasses.is_dataclass(settings)
        have = {spelt(f): f.name for f in dataclasses.fields(settings)} if known else {}
        if name not in have:
            hint = near(name, have, 0.75) if have else "; there is nothing in it"
            raise ConfigError(f"{below}: there is no {name!r}{hint}")
        settings = getattr(settings, have[name])
    return settings


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
        below, value = f"{path}.{spelt(field)}".lstrip("."), getattr(settings, field.name)
        if field.name in notes:
            yield from ((line, "") for line in _note(notes[field.name], pad))
        if dataclasses.is_dataclass(value):
            has_lines = bool(dataclasses.fields(value)) or isinstance(value, Choice)
            yield f"{pad}{spelt(field)}:" + ("" if has_lines else " {}"), ""
            yield from _lines(value, below, places, depth + 1, meanings)
        else:
            yield f"{pad}{spelt(field)}: {_flow(plain(value))}", _place(below, places)


def _place(path: str, places: Mapping[str, str]) -> str:
    """Return where ``path``, or the first thing inside it, was written."""
    inside = (places[p] for p in places if p == path or p.startswith((path + ".", path + "[")))
    return next(inside, "default")


def _flow(value: Any) -> str:
    return as_yaml(value, flow=True).removesuffix("\n").removesuffix("\n...")


def _note(text: str, pad: str) -> list[str]:
    wrapped = textwrap.wrap(" ".join(text.split()), max(96 - len(pad), 40))
    return [f"{pad}# {line}" for line in wrapped]


def reference(cls: type, below: str = "") -> str:
    """Return every field of the settings class ``cls``: what it means, then its name and default.

    Where something is chosen by its kind, all kinds that ship with Swath follow one another, so
    the text as a whole is for reading, not for loading.

    below: only this part, such as "train", "model.unet" or "optim.lr", or several, as
        "train,optim.lr"; ConfigError if there is none.
    """
    parts = _listed(below)
    if len(parts) > 1:
        return "\n".join(f"# {part}\n{reference(cls, part)}" for part in parts)
    found, names = [cls], [name for name in below.split(".") if name]
    for place, name in enumerate(names):
        inside = {n: classes for one in found for n, classes in _parts(one).items()}
        if name not in inside:
            deeper = [
                ".".join([*names[:place], other, *names[place:]])
                for other, classes in inside.items()
                if any(name in _parts(one) for one in classes)
            ][:3]
            hint = meant(deeper) if deeper else near(name, inside, 0.75)
            raise ConfigError(f"{below}: there is no {name!r}{hint}")
        if not inside[name] and name != names[-1]:
            raise ConfigError(f"{below}: there is nothing in {'.'.join(names[: place + 1])}")
        if not inside[name]:
            return "\n".join(line for one in found for line in _about(one, 0, name))
        found = inside[name]
    return "\n".join(line for one in found for line in _about(one, 0))


def _parts(cls: type) -> dict[str, list[type]]:
    """Return, by name, the settings that are inside ``cls``: its fields' classes, or its kinds."""
    if Choice in cls.__bases__:
        inside: dict[str, type[Choice]] = members(cls)
        return {kind: [one] for kind, one in inside.items()}
    hints = typing.get_type_hints(cls)
    return {f.name: classes_in(hints[f.name]) for f in dataclasses.fields(cls) if f.init}


def _about(cls: type, depth: int, only: str = "") -> Iterator[str]:
    """Yield the lines of all fields of ``cls``, or of one; of a choice, those of each kind."""
    pad = "  " * depth
    if Choice in cls.__bases__:
        for inside in _parts(cls).values():
            yield from _about(inside[0], depth)
        return
    if issubclass(cls, Choice) and not only:
        yield f"{pad}# -- {_sentence(cls)}"
        yield f"{pad}kind: {kind_of(cls)}"
    notes, parts, hints = docs(cls), _parts(cls), typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        if not field.init or (only and field.name != only):
            continue
        yield from _note(notes.get(field.name, ""), pad)
        value, words = default_of(field), _words(hints[field.name])
        inside = [other for other in parts[field.name] if other is not cls]
        if value is dataclasses.MISSING:
            yield f"{pad}{spelt(field)}:" + ("" if inside else "  # needed")
        elif not dataclasses.is_dataclass(value):
            said = "  # or:" if inside else f"  # one of {', '.join(words)}" if words else ""
            yield f"{pad}{spelt(field)}: {_flow(plain(value))}{said}"
        elif isinstance(value, Choice):
            yield f"{pad}{spelt(field)}:  # kind: {kind_of(type(value))} if nothing is said; or:"
        else:
            yield f"{pad}{spelt(field)}:"
        for other in inside:
            yield from _about(other, depth + 1)


def _words(annotation: Any) -> list[str]:
    """Return the values that a field annotated so may have, if they are few."""
    if typing.get_origin(annotation) is typing.Literal:
        return [_flow(value) for value in typing.get_args(annotation)]
    return [word for a in typing.get_args(annotation) for word in _words(a)]


def _sentence(cls: type) -> str:
    return ((cls.__doc__ or "").strip().splitlines() or [""])[0]


def collections(choices: Mapping[str, type[Choice]]) -> Iterator[tuple[str, str, str]]:
    """Yield (field, kind, what it is) for everything that ships with Swath; of a file that is
    broken, why."""
    for name, choice in choices.items():
        for kind in kinds(choice):
            try:
                told = _sentence(find(choice, kind))
            except ConfigError as error:
                told = f"broken: {error}"
            yield name, kind, told
