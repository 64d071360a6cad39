"""Copies near a node: the same samples, each shard copied once, nothing torn, no surprise."""

from __future__ import annotations

import collections
import os
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest

from swath.config import ConfigError
from swath.data import stage
from swath.data.build import build
from swath.data.settings import DataSettings
from swath.data.split import Split
from swath.data.stage import Stage, Staging
from swath.data.store import Store
from swath.datasets.synthetic import Synthetic

SAMPLES, PER_FILE = 40, 8
ALL = np.random.default_rng(3).permutation(SAMPLES)


def made(path: Path, compress: bool = False) -> str:
    """A store of five shards an array, images and masks."""
    made = build(
        Synthetic(samples=SAMPLES, size=16, bands=3),
        path,
        Split(by="random"),
        compress=compress,
        progress=False,
        shard_bytes=PER_FILE * 3 * 16 * 16 * 2,
    )
    assert made.per_file == PER_FILE
    return str(path)


@pytest.fixture(scope="module", params=[False, True], ids=["raw", "packed"])
def store(request, tmp_path_factory) -> str:
    return made(tmp_path_factory.mktemp("stage") / "store", request.param)


def near(store: str, folder: Path, mode: str = "copy") -> Store:
    """The store, read by way of ``folder``."""
    data = DataSettings(store=store, stage=Stage(folder=str(folder), mode=mode)).open()
    data.stage()
    return data.store


def read(store: Store, indices: np.ndarray = ALL) -> dict[str, np.ndarray]:
    return store.read(indices).result()


def same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values, err_msg=name)


def shards(folder: str | Path) -> list[Path]:
    """The shards below ``folder`` that are read, in the order of their arrays."""
    found = [p for p in Path(folder).rglob("0") if p.is_file() and "c" in p.parts[-5:-2]]
    others = ("where", "when", "given", "name", "groups")
    return sorted(p for p in found if not set(others) & set(p.relative_to(folder).parts))


def size(folder: str | Path) -> int:
    return sum(path.stat().st_size for path in shards(folder))


def eventually(staging: Staging, folder: str) -> None:
    """Wait until everything that was asked for has come."""
    done = threading.Event()
    for _ in range(500):
        if size(staging.folder) == size(folder):
            return
        done.wait(0.02)
    raise AssertionError(f"{size(staging.folder)} of {size(folder)} bytes came")


def test_after_copying_the_originals_are_not_read(store, tmp_path):
    expected = read(Store.open(store))
    copied = tmp_path / "store"
    shutil.copytree(store, copied)
    staged = near(str(copied), tmp_path / "near")
    assert staged.staging.copied_bytes == size(copied) > 0 and staged.staging.copied_seconds > 0
    for path in shards(copied):
        path.unlink()
    same(read(staged), expected)


def test_what_is_there_and_whole_is_not_copied_again(store, tmp_path):
    """What is not whole is: another size, another time, or gone."""
    expected = read(Store.open(store))
    first = near(store, tmp_path)
    assert near(store, tmp_path).staging.copied_bytes == 0
    torn, older, gone = shards(first.staging.folder)[:3]
    sizes = [path.stat().st_size for path in (torn, older, gone)]
    torn.write_bytes(b"short")
    os.utime(older, (0, 0))
    gone.unlink()
    again = near(store, tmp_path)
    assert again.staging.copied_bytes == sum(sizes)
    same(read(again), expected)


@pytest.mark.parametrize("mode", ["copy", "cache"])
def test_an_address_is_staged_as_a_folder_is(mode, store, tmp_path):
    """Of which neither size nor time can be asked; what is there was renamed, so it is whole."""
    expected, there = read(Store.open(store)), f"file://{store}/"
    staged = near(there, tmp_path, mode)
    same(read(staged), expected)
    eventually(staged.staging, store)
    same(read(staged), expected)
    assert near(there, tmp_path).staging.copied_bytes == 0


def test_only_what_is_read_is_copied(tmp_path):
    """Neither another modality, nor columns."""
    path = made(tmp_path / "store")
    staged = near(path, tmp_path / "near").staging
    assert {p.relative_to(staged.folder).parts[0] for p in shards(staged.folder)} == {
        m.name for m in Store.open(path).contents.modalities
    } | {"label"}
    assert not list(staged.folder.glob("where/**/*"))


class Killed(BaseException):
    """As a kill: no handler of ours knows it."""


def test_a_copy_that_was_cut_short_is_absent(store, tmp_path, monkeypatch):
    """And is begun anew by whoever comes next."""
    copy = shutil.copyfileobj

    def torn(source, target, length):
        target.write(source.read(100))
        target.flush()
        raise Killed

    monkeypatch.setattr(stage.shutil, "copyfileobj", torn)
    with pytest.raises(Killed):
        near(store, tmp_path)
    assert shards(tmp_path) == [] and list(tmp_path.glob("**/.0.part"))
    monkeypatch.setattr(stage.shutil, "copyfileobj", copy)
    staged = near(store, tmp_path)
    assert staged.staging.copied_bytes == size(store)
    same(read(staged), read(Store.open(store)))


