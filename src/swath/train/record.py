"""The figures of a run on disk: ``metrics.jsonl`` for programs, ``tb/`` for TensorBoard.

One JSON object a line, each with ``update`` and ``samples``; an evaluation has a line of its own. A
resumed run cuts off what was recorded after its checkpoint, so no update and no evaluation is there
twice and none is missing; if somebody cut or emptied the file meanwhile, the run says so.
TensorBoard's files cannot be cut: what they hold from some update on is declared void and written
again from the lines, also what a killed run had not yet on the disk.

``starts.jsonl`` has a line for each time that the run was started or gone on with: on what, and
what its figures of speed are shares of.
"""

from __future__ import annotations

import contextlib
import json
import pathlib
from collections.abc import Mapping
from typing import Any

from swath.config import ConfigError
from swath.files import write_file

METRICS = "metrics.jsonl"
STARTS = "starts.jsonl"
_FLUSH_SECONDS = 10  # between writes of TensorBoard's events to the disk
_AGAIN = 2000  # lines, the last ones, written to TensorBoard again; half a second of work


class Recorder:
    """Appends figures to the records below ``folder``; use as a context manager.

    update: the update that the run goes on from; lines of later ones are removed.
    evaluated: whether the evaluation after it, if any, is behind the run; else its line is removed
    too. ConfigError if what was recorded before is damaged.
    """

    def __init__(self, folder: pathlib.Path, update: int, *, evaluated: bool = True) -> None:
        from torch.utils.tensorboard import SummaryWriter

        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / METRICS
        kept = cut(self.path, update, evaluated)
        updates = (line for line in reversed(kept) if "loss" in line)  # others are evaluations
        last = next(updates, {"update": 0, "samples": 0})
        self.recorded: tuple[int, int] = last["update"], last["samples"]
        """The last update of which there is a line, and the samples seen by then."""
        void = kept[-_AGAIN:][0]["update"] if kept else update + evaluated
        self._file = open(self.path, "a")  # noqa: SIM115 (closed by __exit__)
        self._board = SummaryWriter(str(folder / "tb"), purge_step=void, flush_secs=_FLUSH_SECONDS)
        for figures in kept:
            if figures["update"] >= void:
                self._show(figures)

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):  # of a line that could not be written, as was said
            self._file.close()
        self._board.close()

    def write(self, figures: Mapping[str, Any]) -> None:
        """Record one line; it is with the operating system when this returns."""
        # JSON has no NaN, which an undefined score is.
        clean = {n: None if isinstance(v, float) and v != v else v for n, v in figures.items()}
        try:
            self._file.write(json.dumps(clean) + "\n")
            self._file.flush()
        except OSError as error:
            raise ConfigError(
                f"{self._file.name}: cannot be written ({error.strerror}); make room, and the same "
                "command goes on from the last checkpoint"
            ) from error
        self._show(clean)

    def _show(self, figures: Mapping[str, Any]) -> None:
        for name, value in figures.items():
            if isinstance(value, int | float) and name not in ("update", "samples"):
                self._board.add_scalar(name, value, figures["update"])


def note_start(folder: pathlib.Path, facts: Mapping[str, Any]) -> None:
    """Add a line to starts.jsonl in the run folder ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / STARTS, "a") as file:
        file.write(json.dumps(facts) + "\n")


def starts(folder: pathlib.Path) -> list[dict[str, Any]]:
    """Return the lines of a run folder's starts.jsonl, oldest first; torn ones are left out."""
    path = folder / STARTS
    lines = path.read_bytes().split(b"\n") if path.exists() else []
    found = []
    for line in lines:
        with contextlib.suppress(ValueError):
            found.append(json.loads(line))
    return [facts for facts in found if isinstance(facts, dict)]


def cut(path: pathlib.Path, update: int, evaluated: bool = True) -> list[dict[str, Any]]:
    """Remove from ``path`` lines of updates after ``update``, and a last line that is torn; return
    what the others say.

    evaluated: False removes the evaluation after ``update`` too, which will be done again.
    """
    if not path.exists():
        return []

    def belongs(figures: dict[str, Any]) -> bool:
        again = not evaluated and any(name.startswith("val/") for name in figures)
        return figures["update"] < update + (not again)

    kept = [(line, figures) for line, figures in _parsed(path) if belongs(figures)]
    write_file(path, b"".join(line + b"\n" for line, _ in kept))
    return [figures for _, figures in kept]


def read(folder: pathlib.Path) -> list[dict[str, Any]]:
    """Return the lines of a run folder's metrics.jsonl, oldest first; none if there is none.

    A last line that is torn is left out. ConfigError, naming the line, if another one is damaged.
    """
    path = folder / METRICS
    return [figures for _, figures in _parsed(path)] if path.exists() else []


def _parsed(path: pathlib.Path) -> list[tuple[bytes, dict[str, Any]]]:
    """Return each line, without its end, and what it says."""
    *whole, last = path.read_bytes().split(b"\n")
    found = []
    for number, line in enumerate(whole, 1):
        figures = _figures(line)
        if figures is None:
            raise ConfigError(
                f"{path}:{number}: damaged, this is no line of figures: {line[:40]!r}. Remove the"
                " line, or the file if there are many; the checkpoints do not need it"
            )
        found.append((line, figures))
    figures = _figures(last)  # a kill or a power cut in the middle of writing leaves a piece
    return [*found, (last, figures)] if figures is not None else found


def _figures(line: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except ValueError:
        return None
    counted = isinstance(found, dict) and all(
        type(found.get(name)) is int for name in ("update", "samples")
    )
    return found if counted else None
