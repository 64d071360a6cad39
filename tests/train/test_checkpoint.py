"""A checkpoint is finished or absent; a damaged one is noticed; a full disk loses nothing."""

import contextlib
import dataclasses
import errno
import io
import json
import logging
import os
import pathlib
import pickle
import re
import threading
import time

import pytest
import safetensors
import torch

from swath import files
from swath.config import ConfigError
from swath.files import Damaged, check_folder, write_file, write_folder
from swath.nn.norm import BatchNorm2d
from swath.optimizers.adamw import AdamW
from swath.parallel.apply import spread
from swath.parallel.mesh import Mesh
from swath.parallel.replica import Replica
from swath.parallel.settings import Parallel
from swath.parallel.world import World
from swath.train import trainer as trainer_module
from swath.train import writing
from swath.train.checkpoint import Checkpoints
from swath.train.ema import Average
from swath.train.interrupt import Interrupted
from swath.train.state import TrainState
from swath.train.step import Diverged
from swath.train.trainer import Trainer
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
        "index.json",
        "manifest.json",
        "model.safetensors",
        "optimizer.safetensors",
        "state.json",
    ]
    with safetensors.safe_open(newest / "model.safetensors", "np") as opened:
        assert set(opened.keys()) == set(run.state.model.state_dict())


@pytest.mark.parametrize(
    "name",
    ["model.safetensors", "optimizer.safetensors", "index.json", "state.json", "manifest.json"],
)
def test_a_damaged_file_is_found_and_the_checkpoint_before_is_used(run, name, tmp_path, caplog):
    damage(run.checkpoints.path(12) / name)
    with caplog.at_level(logging.WARNING):
        again, _ = trainer(tmp_path, keep=3)
    assert again.state.progress.update == 10
    assert "checkpoint damaged" in caplog.text and "00000012" in caplog.text
    assert "the checkpoint after update 10 is used" in caplog.text
    again.run()
    assert torch.equal(weights(again.state.model), weights(run.state.model))
    check_folder(run.checkpoints.path(12))  # written anew in place of the damaged one


def finds_damage(path: pathlib.Path, part: int, parts: int) -> bool:
    try:
        check_folder(path, part, parts)
    except Damaged:
        return True
    return False


@pytest.mark.parametrize("parts", [1, 2, 3])
def test_callers_that_share_the_files_look_into_all_of_them(parts, tmp_path):
    """Whichever file is damaged, one of them finds it."""
    names = ["a", "b", "c", "d", "e"]
    for name in names:
        target = tmp_path / name
        write_folder(target, {each: b"content" for each in names})
        damage(target / name)
        assert [finds_damage(target, part, parts) for part in range(parts)].count(True) == 1


@pytest.mark.parametrize("harm", ["missing", "shortened"])
def test_missing_and_shortened_files_are_named(run, harm):
    path = run.checkpoints.path(12) / "model.safetensors"
    if harm == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(Damaged, match=r"00000012/model.safetensors (is missing|has \d+ bytes)"):
        check_folder(run.checkpoints.path(12))


def test_files_of_another_checkpoint_are_no_match_whatever_their_size(run):
    own, other = (run.checkpoints.path(n) / "model.safetensors" for n in (12, 10))
    assert own.stat().st_size == other.stat().st_size
    own.write_bytes(other.read_bytes())
    with pytest.raises(Damaged, match=r"00000012/model.safetensors does not match its checksum"):
        check_folder(run.checkpoints.path(12))


def rising(folder: pathlib.Path, **changes) -> Trainer:
    """Return a run whose first evaluation is its best."""
    made, _ = trainer(folder, **changes)
    made.objective.larger_is_better = True
    return made