def test_while_a_shard_comes_its_original_is_read(store, tmp_path, monkeypatch):
    """First nothing is near, then a part of a batch, then all of it; always the same samples."""
    expected, go = read(Store.open(store)), threading.Semaphore(0)
    copy = shutil.copyfileobj

    def slow(*args):
        go.acquire()
        copy(*args)

    monkeypatch.setattr(stage.shutil, "copyfileobj", slow)
    staged = near(store, tmp_path, "cache")
    same(read(staged), expected)
    same(read(staged), expected)
    assert shards(tmp_path) == [] and staged.staging.copied_bytes == 0
    for _ in range(3):
        go.release()
    for _ in range(500):
        if len(shards(tmp_path)) == 3:
            break
        threading.Event().wait(0.02)
    assert len(shards(tmp_path)) == 3
    same(read(staged), expected)
    for _ in shards(store)[3:]:
        go.release()
    eventually(staged.staging, store)
    same(read(staged), expected)
    assert near(store, tmp_path, "cache").staging.copied_bytes == 0


def test_a_shard_that_nobody_asks_for_is_not_copied(store, tmp_path):
    staged = near(store, tmp_path, "cache")
    same(read(staged, np.array([3])), read(Store.open(store), np.array([3])))
    for _ in range(500):
        if len(shards(tmp_path)) == 2:  # of the image and of the mask
            break
        threading.Event().wait(0.02)
    assert {path.parts[path.parts.index("c") + 1] for path in shards(tmp_path)} == {"0"}


def staged_by(settings: DataSettings) -> tuple[int, dict[str, np.ndarray]]:
    data = settings.open()
    data.stage()
    found = data.store.read(ALL).result()
    staging = data.store.staging
    if staging.settings.mode == "cache":
        eventually(staging, settings.store)
        for _ in range(50):  # a rank counts a copy after it has been given its name
            threading.Event().wait(0.01)
    return staging.copied_bytes, found


@pytest.mark.parametrize("mode", ["copy", "cache"])
def test_ranks_of_a_node_copy_each_shard_once(ranks, mode, store, tmp_path):
    settings = DataSettings(store=store, stage=Stage(folder=str(tmp_path), mode=mode))
    answers = ranks(3, staged_by, settings)
    assert sum(copied for copied, _ in answers) == size(store)
    for _, found in answers:
        same(found, read(Store.open(store)))


def test_a_damaged_copy_is_removed_and_its_original_read(store, tmp_path, caplog):
    first = near(store, tmp_path)
    spoiled = shards(first.staging.folder)[0]
    facts = spoiled.stat()
    content = bytearray(spoiled.read_bytes())
    content[: len(content) // 2] = bytes(len(content) // 2)
    spoiled.write_bytes(content)
    os.utime(spoiled, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    staged = near(store, tmp_path)
    assert staged.staging.copied_bytes == 0
    same(read(staged), read(Store.open(store)))
    assert "it is a copy: the original is read" in caplog.text and not spoiled.exists()
    same(read(staged), read(Store.open(store)))


Disk = collections.namedtuple("Disk", "total used free")


def test_no_room_for_all_is_said_with_both_sizes(store, tmp_path, monkeypatch):
    monkeypatch.setattr(stage.shutil, "disk_usage", lambda _: Disk(50_000, 39_000, 11_000))
    with pytest.raises(ConfigError) as error:
        near(store, tmp_path)
    said = str(error.value)
    assert "has room for 9.8 KiB" in said and "set data.stage.mode=cache" in said
    assert f"{size(store) / 1024:.1f} KiB of {store} are not there yet" in said
    assert shards(tmp_path) == []


def test_a_disk_that_gets_full_is_said_when_copying(store, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(stage.shutil, "copyfileobj", full)
    with pytest.raises(ConfigError, match=r"data.stage.folder=.*: the disk is full; set .*cache"):
        near(store, tmp_path)
    assert not list(tmp_path.glob("**/.0.part"))


def test_a_cache_that_is_full_keeps_what_fits(store, tmp_path, monkeypatch):
    """Room for two shards; all samples come nevertheless."""
    expected = read(Store.open(store))
    most = 1 + sum(path.stat().st_size for path in shards(store)[:2])
    told = threading.Event()
    monkeypatch.setattr(stage.log, "warning", lambda *words: told.set())
    monkeypatch.setattr(stage.shutil, "disk_usage", lambda _: Disk(0, 0, most - size(tmp_path)))
    staged = near(store, tmp_path, "cache")
    same(read(staged), expected)
    assert told.wait(30)
    kept = size(tmp_path)
    assert 0 < kept <= most and staged.staging.copied_bytes == kept
    same(read(staged), expected)


def test_a_folder_that_cannot_be_written_is_refused(store, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"cannot be written \(Not a directory\); name a folder"):
        near(store, tmp_path / "file")


def test_the_folder_may_name_a_variable(store, tmp_path, monkeypatch):
    monkeypatch.setenv("NODE_DISK", str(tmp_path))
    staged = near(store, Path("${NODE_DISK}/swath"))
    assert staged.staging.folder.parent == tmp_path / "swath"
    monkeypatch.delenv("NODE_DISK")
    with pytest.raises(ConfigError, match=r"environment variable \$\{NODE_DISK\} is not set here"):
        near(store, Path("${NODE_DISK}/swath"))


def test_copies_of_another_store_are_not_taken(store, tmp_path):
    other = tmp_path / "other"
    build(
        Synthetic(samples=SAMPLES, size=16, bands=3, seed=9),
        other,
        Split(by="random"),
        progress=False,
    )
    near(store, tmp_path / "near")
    same(read(near(str(other), tmp_path / "near")), read(Store.open(other)))
