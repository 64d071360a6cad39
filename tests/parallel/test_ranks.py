"""The pool of ranks answers, explains failures and survives them."""

import os
import threading
import time

import pytest
import torch

from swath.parallel.world import World


def mean_of_ranks() -> float:
    world = World.start("cpu")
    return world.sum(torch.tensor([float(world.rank)])).item() / world.ranks


def process() -> int:
    return os.getpid()


def fail_on(rank: int) -> int:
    world = World.start("cpu")
    if world.rank == rank:
        raise ArithmeticError("seven")
    world.any(False)  # the others wait here
    return world.rank


def sleep_on(rank: int) -> None:
    if World.start("cpu").rank == rank:
        time.sleep(60)


def test_each_call_has_its_own_group_of_its_own_size(ranks):
    assert ranks(4, mean_of_ranks) == [1.5] * 4
    assert ranks(2, mean_of_ranks) == [0.5] * 2
    assert ranks(1, mean_of_ranks) == [0.0]


def test_processes_are_kept(ranks):
    """Starting one costs seconds; the second call must find the first one's."""
    assert ranks(2, process) == ranks(2, process)


def test_a_failing_rank_shows_its_traceback_and_the_pool_goes_on(ranks):
    with pytest.raises(AssertionError, match=r"rank 1:(.|\n)*ArithmeticError: seven"):
        ranks(3, fail_on, 1)
    assert ranks(2, mean_of_ranks) == [0.5] * 2


def test_a_hanging_rank_is_named_and_the_pool_goes_on(ranks):
    with pytest.raises(AssertionError, match=r"ranks \[1\] did not answer(.|\n)*in sleep_on"):
        ranks(2, sleep_on, 1, timeout_seconds=1)
    assert ranks(2, mean_of_ranks) == [0.5] * 2


def crowd() -> int:
    for _ in range(50):
        threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
    return os.getpid()


def test_a_worker_with_many_threads_is_replaced(ranks):
    """Groups that torch's caches keep alive have some each, and wake for ever: a hundred layouts
    later all tests would crawl."""
    first, second = ranks(2, crowd)
    assert not {first, second} & set(ranks(2, process))
    assert ranks(2, mean_of_ranks) == [0.5] * 2
