"""Settings as they are written: YAML and ``key=value`` words, as a tree that knows its places.

Every value remembers the file and line, or the word, that wrote it, so that whoever finds it wrong
can say where. What values mean is left to :mod:`swath.config`.
"""

import difflib
import logging
import pathlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import yaml

log = logging.getLogger(__name__)


class ConfigError(ValueError):
    """Something the user can fix; the message says what was asked, what is so, what to do."""


class NoSuch(ConfigError):
    """There is nothing at the ``path``, or of the name, that some setting says."""

    def __init__(self, message: str, path: str | pathlib.Path | None) -> None:
        super().__init__(message)
        self.path = str(path)


def near(name: str, names: Iterable[str], cutoff: float = 0.6) -> str:
    """Return the end of a message about an unknown ``name``: the one of ``names`` that was meant,
    whatever its case, or what there is. ``cutoff``: how alike they must be, 0..1."""
    folded = {n.casefold(): n for n in names if not n.startswith("_")}
    found = difflib.get_close_matches(name.casefold(), folded, n=1, cutoff=cutoff)
    there = list(folded.values())
    shown = ", ".join(there[:20]) + (", ..." if len(there) > 20 else "")
    return meant([folded[found[0]]]) if found else f"; there are {shown}"


def meant(names: Iterable[str]) -> str:
    """Return the end of a message about what there is not: one of ``names`` was meant."""
    return f" (did you mean {' or '.join(map(repr, names))}?)"


def no_such(path: str | pathlib.Path, what: str = "file", hint: str = "") -> ConfigError:
    """Return the error for a ``path`` at which there is no ``what``, followed by a ``hint``; of a
    relative one it says where that was looked for."""
    place, looked = pathlib.Path(path).absolute(), ""
    hint = hint or beside(pathlib.Path(path))
    if str(place) != str(path):
        looked = (
            f"; looked for {place}: relative paths are taken from the folder that swath is started "
            "in"
        )
    return NoSuch(f"{path}: there is no such {what}{hint}{looked}", path)


def beside(path: pathlib.Path) -> str:
    """Return the end of a message that there is no ``path``: the one beside it that was meant, or
    as far as the way to it goes; "" if nothing is like it."""
    folder = path.parent
    if folder.is_dir():
        there = {one.name.casefold(): one for one in folder.iterdir() if one.name[0] != "."}
        alike = difflib.get_close_matches(path.name.casefold(), there, n=1, cutoff=0.75)
        return f" (did you mean {path.with_name(there[alike[0]].name)}?)" if alike else ""
    while not folder.exists():
        folder = folder.parent
    return f" ({folder} exists, {path.parent} does not)"


@dataclass(frozen=True)
class Node:
    """One value as written, and the file and line (or word) that wrote it."""

    value: Any  # dict[str, Node], list[Node] or a scalar
    where: str
    whole: bool = False  # all of what it names, so nothing is kept of what was written before


class _Yaml(yaml.SafeLoader):
    """YAML 1.1 without its traps: 1e-4 is a number; on, 2017-02-16, 1:30 and 0123 are words."""


class _Writer(yaml.SafeDumper):
    """Quotes words that this loader, or another, would take for something else."""


_TRAPS = {f"tag:yaml.org,2002:{name}" for name in ("bool", "int", "float", "timestamp")}
_Yaml.yaml_implicit_resolvers = {
    first: [(tag, match) for tag, match in found if tag not in _TRAPS]
    for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for _tag, _pattern, _first in (
    ("bool", r"true|false", "tf"),
    ("int", r"[-+]?(0|[1-9][\d_]*)|0x[\da-fA-F]+", "-+0123456789"),
    (
        "float",
        r"[-+]?(\d[\d_]*\.[\d_]*|\.\d+|\d[\d_]*(?=[eE]))([eE][-+]?\d+)?|[-+]?\.inf|\.nan",
        "-+.0123456789",
    ),
):
    for _class in (_Yaml, _Writer):
        _class.add_implicit_resolver(
            f"tag:yaml.org,2002:{_tag}", re.compile(f"^({_pattern})$"), list(_first)
        )


def read_file(file: pathlib.Path) -> Node:
    """Return the YAML of ``file``."""
    try:
        text = file.read_text()
    except FileNotFoundError as error:
        raise no_such(file) from error
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{file}: is no settings file, which would be text; imagery is named in one, or by a "
            f"word such as predict.scene={{path: {file}}}"
        ) from error
    return parse(text, str(file), lines=True)


