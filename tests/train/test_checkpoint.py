"""A checkpoint is finished or absent; a damaged one is noticed; a full disk loses nothing."""

import contextlib
import errno
import json
import logging
import os
import pathlib

import pytest
import safetensors
import torch

from swath.config import ConfigError
from swath.parallel.world import World
from swath.train import files
from swath.train.checkpoint import Checkpoints
from swath.train.files import Damaged, check_folder, write_file, write_folder
from tests.train.small import trainer, weights


@pytest.fixture
def run(tmp_path):
    made, _ = trainer(tmp_path, keep=3)
    made.run()
    return made


def damage(path: pathlib.Path) -> None:
    content = bytearray(path.read_bytes())
    content[-5] ^= 1  # one bit, in the last tensor
    path.write_bytes(content)


def test_what_is_read_is_what_was_saved(run, tmp_path):
    again, _ = trainer(tmp_path)
    assert again.state.progress == run.state.progress
    for part, tensors in run.state.tensors().items():
        assert tensors.keys() == again.state.tensors()[part].keys()
        for name, value in tensors.items():
            assert torch.equal(value, again.state.tensors()[part][name]), name
    assert {"0.weight/exp_avg", "0.weight/step"} <= again.state.tensors()["optimizer"].keys()


def test_any_safetensors_reader_can_open_one(run):
    newest = run.checkpoints.path(12)
    assert sorted(p.name for p in newest.iterdir()) == [
        "average.safetensors",
        "manifest.json",
        "model.safetensors",
        "optimizer.safetensors",
        "state.json",
    ]
    with safetensors.safe_open(newest / "model.safetensors", "np") as opened:
        assert set(opened.keys()) == set(run.state.model.state_dict())


@pytest.mark.parametrize(
    "name", ["model.safetensors", "optimizer.safetensors", "state.json", "manifest.json"]
)
def test_a_damaged_file_is_found_and_the_checkpoint_before_is_used(run, name, tmp_path, caplog):
    damage(run.checkpoints.path(12) / name)
    with caplog.at_level(logging.WARNING):
        again, _ = trainer(tmp_path, keep=3)
    assert again.state.progress.update == 10
    assert "checkpoint damaged" in caplog.text and "00000012" in caplog.text
    assert "the one before it is used" in caplog.text
    again.run()
    assert torch.equal(weights(again.state.model), weights(run.state.model))
    check_folder(run.checkpoints.path(12))  # written anew in place of the damaged one


@pytest.mark.parametrize("harm", ["missing", "shortened"])
def test_missing_and_shortened_files_are_named(run, harm):
    path = run.checkpoints.path(12) / "model.safetensors"
    if harm == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(Damaged, match=r"00000012/model.safetensors (is missing|has \d+ bytes)"):
        check_folder(run.checkpoints.path(12))


def test_a_checkpoint_whose_best_is_damaged_is_not_gone_on_from(tmp_path, caplog):
    """Its run would end without the weights it is to export."""
    made, _ = trainer(tmp_path, evaluate_every=48)
    made.objective.larger_is_better = True
    made.run()
    damage(made.checkpoints.path(6) / "average.safetensors")
    with caplog.at_level(logging.WARNING):
        again, _ = trainer(tmp_path)
    assert again.state.progress.update == 0 and "the run starts anew" in caplog.text


def test_a_full_disk_is_said_and_older_checkpoints_stay(run, monkeypatch, tmp_path):
    written = files._write

    def full(path, content):
        if path.name == "optimizer.safetensors":
            raise OSError(errno.ENOSPC, "No space left on device")
        written(path, content)

    monkeypatch.setattr(files, "_write", full)
    run.state.progress.update = 13
    with pytest.raises(ConfigError) as error:
        run.save()
    assert "00000013: cannot be saved, the disk is full" in str(error.value)
    assert "what was saved before is intact. Free some space and start again" in str(error.value)
    assert sorted(os.listdir(run.checkpoints.folder)) == ["00000009", "00000010", "00000012"]
    for update in run.checkpoints.updates():
        check_folder(run.checkpoints.path(update))


def test_a_real_full_disk_raises_what_the_test_above_pretends():
    if not pathlib.Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    with pytest.raises(OSError) as error:
        files._write(pathlib.Path("/dev/full"), b"x")
    assert error.value.errno == errno.ENOSPC


@pytest.mark.parametrize("moment", range(7))
def test_killed_at_any_moment_a_folder_is_old_or_new(moment, tmp_path, monkeypatch):
    """Stops before the n-th system call that changes the disk, where a kill could come."""
    target = tmp_path / "00000001"
    calls = 0

    class Killed(BaseException):
        pass

    def counted(real):
        def call(*args, **kwargs):
            nonlocal calls
            if calls == moment:
                raise Killed
            calls += 1
            return real(*args, **kwargs)

        return call

    monkeypatch.setattr(files, "_write", counted(files._write))
    monkeypatch.setattr(files, "_sync", counted(files._sync))
    monkeypatch.setattr(pathlib.Path, "rename", counted(pathlib.Path.rename))
    monkeypatch.setattr(pathlib.Path, "mkdir", counted(pathlib.Path.mkdir))
    with contextlib.suppress(Killed):
        write_folder(target, {"a": b"new", "b": b"newer"})
    if target.exists():
        check_folder(target)
        assert (target / "b").read_bytes() == b"newer"
    assert moment < 7 and (target.exists() == (moment >= 6))


