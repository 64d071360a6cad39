"""Learning without labels survives kill -9, of a rank or of what started the ranks: on other ranks
and in another layout the run goes on as if nothing had been, and no sample is lost or seen twice.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import pathlib
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from typing import Any

import pytest
from safetensors.torch import load_file
from torch.testing import assert_close

from swath import exits
from swath.data.augment import Augment
from swath.data.build import build
from swath.data.mix import Also
from swath.data.settings import DataSettings
from swath.data.split import Split
from swath.data.views import Global, Local, Views
from swath.datasets.synthetic import Synthetic
from swath.models.mae import MAE
from swath.models.vit import ViT
from swath.parallel.settings import Parallel
from swath.tasks.contrast import Contrast
from swath.tasks.dino import Dino
from swath.tasks.moco import Moco
from swath.tasks.pretrain import Pretrain
from swath.train import trainer
from swath.train.job import TrainJob
from swath.train.record import Recorder
from swath.train.setup import train
from tests.lab import invoke
from tests.parallel.starting import Started
from tests.several import three
from tests.test_same_curve import CURVE, job, read_lines

TAUGHT = {"hidden": (16,), "width": 8}
VIT = ViT(patch=4, width=16, depth=1, heads=2, pool="mean", drop_path=0.1)
TOLD = {"embed": "wavelengths", "positions": "metres", "time": True, "place": True}
SENSORS: dict[str, Any] = {"patch": 2, "width": 16, "depth": 1, "heads": 2, "decoder_depth": 1}
SENSORS |= {**TOLD, "withheld": 0.5, "mask": "both", "decoder_heads": 2}
TASKS = {
    "mae": (MAE(**SENSORS), Pretrain()),
    "contrast": (VIT, Contrast(**TAUGHT, views=Views(global_=Global(size=12)))),
    "dino": (VIT, Dino(**TAUGHT, prototypes=12, views=Views(local=Local(number=2)))),
    "moco": (VIT, Moco(**TAUGHT, predictor=(16,))),
}
UPDATES = 6


@pytest.fixture(scope="module")
def stores(tmp_path_factory) -> tuple[str, ...]:
    """Stores of three sensors, and one of three bands."""
    folder = tmp_path_factory.mktemp("stores")
    plain = Synthetic(samples=40, size=16, bands=3, nodata=0.2)
    build(plain, folder / "plain", Split(by="random", val=0.2, test=0.1), progress=False)
    return (*three(folder), str(folder / "plain"))


def pretraining(stores: tuple[str, ...], task: str, folder: pathlib.Path, **changes) -> TrainJob:
    first, second, third, plain = stores
    data = DataSettings(store=plain)
    if task == "mae":
        data = DataSettings(store=first, also=(Also(store=second), Also(store=third)))
    model, task_ = TASKS[task]
    whole = job(first, folder, data=data, augment=Augment(flips=True, noise=0.1), **changes)
    settings = dataclasses.replace(whole.train, ema=None, samples=12 * UPDATES)
    return dataclasses.replace(whole, model=model, task=task_, train=settings)


def noted(job: TrainJob, last: int | None = None) -> None:
    """Train, and write down which samples each update learned from, once it is made; after
    recording update ``last``, wait to be killed."""
    write, step = Recorder.write, trainer.train_step

    def and_wait(recorder: Recorder, figures: dict) -> None:
        write(recorder, figures)
        if figures["update"] == last:
            time.sleep(600)

    def and_note(state, batches, *args):
        dealt = list(batches)
        figures = step(state, dealt, *args)
        with pathlib.Path(job.folder, "seen").open("a") as file:
            for batch in dealt:
                file.write("".join(f"{line}\n" for line in of(batch) if batch.counts))
        return figures

    Recorder.write, trainer.train_step = and_wait, and_note  # type: ignore[method-assign]
    try:
        train(job)
    finally:
        Recorder.write, trainer.train_step = write, step  # type: ignore[method-assign]


def of(batch) -> list[str]:
    """Return position, bands, which tell the stores apart, and index of each sample."""
    pairs = zip(batch.positions.tolist(), batch.indices.tolist(), strict=True)
    return [f"{position} {batch.image.shape[1]} {index}" for position, index in pairs]


def samples(folder: pathlib.Path) -> dict[int, tuple[int, int]]:
    """Return bands and index of the sample at each position, of which there must be one."""
    found: dict[int, tuple[int, int]] = {}
    for line in (folder / "seen").read_text().splitlines():
        position, bands, index = map(int, line.split())
        assert found.setdefault(position, (bands, index)) == (bands, index)
    return found


def curve(folder: pathlib.Path) -> list[dict]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k in CURVE or k.startswith("val")} for line in lines]


def same(folder: pathlib.Path, expected: pathlib.Path) -> None:
    """Fail unless both runs have the same curve and end with the same weights."""
    for mine, theirs in zip(curve(folder), curve(expected), strict=True):
        assert mine == pytest.approx(theirs, rel=1e-9, abs=1e-9, nan_ok=True)
    found, wanted = (load_file(one / "model.safetensors") for one in (folder, expected))
    for name, value in wanted.items():
        assert_close(found[name], value, rtol=1e-9, atol=1e-9, msg=name)


@pytest.mark.parametrize(
    ("task", "before", "layout", "after", "other"),
    [
        ("mae", 3, {}, 2, {"tensor": 2}),
        ("contrast", 2, {"tensor": 2}, 3, {}),
        ("dino", 3, {"shard": 3}, 2, {"tensor": 2}),
        ("moco", 2, {"tensor": 2}, 1, {}),
    ],
    ids=TASKS,
)
def test_a_rank_is_killed_and_other_ranks_go_on(
    ranks, stores, tmp_path, task, before, layout, after, other
):
    """Any rank, at any moment after update 3; after update 5 the first would wait for ever."""
    alone, run = (pretraining(stores, task, tmp_path / name) for name in ("alone", "run"))
    ranks(1, noted, alone)
    seen = samples(tmp_path / "alone")
    assert sorted(seen) == list(range(12 * UPDATES))
    for bands in {bands for bands, _ in seen.values()}:  # none again before all were seen
        times = Counter(sample for sample in seen.values() if sample[0] == bands).values()
        assert max(times) - min(times) <= 1

    spread = dataclasses.replace(run, parallel=Parallel(**layout, start_seconds=30, lost_seconds=4))
    lost = random.randrange(before)
    started = Started(ranks, tmp_path, [functools.partial(noted, spread, 5)] * before)
    victim, deadline = started.processes[lost], time.monotonic() + 60
    while len(read_lines(tmp_path / "run")) < 3:
        assert victim.is_alive() and time.monotonic() < deadline, started.words()
        time.sleep(0.002)
    time.sleep(random.uniform(0, 0.1))
    victim.kill()
    codes = started.codes(60)
    assert codes == [-signal.SIGKILL if rank == lost else exits.LOST for rank in range(before)]

    ranks(after, noted, dataclasses.replace(run, parallel=Parallel(**other)))
    assert samples(tmp_path / "run") == seen
    same(tmp_path / "run", tmp_path / "alone")


RECIPE = """\
data: {{store: {0}, also: [{{store: {1}}}, {{store: {2}}}]}}
model: {{kind: mae, embed: wavelengths, positions: metres, patch: 4, width: 16, depth: 1, heads: 2,
  decoder_depth: 1}}
