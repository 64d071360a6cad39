"""A trace has the ranges it should, the table adds up, and the curve is none the wiser."""

from __future__ import annotations

import dataclasses
import gzip
import json
import re
from collections import Counter
from pathlib import Path

import pytest
import torch

from swath.config import ConfigError
from swath.parallel.settings import Parallel
from swath.parallel.world import World
from swath.train.export import load_model
from swath.train.profile import Profile
from swath.train.record import read
from swath.train.settings import TrainSettings
from swath.train.setup import train
from swath.train.trace import Times, covered, own_times, times, told
from tests.train.test_usage import job, store  # noqa: F401

COURSE = TrainSettings(samples=48, evaluate_every=24, checkpoint_every=24, precision="fp64")
TENSORBOARD = re.compile(r"^(.*?)(\.\d+)?\.pt\.trace\.json(?:\.gz)?$")
"""How torch's plugin for TensorBoard finds traces: worker and, as a number, the span."""


def ranges(path: Path) -> Counter[str]:
    """Return how often each named range is in the trace."""
    with gzip.open(path, "rt") as file:
        events = json.load(file)["traceEvents"]
    return Counter(e["name"] for e in events if e.get("cat") == "user_annotation")


def curve(folder: Path) -> list[dict]:
    names = ("update", "samples", "loss", "grad_norm", "lr", "val/loss", "val/oa")
    return [{n: f[n] for n in names if n in f} for f in read(folder)]


@pytest.fixture(scope="module")
def profiled(store, tmp_path_factory):  # noqa: F811
    folder = tmp_path_factory.mktemp("profiled") / "run"
    settings = job(store, folder, train=COURSE, profile=Profile(updates=(2, 3, 6)))
    train(settings, world=World.alone())
    return folder


def test_a_trace_has_each_range_as_often_as_it_happened(profiled):
    """4 microbatches an update; a checkpoint and an evaluation follow the third and the last."""
    files = sorted(path.name for path in (profiled / "profile").glob("*.gz"))
    assert files == [f"rank0.{update}.pt.trace.json.gz" for update in (2, 3, 6)]
    assert [TENSORBOARD.match(name).groups() for name in files] == [
        ("rank0", ".2"), ("rank0", ".3"), ("rank0", ".6")
    ]  # fmt: skip
    once = {"exchange": 1, "optimiser": 1}
    each = {"data": 4, "forward": 4, "backward": 4}
    found = ranges(profiled / "profile" / files[0])
    assert {n: found[n] for n in (*once, *each)} == {**once, **each}
    assert found["ProfilerStep#2"] == 1 and not found["checkpoint"] and not found["validation"]
    for name, update in ((files[1], 3), (files[2], 6)):
        found = ranges(profiled / "profile" / name)
        assert found[f"ProfilerStep#{update}"] == found["validation"] == 1
        assert found["checkpoint"] >= 1 and found["forward"] == 4 and found["data"] > 4


def test_the_table_adds_up_to_the_time_of_the_update(profiled):
    text = (profiled / "profile/rank0.2.txt").read_text()
    found = Times.from_json((profiled / "profile/rank0.2.json").read_text())
    assert told(found) == text and text.startswith("update 2, rank 0: ")
    assert sum(row.seconds for row in found.ranges) == pytest.approx(found.seconds, rel=1e-6)
    assert {row.name: row.times for row in found.ranges if row.times} == {
        "data": 4, "forward": 4, "backward": 4, "exchange": 1, "optimiser": 1
    }  # fmt: skip
    assert any("aten::" in row.name for row in found.operations)
    assert found.gpu_busy is None and "GPU" not in text


def test_profiling_changes_no_figure(profiled, store, tmp_path):  # noqa: F811
    """Bit for bit, the weights too."""
    train(job(store, tmp_path, train=COURSE), world=World.alone())
    assert curve(profiled) == curve(tmp_path)
    ours, theirs = (load_model(f).network.state_dict() for f in (profiled, tmp_path))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert not (tmp_path / "profile").exists()


@pytest.mark.parametrize("parallel", [{}, {"shard": 2}, {"pipeline": 2}], ids=str)
def test_chosen_ranks_write_and_waits_are_seen(ranks, parallel, store, tmp_path):  # noqa: F811
    chosen = Profile(updates=(3,), ranks=(1,))
    settings = job(store, tmp_path, profile=chosen, parallel=Parallel(**parallel))
    ranks(2, train, settings)
    (file,) = (tmp_path / "profile").glob("*.gz")
    assert file.name == "rank1.3.pt.trace.json.gz"
    found, passes = globals()["ranges"](file), 4 if "pipeline" in parallel else 2
    assert (found["data"], found["forward"], found["backward"]) == (passes,) * 3
    assert found["exchange"] == found["optimiser"] == 1 and found["waiting"] > 0