def test_if_the_best_is_damaged_a_run_goes_back_to_make_it_again(tmp_path, caplog):
    """Then it ends as if nothing had happened, to the bit."""
    made = rising(tmp_path, evaluate_every=80, keep=3)
    made.run()
    assert made.checkpoints.updates() == [8, 10, 12] and made.state.progress.best_update == 10
    best = made.checkpoints.path(10) / "average.safetensors"
    before = best.read_bytes()
    damage(best)
    with caplog.at_level(logging.WARNING):
        again = rising(tmp_path, evaluate_every=80, keep=3)
    assert again.state.progress.update == 8
    assert "the checkpoint after update 8 is used" in caplog.text
    again.run()
    assert best.read_bytes() == before and again.state.progress.lost is None
    assert torch.equal(weights(again.state.model), weights(made.state.model))


def test_if_the_best_cannot_be_made_again_the_run_goes_on_without(tmp_path, caplog):
    """Rather than from the beginning, and it does not forget."""
    made = rising(tmp_path, evaluate_every=48)
    made.run()
    assert made.checkpoints.updates() == [6, 10, 12]
    damage(made.checkpoints.path(6) / "average.safetensors")
    with caplog.at_level(logging.WARNING):
        again = rising(tmp_path, evaluate_every=48, samples=144)
    progress = again.state.progress
    assert (progress.update, progress.best_update, progress.lost) == (12, None, 6)
    assert caplog.text.count("00000006/average.safetensors does not match its checksum") == 1
    assert (
        "the best weights so far, after update 6, are lost: there are no others; the next"
        " evaluation counts as the best" in caplog.text
    )
    assert "the checkpoint after update 12 is used" in caplog.text
    again.run()
    assert (progress.best_update, progress.lost) == (18, 6)
    caplog.clear()
    assert rising(tmp_path, evaluate_every=48).state.progress == progress
    assert "damaged" not in caplog.text


def test_another_that_was_the_best_stands_in_for_it(tmp_path, caplog):
    made, _ = trainer(tmp_path, keep=3)  # each evaluation is the best so far
    made.run()
    assert made.checkpoints.updates() == [9, 10, 12] and made.state.progress.best_update == 12
    ninth = made.checkpoints.numbers(9)["best"]
    with caplog.at_level(logging.WARNING):
        found = made.checkpoints.stand_in(12, lost=12)
    assert found == {"best": ninth, "best_update": 9, "lost": 12}
    assert "after update 12, are lost: those after update 9 are the best of the" in caplog.text


def test_a_full_disk_is_said_and_older_checkpoints_stay(run, monkeypatch, tmp_path):
    written = files._write

    def full(path, content):
        if path.name == "optimizer.safetensors":
            raise OSError(errno.ENOSPC, "No space left on device")
        return written(path, content)

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


@pytest.mark.parametrize("fails", [False, True], ids=["killed", "refused"])
@pytest.mark.parametrize("moment", range(3))
def test_while_a_folder_is_replaced_the_old_or_the_new_one_stands(
    moment, fails, tmp_path, monkeypatch
):
    """Killed, or refused by the disk, before the n-th rename or removal; then started again."""
    target = tmp_path / "00000001"
    write_folder(target, {"a": b"old"})

    class Killed(BaseException):
        pass

    calls = 0

    def counted(real):
        def call(*args, **kwargs):
            nonlocal calls
            calls += 1
            if calls == moment + 1:
                raise OSError(errno.EIO, "Input/output error") if fails else Killed
            return real(*args, **kwargs)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(pathlib.Path, "rename", counted(pathlib.Path.rename))
        with contextlib.suppress(Killed, OSError):
            write_folder(target, {"a": b"new"})
    files.remove_leftovers(tmp_path)
    check_folder(target)
    assert (target / "a").read_bytes() == (b"new" if moment == 2 else b"old")
    assert [path.name for path in tmp_path.iterdir()] == ["00000001"]


