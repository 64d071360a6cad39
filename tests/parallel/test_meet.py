"""Ranks that cannot work together all end, soon, and one of them says why."""

import re
import socket
import time

from swath.config import ConfigError
from swath.parallel import alike, meet
from swath.parallel.settings import Parallel
from tests.parallel.starting import Started, exported, free_port, training

SOON = Parallel(start_seconds=4, lost_seconds=4)


def told(host: str = "n1", **more) -> dict:
    return {"host": host, "pid": 1, "device": None, "trouble": None, **more}


def test_ranks_that_are_alike_begin():
    assert meet.verdict({0: told(), 1: told("n2", differs=None)}, 2, 9) is None


def test_missing_ranks_are_named_and_those_that_came():
    records = {rank: told("n1" if rank < 4 else "n2") for rank in (0, 1, 2, 3, 5)}
    said = meet.verdict(records, 8, 300)
    assert said.startswith(
        "of 8 ranks ranks 4, 6, 7 did not come within 300 s; there are ranks 0-3 on n1; rank 5 on "
        "n2. What the missing ones wrote may say why"
    )


def test_the_first_field_that_differs_is_named_with_both_values():
    zero = {"torch": "2.13", "optim.lr": 0.1, "seed": 0}
    mine = alike.first_difference(zero, {**zero, "optim.lr": 0.2, "seed": 1})
    assert mine == ("optim.lr", "0.2", "0.1")
    assert alike.first_difference(zero, dict(zero)) is None
    assert alike.first_difference(zero, {"torch": "2.13"}) == ("optim.lr", "not there", "0.1")
    records = {0: told(), 1: told(differs=mine), 2: told(), 3: told(differs=mine)}
    said = meet.verdict(records, 4, 9)
    assert said.startswith(
        "the ranks are not alike: optim.lr is 0.1 on rank 0 and 0.2 on ranks 1, 3;"
    )


def test_what_all_say_is_said_once_and_what_one_says_with_its_rank():
    assert meet.verdict({0: told(trouble="no x"), 1: told(trouble="no x")}, 2, 9) == "no x"
    records = {0: told(), 1: told(trouble="no GPU"), 2: told(trouble="no GPU")}
    assert meet.verdict(records, 4, 9) == "ranks 1, 2 of 4: no GPU", "rank 3 need not be awaited"


def test_two_ranks_on_one_gpu_are_refused():
    """NCCL would stop with a message that names neither."""
    records = {r: told("n1", device=f"GPU {r % 2}") for r in range(3)} | {
        3: told("n2", device="GPU 0")
    }
    said = meet.verdict(records, 4, 9)
    assert said.startswith("ranks 0, 2 on n1 would share one GPU (GPU 0); start as many ranks")


def test_settings_are_compared_field_by_field():
    assert alike.flat({"a": {"b": 1, "c": [2]}, "d": {}}) == {"a.b": 1, "a.c": [2], "d": {}}


def test_a_rank_that_never_comes(ranks, tmp_path):
    """Within the time that was set, by one message that names it."""
    began = time.monotonic()
    action = training(tmp_path, SOON)
    started = Started(ranks, tmp_path, [action, None, action])
    assert started.codes(40) == [2, None, 2]
    assert time.monotonic() - began < 30
    first, _, last = started.words()
    assert first.startswith(
        "swath: of 3 ranks rank 1 did not come within 4 s; there are ranks 0, 2"
    )
    assert first.count("\n") == 1 and last == ""


def test_rank_0_never_comes(ranks, tmp_path):
    """Nobody can be asked then; of those beside it rank 1 speaks."""
    action = training(tmp_path, SOON)
    started = Started(ranks, tmp_path, [None, action, action])
    assert started.codes(40) == [None, 2, 2]
    _, first, second = started.words()
    assert re.match(r"swath: rank 1 found nobody at 127.0.0.1:\d+ within 4 s, where rank 0", first)
    assert first.count("\n") == 1 and second == ""


def test_a_rank_with_other_settings(ranks, tmp_path):
    actions = [training(tmp_path, settings={"optim": {"lr": lr}}) for lr in (0.1, 0.2, 0.2)]
    started = Started(ranks, tmp_path, actions)
    assert started.codes(40) == [2, 2, 2]
    first, *others = started.words()
    assert "not alike: optim.lr is 0.1 on rank 0 and 0.2 on ranks 1, 2; start" in first
    assert first.count("\n") == 1 and others == ["", ""]


def test_a_rank_without_the_device(ranks, tmp_path):
    """It tells the others at once, which would wait for it."""
    actions = [training(tmp_path, device=device) for device in ("cpu", "tpu")]
    started = Started(ranks, tmp_path, actions)
    assert started.codes(15) == [2, 2]
    assert started.words() == [
        "swath: rank 1 of 2: compute.device: 'tpu' is not a device; there are auto, cpu, cuda\n",
        "",
    ]


def wrong() -> None:
    raise ConfigError("run.yaml:3: no field 'x'")


def test_a_mistake_in_the_settings_is_said_once(ranks, tmp_path):
    """Every rank reads the same file and finds the same, before there is any group."""
    started = Started(ranks, tmp_path, [wrong] * 3)
    assert started.codes(40) == [2, 2, 2]
    assert started.words() == ["swath: run.yaml:3: no field 'x'\n", "", ""]


def test_a_mistake_that_one_rank_finds_ends_all(ranks, tmp_path):
    action = training(tmp_path)
    started = Started(ranks, tmp_path, [action, wrong])
    assert started.codes(15) == [2, 2]
    assert started.words() == ["swath: rank 1 of 2: run.yaml:3: no field 'x'\n", ""]


def test_a_port_that_is_taken(ranks, tmp_path):
    """Rank 0 says so at once; rank 1, which meets a stranger there, gives up in time."""
    with socket.socket() as stranger:
        stranger.bind(("127.0.0.1", 0))
        stranger.listen()
        port = stranger.getsockname()[1]
        started = Started(ranks, tmp_path, [training(tmp_path, SOON)] * 2, port=port)
        assert started.codes(60) == [2, 2]
    first, second = started.words()
    assert re.match(rf"swath: port {port} on \S+, where 2 ranks were to meet, cannot be ope", first)
    assert "(address already in use); set MASTER_PORT to a free one" in first
    assert f"found nobody at 127.0.0.1:{port} within 4 s" in second


def slurm(rank: int, ranks: int, port: int) -> dict:
    return {
        "SLURM_PROCID": rank,
        "SLURM_LOCALID": rank,
        "SLURM_STEP_NUM_TASKS": ranks,
        "SLURM_STEP_NODELIST": "localhost",
        "SLURM_JOB_ID": port,  # another for each test
        "SLURM_STEP_ID": 0,
    }


def test_tasks_of_srun_meet_without_any_export(ranks, tmp_path):
    """Told what srun tells, two processes train together."""
    started = Started(ranks, tmp_path, [training(tmp_path)] * 2, slurm, port=free_port())
    assert (started.codes(60), started.words()) == ([0, 0], ["", ""])
    assert exported(0, 2, 1)["WORLD_SIZE"] == 2
