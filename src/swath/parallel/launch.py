"""Start the ranks of a run on this computer, hand signals on to them, and end when they end.

For one computer with several GPUs, or to try on CPUs what will run on many nodes; there, torchrun
and srun start the same command. What rank 0 says is shown, what others say goes to files. This
process keeps the store in which the ranks meet, and tells them when one of them was killed.
"""

from __future__ import annotations

import contextlib
import pathlib
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import IO, TYPE_CHECKING

from swath import exits, here
from swath.config import ConfigError
from swath.lock import lock
from swath.parallel.end import GOES_ON, End, RankFailed, claim, ended
from swath.signals import LEAVE, handled

if TYPE_CHECKING:
    from torch.distributed import Store

    from swath.parallel.settings import Parallel

LOGS = "ranks"
"""Folder in the run folder with what each rank but the first said: 1.log and so on."""
GRACE_SECONDS = 20.0
"""For how long ranks may take to end after one has ended that should not have."""
ORDERLY = (exits.DONE, exits.LEFT, exits.INTERRUPTED)
"""Exit codes of ranks that all leave together."""


def last_words(error: ConfigError | RankFailed) -> tuple[str, int]:
    """Return what to tell the user before ending because of ``error``, and the exit code.

    Nothing, if another rank tells it: what is wrong with all ranks is said once.
    """
    with contextlib.suppress(ConfigError):  # here.ranks() may be what is wrong
        if isinstance(error, ConfigError) and here.ranks() > 1:
            from swath.parallel.world import may_refuse, refuse

            error = refuse(str(error)) if may_refuse() else error
    if isinstance(error, RankFailed):
        return "" if error.told else str(error), error.code
    return str(error), 2


def check(ranks: int) -> None:
    """Raise ConfigError unless this process may start ``ranks`` ranks."""
    if ranks < 1:
        raise ConfigError(f"--ranks {ranks} must be at least 1")
    if ranks > 1 and here.ranks() > 1:
        raise ConfigError(
            f"--ranks {ranks} starts ranks of its own, and this is already one of {here.ranks()} "
            "that torchrun or srun started; leave --ranks out"
        )


def launch(
    command: Sequence[str], ranks: int, folder: pathlib.Path, parallel: Parallel | None = None
) -> int:
    """Run ``command`` as ``ranks`` ranks on this computer; return the exit code of the run.

    folder: the run folder, to which the ranks' words go; made if it is not there, and removed
    again if nothing was written to it. parallel: what to do if a rank is lost, and how many of
    the others can go on; None: all end.
    """
    check(ranks)
    with _logs(folder, ranks) as logs:
        while True:
            code, lost = _start(command, logs[:ranks], folder)
            if not lost or parallel is None or parallel.lost == "end":
                return code
            left = parallel.most(ranks - lost)
            if not left:
                _say(f"the degrees of parallel: do not fit the {ranks - lost} ranks that are left")
                return code
            _say(f"going on with {left} of the {ranks - lost} ranks that are left")
            ranks = left


def _say(text: str) -> None:
    print(f"swath: {text}", file=sys.stderr, flush=True)


def _start(
    command: Sequence[str], logs: Sequence[IO[bytes] | None], folder: pathlib.Path
) -> tuple[int, int]:
    """Run ``command`` once, a rank for each of ``logs``; return the exit code and how many ranks
    were lost, if the others could go on without them."""
    children: list[subprocess.Popen] = []
    with socket.socket() as port, _handing_on(children) as heard:
        port.bind(("127.0.0.1", 0))
        port.listen(len(logs))
        try:
            for rank, log in enumerate(logs):
                environment = here.child(rank, len(logs), port.getsockname()[1])
                children.append(
                    subprocess.Popen(
                        command,
                        env=environment,
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=log,
                        start_new_session=True,  # or Ctrl-C would reach them twice
                    )
                )
            end = _look_after(children, _keep_store(port), heard, folder)
            return end.code, 0 if heard else len(end.lost)
        finally:
            for child in children:
                child.kill()
                child.wait()


def _keep_store(port: socket.socket) -> Store:
    """Return the store that ranks reach at ``port``."""
    # Imported while the ranks start, which import it too.
    import torch.distributed as dist

    host, number = port.getsockname()
    server = dist.TCPStore(
        host, number, is_master=True, wait_for_workers=False, master_listen_fd=port.detach()
    )
    return dist.PrefixStore(here.job(), server)


def _look_after(
    children: Sequence[subprocess.Popen], store: Store, heard: list[int], folder: pathlib.Path
) -> End:
    """Wait for all ranks to end; return how the run ended, with its exit code."""
    end, odd_since = None, None
    while True:
        codes = [child.poll() for child in children]
        over = None not in codes
        odd = [rank for rank, code in enumerate(codes) if code not in (None, *ORDERLY)]
        late = odd_since is not None and time.monotonic() - odd_since > GRACE_SECONDS
        if end is None:
            end = ended(store)
            killed = [rank for rank in odd if (codes[rank] or 0) < 0]
            # Of ranks that end with the same code the first has said why.
            silent = [rank for rank in odd if over and codes[0] != codes[rank]]
            if end is None and (blamed := killed or silent or (odd if late else [])):
                end = claim(store, _blame(blamed[0], children[blamed[0]], heard, folder))
            if end is not None and end.speaker(len(children)):  # what rank 0 says is seen
                _say(end.text)
        if over:
            return end or End("", max(code or 0 for code in codes), -1)
        if odd_since is None and (odd or end is not None):
            odd_since = time.monotonic()
        if late:
            for child in children:
                child.kill()
        time.sleep(0.05)


def _blame(rank: int, child: subprocess.Popen, heard: list[int], folder: pathlib.Path) -> End:
    code = child.returncode
    if code < 0 and -code in heard:
        # They had nothing to save: they had not begun to train, or do not train at all.
        left = exits.INTERRUPTED if -code == signal.SIGINT else exits.LEFT
        return End(f"{signal.Signals(-code).name} ended the ranks. {GOES_ON}", left, -1)
    log = folder / LOGS / f"{rank}.log"
    said = f"; what it said is in {log}" if rank and log.stat().st_size else ""
    if code < 0:
        name = signal.Signals(-code).name
        text = f"rank {rank} (pid {child.pid}) was killed by {name}{said}. {GOES_ON}"
        return End(text, exits.LOST, -1, (rank,))
    return End(f"rank {rank} (pid {child.pid}) ended with exit code {code}{said}", code, -1)


@contextlib.contextmanager
def _handing_on(children: Sequence[subprocess.Popen]) -> Iterator[list[int]]:
    """Give each signal to leave to all ``children``; yields the list of those that came."""
    heard: list[int] = []

    def hand_on(number: int, frame: FrameType | None) -> None:
        heard.append(number)
        for child in children:
            child.send_signal(number)  # does nothing to one that has ended

    with handled(LEAVE, hand_on):
        yield heard


@contextlib.contextmanager
def _logs(folder: pathlib.Path, ranks: int) -> Iterator[list[IO[bytes] | None]]:
    """Yield a file for what each rank says, None for the first: it says it here. Files and folders
    that stay empty are removed. ConfigError if ranks of another start are writing them."""
    place = folder / LOGS
    paths = [place / f"{rank}.log" for rank in range(1, ranks)]
    with contextlib.ExitStack() as stack:
        stack.enter_context(lock(place / ".lock", "start of ranks"))
        yield [None, *(stack.enter_context(path.open("wb")) for path in paths)]
        for path in paths:
            if not path.stat().st_size:
                path.unlink()
    for made in (place, folder):
        with contextlib.suppress(OSError):  # not empty
            made.rmdir()
