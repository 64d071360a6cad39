"""A rank that dies in mid-run ends the others, which say who it was; the same command goes on."""

import os
import pathlib
import re
import resource
import signal
import time

import pytest
import torch

from tests.parallel.starting import QUICK, Started, training
from tests.train.small import trainer, weights


def dying(by: int, rank: int, update: int = 7):
    """Return what to call after updates so that ``rank`` gets the signal ``by`` in mid-run."""

    def at(world, now: int) -> None:
        if (world.rank, now) == (rank, update):
            os.kill(os.getpid(), by)

    return at


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The weights at the end of a run of one process that nothing happens to."""
    made, _ = trainer(tmp_path_factory.mktemp("undisturbed"))
    made.run()
    return weights(made.replica.model)


@pytest.mark.parametrize(("lost", "speaker"), [(1, 0), (0, 1)])
def test_kill_9_ends_all_with_one_message_and_the_run_goes_on(
    ranks, tmp_path, lost, speaker, undisturbed
):
    action = training(tmp_path, at=dying(signal.SIGKILL, lost))
    started = Started(ranks, tmp_path, [action] * 3)
    codes = started.codes(60)
    assert codes == [-signal.SIGKILL if rank == lost else 76 for rank in range(3)]
    words = started.words()
    assert re.match(
        rf"swath: rank {lost} \(.*\) (is|are) lost.* What was saved is good: the s",
        words[speaker],
    )
    assert [bool(text) for text in words] == [rank == speaker for rank in range(3)]

    again = Started(ranks, tmp_path, [training(tmp_path)] * 3)
    assert again.codes(60) == [0, 0, 0]
    made, _ = trainer(tmp_path)
    assert made.state.progress.update == 12
    torch.testing.assert_close(weights(made.replica.model), undisturbed, rtol=0, atol=1e-12)


def test_a_rank_that_hangs_is_lost_after_the_time_that_was_set(ranks, tmp_path):
    """Stopped, it keeps its connections: no exchange breaks, it only shows no sign of life."""
    action = training(tmp_path, at=dying(signal.SIGSTOP, 2))
    started = Started(ranks, tmp_path, [action] * 3)
    assert started.codes(40, stopped=2) == [76, 76, None]
    first, *others = started.words()
    assert re.match(r"swath: rank 2 \(\S+ pid \d+\) is lost: no sign of life for [4-9] s\.", first)
    assert others == ["", ""]


def test_a_job_that_is_suspended_and_resumed_goes_on(ranks, tmp_path):
    """As a scheduler does for a more urgent one: nobody showed a sign of life, nobody is lost."""
    stop = [dying(signal.SIGSTOP, rank, update=4) for rank in range(2)]

    def at(world, now: int) -> None:
        stop[world.rank](world, now)

    started = Started(ranks, tmp_path, [training(tmp_path, at=at)] * 2)
    status = [pathlib.Path(f"/proc/{process.pid}/stat") for process in started.processes]
    deadline = time.monotonic() + 40
    while any(") T " not in path.read_text() for path in status):
        assert time.monotonic() < deadline, "they have not come to update 4"
        time.sleep(0.05)
    time.sleep(QUICK.lost_seconds + 1)
    for process in started.processes:
        os.kill(process.pid, signal.SIGCONT)
    assert (started.codes(40), started.words()) == ([0, 0], ["", ""])


def failing(error: Exception, ranks: tuple[int, ...]):
    def at(world, now: int) -> None:
        if now == 3 and world.rank in ranks:
            raise error

    return at


def test_a_rank_out_of_memory_ends_the_others(ranks, tmp_path):
    """Its own traceback is on its own stderr; the first rank says what it was."""
    action = training(tmp_path, at=failing(MemoryError("3 GiB asked, 1 GiB left"), (1,)))
    started = Started(ranks, tmp_path, [action] * 3)
    assert started.codes(40) == [1, 1, 1]
    first, second, third = started.words()
    assert first == "swath: rank 1: MemoryError: 3 GiB asked, 1 GiB left\n"
    assert second.rstrip().endswith("MemoryError: 3 GiB asked, 1 GiB left") and third == ""


def hungry(world, now: int) -> None:
    """Ask, on rank 1, for more memory than the system lets it have."""
    if (world.rank, now) == (1, 3):
        used = int(pathlib.Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + (64 << 20), resource.RLIM_INFINITY))
        torch.ones(1 << 28)


def test_memory_that_the_system_refuses_ends_all(ranks, tmp_path):
    """Torch reports it by an error of its own, in the middle of a run."""
    started = Started(ranks, tmp_path, [training(tmp_path, at=hungry)] * 3)
    assert started.codes(40) == [1, 1, 1]
    first, second, third = started.words()
    assert first.startswith("swath: rank 1: RuntimeError: ") and "can't allocate memory" in first
    assert first.count("\n") == 1 and "can't allocate memory" in second and third == ""


def test_what_all_ranks_find_is_said_once(ranks, tmp_path):
    """As a gradient that is not finite: the ranks leave together, the first speaks."""
    from swath.train.step import Diverged

    action = training(tmp_path, at=failing(Diverged("loss is nan"), (0, 1, 2)))
    started = Started(ranks, tmp_path, [action] * 3)
    assert started.codes(40) == [1, 1, 1]
    first, *others = started.words()
    assert re.fullmatch(r"swath: (rank \d: )?loss is nan\n", first) and others == ["", ""]


def test_a_signal_to_one_rank_lets_all_save_and_leave(ranks, tmp_path):
    """All leave after the same update; the first says so."""
    action = training(tmp_path, at=dying(signal.SIGTERM, 1, update=5))
    started = Started(ranks, tmp_path, [action] * 2)
    assert started.codes(40) == [75, 75]
    assert started.words() == [
        "swath: another rank: saved after update 5; the same command goes on from there\n",
        "",
    ]
