"""No line is there twice after a resume, and none is missing."""

import json
import pathlib
import re
import subprocess
import sys

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from swath.config import ConfigError
from swath.train import record
from swath.train.record import METRICS, Recorder, read


def test_a_resumed_record_continues_where_the_checkpoint_was(tmp_path):
    with Recorder(tmp_path, 0) as recorder:
        for update in range(1, 6):
            recorder.write({"update": update, "samples": 8 * update, "loss": 1.0 / update})
    with open(tmp_path / METRICS, "a") as file:
        file.write('{"update": 3, "sam')  # killed in the middle of a line
    with Recorder(tmp_path, 3) as recorder:
        recorder.write({"update": 4, "samples": 32, "loss": 9.0})
    assert [(line["update"], line["loss"]) for line in read(tmp_path)] == [
        (1, 1.0),
        (2, 0.5),
        (3, 1 / 3),
        (4, 9.0),
    ]


def test_tensorboard_shows_the_same_numbers(tmp_path):
    with Recorder(tmp_path, 0) as recorder:
        recorder.write({"update": 2, "samples": 16, "loss": 0.5, "val/oa": 0.75})
    board = EventAccumulator(str(tmp_path / "tb"))
    board.Reload()
    assert set(board.Tags()["scalars"]) == {"loss", "val/oa"}
    (event,) = board.Scalars("val/oa")
    assert (event.step, event.value) == (2, 0.75)


def shown(folder, name):
    """Return what TensorBoard shows of one figure: (update, value) of each point."""
    board = EventAccumulator(str(folder / "tb"))
    board.Reload()
    return [(point.step, point.value) for point in board.Scalars(name)]


def an_hour_later(folder):
    """TensorBoard reads files by the second that is in their names; no run lasts less than one."""
    for path in (folder / "tb").iterdir():
        first, stamp, rest = re.fullmatch(r"(.*tfevents\.)(\d+)(\..*)", path.name).groups()
        path.rename(path.with_name(f"{first}{int(stamp) - 3600}{rest}"))


def test_tensorboard_shows_an_evaluation_that_is_done_again_once(tmp_path):
    """And what else belongs to its update stays."""
    with Recorder(tmp_path, 0) as recorder:
        for update in (1, 2, 3):
            recorder.write({"update": update, "samples": 8 * update, "loss": 0.5**update})
            if update > 1:
                recorder.write({"update": update, "samples": 8 * update, "val/oa": 0.25})
    an_hour_later(tmp_path)
    with Recorder(tmp_path, 2, evaluated=False) as recorder:
        recorder.write({"update": 2, "samples": 16, "val/oa": 0.75})
        recorder.write({"update": 3, "samples": 24, "loss": 0.0})
    assert shown(tmp_path, "val/oa") == [(2, 0.75)]
    assert shown(tmp_path, "loss") == [(1, 0.5), (2, 0.25), (3, 0.0)]


