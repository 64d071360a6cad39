"""Turn our docstrings, which are plain text, into what Sphinx wants.

A paragraph of ``name: what it is`` lines becomes a list, an indented paragraph after a colon a
block of code, and in all other text the characters that reStructuredText would take for its own
are only themselves. Words between double backquotes and roles such as :func:`name` stay.
"""

import re
import textwrap

_KEPT = re.compile(r"(``.+?``|:\w+:`[^`]+`)")
_ARGUMENT = re.compile(r"[a-z_*][\w, *.]*: ")


def process(app, what, name, obj, options, lines: list[str]) -> None:
    """Replace a docstring's ``lines`` in place; a handler of ``autodoc-process-docstring``."""
    lines[:] = converted("\n".join(lines)).split("\n")


def converted(text: str) -> str:
    """Return the docstring ``text`` as reStructuredText."""
    out, after_colon = [], False
    for paragraph in re.split(r"\n\s*\n", textwrap.dedent(text).strip("\n")):
        first = paragraph.split("\n")[0]
        if first.startswith("    ") and after_colon:
            out.append("::\n\n" + textwrap.indent(textwrap.dedent(paragraph), "    "))
            continue
        paragraph = textwrap.dedent(paragraph)
        after_colon = paragraph.rstrip().endswith(":")
        if _ARGUMENT.match(paragraph):
            out.append(_arguments(paragraph))
        elif paragraph.startswith(("* ", "- ")):
            out.append(_items(re.split(r"\n(?=[*-] )", paragraph)))
        else:
            out.append(_plain(paragraph))
    return "\n\n".join(out)


def _arguments(paragraph: str) -> str:
    """Return ``name: text`` lines as a list; lines that do not begin a new one continue it."""
    items: list[str] = []
    for line in paragraph.split("\n"):
        if _ARGUMENT.match(line):
            items.append(line)
        else:
            items[-1] += " " + line.strip()
    pairs = (item.split(": ", 1) for item in items)
    return "\n".join(f"* ``{name.strip()}``: {_plain(text)}" for name, text in pairs)


def _items(items: list[str]) -> str:
    return "\n".join("* " + _plain(" ".join(item[2:].split())) for item in items)


def _plain(text: str) -> str:
    pieces = _KEPT.split(" ".join(text.split()))
    for i in range(0, len(pieces), 2):
        pieces[i] = re.sub(r"([\\*|`])|(?<=\w)(_)(?=\W|$)", r"\\\1\2", pieces[i])
    return "".join(pieces)
