"""Sums over ranks are sums, whatever is summed; alone, nothing changes."""

import os
import time
from unittest import mock

import pytest
import torch
import torch.distributed as dist

from swath.config import ConfigError
from swath.parallel.world import World, pick_device


def sums() -> list[torch.Tensor]:
    world = World.start("cpu")
    mine = [
        torch.full((2, 3), float(world.rank)),
        torch.tensor(world.rank + 1, dtype=torch.float64),
        torch.full((3, 2), 10.0 * world.rank).T,  # not contiguous
        torch.tensor([2**60 + world.rank], dtype=torch.int64),
    ]
    world.sum_all(mine)
    return mine


def flags() -> tuple[bool, bool, list[bool]]:
    world = World.start("cpu")
    several = world.any_of([False, world.rank == 0, world.rank < 2])
    return world.any(world.rank == 2), world.any(False), several


def shared() -> tuple[torch.Tensor, int]:
    world = World.start("cpu")
    mine = torch.full((3,), 7.5 - world.rank)
    world.broadcast([mine])
    return mine, world.number(2**60 + 1 if world.first else 5)


def test_mixed_tensors_are_summed_in_place(ranks):
    for matrix, number, turned, whole in ranks(3, sums):
        assert torch.equal(matrix, torch.full((2, 3), 3.0))
        assert number.item() == 6.0
        assert torch.equal(turned, torch.full((2, 3), 30.0))
        assert whole.item() == 3 * 2**60 + 3


def test_any_is_true_everywhere_if_true_somewhere(ranks):
    assert ranks(3, flags) == [(True, False, [False, True, True])] * 3


def test_rank_0_is_shared_exactly(ranks):
    for tensor, number in ranks(3, shared):
        assert torch.equal(tensor, torch.full((3,), 7.5))
        assert number == 2**60 + 1  # more than a float64 can hold


def largest() -> list[float]:
    world = World.start("cpu")
    return world.max([-world.rank, 2.5 * world.rank, 2**40 + world.rank])


def test_the_largest_of_all_ranks_is_known_to_all(ranks):
    assert ranks(3, largest) == [[0.0, 5.0, float(2**40 + 2)]] * 3


def together(fails: bool) -> str:
    """Let rank 1 do something long, or fail at it; return what this rank is told."""
    world, done = World.start("cpu"), []

    def action() -> None:
        if world.rank == 1:
            time.sleep(0.1)
            if fails:
                raise ConfigError("rank 1 has no disk")
        done.append(world.rank)

    try:
        world.all_do(action, seconds=0.01)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return f"done: {done}"


def test_what_all_do_fails_on_all_or_is_done_on_all(ranks):
    assert ranks(2, together, False) == ["done: [0]", "done: [1]"]
    first, second = ranks(2, together, True)
    assert first == "RankFailed: another rank failed; its own message says why"
    assert second == "ConfigError: rank 1 has no disk"


def test_a_world_of_one_changes_nothing():
    world, values = World.alone(), torch.tensor([1.0, 2.0])
    world.sum_all([values])
    assert torch.equal(world.sum(values), torch.tensor([1.0, 2.0])) and world.any(True)
    assert not world.any(False) and world.number(3) == 3 and world.first
    assert world.any_of([True, False]) == [True, False]


def opened_twice(port: int) -> list[tuple[bool, float, bool]]:
    """As a launcher would start us: no group yet, but a meeting point that outlives groups."""
    rank = dist.get_rank()
    dist.destroy_process_group()
    told = {"RANK": rank, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    told["TORCHELASTIC_USE_AGENT_STORE"] = True
    found = []
    with mock.patch.dict(os.environ, {name: str(value) for name, value in told.items()}):
        for _ in range(2):
            with World.start("cpu") as world:
                total = world.sum(torch.tensor(world.rank + 1.0)).item()
                with World.start("cpu") as joined:
                    assert not joined.opened
                assert world.any(True), "the group that was joined is closed"
            found.append((world.opened, total, dist.is_initialized()))
    return found


def test_a_group_is_closed_by_who_opened_it_and_can_be_opened_again(ranks):
    met = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    answers = ranks(2, opened_twice, met.port, timeout_seconds=30)
    assert answers == [[(True, 3.0, False)] * 2] * 2


def test_an_absent_device_is_an_error():
    with pytest.raises(ConfigError, match="'tpu' is not a device; there are auto, cpu, cuda"):
        pick_device("tpu")
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match="torch sees no GPU; use auto or cpu"):
            pick_device("cuda")
