"""One command, on one process, under --ranks or torchrun, gives one curve, and ends well.

Under srun: test_slurm.py."""

import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import pytest

from swath import here
from swath.config import ConfigError
from swath.lock import lock
from swath.parallel import launch
from swath.parallel.settings import Parallel
from swath.signals import LEAVE
from tests.parallel.commands import SWATH, run, same_curve, updates

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def python(text: str) -> list[str]:
    """Return a command that runs ``text``, which costs less than Swath to start."""
    begin = "import os, signal, sys, time; rank = os.environ['RANK']; "
    return [sys.executable, "-c", begin + text]


@pytest.fixture
def short(monkeypatch):
    monkeypatch.setattr(launch, "GRACE_SECONDS", 1.0)


def test_ranks_are_told_who_they_are_and_their_words_are_kept(tmp_path):
    """Those of the first are seen; where nobody says anything nothing is left behind."""
    folder = tmp_path / "runs/a"
    say = "rank == '0' or print(rank, os.environ['LOCAL_RANK'], os.environ['WORLD_SIZE'])"
    assert launch.launch(python(say), 3, folder) == 0
    words = {path.name: path.read_text() for path in (folder / "ranks").iterdir()}
    assert words == {"1.log": "1 1 3\n", "2.log": "2 2 3\n"}
    assert launch.launch(python("pass"), 2, tmp_path / "b") == 0
    assert not (tmp_path / "b").exists()


def test_ranks_are_not_started_beside_others_in_one_folder(tmp_path):
    """Their words would end in the same files."""
    place = tmp_path / "runs/a/ranks"
    with lock(place / ".lock", "start of ranks"):
        (place / "1.log").write_text("busy")
        with pytest.raises(ConfigError, match=r"ranks: another process \(start of ranks, pid"):
            launch.launch(python("pass"), 2, place.parent)
        assert (place / "1.log").read_text() == "busy"


def test_a_killed_rank_ends_the_others(tmp_path, short, capfd):
    """Here they would not notice by themselves; after the time of grace they are killed."""
    began = time.monotonic()
    die = "rank == '1' and (print('ouch', flush=True), os.kill(os.getpid(), 9)); time.sleep(60)"
    assert launch.launch(python(die), 3, tmp_path / "a") == 76
    assert time.monotonic() - began < 30
    said = capfd.readouterr().err
    assert said.startswith("swath: rank 1 (pid ") and said.count("\n") == 1
    log = tmp_path / "a/ranks/1.log"
    assert f"was killed by SIGKILL; what it said is in {log}. What was saved is good" in said


RESIZE = Parallel(lost="resize")


def test_with_resize_those_that_are_left_begin_again(tmp_path, short, capfd):
    """The highest rank dies as often as there are more than two; the words of all starts stay."""
    die = (
        "n = int(os.environ['WORLD_SIZE']); print(n, flush=True); "
        "int(rank) == n - 1 > 1 and os.kill(os.getpid(), 9); n == 2 or time.sleep(60)"
    )
    assert launch.launch(python(die), 4, tmp_path / "a", RESIZE) == 0
    said = capfd.readouterr().err.splitlines()
    assert [line.split(" (")[0] for line in said[::2]] == ["swath: rank 3", "swath: rank 2"]
    assert said[1::2] == [
        f"swath: going on with {n} of the {n} ranks that are left" for n in (3, 2)
    ]
    words = [(tmp_path / f"a/ranks/{rank}.log").read_text().split() for rank in (1, 2, 3)]
    assert words == [["4", "3", "2"], ["4", "3"], ["4"]]


def test_with_resize_degrees_decide_how_many_go_on(tmp_path, short, capfd):
    die = (
        "rank == '3' and os.kill(os.getpid(), 9); os.environ['WORLD_SIZE'] == '2' or time.sleep(60)"
    )
    assert launch.launch(python(die), 4, tmp_path / "a", Parallel(lost="resize", shard=2)) == 0
    assert "going on with 2 of the 3 ranks that are left" in capfd.readouterr().err
    assert launch.launch(python(die), 4, tmp_path / "b", Parallel(lost="resize", shard=4)) == 76
    assert "do not fit the 3 ranks that are left" in capfd.readouterr().err


