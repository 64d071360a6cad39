"""Turn YAML files and ``key=value`` words into one checked tree of frozen dataclasses.

Precedence, weakest first: field defaults, each file in order, each word in order. Files are laid
over one another field by field; a word sets one field, or with braces all of what it names. Every
value remembers where it was written, so an error can point at the line:

    run.yaml:14: optim.lrr: adamw has no field 'lrr' (did you mean 'lr'?)

A field annotated with a :class:`Choice` is filled by ``kind``: the name of a module in the
choice's package (``mae`` is ``models/mae.py``) or an import path (``mylab.unet:UNet``). There
is no registry: a collection is its folder. Values are checked by pydantic, field by field.
"""

import dataclasses
import difflib
import enum
import functools
import pathlib
import re
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import pydantic

from swath.choice import Choice as Choice
from swath.choice import find as find
from swath.choice import kind_of as kind_of
from swath.choice import kinds as kinds
from swath.choice import members as members
from swath.fields import default_of as default_of
from swath.fields import docs as docs
from swath.fields import spelt as spelt
from swath.text import ConfigError as ConfigError
from swath.text import Node, as_yaml, meant, merge, near, read_file, read_word
from swath.text import NoSuch as NoSuch
from swath.text import no_such as no_such

T = TypeVar("T")

_ALIASES = {
    "batch_size": ("samples", "micro"),
    "dir": ("path", "folder"),
    "directory": ("path", "folder"),
    "epochs": ("samples",),
    "file": ("path", "image"),
    "folder": ("path",),
    "learning_rate": ("lr",),
    "num_classes": ("classes",),
    "root": ("path", "folder"),
    "steps": ("samples",),
    "type": ("kind",),
}
"""What fields of this meaning are called elsewhere, and here."""

_HELP = "; swath show --docs tells every setting, swath show --kinds what there is to choose from"


def load(cls: type[T], files: Sequence[str | pathlib.Path] = (), words: Sequence[str] = ()) -> T:
    """Return ``cls`` built from YAML ``files`` and ``key=value`` ``words``; raise ConfigError."""
    return trace(cls, files, words)[0]


def trace(
    cls: type[T], files: Sequence[str | pathlib.Path] = (), words: Sequence[str] = ()
) -> tuple[T, dict[str, str]]:
    """Return the settings, and where each value was written (``optim.lr`` -> place), if it was."""
    tree = Node({}, "defaults")
    for file in files:
        tree = merge(tree, read_file(pathlib.Path(file)))
    for word in words:
        tree = merge(tree, read_word(word))
    return _build(cls, tree, ""), dict(_places(tree, ""))


def build(cls: type[T], value: Any, where: str) -> T:
    """Return ``cls`` from what :func:`plain` made of it; errors name ``where``, such as a file."""

    def node(item: Any) -> Node:
        if isinstance(item, dict):
            return Node({str(key): node(below) for key, below in item.items()}, where)
        return Node([node(below) for below in item] if isinstance(item, list) else item, where)

    return _build(cls, node(value), "")


def written(word: str) -> list[str]:
    """Return the fields that a ``key=value`` word gives a value, as ``optim.lr``."""
    return [path for path, _ in _places(read_word(word), "")]


def dump(settings: Any) -> str:
    """Return YAML that :func:`load` turns back into an equal ``settings``."""
    return as_yaml(plain(settings))