def test_what_a_kill_kept_from_tensorboard_is_there_after_the_resume(tmp_path):
    """Lines are with the operating system at once, TensorBoard's events seconds later."""
    code = (
        "import os, pathlib, sys; from swath.train.record import Recorder\n"
        "recorder = Recorder(pathlib.Path(sys.argv[1]), 0)\n"
        "for update in (1, 2, 3):\n"
        "    recorder.write({'update': update, 'samples': 8 * update, 'loss': 0.5**update})\n"
        "os._exit(9)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)]).returncode == 9
    an_hour_later(tmp_path)
    with Recorder(tmp_path, 2) as recorder:
        recorder.write({"update": 3, "samples": 24, "loss": 4.0})
    assert shown(tmp_path, "loss") == [(1, 0.5), (2, 0.25), (3, 4.0)]


def test_of_a_long_record_only_the_end_is_written_again(tmp_path, monkeypatch):
    """A resume takes no longer because the run is long; the beginning stays as it was shown."""
    monkeypatch.setattr(record, "_AGAIN", 2)
    with Recorder(tmp_path, 0) as recorder:
        for update in range(1, 6):
            recorder.write({"update": update, "samples": 8 * update, "loss": float(update)})
            recorder.write({"update": update, "samples": 8 * update, "val/oa": float(update)})
    lines = (tmp_path / METRICS).read_text().replace('"val/oa": 1.0', '"val/oa": 9.0')
    (tmp_path / METRICS).write_text(lines.replace('"loss": 5.0', '"loss": 7.0'))
    an_hour_later(tmp_path)
    with Recorder(tmp_path, 5):
        pass
    assert shown(tmp_path, "loss") == [(1, 1.0), (2, 2.0), (3, 3.0), (4, 4.0), (5, 7.0)]
    assert shown(tmp_path, "val/oa")[0] == (1, 1.0) and len(shown(tmp_path, "val/oa")) == 5


def test_figures_that_are_not_numbers_stay_json(tmp_path):
    """NaN is what an undefined score is; readers other than Python's must get along."""
    with Recorder(tmp_path, 0) as recorder:
        recorder.write({"update": 1, "samples": 8, "val/iou/water": float("nan")})
    line = (tmp_path / METRICS).read_text()
    assert json.loads(line, parse_constant=lambda name: name)["val/iou/water"] is None
    assert read(tmp_path)[0]["val/iou/water"] is None


def test_a_folder_without_a_record_has_none(tmp_path):
    assert read(tmp_path) == []


def written(folder, *lines):
    (folder / METRICS).write_bytes(b"".join(lines))


FIRST = b'{"update": 1, "samples": 8, "loss": 1.0}\n'
SCORED = b'{"update": 1, "samples": 8, "val/oa": 0.5}\n'


@pytest.mark.parametrize("evaluated", [True, False])
def test_an_evaluation_that_will_be_done_again_is_cut_off(evaluated, tmp_path):
    """The line of the update itself stays."""
    written(tmp_path, FIRST, SCORED)
    with Recorder(tmp_path, 1, evaluated=evaluated):
        pass
    assert (tmp_path / METRICS).read_bytes() == FIRST + SCORED * evaluated


@pytest.mark.parametrize("piece", [b"", b"nul", b"null", b'{"update": 2, "sam', b"\0\0\0", b"\xff"])
def test_a_last_line_that_is_torn_is_left_out(piece, tmp_path):
    written(tmp_path, FIRST, piece)
    assert read(tmp_path) == [json.loads(FIRST)]
    with Recorder(tmp_path, 1):
        pass
    assert (tmp_path / METRICS).read_bytes() == FIRST


def test_a_last_line_that_lost_only_its_end_stays(tmp_path):
    written(tmp_path, FIRST[:-1])
    assert read(tmp_path) == [json.loads(FIRST)]
    with Recorder(tmp_path, 1):
        pass
    assert (tmp_path / METRICS).read_bytes() == FIRST


@pytest.mark.parametrize(
    "line", [b"", b"null", b"3", b"[1]", b'{"a": 1}', b'{"update": "1", "samples": 8}', b"\xff\0"]
)
def test_a_damaged_line_is_named_and_left_alone(line, tmp_path):
    """To read, and to go on: what to do about it is for people."""
    content = FIRST + line + b"\n" + FIRST
    written(tmp_path, content)
    for use in (lambda: read(tmp_path), lambda: Recorder(tmp_path, 1)):
        with pytest.raises(ConfigError, match=r"metrics.jsonl:2: damaged, .* Remove the line, or"):
            use()
    assert (tmp_path / METRICS).read_bytes() == content


def test_a_full_disk_is_said_once_and_leaving_does_not_hide_it(tmp_path):
    """What could not be written is still there when the file is closed, and fails again."""
    if not pathlib.Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    full = open("/dev/full", "w")  # noqa: SIM115 (the recorder closes it)
    said = r"cannot be written \(No space left on device\); make"
    with pytest.raises(ConfigError, match=said), Recorder(tmp_path, 0) as recorder:
        recorder._file.close()
        recorder._file = full
        recorder.write({"update": 1, "samples": 4, "loss": 0.5})
