"""A run reads its own samples and no others, near or far, and its curve does not tell which."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from swath.data.order import Order
from swath.data.settings import DataSettings
from swath.data.stage import Stage
from swath.data.store import Store
from swath.parallel.settings import Parallel
from swath.parallel.world import World
from swath.train.export import load_model
from swath.train.job import TrainJob
from swath.train.record import read
from swath.train.setup import train
from tests.train.test_profile import curve
from tests.train.test_usage import job, store  # noqa: F401


def staged(store: str, folder: Path, near: Path, mode: str) -> TrainJob:  # noqa: F811
    stage = Stage(folder=str(near), mode=mode)
    return job(store, folder, data=DataSettings(store=store, stage=stage))


@pytest.mark.parametrize("mode", ["copy", "cache"])
def test_staging_changes_no_figure(mode, store, tmp_path):  # noqa: F811
    """Bit for bit; the record tells bytes and seconds."""
    train(job(store, tmp_path / "far"), world=World.alone())
    train(staged(store, tmp_path / "near", tmp_path / "disk", mode), world=World.alone())
    assert curve(tmp_path / "near") == curve(tmp_path / "far")
    ours, theirs = (load_model(tmp_path / n).network.state_dict() for n in ("near", "far"))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    copied = sum(p.stat().st_size for p in (tmp_path / "disk").rglob("c/**/0") if p.is_file())
    for figures in (f for f in read(tmp_path / "near") if "loss" in f):
        assert figures["staged_seconds"] >= 0
        assert figures["staged_bytes"] in ((copied,) if mode == "copy" else (0, copied))
    assert not any("staged_bytes" in figures for figures in read(tmp_path / "far"))


def test_a_run_may_be_gone_on_with_near_or_far(store, tmp_path):  # noqa: F811
    """Where shards are read from is no part of the result."""
    train(job(store, tmp_path / "run"), world=World.alone())
    train(staged(store, tmp_path / "run", tmp_path / "disk", "copy"), world=World.alone())


def test_ranks_copy_once_and_go_on_together(ranks, store, tmp_path):  # noqa: F811
    ranks(3, train, staged(store, tmp_path / "run", tmp_path / "disk", "copy"))
    copied = sum(p.stat().st_size for p in (tmp_path / "disk").rglob("c/**/0") if p.is_file())
    lines = [f for f in read(tmp_path / "run") if "loss" in f]
    assert [figures["staged_bytes"] for figures in lines] == [copied] * 4


def refused(settings: TrainJob) -> str:
    try:
        train(settings)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "trained"


def test_a_folder_that_one_cannot_write_ends_all(ranks, store, tmp_path):  # noqa: F811
    """Not one rank, with the others waiting for it."""
    (tmp_path / "file").touch()
    settings = staged(store, tmp_path / "run", tmp_path / "file", "copy")
    for said in ranks(2, refused, settings):
        assert said.startswith("ConfigError: data.stage.folder=") and "cannot be written" in said


def reads(settings: TrainJob) -> list[int]:
    """Return the samples that this rank reads while it trains."""
    seen: list[int] = []
    plain = Store.read

    def noted(store: Store, indices: Sequence[int], *args, **options):  # noqa: F811
        seen.extend(np.asarray(indices).tolist())
        return plain(store, indices, *args, **options)

    Store.read = noted
    try:
        train(settings)
    finally:
        Store.read = plain
    return seen


@pytest.mark.parametrize("parallel", [Parallel(), Parallel(shard=3)], ids=["replicas", "shards"])
def test_each_replica_reads_only_its_own_samples(ranks, parallel, store, tmp_path):  # noqa: F811
    """Microbatch i of an update is that of replica i % 3, and nobody else reads it; where shards
    want as many passes from each, the missing ones are the update's first microbatch."""
    settings = job(store, tmp_path, parallel=parallel)
    indices = settings.data.open().select("train").indices
    order, passes, micro = Order(len(indices), settings.seed), 4, 2
    for rank, seen in enumerate(ranks(3, reads, settings)):
        learned = [index for index in seen if index in indices]  # the others are validated on
        firsts = list(range(rank, passes, 3))
        firsts += [0] if len(firsts) < 2 and parallel.shard == 3 else []
        mine: list[int] = []
        for update in range(4 + settings.compute.prefetch):  # at least as far as is read ahead
            for first in firsts:
                start = (update * passes + first) * micro
                mine += indices[order.index(np.arange(start, start + micro))].tolist()
        needed, ahead = 4 * len(firsts) * micro, settings.compute.prefetch * micro
        assert needed <= len(learned) <= needed + ahead
        assert learned == mine[: len(learned)]