def test_a_rank_that_ends_alone_is_named(tmp_path, short, capfd):
    """As when a library is missing on one node: it ends before it could tell anybody."""
    end = "rank == '1' and sys.exit('no such library'); time.sleep(60)"
    assert launch.launch(python(end), 2, tmp_path / "a") == 1
    said = capfd.readouterr().err
    assert f"ended with exit code 1; what it said is in {tmp_path / 'a/ranks/1.log'}\n" in said


def test_what_all_ranks_end_with_is_the_exit_code_and_the_first_has_said_why(tmp_path, capfd):
    end = "sys.exit('no such file' if rank == '0' else 1)"
    assert launch.launch(python(end), 2, tmp_path / "a") == 1
    assert capfd.readouterr().err == "no such file\n"


@pytest.mark.parametrize("number", LEAVE)
def test_signals_reach_all_ranks_once(tmp_path, number):
    """Each as a scheduler or Ctrl-C sends it to the one process that it knows of."""
    count = (
        f"n = []; signal.signal({int(number)}, lambda *_: n.append(1))\n"
        f"print('ready', flush=True); open({str(tmp_path)!r} + '/ready' + rank, 'w').close()\n"
        "while not n: time.sleep(0.01)\n"
        "time.sleep(0.5); print(len(n)); sys.exit(75)"
    )
    logs = [tmp_path / f"a/ranks/{rank}.log" for rank in (1, 2)]

    def send() -> None:
        while len(list(tmp_path.glob("ready*"))) < 3:
            time.sleep(0.05)
        os.kill(os.getpid(), number)

    sender = threading.Thread(target=send)
    sender.start()
    before = signal.getsignal(number)
    assert launch.launch(python(count), 3, tmp_path / "a") == 75
    sender.join()
    assert [log.read_text() for log in logs] == ["ready\n1\n"] * 2
    assert signal.getsignal(number) is before


def test_a_signal_to_ranks_that_train_nothing_is_no_loss(tmp_path, capfd):
    wait = "print('ready', flush=True); time.sleep(60)"
    log = tmp_path / "a/ranks/1.log"

    def send() -> None:
        while not (log.exists() and "ready" in log.read_text()):
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=send).start()
    assert launch.launch(python(wait), 2, tmp_path / "a") == 75
    assert "swath: SIGTERM ended the ranks. What was saved is good" in capfd.readouterr().err


def test_numbers_of_ranks_that_make_no_sense(monkeypatch):
    with pytest.raises(ConfigError, match="--ranks 0 must be at least 1"):
        launch.check(0)
    monkeypatch.setattr(here, "ranks", lambda: 4)
    with pytest.raises(ConfigError, match=r"--ranks 2 starts ranks of its own.* one of 4"):
        launch.check(2)
    launch.check(1)


def killed_in_mid_run(folder: pathlib.Path, command: list[str], name: str) -> tuple[int, str]:
    """Return the exit code and the words of ``command``, whose rank 1 is killed by kill -9, and
    the line that names it."""
    with subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True) as running:
        while updates(folder, name) < 12:
            assert running.poll() is None, running.stderr.read()
            time.sleep(0.02)
        children = pathlib.Path(f"/proc/{running.pid}/task/{running.pid}/children")
        victim = next(
            pid
            for pid in children.read_text().split()
            if b"RANK=1" in pathlib.Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        )
        os.kill(int(victim), signal.SIGKILL)
        code, said = running.wait(120), running.stderr.read()
        assert f"swath: rank 1 (pid {victim}) was killed by SIGKILL" in said
        return code, said


def test_ranks_started_here_killed_and_started_again_follow_one_curve(alone):
    """All end with the name of the lost one, and the same command goes on."""
    command = [*SWATH, "--ranks", "2", "name=here"]
    code, _ = killed_in_mid_run(alone, command, "here")
    assert code == 76
    run(command, alone)
    same_curve(alone, "here")


def test_with_resize_the_rank_that_is_left_follows_the_same_curve(alone):
    command = [*SWATH, "--ranks", "2", "name=resized", "parallel.lost=resize"]
    code, said = killed_in_mid_run(alone, command, "resized")
    assert code == 0 and "going on with 1 of the 1 ranks that are left" in said
    same_curve(alone, "resized")


def test_torchrun_gives_the_curve_of_one_process(alone):
    run([*TORCHRUN, "-m", *SWATH[2:], "name=torchrun"], alone)
    same_curve(alone, "torchrun")
