"""The finished strips of an unfinished map, so that an interrupted one resumes.

A folder beside the map holds what the map is made of (``plan.json``) and a file for each finished
strip, written aside and renamed, so that it is there whole or not at all; the checksums inside the
files find damage. A strip is a handful of arrays of the same rows.
"""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np

from swath.config import ConfigError


class Strips:
    """Strips 0, 1, ... of one map, in ``folder``."""

    def __init__(self, folder: pathlib.Path, plan: Mapping[str, Any]) -> None:
        """plan: everything that the strips depend on; strips of another plan are thrown away."""
        self.folder = folder
        self.discarded = ""
        """Which setting of an older, unfinished map differed, if its strips were thrown away."""
        written = folder / "plan.json"
        if written.exists():
            try:
                old = json.loads(written.read_text())
            except (OSError, ValueError):
                old = {}
            if old != json.loads(json.dumps(plan)):
                names = [n for n in {**old, **plan} if old.get(n) != plan.get(n)]
                self.discarded = ", ".join(names) or "plan.json"
        if not written.exists() or self.discarded:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            _write(written, json.dumps(plan).encode())

    def whole(self) -> int:
        """Return how many strips are there and intact, counted from the first."""
        number = 0
        while True:
            try:
                self.load(number)
            except (OSError, ValueError, zipfile.BadZipFile, EOFError):
                return number
            number += 1

    def load(self, strip: int) -> dict[str, np.ndarray]:
        """Return a strip's arrays; BadZipFile, ValueError or OSError if it is damaged or absent."""
        with np.load(self._file(strip), allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}

    def save(self, strip: int, arrays: Mapping[str, np.ndarray]) -> None:
        """Keep a strip, whole or not at all; ConfigError if the disk is full."""
        aside = self._file(strip).with_suffix(".aside")
        try:
            with aside.open("wb") as file:
                np.savez(file, allow_pickle=False, **arrays)
                file.flush()
                os.fsync(file.fileno())
            aside.rename(self._file(strip))
        except OSError as error:
            aside.unlink(missing_ok=True)
            raise ConfigError(
                f"{self.folder}: strip {strip} of the map cannot be saved: {error.strerror}; the "
                f"{strip} strips before it are kept. Make room and run the same command again"
            ) from error

    def remove(self) -> None:
        """Delete the folder: the map is finished."""
        shutil.rmtree(self.folder)

    def _file(self, strip: int) -> pathlib.Path:
        return self.folder / f"{strip:06d}.npz"


def _write(path: pathlib.Path, content: bytes) -> None:
    aside = path.with_suffix(".aside")
    aside.write_bytes(content)
    aside.rename(path)
