"""Files and folders that are finished or absent, never torn.

What is written goes aside first, is forced to disk, and is renamed into place: a kill or a power
cut at any moment leaves the old content or the new one. A folder carries the checksum of each of
its files in ``manifest.json``, so that later damage is noticed too. Many ranks may write the files
of one folder, each its own; one opens it before and closes it after.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import pathlib
import shutil
from collections.abc import Iterable, Mapping
from typing import Any

from swath.config import ConfigError

MANIFEST = "manifest.json"
Content = bytes | Iterable[bytes | memoryview]
"""Of a file: whole, or in pieces as they come."""
Sum = dict[str, int | str]
"""Of a file: its length and checksum, as in the manifest: {"bytes": ..., "sha256": ...}."""


class Damaged(ValueError):
    """A folder does not hold what was written; the message says which file and how."""


def disk_full(error: BaseException) -> bool:
    """Return whether ``error`` means that there is no room, by the disk, a quota or a limit."""
    full = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return isinstance(error, OSError) and error.errno in full


def read_json(path: pathlib.Path) -> Any:
    """Return what the JSON file ``path`` says; ConfigError if it cannot be read or is damaged."""
    try:
        return json.loads(path.read_text())
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"{path}: is not JSON, or is damaged ({error})") from error


def write_json(path: pathlib.Path, value: Any) -> None:
    """Write ``value`` as JSON, over an older file, as :func:`write_file` does. ValueError if a
    number in it is not finite, for which JSON has no word."""
    write_file(path, (json.dumps(value, indent=1, allow_nan=False) + "\n").encode())


def json_sum(value: Any) -> str:
    """Return a checksum of ``value`` as JSON holds it, however it is laid out."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def write_file(path: pathlib.Path, content: Content) -> Sum:
    """Write one file; ConfigError if the disk is full, the old content then stands."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        written = _write(aside, content)
        aside.replace(path)
        _sync(path.parent)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise _explained(error, path) from error
    return written


def write_folder(path: pathlib.Path, files: Mapping[str, Content]) -> None:
    """Write a folder of ``files`` with their checksums, replacing one of that name.

    ConfigError if the disk is full; whatever stood there then still stands.
    """
    open_folder(path)
    try:
        sums = {name: write_into(path, name, content) for name, content in files.items()}
        close_folder(path, sums)
    except (OSError, ConfigError):
        drop_folder(path)
        raise


def open_folder(path: pathlib.Path) -> None:
    """Begin to write the folder ``path``, aside; what stands there still stands."""
    aside = _aside(path)
    try:
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
    except OSError as error:
        raise _explained(error, path) from error


def write_into(path: pathlib.Path, name: str, content: Content) -> Sum:
    """Write the file ``name`` of the folder ``path``, which is open; ConfigError as above."""
    try:
        return _write(_aside(path) / name, content)
    except OSError as error:
        raise _explained(error, path) from error


def close_folder(path: pathlib.Path, sums: Mapping[str, Sum]) -> None:
    """Put the folder ``path`` in its place, now that all its files are written.

    sums: of each file, as :func:`write_into` returned them. ConfigError as above.
    """
    aside = _aside(path)
    try:
        _write(aside / MANIFEST, json.dumps(sums, indent=1).encode())
        _sync(aside)
        if path.exists():  # only a damaged or repeated one: it stands until the new one is complete
            old = path.with_name(f".{path.name}.old")
            shutil.rmtree(old, ignore_errors=True)
            path.rename(old)
            try:
                aside.rename(path)
            except OSError:
                old.rename(path)
                raise
            shutil.rmtree(old)
        else:
            aside.rename(path)
        _sync(path.parent)
    except OSError as error:
        raise _explained(error, path) from error


def drop_folder(path: pathlib.Path) -> None:
    """Remove what was written for ``path`` since :func:`open_folder`."""
    shutil.rmtree(_aside(path), ignore_errors=True)


def check_folder(path: pathlib.Path, part: int = 0, parts: int = 1) -> None:
    """Raise Damaged unless every file of ``path`` is as it was written.

    Of ``parts`` callers each looks into some of the files: all of them together into all.
    """
    try:
        sums = json.loads((path / MANIFEST).read_text())
        expected = {name: (entry["bytes"], entry["sha256"]) for name, entry in sums.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise Damaged(f"{path / MANIFEST} cannot be read: {error}") from error
    for name, (size, digest) in list(expected.items())[part::parts]:
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
    """Remove what killed writers left aside in ``parent``; put back what one was replacing."""
    for old in parent.glob(".[0-9]*.old"):
        if not (path := parent / old.name[1:].removesuffix(".old")).exists():
            old.rename(path)
    for path in parent.glob(".[0-9]*"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)


def _aside(path: pathlib.Path) -> pathlib.Path:
    return path.with_name(f".{path.name}.part")  # the same for all that write into it


def _write(path: pathlib.Path, content: Content) -> Sum:
    digest, size = hashlib.sha256(), 0
    with open(path, "wb") as file:
        for piece in [content] if isinstance(content, bytes) else content:
            file.write(piece)
            digest.update(piece)
            size += len(piece)
        file.flush()
        os.fsync(file.fileno())
    return {"bytes": size, "sha256": digest.hexdigest()}


def _sync(folder: pathlib.Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _explained(error: OSError, path: pathlib.Path) -> Exception:
    if disk_full(error):
        return ConfigError(
            f"{path}: cannot be saved, the disk is full ({error.strerror}); what was saved before"
            " is intact. Free some space and start again"
        )
    return error