def parse(text: str, source: str, lines: bool) -> Node:
    """Return YAML ``text``; errors and places name ``source``, and the line in it if ``lines``."""
    loader = _Yaml(text)

    def convert(node: yaml.Node) -> Node:
        where = f"{source}:{node.start_mark.line + 1}" if lines else source
        if isinstance(node, yaml.MappingNode):
            members: dict[str, Node] = {}
            for key, value in node.value:
                if str(key.value) in members:
                    line = f"{source}:{key.start_mark.line + 1}" if lines else source
                    raise ConfigError(f"{line}: {key.value!r} is written twice")
                members[str(key.value)] = convert(value)
            return Node(members, where)
        if isinstance(node, yaml.SequenceNode):
            return Node([convert(item) for item in node.value], where)
        return Node(loader.construct_object(node), where)

    try:
        root = loader.get_single_node()
        return convert(root) if root else Node({}, source)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigError(f"{source}:{line}: not YAML: {error.problem}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{source}: not YAML: {error}") from error


def read_word(word: str) -> Node:
    """Return ``optim.lr=1e-3`` as the tree {optim: {lr: 0.001}}. What is written in braces is all
    of it: ``predict.scene={path: a}`` keeps no other field of a scene in a file."""
    key, eq, value = word.partition("=")
    if not eq or not key:
        raise ConfigError(f"{word!r}: expected key=value, such as optim.lr=1e-3, or a YAML file")
    node = parse(value, f"{word!r}", lines=False) if value else Node(None, f"{word!r}")
    node = Node(node.value, node.where, whole=isinstance(node.value, dict))
    for part in reversed(key.split(".")):
        node = Node({part: node}, node.where)
    return node


def merge(under: Node, over: Node, path: str = "") -> Node:
    """Lay ``over`` on ``under``. A new ``kind`` discards the settings of the old one, and a word
    with braces all that was there, which is then said; ConfigError if it leaves out the kind."""
    if not (isinstance(under.value, dict) and isinstance(over.value, dict)):
        return over
    written = [node.value["kind"].value for node in (under, over) if "kind" in node.value]
    if len(set(written)) == 2:
        return over
    if over.whole:
        _replaced(under, over, path)
        return over
    joined = dict(under.value)
    for key, node in over.value.items():
        below = f"{path}.{key}".lstrip(".")
        joined[key] = merge(joined[key], node, below) if key in joined else node
    return Node(joined, over.where)


def _replaced(under: Node, over: Node, path: str) -> None:
    """Say what the word ``over`` takes away from ``path``, where that is easily overlooked."""
    lost = [key for key in under.value if key not in over.value]
    if "kind" in lost:
        kind = under.value["kind"]
        raise ConfigError(
            f"{over.where}: {{...}} replaces all of {path}, which {kind.where} makes a "
            f"{kind.value}: write kind: {kind.value} in it as well, or set one field, as in "
            f"{path}.{next(iter(over.value), 'name')}=..."
        )
    if lost:
        log.info(
            "%s: {...} replaces all of %s, so that %s no longer hold; "
            "%s.%s=... would set one field",
            over.where,
            path,
            ", ".join(f"{key} ({under.value[key].where})" for key in lost),
            path,
            next(iter(over.value), lost[0]),
        )


def as_yaml(value: Any, flow: bool = False) -> str:
    """Return dicts, lists and scalars as YAML that loads as what they are; ``flow``: on a line."""
    width = 10**6 if flow else 100
    return yaml.dump(
        value,
        Dumper=_Writer,
        sort_keys=False,
        allow_unicode=True,
        default_flow_style=flow,
        width=width,
    )
