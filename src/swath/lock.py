"""One process at a time: a lock that the system lets go of when its holder dies, however it dies.

The lock is ``flock`` on a small file that names the holder. A kill leaves the file, which holds
nobody up; an orderly end removes it. Where the file system knows no locks (some parallel ones do
not, nor do addresses) work goes on without, and a line in the log says so.
"""

import contextlib
import errno
import fcntl
import json
import logging
import os
import pathlib
import socket
from collections.abc import Iterator

from swath.text import ConfigError

log = logging.getLogger(__name__)


class Held(ConfigError):
    """Another process, or another place in this one, holds the lock."""


_UNKNOWN = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK)  # of file systems without locks


@contextlib.contextmanager
def lock(file: str | os.PathLike[str], what: str) -> Iterator[None]:
    """Hold the lock ``file`` until the block ends; its folder is made, and removed if left empty.

    what: what this process is about to do, as "swath train".

    Raises Held, naming the holder, if another process (or this one) holds it; another
    ConfigError if nothing can be written there.
    """
    path = pathlib.Path(file)
    new = not path.parent.exists()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = _taken(path, what)
    except OSError as error:
        raise ConfigError(f"{path.parent}: cannot be written: {error.strerror}") from error
    try:
        yield
    finally:
        path.unlink(missing_ok=True)  # while it is held, so that it is nobody else's
        os.close(handle)
        if new:
            with contextlib.suppress(OSError):  # not empty: the work left something
                path.parent.rmdir()


def _taken(path: pathlib.Path, what: str) -> int:
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = _holder(handle)
            os.close(handle)
            raise Held(
                f"{path.parent}: another process ({holder}) is at work here; two would spoil each "
                f"other's files. Wait until it ends, or give this {what} another folder"
            ) from error
        except OSError as error:
            if error.errno not in _UNKNOWN:
                os.close(handle)
                raise
            log.warning("%s: this file system has no locks; start only one process here", path)
        with contextlib.suppress(FileNotFoundError):
            # Whoever held it before may have removed the file that was opened here.
            if os.path.samestat(os.stat(path), os.fstat(handle)):
                os.truncate(handle, 0)
                told = {"pid": os.getpid(), "host": socket.gethostname(), "what": what}
                os.pwrite(handle, json.dumps(told).encode(), 0)
                return handle
        os.close(handle)


def _holder(handle: int) -> str:
    try:
        told = json.loads(os.pread(handle, 4096, 0))
        return f"{told['what']}, pid {told['pid']}, host {told['host']}"
    except (ValueError, KeyError, TypeError):  # it is just writing it
        return "which has not said its name yet"
