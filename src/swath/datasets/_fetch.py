"""Files from servers that are slow, busy or break off: tried again, several at a time, never torn.

A file is written beside its place and moved there when it is whole: its length is what the server
said, and its length and checksum are what the catalogue said, if it did. What broke off goes on
where it stopped, if the server still has the same version.
"""

from __future__ import annotations

import hashlib
import logging
import pathlib
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from swath.config import ConfigError
from swath.log import bar

log = logging.getLogger(__name__)

BUSY = (408, 425, 429, 500, 502, 503, 504)
"""Answers after which it is worth asking again."""
_PIECE = 1 << 16  # bytes; where a server breaks off, up to one is lost
_LONGEST_WAIT = 60.0  # seconds
_TIMEOUT = (10.0, 60.0)  # seconds to connect, and without a byte


@dataclass(frozen=True)
class Wanted:
    """A file to be fetched."""

    href: str
    path: pathlib.Path
    size: int | None = None
    """Bytes; None: as the server says."""
    sha256: str | None = None


@dataclass(frozen=True)
class Fetched:
    """What fetching brought."""

    files: int
    bytes: int
    seconds: float
    there: int
    """Files that were there already."""


class _Broken(Exception):
    """Worth another try; the message says what happened."""

    wait_seconds = 0.0


def fetch(
    wanted: Sequence[Wanted],
    *,
    parallel: int,
    tries: int,
    wait_seconds: float,
    progress: bool = True,
) -> Fetched:
    """Fetch what is not there yet; ConfigError names a file that could not be had.

    wait_seconds: before the second try; doubled for each further one, and never shorter than the
        server asks for.
    """
    missing = [w for w in wanted if not _whole(w)]
    start = time.perf_counter()
    sizes: list[int] = []
    with bar(progress, "files", len(missing)) as step, ThreadPoolExecutor(parallel) as pool:

        def one(want: Wanted) -> int:
            size = _fetch(want, tries, wait_seconds)
            step()
            return size

        try:
            sizes = list(pool.map(one, missing))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    seconds = time.perf_counter() - start
    done = Fetched(len(missing), sum(sizes), seconds, len(wanted) - len(missing))
    if missing:
        log.info(
            "fetched %d files, %.1f MB in %.1f s (%.1f MB/s); %d were there",
            *(done.files, done.bytes / 1e6, seconds, done.bytes / 1e6 / seconds, done.there),
        )
    return done


def _whole(want: Wanted) -> bool:
    try:
        return want.size in (None, want.path.stat().st_size)
    except FileNotFoundError:
        return False


def _fetch(want: Wanted, tries: int, wait_seconds: float) -> int:
    import requests

    want.path.parent.mkdir(parents=True, exist_ok=True)
    part = want.path.with_name(f"{want.path.name}.part")
    part.unlink(missing_ok=True)  # of a process that was killed: who knows which version
    version: list[str] = []  # of what is in part; strong ETag, or nothing
    with requests.Session() as session:
        for attempt in range(1, tries + 1):
            try:
                _go_on(session, want, part, version)
                _check(want, part)
                part.replace(want.path)
                return want.path.stat().st_size
            except (requests.RequestException, _Broken) as error:
                if attempt == tries:
                    raise ConfigError(
                        f"{want.href}: cannot be fetched, after {tries} tries: {error}. Run it "
                        "again to go on; what is fetched is kept"
                    ) from error
                pause = min(_LONGEST_WAIT, wait_seconds * 2 ** (attempt - 1))
                if isinstance(error, _Broken):
                    pause = max(pause, min(_LONGEST_WAIT, error.wait_seconds))
                log.info("%s: %s; trying again in %.1f s", want.href, error, pause)
                time.sleep(pause)
    raise AssertionError("tries is at least 1")


def _go_on(session: Any, want: Wanted, part: pathlib.Path, version: list[str]) -> None:
    """Fetch what is missing of ``part``; ``version`` is the server's word for what is in it."""
    have = part.stat().st_size if part.exists() and version else 0
    headers = {"Accept-Encoding": "identity"}
    if have:
        headers |= {"Range": f"bytes={have}-", "If-Range": version[0]}
    with session.get(want.href, headers=headers, stream=True, timeout=_TIMEOUT) as answer:
        if answer.status_code in BUSY:
            busy = _Broken(f"the server answers {answer.status_code} {answer.reason}")
            after = answer.headers.get("Retry-After", "")
            busy.wait_seconds = float(after) if after.isdigit() else 0.0
            raise busy
        if answer.status_code == 416:  # there is no more than we have, so it is another file
            part.unlink(missing_ok=True)
            raise _Broken("the file on the server has changed")
        if answer.status_code not in (200, 206):
            hint = ""
            if answer.status_code in (401, 403):
                hint = "; the server wants a key, or an address that was signed for you"
            raise ConfigError(
                f"{want.href}: the server answers {answer.status_code} {answer.reason}{hint}"
            )
        going_on = answer.status_code == 206
        said = answer.headers.get("Content-Length")
        whole = None if said is None else int(said) + (have if going_on else 0)
        tag = answer.headers.get("ETag", "")
        version[:] = [tag] if tag and not tag.startswith("W/") else []
        with open(part, "ab" if going_on else "wb") as file:
            for piece in answer.iter_content(_PIECE):
                file.write(piece)
    size = part.stat().st_size
    if whole is not None and size != whole:
        raise _Broken(f"{size} of {whole} bytes came")


def _check(want: Wanted, part: pathlib.Path) -> None:
    size = part.stat().st_size
    if want.size is not None and size != want.size:
        part.unlink()
        raise _Broken(f"it has {size} bytes, and the catalogue says {want.size}")
    if want.sha256 is not None:
        with open(part, "rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != want.sha256:
            part.unlink()
            raise _Broken("its SHA-256 is another than the catalogue says")
