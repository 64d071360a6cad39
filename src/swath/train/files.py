"""Folders and files that are finished or absent, never torn.

What is written goes aside first, is forced to disk, and is renamed into place: a kill or a power
cut at any moment leaves the old content or the new one. A folder carries the checksum of
each of its files in ``manifest.json``, so that later damage is noticed too.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import pathlib
import shutil
from collections.abc import Mapping

from swath.config import ConfigError

MANIFEST = "manifest.json"


class Damaged(ValueError):
    """A folder does not hold what was written; the message says which file and how."""


def write_file(path: pathlib.Path, content: bytes) -> None:
    """Write one file; ConfigError if the disk is full, the old content then stands."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        _write(aside, content)
        aside.replace(path)
        _sync(path.parent)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise _explained(error, path) from error


def write_folder(path: pathlib.Path, files: Mapping[str, bytes]) -> None:
    """Write a folder of ``files`` with their checksums, replacing one of that name.

    ConfigError if the disk is full; whatever stood there then still stands.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        for name, content in files.items():
            _write(aside / name, content)
        sums = {n: {"bytes": len(c), "sha256": _sum(c)} for n, c in files.items()}
        _write(aside / MANIFEST, json.dumps(sums, indent=1).encode())
        _sync(aside)
        if path.exists():  # only a damaged or repeated one: it stands until the new one is complete
            old = path.with_name(f".{path.name}.old")
            shutil.rmtree(old, ignore_errors=True)
            path.rename(old)
            aside.rename(path)
            shutil.rmtree(old)
        else:
            aside.rename(path)
        _sync(path.parent)
    except OSError as error:
        shutil.rmtree(aside, ignore_errors=True)
        raise _explained(error, path) from error


def check_folder(path: pathlib.Path) -> None:
    """Raise Damaged unless every file of ``path`` is as :func:`write_folder` left it."""
    try:
        sums = json.loads((path / MANIFEST).read_text())
        expected = {name: (entry["bytes"], entry["sha256"]) for name, entry in sums.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise Damaged(f"{path / MANIFEST} cannot be read: {error}") from error
    for name, (size, digest) in expected.items():
        try:
            found = (path / name).stat().st_size
        except OSError as error:
            raise Damaged(f"{path / name} is missing") from error
        if found != size:
            raise Damaged(f"{path / name} has {found} bytes, {size} were written")
        with open(path / name, "rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != digest:
                raise Damaged(f"{path / name} does not match its checksum")


def remove_leftovers(parent: pathlib.Path) -> None:
    """Remove what killed writers left aside in ``parent``."""
    for path in parent.glob(".[0-9]*"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)


def _sum(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _write(path: pathlib.Path, content: bytes) -> None:
    with open(path, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: pathlib.Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _explained(error: OSError, path: pathlib.Path) -> Exception:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return ConfigError(
            f"{path}: cannot be saved, the disk is full ({error.strerror}); what was saved before"
            " is intact. Free some space and start again"
        )
    return error
