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
import urllib.parse
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
    checksum: str | None = None
    """Kind and hexadecimal digits, as in sha256:1a2b..."""
    sign: str | None = None
    """Address that answers with a signed href, with {href} in it."""


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
    token: str | None = None,
    progress: bool = True,
) -> Fetched:
    """Fetch what is not there yet; ConfigError names a file that could not be had.

    wait_seconds: before the second try; doubled for each further one, and never shorter than the
        server asks for.
    token: shown to the servers of the files (Authorization: Bearer).
    """
    missing = [w for w in wanted if not _whole(w)]
    start = time.perf_counter()
    sizes: list[int] = []
    with bar(progress, "files", len(missing)) as step, ThreadPoolExecutor(parallel) as pool:

        def one(want: Wanted) -> int:
            size = _fetch(want, tries, wait_seconds, token)
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


def _fetch(want: Wanted, tries: int, wait_seconds: float, token: str | None) -> int:
    import requests

    want.path.parent.mkdir(parents=True, exist_ok=True)
    part = want.path.with_name(f"{want.path.name}.part")
    part.unlink(missing_ok=True)  # of a process that was killed: who knows which version
    version: list[str] = []  # of what is in part; strong ETag, or nothing
    with requests.Session() as session:
        for attempt in range(1, tries + 1):
            try:
                _go_on(session, want, part, version, token)
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


def _go_on(
    session: Any, want: Wanted, part: pathlib.Path, version: list[str], token: str | None
) -> None:
    """Fetch what is missing of ``part``; ``version`` is the server's word for what is in it."""
    have = part.stat().st_size if part.exists() and version else 0
    headers = {"Accept-Encoding": "identity"}
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    if have:
        headers |= {"Range": f"bytes={have}-", "If-Range": version[0]}
    href = _signed(session, want)
    with session.get(href, headers=headers, stream=True, timeout=_TIMEOUT) as answer:
        _check_busy(answer)
        if answer.status_code == 416:  # there is no more than we have, so it is another file
            part.unlink(missing_ok=True)
            raise _Broken("the file on the server has changed")
        if answer.status_code not in (200, 206):
            hint = ""
            if answer.status_code in (401, 403, 409):
                hint = f"; the server wants a key, or an address that was signed. {_by_hand(want)}"
            raise ConfigError(
                f"{want.href}: the server answers {answer.status_code} {answer.reason}{hint}"
            )
        if answer.headers.get("Content-Type", "").startswith("text/html"):
            raise ConfigError(
                f"{want.href}: the server sends a web page and no image; it may be one to log in. "
                f"{_by_hand(want)}"
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


def _signed(session: Any, want: Wanted) -> str:
    """Return the address to fetch from; signed anew each time, for a signature ends."""
    if want.sign is None:
        return want.href
    signer = want.sign.replace("{href}", urllib.parse.quote(want.href, safe=""))
    with session.get(signer, timeout=_TIMEOUT) as answer:
        _check_busy(answer)
        if answer.status_code != 200:
            raise ConfigError(
                f"{signer}: the server that signs answers {answer.status_code} {answer.reason}. "
                "Correct sign"
            )
        return str(answer.json()["href"])


def _check_busy(answer: Any) -> None:
    if answer.status_code in BUSY:
        busy = _Broken(f"the server answers {answer.status_code} {answer.reason}")
        after = answer.headers.get("Retry-After", "")
        busy.wait_seconds = float(after) if after.isdigit() else 0.0
        raise busy


def _by_hand(want: Wanted) -> str:
    return f"Give token, put a password in ~/.netrc, or bring the file to {want.path} yourself"


def _check(want: Wanted, part: pathlib.Path) -> None:
    size = part.stat().st_size
    if want.size is not None and size != want.size:
        part.unlink()
        raise _Broken(f"it has {size} bytes, and the catalogue says {want.size}")
    if want.checksum is not None:
        kind, _, total = want.checksum.partition(":")
        with open(part, "rb") as file:
            found = hashlib.file_digest(file, kind).hexdigest()
        if found != total.lower():
            part.unlink()
            raise _Broken(f"its checksum ({kind}) is another than the catalogue says")
