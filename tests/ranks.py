"""Run a function on several CPU ranks inside a test, fast enough to do it everywhere.

Importing torch costs seconds for each process, so worker processes start once per session from a
preloaded fork server and are then handed functions. Every call gets a fresh gloo group of the
size it asks for, so tests cannot leak groups into each other:

    def test_mean(ranks):
        assert ranks(4, mean_of_ranks) == [1.5] * 4

Inside the function, ``World.start("cpu")`` is the world of that call. Functions and arguments
travel by cloudpickle; what they print goes to the test's output. A rank that raises shows its
traceback, ranks that hang are named and show where, and the pool starts afresh after either.

Torch's caches keep groups alive that are closed, and each has threads that wake a hundred times a
second. A worker with too many of them makes room for a new one.
"""

import faulthandler
import itertools
import multiprocessing
import multiprocessing.connection
import os
import pathlib
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import Any

import cloudpickle
import pytest

THREADS = 40
"""With more than so many threads a worker is replaced."""
WHERE = signal.SIGUSR2
"""Asks a worker where it is."""
PRELOAD = [
    "torch._dynamo",  # which the first step of an optimiser imports
    "torch.utils.tensorboard",
    "swath.train.setup",
    "swath.data.store",
    "swath.models.unet",
    "swath.nn.unet",
    "tests.ranks",
]


def serve(rank: int, pipe: Connection, path: list[str]) -> None:
    """Body of one worker: run what comes down the pipe until it closes."""
    import torch
    import torch.distributed as dist

    sys.path[:] = path
    torch.set_num_threads(1)
    faulthandler.register(WHERE, _stacks(os.getpid()).open("w"))
    while True:
        try:
            ranks, store, job = pipe.recv()
        except EOFError:
            return
        try:
            function, args = cloudpickle.loads(job)
            torch.manual_seed(0)
            dist.init_process_group(
                "gloo", store=dist.FileStore(store, ranks), rank=rank, world_size=ranks
            )
            dist.barrier()  # who is done and closes must not find others still connecting
            pipe.send((True, cloudpickle.dumps(function(*args)), threads()))
        except BaseException:
            pipe.send((False, traceback.format_exc(), 0))
        finally:
            if dist.is_initialized():
                dist.destroy_process_group()


def threads() -> int:
    """Return how many threads this process has; 1 where the system does not say."""
    folder = pathlib.Path("/proc/self/task")
    return len(list(folder.iterdir())) if folder.exists() else 1


def _stacks(pid: int) -> pathlib.Path:
    """Return the file for what a worker's threads are at."""
    return pathlib.Path(tempfile.gettempdir()) / f"ranks-{pid}.stacks"


def run(job: bytes, path: list[str]) -> None:
    """Body of a process that runs one function."""
    import torch

    sys.path[:] = path
    torch.set_num_threads(1)
    function, args = cloudpickle.loads(job)
    function(*args)


class Ranks:
    """A pool of worker processes; ``ranks(n, f, *args)`` returns f's value on each of n ranks."""

    def __init__(self) -> None:
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(PRELOAD)
        self._workers: list[tuple[Any, Connection]] = []
        self.folder = tempfile.TemporaryDirectory(prefix="ranks-")
        self._calls = itertools.count()

    def __call__(
        self, ranks: int, function: Callable, *args: Any, timeout_seconds: float = 120
    ) -> list[Any]:
        while len(self._workers) < ranks:
            self._workers.append(self._begin(len(self._workers)))
        job = _pickled(function, args)
        # The last rank removes it. A rank that finds its folder gone waits five minutes for it.
        store = f"{self.folder.name}/{next(self._calls)}"
        for _, pipe in self._workers[:ranks]:
            pipe.send((ranks, store, job))
        answers, late = self._collect(ranks, time.monotonic() + timeout_seconds)
        failed = [f"rank {rank}:\n{text}" for rank, (ok, text, _) in answers.items() if not ok]
        if failed or late:
            failed += [f"ranks {late} did not answer", *map(self._where, late)] if late else []
            self.close()  # a worker stuck in a collective cannot be reused
            raise AssertionError("\n".join(failed))
        for rank, (_, _, number) in answers.items():
            if number > THREADS:
                self._end(*self._workers[rank])
                self._workers[rank] = self._begin(rank)
        return [cloudpickle.loads(answers[rank][1]) for rank in range(ranks)]

    def start(self, function: Callable, *args: Any) -> Any:
        """Return a process of its own that runs ``function``, for a test to kill; in no group."""
        job = _pickled(function, args)
        process = self._context.Process(target=run, args=(job, sys.path), daemon=True)
        process.start()
        return process

    def _collect(
        self, ranks: int, deadline: float
    ) -> tuple[dict[int, tuple[bool, Any, int]], list]:
        """Return what ranks answered before ``deadline`` and which did not."""
        waiting: dict[Any, int] = {p: rank for rank, (_, p) in enumerate(self._workers[:ranks])}
        answers: dict[int, tuple[bool, Any, int]] = {}
        while waiting and (left := deadline - time.monotonic()) > 0:
            ready: list[Any] = multiprocessing.connection.wait(list(waiting), left)
            for pipe in ready:
                rank = waiting.pop(pipe)
                try:
                    answers[rank] = pipe.recv()
                except EOFError:
                    answers[rank] = (False, "the process died", 0)
                if not answers[rank][0]:  # the others may wait for this one forever
                    deadline = min(deadline, time.monotonic() + 1)
        return answers, sorted(waiting.values())

    def _where(self, rank: int) -> str:
        """Return what each thread of a worker that hangs is at."""
        pid = self._workers[rank][0].pid
        os.kill(pid, WHERE)
        time.sleep(0.2)
        return f"rank {rank} is at:\n{_stacks(pid).read_text()}"

    def _begin(self, rank: int) -> tuple[Any, Connection]:
        ours, theirs = self._context.Pipe()
        worker = self._context.Process(target=serve, args=(rank, theirs, sys.path), daemon=True)
        worker.start()
        theirs.close()
        return worker, ours

    def _end(self, worker: Any, pipe: Connection) -> None:
        pipe.close()
        worker.kill()
        worker.join()
        _stacks(worker.pid).unlink(missing_ok=True)

    def close(self) -> None:
        for worker, pipe in self._workers:
            self._end(worker, pipe)
        self._workers = []


def _pickled(function: Callable, args: tuple) -> bytes:
    """Return both for the workers, which can import swath but not every test file."""
    module = sys.modules[function.__module__]
    if module.__name__.startswith("swath."):
        return cloudpickle.dumps((function, args))
    cloudpickle.register_pickle_by_value(module)
    try:
        return cloudpickle.dumps((function, args))
    finally:
        cloudpickle.unregister_pickle_by_value(module)


@pytest.fixture(scope="session")
def ranks() -> Iterator[Ranks]:
    """``ranks(n, function, *args)``: the function's value on each of n gloo ranks."""
    pool = Ranks()
    yield pool
    pool.close()
    pool.folder.cleanup()
