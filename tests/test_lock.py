"""One process at a time, and none held up by a dead one."""

import fcntl
import os
import signal
import subprocess
import sys

import pytest

from swath.config import ConfigError
from swath.lock import lock

HOLD = """
import sys, time
from swath.lock import lock
with lock(sys.argv[1], "swath train"):
    print("held", flush=True)
    time.sleep(100)
"""


def test_a_second_process_is_told_who_is_there_and_a_dead_one_holds_nobody_up(tmp_path):
    """Killed with -9, the holder leaves its file; the lock is free all the same."""
    file = tmp_path / "run/.lock"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(file)], stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        said = rf"run: another process \(swath train, pid {other.pid}, host .+\) is at work here"
        with pytest.raises(ConfigError, match=said), lock(file, "swath predict"):
            pass
        other.send_signal(signal.SIGKILL)
        other.wait()
    assert file.exists()
    with lock(file, "swath predict"):
        pass
    assert not file.exists()


def test_a_file_that_its_holder_removed_meanwhile_is_not_taken_for_the_lock(tmp_path, monkeypatch):
    """Opened here, then removed by who held it, and made anew by a third, who holds that one."""
    file, flock = tmp_path / ".lock", fcntl.flock
    file.touch()
    third = []

    def late(handle, how):
        if not third:
            file.unlink()
            third.append(os.open(file, os.O_RDWR | os.O_CREAT))
            os.write(third[0], b'{"what": "swath train", "pid": 7, "host": "h"}')
            flock(third[0], how)
        flock(handle, how)

    monkeypatch.setattr(fcntl, "flock", late)
    said = r"another process \(swath train, pid 7, host h\) is at work here"
    with pytest.raises(ConfigError, match=said), lock(file, "swath predict"):
        pass
    os.close(third[0])
    with lock(file, "swath predict"):
        pass


def test_nothing_is_left_behind(tmp_path):
    """Neither the file nor a folder made for it; but what the work wrote there stays."""
    file = tmp_path / "a/.lock"
    with lock(file, "x"), pytest.raises(ConfigError, match="at work here"), lock(file, "y"):
        pass
    assert not (tmp_path / "a").exists()
    with lock(tmp_path / "a/.lock", "swath train"):
        (tmp_path / "a/work").write_text("done")
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["work"]


def test_where_nothing_can_be_written_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    said = "file/run: cannot be written: Not a directory"
    with pytest.raises(ConfigError, match=said), lock(tmp_path / "file/run/.lock", "swath train"):
        pass
