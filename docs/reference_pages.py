"""Write one page of the reference for every room of ``src/swath`` that reference/index.md lists.

Pages are made from the docstrings alone. A room that the index forgets stops the build.
"""

import ast
import pathlib
import re


def write(docs: pathlib.Path) -> None:
    """Write docs/reference/generated/*.md from docs/../src/swath; one page a room."""
    source = docs.parent / "src" / "swath"
    index = (docs / "reference" / "index.md").read_text()
    listed = set(re.findall(r"^generated/(\w+)$", index, re.MULTILINE))
    rooms = {path.stem for path in source.iterdir() if _is_room(path)}
    if rooms != listed:
        raise SystemExit(f"docs/reference/index.md and src/swath differ: {sorted(rooms ^ listed)}")
    out = docs / "reference" / "generated"
    out.mkdir(parents=True, exist_ok=True)
    for room in sorted(rooms):
        _write_if_new(out / f"{room}.md", _page(source / room))


def _is_room(path: pathlib.Path) -> bool:
    if path.is_dir():
        return any(path.glob("*.py"))
    return path.suffix == ".py" and not path.name.startswith("__")


def _page(room: pathlib.Path) -> str:
    """Return the Markdown of one room: its package first, then its files by name."""
    files = sorted(room.glob("*.py")) if room.is_dir() else [room.with_suffix(".py")]
    files.sort(key=lambda file: file.name != "__init__.py")
    parts = [f"# `swath.{room.name}`", ""]
    for file in files:
        inside = file.with_suffix("").parts
        name = ".".join(inside[inside.index("swath", len(inside) - 3) :]).removesuffix(".__init__")
        if not ast.get_docstring(ast.parse(file.read_text())):
            continue
        if room.is_dir() and file.name != "__init__.py":
            parts += [f"## `{name}`", ""]
        parts += ["```{eval-rst}", f".. automodule:: {name}", "```", ""]
    return "\n".join(parts)


def _write_if_new(file: pathlib.Path, text: str) -> None:
    # An unchanged page keeps its date, so Sphinx does not read it again.
    if not file.exists() or file.read_text() != text:
        file.write_text(text)