def plain(value: Any, *, defaults: bool = True) -> Any:
    """Return ``value`` as dicts, lists and scalars, with the ``kind`` of each choice.

    defaults: with those fields that have their default value. A fingerprint is taken without
    them, so that it stays the same when a later release knows a field more.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {
            spelt(f): plain(getattr(value, f.name), defaults=defaults)
            for f in dataclasses.fields(value)
            if f.init and (defaults or getattr(value, f.name) != default_of(f))
        }
        return {"kind": kind_of(type(value)), **fields} if isinstance(value, Choice) else fields
    if isinstance(value, Mapping):
        return {key: plain(item, defaults=defaults) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item, defaults=defaults) for item in value]
    if isinstance(value, pathlib.PurePath):
        return str(value)
    return value.value if isinstance(value, enum.Enum) else value


def place_of(settings: Any, value: str, path: str = "") -> str:
    """Return the first field below ``settings`` that has ``value``, as ``data.store``; or ""."""
    if dataclasses.is_dataclass(settings) and not isinstance(settings, type):
        inside = [(f".{spelt(f)}", getattr(settings, f.name)) for f in dataclasses.fields(settings)]
    elif isinstance(settings, list | tuple):
        inside = [(f"[{i}]", one) for i, one in enumerate(settings)]
    elif isinstance(settings, Mapping):
        inside = [(f".{key}", one) for key, one in settings.items()]
    else:
        return path if isinstance(settings, str) and settings == value else ""
    found = (place_of(one, value, f"{path}{name}") for name, one in inside)
    return next(filter(None, found), "").removeprefix(".")


def named_file(
    name: str | pathlib.Path, folder: pathlib.Path, what: str, cutoff: float = 0.6
) -> pathlib.Path:
    """Return the YAML file ``name`` of the user, or the one of that name in ``folder``.

    ConfigError if there is no such ``what``, with the one that was meant; ``cutoff``: how alike
    they must be, 0..1.
    """
    file = pathlib.Path(name)
    if file.suffix in (".yaml", ".yml"):
        return file
    file = folder / f"{name}.yaml"
    if not file.exists():
        there = sorted(one.stem for one in folder.glob("*.yaml"))
        raise NoSuch(f"no {what} {str(name)!r}{near(str(name), there, cutoff)}", name)
    return file


def _places(node: Node, path: str) -> typing.Iterator[tuple[str, str]]:
    if isinstance(node.value, dict):
        for key, child in node.value.items():
            yield from _places(child, f"{path}.{key}".lstrip("."))
    else:
        yield path, node.where


def _fail(node: Node, path: str, message: str) -> typing.NoReturn:
    raise ConfigError(f"{node.where}: {path}: {message}" if path else f"{node.where}: {message}")


def _build(kind: Any, node: Node, path: str) -> Any:
    """Check ``node`` against the annotation ``kind`` and return the Python value."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType) and _settings_inside(args):
        if node.value is None and type(None) in args:
            return None
        options = [a for a in args if a is not type(None)]
        if isinstance(node.value, dict):
            options = [a for a in options if _settings_inside([a])]
        else:
            options = [a for a in options if not _settings_inside([a])] or options
        return _build(options[0] if len(options) == 1 else typing.Union[*options], node, path)
    if origin in (list, tuple) and _settings_inside(args):
        if not isinstance(node.value, list):
            one = _example(args[0], node, f"{path}[0]").removeprefix("settings, ")
            _fail(node, path, f"expected a list, {one}, got {_shown(node)}")
        return origin(_build(args[0], n, f"{path}[{i}]") for i, n in enumerate(node.value))
    if origin is dict and _settings_inside(args):
        if not isinstance(node.value, dict):
            _fail(node, path, f"expected names with settings, got {_shown(node)}")
        return {key: _build(args[1], n, f"{path}.{key}") for key, n in node.value.items()}
    if dataclasses.is_dataclass(kind):
        return _build_settings(typing.cast(type, kind), node, path)
    try:
        return _adapter(kind).validate_python(_written(node))
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        inner = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in first["loc"])
        place = _descend(node, first["loc"])
        _fail(
            place, path if first["type"] == "literal_error" else path + inner, _said(first, place)
        )


def _settings_inside(args: Sequence[Any]) -> bool:
    return any(dataclasses.is_dataclass(a) or _settings_inside(typing.get_args(a)) for a in args)


