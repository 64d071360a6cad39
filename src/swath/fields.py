"""What a settings class tells of its fields: what they mean, their defaults, which are free.

A free field changes no result: it says how fast, or where, or how much is kept. A run goes on in
its folder when such a field is another; every other field is part of what the run is. Where a field
holds settings and is free, all of them are.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import inspect
import itertools
import pathlib
import re
import typing
from collections.abc import Callable, Iterator
from typing import Any


def free(default: Any = dataclasses.MISSING, *, factory: Callable[[], Any] | None = None) -> Any:
    """Return a field of settings that changes no result, with its default if there is one."""
    mark = {"free": True}
    if factory is not None:
        return dataclasses.field(default_factory=factory, metadata=mark)
    return dataclasses.field(default=default, metadata=mark)


def spelt(field: dataclasses.Field) -> str:
    """Return the name of a settings field as it is written: ``from_`` is ``from``, a word that
    Python keeps for itself."""
    return field.name.removesuffix("_")


def free_fields(cls: type) -> tuple[str, ...]:
    """Return the free fields of a settings class and of those in it, as ``train.keep``."""
    return tuple(_free_below(cls, ""))


def _free_below(cls: type, path: str) -> Iterator[str]:
    hints, marked = typing.get_type_hints(cls), _free(cls)
    for field in dataclasses.fields(cls):
        if field in marked:
            yield path + spelt(field)
        else:
            for inside in classes_in(hints[field.name]):
                yield from _free_below(inside, f"{path}{spelt(field)}.")


def _free(cls: type) -> list[dataclasses.Field]:
    return [field for field in dataclasses.fields(cls) if field.metadata.get("free")]


def classes_in(annotation: Any) -> list[type]:
    """Return the settings classes that a field annotated so may hold."""
    if isinstance(annotation, type) and dataclasses.is_dataclass(annotation):
        return [annotation]
    return [cls for a in typing.get_args(annotation) for cls in classes_in(a)]


def default_of(field: dataclasses.Field) -> Any:
    """Return the default of a settings field; ``dataclasses.MISSING`` if it has to be given."""
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


@functools.cache
def docs(cls: type) -> dict[str, str]:
    """Return the docstring under each field of a settings class, its bases' included.

    They speak of values as they are typed in YAML: null, not None. Of a field that is free they
    say so.
    """
    found: dict[str, str] = {}
    for owner in reversed(cls.__mro__):
        if not dataclasses.is_dataclass(owner):
            continue
        try:
            file = inspect.getsourcefile(owner)
        except (OSError, TypeError):  # typed into an interpreter, which keeps no source
            file = None
        body = _classes(file).get(owner.__name__, []) if file else []
        for field, note in itertools.pairwise(body):
            if not (isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)):
                continue
            if isinstance(note, ast.Expr) and isinstance(note.value, ast.Constant):
                found[field.target.id] = _typed(inspect.cleandoc(str(note.value.value)))
    for name in found.keys() & {field.name for field in _free(cls)}:
        found[name] += " Changes no result."
    return found


def _typed(text: str) -> str:
    words = {"None": "null", "True": "true", "False": "false"}
    return re.sub(r"\b(None|True|False)\b", lambda word: words[word[0]], text)


@functools.cache
def _classes(file: str) -> dict[str, list[ast.stmt]]:
    """Return the bodies of the classes in a Python file, by name."""
    try:
        tree = ast.parse(pathlib.Path(file).read_text())
    except OSError:
        return {}
    return {node.name: node.body for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}