def test_leftovers_of_a_killed_writer_are_removed(run):
    aside = run.checkpoints.folder / ".00000020.4711"
    aside.mkdir()
    (aside / "model.safetensors").write_bytes(b"half")
    assert run.checkpoints.updates() == [9, 10, 12]
    run.state.progress.update = 13
    run.save()
    assert not aside.exists()


def test_a_file_is_replaced_whole(tmp_path):
    path = tmp_path / "scores.json"
    write_file(path, b"old")
    write_file(path, b"new")
    assert path.read_bytes() == b"new" and os.listdir(tmp_path) == ["scores.json"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(errno.ENOSPC, "No space left")])
def test_a_file_half_written_is_not_seen(error, tmp_path, monkeypatch):
    """Killed, or out of space, in the middle: the old content stands."""
    path = tmp_path / "scores.json"
    write_file(path, b"old")

    def half(aside, content):
        aside.write_bytes(content[:2])
        raise error

    monkeypatch.setattr(files, "_write", half)
    with pytest.raises((KeyboardInterrupt, ConfigError)):
        write_file(path, b"newer")
    assert path.read_bytes() == b"old"


def recorded(monkeypatch) -> list[tuple[str, int]]:
    """Return a list that gets what is forced to disk or renamed, in order, by inode."""
    calls: list[tuple[str, int]] = []
    fsync = os.fsync

    def forced(handle):
        fsync(handle)
        calls.append(("forced", os.fstat(handle).st_ino))

    def noted(real):
        def rename(path, target):
            calls.append(("renamed", path.stat().st_ino))
            return real(path, target)

        return rename

    monkeypatch.setattr(os, "fsync", forced)
    monkeypatch.setattr(pathlib.Path, "replace", noted(pathlib.Path.replace))
    monkeypatch.setattr(pathlib.Path, "rename", noted(pathlib.Path.rename))
    return calls


def test_a_file_is_on_disk_before_it_has_its_name(tmp_path, monkeypatch):
    """And its name is on disk on return. A power cut cannot be had in a test; the calls can."""
    calls = recorded(monkeypatch)
    write_file(tmp_path / "scores.json", b"{}")
    file = (tmp_path / "scores.json").stat().st_ino
    folder = tmp_path.stat().st_ino
    assert calls == [("forced", file), ("renamed", file), ("forced", folder)]


def test_a_folder_and_its_files_are_on_disk_before_it_has_its_name(tmp_path, monkeypatch):
    calls = recorded(monkeypatch)
    path = tmp_path / "00000001"
    write_folder(path, {"a": b"1", "b": b"2"})
    forced = [("forced", (path / name).stat().st_ino) for name in ("a", "b", "manifest.json", ".")]
    renamed = ("renamed", path.stat().st_ino)
    assert calls == [*forced, renamed, ("forced", tmp_path.stat().st_ino)]


def test_a_run_on_other_data_is_refused(run, tmp_path):
    run.checkpoints.run = {"store": "aaaa"}
    run.state.progress.update = 13
    run.save()
    other = Checkpoints(run.checkpoints.folder, 3, World.alone(), {"store": "bbbb"})
    with pytest.raises(ConfigError, match="the run began with store aaaa, now it is bbbb; put the"):
        other.restore(run.state)


def save_on_ranks(folder: pathlib.Path) -> str:
    made, _ = trainer(folder, World.start("cpu"))

    def full(path, content):
        raise OSError(errno.ENOSPC, "No space left on device")

    before = files._write
    files._write = full
    try:
        made.save()
    except (ConfigError, RuntimeError) as error:
        return str(error)
    finally:
        files._write = before
    return "saved"


def test_if_rank_0_cannot_save_no_rank_is_left_waiting(ranks, tmp_path):
    first, second = ranks(2, save_on_ranks, tmp_path)
    assert "the disk is full" in first and second == "rank 0 failed; its own message says why"


def restore_on_ranks(folder: pathlib.Path) -> str:
    made, _ = trainer(folder, World.start("cpu"))

    def unreadable():
        raise PermissionError(errno.EACCES, "Permission denied")

    made.checkpoints.updates = unreadable  # only rank 0 looks
    try:
        made.checkpoints.restore(made.state)
    except (OSError, RuntimeError) as error:
        return str(error)
    return "restored"


def test_if_rank_0_cannot_look_for_checkpoints_no_rank_is_left_waiting(ranks, tmp_path):
    first, second = ranks(2, restore_on_ranks, tmp_path)
    assert "Permission denied" in first and second == "rank 0 failed; its own message says why"


def test_numbers_are_json(run):
    numbers = json.loads((run.checkpoints.path(12) / "state.json").read_text())
    assert numbers["samples"] == 96 and numbers["update"] == 12 and numbers["seconds"] > 0