def test_a_trace_that_cannot_be_written_does_not_end_the_run(store, tmp_path, caplog):  # noqa: F811
    (tmp_path / "run").mkdir()
    (tmp_path / "run/profile").write_text("in the way")
    train(job(store, tmp_path / "run", profile=Profile(updates=(2,))), world=World.alone())
    assert "the trace of update 2 cannot be written" in caplog.text
    assert len([f for f in read(tmp_path / "run") if "loss" in f]) == 4


def event(name: str, start: float, length: float, cat: str = "user_annotation", **more) -> dict:
    return {"ph": "X", "cat": cat, "name": name, "ts": start, "dur": length, "tid": 1, **more}


def kernel(name: str, number: int, queued: float, start: float, length: float) -> list[dict]:
    """A launch on the host, from another thread as in the backward pass, and what it launched."""
    told = {"correlation": number}
    return [
        event("cudaLaunchKernel", queued, 1, "cuda_runtime", args=told, tid=2),
        event(name, start, length, "kernel", args=told, tid=7),
    ]


def test_a_kernel_belongs_to_what_queued_it_and_exchanges_alone_are_exposed():
    """By hand, in microseconds: backward queues a product and a sum over ranks, which overlap for
    100; 50 of the sum are alone."""
    events = [
        event("ProfilerStep#7", 0, 1000),
        event("forward", 100, 200),
        event("backward", 300, 400),
        event("waiting", 500, 100),
        event("forward", 0, 50, tid=3),  # of another thread
        *kernel("gemm", 1, 150, 200, 200),
        *kernel("gemm", 2, 310, 400, 200),
        *kernel("ncclDevKernel_AllReduce", 3, 320, 500, 150),
        *kernel("copy", 4, 800, 850, 10),
    ]
    found = times(events, 7, 0)
    rows = {row.name: (row.times, row.seconds * 1e6, row.gpu_seconds * 1e6) for row in found.ranges}
    assert rows == {
        "forward": (1, pytest.approx(200), pytest.approx(200)),
        "backward": (1, pytest.approx(300), pytest.approx(350)),
        "waiting": (1, pytest.approx(100), 0),
        "other": (0, pytest.approx(400), pytest.approx(10)),
    }
    assert found.gpu_busy * 1e6 == pytest.approx(460) and found.exposed * 1e6 == pytest.approx(50)
    assert (found.operations[0].name, found.operations[0].times) == ("gemm", 2)
    assert "with exchanges alone for 0.0001 s (5.0%)" in told(found)


def test_time_inside_is_taken_from_the_outside_of_the_same_thread():
    spans = [event("a", 0, 10), event("b", 1, 4), event("c", 2, 1), event("d", 6, 2)]
    assert own_times([*spans, {**event("e", 3, 5), "tid": 9}]) == [4, 3, 1, 2, 5]
    assert covered(spans[1:]) == 6


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"updates": (0,)}, r"profile.updates=\[0\]: updates count from 1"),
        ({"ranks": (1,)}, r"profile.ranks=\[1\] has no effect without updates"),
        ({"updates": (1,), "ranks": ()}, "profile.ranks is empty"),
    ],
)
def test_settings_that_mean_nothing_are_refused(changes, said):
    with pytest.raises(ConfigError, match=said):
        Profile(**changes)


@pytest.mark.parametrize(
    ("profile", "said"),
    [
        (Profile(updates=(2, 5)), "5 has no effect in a run of 4 updates; name some from 1 to 4"),
        (Profile(updates=(2,), ranks=(0, 3)), "there is no rank 3 among 1; name some from 0 to 0"),
        (Profile(updates=(2,), kind="nvtx"), "marks ranges for NVIDIA's tools, .* on the CPU"),
    ],
)
def test_what_is_not_in_the_run_is_refused_before_it_starts(profile, said, store, tmp_path):  # noqa: F811
    settings = dataclasses.replace(job(store, tmp_path), profile=profile)
    with pytest.raises(ConfigError, match=said):
        train(settings, world=World.alone())
    assert read(tmp_path) == []
