"""A JSON schema of any settings class, so that an editor completes and checks a YAML file.

What :mod:`swath.config` accepts and what the schema accepts are the same but for rules that span
fields, which only building the settings can check. ``swath schema > swath.schema.json`` writes
it; a line ``# yaml-language-server: $schema=swath.schema.json`` on top of a recipe uses it.
"""

import dataclasses
import types
import typing
from typing import Any

import pydantic

from swath.config import Choice, kind_of, members, plain
from swath.fields import default_of, docs, spelt


def schema(cls: type) -> dict[str, Any]:
    """Return the JSON schema (draft 2020-12) of a YAML file with the settings of ``cls``."""
    known: dict[str, Any] = {}
    root = _settings(cls, known)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": cls.__name__,
        **root,
        "$defs": known,
    }


def _settings(cls: type, known: dict[str, Any], kind: str | None = None) -> dict[str, Any]:
    """Return the schema of one settings class; ``kind``: what a choice writes beside its fields."""
    notes, hints = docs(cls), typing.get_type_hints(cls)
    properties: dict[str, Any] = {}
    if kind is not None:
        properties["kind"] = {"const": kind}
    required = ["kind"] if kind is not None else []
    for field in dataclasses.fields(cls):
        if not field.init:
            continue
        default = default_of(field)
        properties[spelt(field)] = _value(hints[field.name], known, default)
        if field.name in notes:
            properties[spelt(field)]["description"] = notes[field.name]
        if default is dataclasses.MISSING:
            required.append(spelt(field))
        else:
            properties[spelt(field)]["default"] = plain(default)
    found = {"type": "object", "properties": properties, "additionalProperties": False}
    return {**found, "required": required, "description": (cls.__doc__ or "").strip()}


def _value(annotation: Any, known: dict[str, Any], default: Any = None) -> dict[str, Any]:
    """Return the schema of a value annotated so."""
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        return {"anyOf": [_value(a, known, default) for a in args]}
    if origin in (list, tuple) and (origin is list or args[-1] is ...):
        return {"type": "array", "items": _value(args[0], known)}
    if origin is dict:
        return {"type": "object", "additionalProperties": _value(args[1], known)}
    if isinstance(annotation, type) and issubclass(annotation, Choice):
        return _choice(annotation, known, default)
    if dataclasses.is_dataclass(annotation):
        return _known(typing.cast(type, annotation), known)
    return pydantic.TypeAdapter(annotation).json_schema()


def _known(cls: type, known: dict[str, Any], kind: str | None = None) -> dict[str, Any]:
    """Return a reference to the schema of ``cls``, writing it into ``known`` the first time."""
    name = f"{cls.__module__}.{cls.__qualname__}".removeprefix("swath.")
    if name not in known:
        known[name] = {}  # settings may hold settings of their own class
        known[name] = _settings(cls, known, kind)
    return {"$ref": f"#/$defs/{name}"}


def _choice(choice: type[Choice], known: dict[str, Any], default: Any) -> dict[str, Any]:
    named = [choice] if Choice not in choice.__bases__ else list(members(choice).values())
    options: list[dict[str, Any]] = [_known(cls, known, kind_of(cls)) for cls in named]
    if isinstance(default, Choice):  # written without `kind`, the default's class is meant
        unnamed = _settings(type(default), known, kind_of(type(default)))
        unnamed["required"] = [name for name in unnamed["required"] if name != "kind"]
        options.append(unnamed)
    own = {"type": "string", "pattern": "^[^:]+:[^:]+$", "description": "a class: module:Class"}
    options.append({"type": "object", "properties": {"kind": own}, "required": ["kind"]})
    return {"anyOf": options}
