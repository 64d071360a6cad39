"""No line is there twice after a resume, and none is missing."""

import json

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

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


def test_figures_that_are_not_numbers_stay_json(tmp_path):
    """NaN is what an undefined score is; readers other than Python's must get along."""
    with Recorder(tmp_path, 0) as recorder:
        recorder.write({"update": 1, "samples": 8, "val/iou/water": float("nan")})
    line = (tmp_path / METRICS).read_text()
    assert json.loads(line, parse_constant=lambda name: name)["val/iou/water"] is None
    assert read(tmp_path)[0]["val/iou/water"] is None


def test_a_folder_without_a_record_has_none(tmp_path):
    assert read(tmp_path) == []