task: {{kind: pretrain}}
batch: {{samples: 8, micro: 2}}
train: {{samples: 480, checkpoint_every: 40, precision: fp64}}
compute: {{device: cpu, threads: 1}}
"""


def test_what_started_the_ranks_is_killed_and_one_process_goes_on(stores, tmp_path, monkeypatch):
    """``swath train --ranks 2`` dies; its ranks notice, end by themselves, and leave the folder to
    the same command without ranks."""
    monkeypatch.chdir(tmp_path)
    pathlib.Path("recipe.yaml").write_text(RECIPE.format(*stores))
    words = ["train", "recipe.yaml", "name=run"]
    record = tmp_path / "runs/run"
    command = [sys.executable, "-m", "swath", *words, "--ranks", "2", "parallel.lost_seconds=4"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as launcher:
        while len(read_lines(record)) < 3:
            assert launcher.poll() is None, launcher.stderr.read()
            time.sleep(0.002)
        time.sleep(random.uniform(0, 0.1))
        launcher.kill()
        launcher.wait()
        said = launcher.stderr.read()  # until the last rank has ended
    assert "the launcher (" in said and "is lost. What was saved is good" in said
    before = len(read_lines(record))
    invoke(*words)
    invoke("train", "recipe.yaml", "name=alone")
    updates = [line["update"] for line in curve(record) if "loss" in line]
    assert updates == list(range(1, 61)) and before < len(read_lines(record))
    same(record, tmp_path / "runs/alone")