def test_a_run_that_starts_anew_keeps_what_it_saves(run):
    """Damaged ones have higher numbers; they are set aside, or each new one would be pruned."""
    for update in run.checkpoints.updates():
        (run.checkpoints.path(update) / "manifest.json").write_text("{")
    assert not run.checkpoints.restore(run.state)
    run.state.progress.update = 2
    run.save()
    assert run.checkpoints.updates() == [2]
    names = {path.name for path in run.checkpoints.folder.iterdir()}
    assert names == {"00000002", *(f"{n:08d}.damaged" for n in (9, 10, 12))}


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


def save_on_ranks(folder: pathlib.Path, failing: int, number: int) -> str:
    """Return what saving says if one rank cannot write."""
    made, _ = trainer(folder, World.start("cpu"))
    before = files._write

    def full(path, content):
        if made.checkpoints.world.rank == failing:
            raise OSError(number, os.strerror(number))
        return before(path, content)

    files._write = full
    try:
        made.save()
    except (ConfigError, OSError, RuntimeError) as error:
        return f"{type(error).__name__}: {error}"
    finally:
        files._write = before
    return "saved"


@pytest.mark.parametrize("failing", [0, 1])
def test_if_one_rank_cannot_save_all_say_so(ranks, failing, tmp_path):
    answers = ranks(2, save_on_ranks, tmp_path, failing, errno.ENOSPC)
    for answer in answers:
        assert answer.startswith("ConfigError") and "0: cannot be saved, the disk is full" in answer
    assert os.listdir(tmp_path / "checkpoints") == []


def test_what_a_user_cannot_mend_names_the_rank(ranks, tmp_path):
    first, second = ranks(2, save_on_ranks, tmp_path, 1, errno.EIO)
    assert first == "RuntimeError: rank 1 failed: [Errno 5] Input/output error"
    assert second.startswith("OSError")


def damaged_on_ranks(folder: pathlib.Path) -> tuple[int, str]:
    """Save twice, damage the second; return where a run goes on from, and the log."""
    world = World.start("cpu")
    made, _ = trainer(folder, world)
    made.save()
    made.state.progress.update = 1
    made.save()
    if world.first:
        damage(next((folder / "checkpoints/00000001").glob("model-00001*")))
    world.any(True)
    lines = io.StringIO()
    handler = logging.StreamHandler(lines)
    logging.getLogger("swath").addHandler(handler)
    again, _ = trainer(folder, world)
    logging.getLogger("swath").removeHandler(handler)
    return again.state.progress.update, lines.getvalue()


def test_what_one_rank_finds_damaged_no_rank_uses(ranks, tmp_path):
    """Each rank looks into its share of the files only."""
    (first, told), (second, quiet) = ranks(2, damaged_on_ranks, tmp_path)
    assert first == second == 0 and quiet == ""
    assert "model-00001.safetensors does not match its checksum" in told


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


