"""The figures of a run on disk: ``metrics.jsonl`` for programs, ``tb/`` for TensorBoard.

One JSON object a line, each with ``update`` and ``samples``. A resumed run cuts off what was
recorded after its checkpoint, so no update is there twice and none is missing.
"""

from __future__ import annotations

import json
import pathlib
from collections.abc import Mapping
from typing import Any

METRICS = "metrics.jsonl"


class Recorder:
    """Appends figures to the records below ``folder``; use as a context manager.

    update: the update that the run goes on from; lines of later ones are removed.
    """

    def __init__(self, folder: pathlib.Path, update: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / METRICS
        cut(self.path, update)
        self._file = open(self.path, "a")  # noqa: SIM115 (closed by __exit__)
        self._board = SummaryWriter(str(folder / "tb"), purge_step=update + 1)

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._board.close()

    def write(self, figures: Mapping[str, Any]) -> None:
        """Record one line; it is with the operating system when this returns."""
        # JSON has no NaN, which an undefined score is.
        clean = {n: None if isinstance(v, float) and v != v else v for n, v in figures.items()}
        self._file.write(json.dumps(clean) + "\n")
        self._file.flush()
        for name, value in figures.items():
            if isinstance(value, int | float) and name not in ("update", "samples"):
                self._board.add_scalar(name, value, figures["update"])


def cut(path: pathlib.Path, update: int) -> None:
    """Remove from ``path`` lines of updates after ``update``, and a last line that is torn."""
    if not path.exists():
        return
    kept = [line for line in path.read_text().splitlines(keepends=True) if _belongs(line, update)]
    aside = path.with_name(f".{path.name}")
    aside.write_text("".join(kept))
    aside.replace(path)


def read(folder: pathlib.Path) -> list[dict[str, Any]]:
    """Return the lines of a run folder's metrics.jsonl, oldest first; none if there is none."""
    path = folder / METRICS
    lines = path.read_text().splitlines() if path.exists() else []
    return [json.loads(line) for line in lines]


def _belongs(line: str, update: int) -> bool:
    try:
        return line.endswith("\n") and json.loads(line)["update"] <= update
    except ValueError:
        return False
