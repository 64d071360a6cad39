"""Signals save and leave; a second one leaves at once."""

import os
import signal
import subprocess
import sys
import time

import pytest

from swath.train.interrupt import Interrupted, Interrupts, leaving_at_once
from tests.train.small import trainer


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 75), (signal.SIGUSR1, 75), (signal.SIGINT, 130)]
)
def test_a_signal_lets_the_update_finish_then_saves_and_leaves(number, code, tmp_path):
    made, lines = trainer(tmp_path)

    def record(line):
        lines.append(line)
        if line["update"] == 4:
            os.kill(os.getpid(), number)

    made.record = record
    before = signal.getsignal(number)
    with made.interrupts, pytest.raises(Interrupted) as left:
        made.run()
    assert left.value.code == code
    assert str(left.value).startswith(f"{number.name}: saved after update 4")
    assert made.checkpoints.updates()[-1] == 4
    assert signal.getsignal(number) is before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_what_saves_as_it_goes_leaves_at_once(number):
    before = signal.getsignal(number)
    with pytest.raises(Interrupted) as left, leaving_at_once():
        os.kill(os.getpid(), number)
        time.sleep(10)
    assert left.value.code == 75
    assert str(left.value) == (
        f"{number.name} ended it. What was saved is good: the same command goes on from there"
    )
    assert signal.getsignal(number) is before


def test_a_signal_in_the_middle_of_an_evaluation_does_not_wait_for_its_end(tmp_path):
    """The evaluation is done again, whole, after the restart."""
    made, lines = trainer(tmp_path)
    validation = made.validation

    def slow():
        for batch in validation():
            yield batch
            made.interrupts.pending = "SIGTERM"

    made.validation, made.record = slow, lines.append
    with pytest.raises(Interrupted, match="after update 3"):
        made.run()
    assert not any("val/loss" in line for line in lines)
    again, rest = trainer(tmp_path)
    again.run()
    assert rest[0]["update"] == 3 and "val/loss" in rest[0]


def test_the_second_signal_leaves_at_once():
    script = (
        "import os, signal, time; from swath.train.interrupt import Interrupts\n"
        "with Interrupts() as asked:\n"
        "    os.kill(os.getpid(), signal.SIGTERM); time.sleep(0.01); assert asked\n"
        "    os.kill(os.getpid(), signal.SIGTERM); time.sleep(30)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], timeout=20)
    assert done.returncode == 75


def test_the_second_ctrl_c_leaves_at_once_and_a_notebook_lives_on():
    with Interrupts() as asked:
        os.kill(os.getpid(), signal.SIGINT)
        assert asked and asked.pending == "SIGINT"
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