def test_nothing_is_unpickled(run, tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("unpickled")

    for module, name in ((pickle, "load"), (pickle, "loads"), (torch, "load")):
        monkeypatch.setattr(module, name, refuse)
    again, _ = trainer(tmp_path)
    assert again.state.progress.update == 12
    names = {p.suffix for p in run.checkpoints.path(12).iterdir()}
    assert names == {".safetensors", ".json"}


def test_a_model_of_other_shapes_is_refused(run):
    run.state.model[3] = torch.nn.Conv2d(8, 3, 1).double()
    with pytest.raises(ConfigError, match=r"model/3.weight is of shape \[2, 8, 1, 1\], the"):
        run.checkpoints.restore(run.state)


def test_a_model_that_lost_a_layer_is_refused(run):
    run.state.model[3] = torch.nn.Identity()
    del run.state.average.tensors["3.weight"], run.state.average.tensors["3.bias"]
    with pytest.raises(ConfigError, match=r"the model has no model/3.weight \(10 such tensors"):
        run.checkpoints.restore(run.state)


class Normed:
    """A run with batch statistics, and a parameter of one number, as ranks hold it."""

    def __init__(self, parallel: Parallel, seed: int) -> None:
        torch.manual_seed(seed)
        world = World.start("cpu") if parallel.fixed > 1 else World.alone()
        norm, scale = BatchNorm2d(3), torch.nn.Linear(1, 1, bias=False)
        model = torch.nn.Sequential(torch.nn.Conv2d(3, 3, 1), norm, scale).double()
        norm.running_mean.copy_(torch.rand(3))
        norm.num_batches_tracked.fill_(seed)
        mesh = Mesh.of(world, parallel)
        self.replica = Replica(spread(model, mesh, parallel), mesh)
        self.model = self.replica.model
        self.state = TrainState(self.model, AdamW().build(self.model), Average(self.model, 9))
        for number, p in enumerate(self.model.parameters()):
            p.grad = torch.full_like(p, seed + number)
        self.state.optimizer.step()
        self.state.average.update(self.model, 1)
        self.state.progress.update = seed

    def everything(self) -> dict[str, list]:
        return {
            f"{part}/{name}": (t.full_tensor() if hasattr(t, "full_tensor") else t).tolist()
            for part, tensors in self.state.tensors().items()
            for name, t in tensors.items()
        }


def save_normed(parallel: Parallel, folder: pathlib.Path) -> dict[str, list]:
    made = Normed(parallel, seed=7)
    Checkpoints(folder, 2, made.replica.world).save(made.state)
    return made.everything()


def load_normed(parallel: Parallel, folder: pathlib.Path) -> dict[str, list]:
    made = Normed(parallel, seed=3)
    assert Checkpoints(folder, 2, made.replica.world).restore(made.state)
    return made.everything()


def test_statistics_and_counters_travel_with_fewer_rows_than_ranks(ranks, tmp_path):
    """Three channels on four ranks: the last holds nothing of them."""
    for wrote, number in ((Parallel(shard=4), 4), (Parallel(), 1), (Parallel(shard=2), 2)):
        folder = tmp_path / str(number)
        saved = ranks(number, save_normed, wrote, folder)[0]
        assert saved["model/1.num_batches_tracked"] == 7
        assert saved["optimizer/1.weight/step"] == 1.0
        for reads, count in ((Parallel(), 1), (Parallel(shard=4), 4), (Parallel(shard=3), 3)):
            assert ranks(count, load_normed, reads, folder) == [saved] * count


class Held:
    """Lets checkpoints be written only as far as a test wants."""

    def __init__(self, monkeypatch) -> None:
        self.go = threading.Event()
        self.error: OSError | None = None
        self.running = self.most = 0
        write = files._write

        def slow(path, content):
            if path.suffix != ".safetensors":
                return write(path, content)
            self.running += 1
            self.most = max(self.most, self.running)
            assert self.go.wait(30), "never let go"
            self.running -= 1
            if self.error:
                raise self.error
            return write(path, content)

        monkeypatch.setattr(files, "_write", slow)


@pytest.fixture
def behind(tmp_path, monkeypatch):
    """A trainer that writes while it trains, and what holds its writing up."""
    made, _ = trainer(tmp_path, evaluate_every=None, checkpoint_every=24, keep=3)
    made.checkpoints.behind = True
    held = Held(monkeypatch)
    yield made, held
    held.go.set()
    made.checkpoints.move(made.checkpoints.world)  # its thread must not outlive the test


def test_training_goes_on_while_a_checkpoint_is_written(behind, tmp_path, monkeypatch):
    made, held = behind
    step = trainer_module.train_step
    seen = []

    def noted(state, *args):
        seen.append((state.progress.update, made.checkpoints.updates()))
        if state.progress.update == 5:  # two updates after the first save
            held.go.set()
        return step(state, *args)

    monkeypatch.setattr(trainer_module, "train_step", noted)
    made.run()
    assert (5, []) in seen
    assert made.checkpoints.updates() == [6, 9, 12]
    for update in made.checkpoints.updates():
        check_folder(made.checkpoints.path(update))
    reached = weights(made.state.model)
    again, _ = trainer(tmp_path, evaluate_every=None)
    assert torch.equal(weights(again.state.model), reached)


def test_what_is_written_behind_is_of_the_update_it_was_saved_at(behind, tmp_path):
    made, held = behind
    made._update()
    before = weights(made.state.model)
    made.save()
    made._update()  # the first one with a rate above 0
    assert not torch.equal(weights(made.state.model), before)
    held.go.set()
    made.checkpoints.finish()
    again, _ = trainer(tmp_path)
    assert torch.equal(weights(again.state.model), before)


def test_two_are_never_written_at_once(behind):
    made, held = behind
    made.save()
    threading.Timer(0.2, held.go.set).start()
    made._update()
    made.save()
    made.checkpoints.finish()
    assert held.most == 1 and made.checkpoints.updates() == [0, 1]


@pytest.mark.parametrize("aside", [True, False])
def test_a_disk_that_hangs_is_told_of(behind, aside, monkeypatch, caplog):
    """Whether training goes on meanwhile or waits; and it is told of less and less often."""
    monkeypatch.setattr(writing, "SLOW_SECONDS", 0.02)
    made, held = behind
    made.checkpoints.behind = aside
    threading.Timer(0.3, held.go.set).start()
    made.save()
    made.checkpoints.finish()
    lines = [r.getMessage() for r in caplog.records if "still being written" in r.getMessage()]
    assert 1 <= len(lines) <= 12
    assert re.search(r"checkpoints/00000000: still .* s, now model.safetensors; the fi", lines[0])
    assert made.checkpoints.updates() == [0]


def test_a_write_that_failed_behind_is_told_after_the_next_update(behind):
    made, held = behind
    made._update()
    made.save()
    made._update()
    held.error = OSError(errno.ENOSPC, "No space left on device")
    held.go.set()
    with pytest.raises(ConfigError, match=r"00000001: cannot be saved, the disk is full"):
        made.run()
    assert made.state.progress.update <= 4 and made.checkpoints.updates() == []
    assert os.listdir(made.checkpoints.folder) == []


def test_a_run_that_diverges_keeps_what_it_was_writing(behind, monkeypatch):
    made, held = behind
    made.loader.spoiled = tuple(range(32, 40))
    threading.Timer(0.3, held.go.set).start()
    with pytest.raises(Diverged):
        made.run()
    assert made.checkpoints.updates() == [3]


def test_asked_to_leave_it_waits_until_all_is_on_disk(behind):
    made, held = behind
    threading.Timer(0.3, held.go.set).start()
    made.interrupts.pending = "SIGTERM"
    with pytest.raises(Interrupted):
        made.run()
    assert made.checkpoints.updates() == [1]
    check_folder(made.checkpoints.path(1))


def write_half(folder: pathlib.Path) -> None:
    """Train on from what is there; write half of the next checkpoint and wait to be killed."""
    made, _ = trainer(folder)
    made.checkpoints.behind = True

    def half(path, content):
        with open(path, "wb") as file:
            file.write(next(iter(content)))
            file.flush()
            time.sleep(600)

    files._write = half
    made.settings = dataclasses.replace(made.settings, samples=10**6)
    made.save()
    while True:
        made._update()
        made.checkpoints.poll()


def test_killed_in_the_middle_of_a_write_the_one_before_is_whole(run, ranks, tmp_path):
    process = ranks.start(write_half, tmp_path)
    deadline = time.monotonic() + 60
    while not list(run.checkpoints.folder.glob(".*.part/*.safetensors")):
        assert process.is_alive() and time.monotonic() < deadline, "nothing was written"
        time.sleep(0.01)
    time.sleep(0.1)
    process.kill()
    process.join(60)
    assert run.checkpoints.updates() == [9, 10, 12]
    again, _ = trainer(tmp_path)
    assert torch.equal(weights(again.state.model), weights(run.state.model))