@functools.cache
def _adapter(kind: Any) -> pydantic.TypeAdapter:
    # Strict but for what YAML cannot write: a tuple is written as a list, a path as a string, and
    # 1 is a float where one is asked for. "1" is never a number, nor 1 a truth value.
    return pydantic.TypeAdapter(_strict(kind))


def _strict(kind: Any) -> Any:
    if kind in (int, float, bool, str):
        return typing.Annotated[kind, pydantic.Strict()]
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return typing.Union[*(_strict(a) for a in args)]
    if origin in (list, tuple, dict) and args:
        return origin[tuple(a if a is ... else _strict(a) for a in args)]
    return kind


def _descend(node: Node, loc: Sequence[Any]) -> Node:
    for step in loc:
        if isinstance(node.value, list):
            steps: Any = range(len(node.value))
        else:
            steps = node.value if isinstance(node.value, dict) else ()
        if step not in steps:
            break
        node = node.value[step]
    return node


def _said(error: Any, node: Node) -> str:
    text = error["msg"].replace("Input should be", "expected").replace("a valid ", "")
    if error["type"] == "dict_type":
        names = [n.value for n in node.value] if isinstance(node.value, list) else []
        names = [n for n in names if isinstance(n, str)][:2] or ["water", "forest"]
        pairs = ", ".join(f"{number}: {name}" for number, name in enumerate(names, 1))
        text = f"expected pairs, such as {{{pairs}}}"
    if error["type"] == "literal_error":
        allowed = re.findall(r"'([^']*)'", str(error.get("ctx", {}).get("expected", "")))
        text += near(str(node.value), allowed).split(";")[0]
    number = _number(node.value) if error["type"] in ("int_type", "float_type") else ""
    return f"{text}, got {_shown(node)}{number}"


def _number(value: Any) -> str:
    """Return how to write what was meant as a number: 2k, 1.5M, 2000.0."""
    match = re.fullmatch(r"([\d_]*\.?\d+) ?([kKMG]?)", str(value))
    if isinstance(value, bool) or not match:
        return ""
    meant = float(match[1]) * {"": 1, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9}[match[2]]
    return f"; write {round(meant)}" if meant.is_integer() else ""


def _shown(node: Node) -> str:
    words: dict[type, str] = {dict: "settings", list: "a list"}
    return words.get(type(node.value), repr(node.value))


def _written(node: Node) -> Any:
    if isinstance(node.value, dict):
        return {key: _written(child) for key, child in node.value.items()}
    return [_written(c) for c in node.value] if isinstance(node.value, list) else node.value


def _build_settings(cls: type, node: Node, path: str) -> Any:
    if not isinstance(node.value, dict):
        _fail(node, path, f"expected {_example(cls, node, path)}, got {_shown(node)}")
    called = _called(cls, path)
    given: dict[str, Node] = dict(node.value)
    if issubclass(cls, Choice):
        if "kind" in given:
            chosen = given.pop("kind")
            try:
                cls = find(cls, str(chosen.value))
                called = _called(cls, path)
            except ConfigError as error:
                _fail(chosen, f"{path}.kind".lstrip("."), str(error))
        elif Choice in cls.__bases__:
            _fail(node, path, f"needs a 'kind': {', '.join(kinds(cls))}, or module:Class")
    fields = {spelt(f): f for f in dataclasses.fields(cls) if f.init}
    hints = typing.get_type_hints(cls)
    values: dict[str, Any] = {}
    for name, child in given.items():
        below = f"{path}.{name}".lstrip(".")
        if name not in fields:
            _fail(child, below, f"{called} has no field {name!r}{_meant(cls, name)}")
        own = fields[name].name
        values[own] = _build(_settled(hints[own], fields[name], child), child, below)
    missing = [name for name in _needed(cls) if name not in values]
    if missing:
        more = "" if path else getattr(cls, "HELP", _HELP)
        if node.whole:
            more = f"; {{...}} replaces all of {path}, {path}.NAME=... sets one field"
        _fail(node, path, f"{called} needs {_wanted(cls, missing)}{more}")
    try:
        return cls(**values)
    except ValueError as error:
        _fail(node, path, str(error))


def _called(cls: type, path: str) -> str:
    """Return what users call the settings of ``cls``, which stand at ``path``."""
    if issubclass(cls, Choice) and Choice not in cls.__bases__:
        return kind_of(cls)
    return path.rpartition(".")[2] or f"a {cls.__name__.lower()}"


def _meant(cls: type, name: str) -> str:
    """Return the end of a message that ``cls`` has no field ``name``: the one that was meant, also
    if it lies deeper, or those that there are; or what the class itself says of it in ``elsewhere``
    ({name: sentence})."""
    if elsewhere := getattr(cls, "elsewhere", {}).get(name):
        return f"; {elsewhere}"
    fields = [spelt(f) for f in dataclasses.fields(cls) if f.init]
    names = (name, *_ALIASES.get(name, ()))
    found = [other for other in names if other in fields]
    if not found and not difflib.get_close_matches(name, fields, n=1, cutoff=0.75):
        found = [place for other in names for place in _deeper(cls, other)][:3]
    if found:
        return meant(found)
    return near(name, fields, cutoff=0.75)


def _deeper(cls: type, name: str) -> typing.Iterator[str]:
    """Yield where inside ``cls`` there is a field ``name``, as ``train.samples``; inside a choice,
    where its default has one."""
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        default, inside = default_of(field), hints[field.name]
        inside = type(default) if isinstance(default, Choice) else inside
        if dataclasses.is_dataclass(inside) and isinstance(inside, type):
            if name in inside.__dataclass_fields__:
                yield f"{field.name}.{name}"
            yield from (f"{field.name}.{below}" for below in _deeper(inside, name))


def _settled(kind: Any, field: dataclasses.Field, node: Node) -> Any:
    """Return the class to build: a choice written without ``kind`` keeps the default's class."""
    unnamed = isinstance(node.value, dict) and "kind" not in node.value
    default = default_of(field) if unnamed else None
    return type(default) if isinstance(default, Choice) else kind


def _needed(cls: type) -> list[str]:
    """Return the fields of ``cls`` that have to be given."""
    fields = [f for f in dataclasses.fields(cls) if f.init]
    return [f.name for f in fields if default_of(f) is dataclasses.MISSING]


def _wanted(cls: type, names: Sequence[str]) -> str:
    """Return the fields ``names``, each with what it is, and as it could be written."""
    notes, hints, told = docs(cls), typing.get_type_hints(cls), []
    for name in names:
        note = notes.get(name, "").split(". ")[0].replace("\n", " ").rstrip(".")
        inside = hints[name]
        if dataclasses.is_dataclass(inside) and not issubclass(typing.cast(type, inside), Choice):
            needed = _needed(typing.cast(type, inside))
            given = ", ".join(f"{n.removesuffix('_')}: ..." for n in needed) or "..."
            note = ", ".join(filter(None, [note, f"written {name}: {{{given}}}"]))
        told.append(repr(name.removesuffix("_")) + (f" ({note})" if note else ""))
    return ", ".join(told)


def _example(cls: type, node: Node, path: str) -> str:
    """Return how the settings of ``cls`` are written, where ``node`` is something else."""
    name, listed, _ = path.rpartition(".")[2].partition("[")
    if Choice in cls.__bases__:
        typed = node.value if isinstance(node.value, str) else "..."
        meant = difflib.get_close_matches(typed, kinds(cls), n=1) or [typed]
        such = f"{{kind: {meant[0]}}}"
    else:
        first = [spelt(f) for f in dataclasses.fields(cls) if f.init][:1]
        such = f"{{{first[0]}: ...}}" if first else "{}"
    such = f"[{such}]" if listed else such
    return f"settings, such as {name}: {such}" if name else f"settings, such as {such[1:-1]}"
