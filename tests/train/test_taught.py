"""Runs with a teacher: it survives a stop, begins as given weights, is exported, and is counted."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from swath import exits
from swath.batch.schedule import Schedule
from swath.batch.size import BatchSize
from swath.config import ConfigError
from swath.data.augment import Augment
from swath.data.build import build
from swath.data.chip import Label
from swath.data.sensor import load_sensor
from swath.data.settings import DataSettings
from swath.data.split import Split
from swath.data.views import Local, Views
from swath.datasets.synthetic import Synthetic
from swath.models import Inputs
from swath.models.vit import ViT
from swath.optimizers.adamw import AdamW
from swath.parallel.settings import Parallel
from swath.parallel.world import World
from swath.tasks.contrast import Contrast
from swath.tasks.dino import Dino
from swath.tasks.moco import Moco
from swath.tasks.pretrain import Pretrain
from swath.train.adapted import build as built
from swath.train.cost import work
from swath.train.dry import lay_out
from swath.train.dry_text import words
from swath.train.export import load_model
from swath.train.init import Init, checksum
from swath.train.job import TrainJob
from swath.train.score import score
from swath.train.settings import Compute, TrainSettings
from swath.train.setup import train
from tests.test_same_curve import stopped_after

VIT = ViT(width=16, depth=2, heads=2, patch=4, drop_path=0.1)
DINO = Dino(hidden=(16,), width=8, prototypes=12, views=Views(local=Local(number=2)))
MOCO = Moco(hidden=(16,), width=8, predictor=(16,), freeze_patches=True)
CURVE = (
    "update",
    "samples",
    "loss",
    "grad_norm",
    "val/groups",
    "val/spread",
    "val/loss",
    "val/top1",
)


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("taught") / "store"
    data = Synthetic(samples=60, size=16, bands=3, label="class", nodata=0.2)
    build(data, path, Split(by="random", val=0.2, test=0.1), progress=False)
    return str(path)


def job(store: str, folder: pathlib.Path, **changes: Any) -> TrainJob:
    whole = TrainJob(
        folder=str(folder),
        data=DataSettings(store=store),
        augment=Augment(flips=True, noise=0.1),
        model=VIT,
        task=DINO,
        batch=BatchSize(samples=12, micro=2),
        # Keys and what lies before a norm have no gradient but rounding, to be kept small.
        optim=AdamW(lr=3e-3, eps=1e-4),
        schedule=Schedule(warmup=24),
        train=TrainSettings(samples=72, evaluate_every=36, precision="fp64", select="last"),
        compute=Compute(device="cpu", threads=1),
        seed=7,
    )
    return dataclasses.replace(whole, **changes)


def outcome(folder: pathlib.Path) -> tuple[list[dict], dict[str, torch.Tensor]]:
    """Return the curve, and all that the last checkpoint of one process has of the model."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    (last,) = (folder / "checkpoints").glob("00000006")
    curve = [{name: line[name] for name in CURVE if name in line} for line in lines]
    return curve, load_file(last / "model.safetensors")


@pytest.fixture(scope="module")
def unbroken(store, tmp_path_factory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("unbroken")
    train(job(store, folder), world=World.alone())
    return folder


def test_stopped_on_shards_it_goes_on_alone_teacher_and_centre_included(
    ranks, store, unbroken, tmp_path
):
    """Stopped between two evaluations: what these do to a teacher must not be part of the curve."""
    shards = job(store, tmp_path, parallel=Parallel(shard=3))
    assert ranks(3, stopped_after, shards, 4) == [exits.LEFT] * 3
    train(job(store, tmp_path), world=World.alone())
    assert same(tmp_path, unbroken)["centre.value"].any()


def test_with_keys_of_all_ranks_too_and_patches_that_stay(ranks, store, tmp_path):
    """MoCo: stopped on shards it goes on alone; the network is exported, its patches as drawn."""
    unbroken, stopped = tmp_path / "unbroken", tmp_path / "stopped"
    train(job(store, unbroken, task=MOCO), world=World.alone())
    shards = job(store, stopped, task=MOCO, parallel=Parallel(shard=3))
    assert ranks(3, stopped_after, shards, 4) == [exits.LEFT] * 3
    train(job(store, stopped, task=MOCO), world=World.alone())
    state = same(stopped, unbroken)
    found = load_model(stopped).network.state_dict()
    assert {f"network.{name}" for name in found} == {n for n in state if n.startswith("network.")}
    for name, value in found.items():
        torch.testing.assert_close(value, state[f"network.{name}"].to(value))
    away = {n: (state[f"network.{n}"] - state[f"teacher.network.{n}"]).abs().max() for n in found}
    assert not away["patch_embed.proj.weight"] and away["norm.weight"] > 1e-6


def same(folder: pathlib.Path, unbroken: pathlib.Path) -> dict[str, torch.Tensor]:
    """Fail unless both runs have the same curve and weights; return these."""
    (curve, state), (expected, wanted) = outcome(folder), outcome(unbroken)
    for mine, theirs in zip(curve, expected, strict=True):
        assert mine == pytest.approx(theirs, rel=1e-9)
    assert state.keys() == wanted.keys() and state["teacher.seen"] == 72
    for name, value in wanted.items():
        torch.testing.assert_close(state[name], value, rtol=1e-9, atol=1e-9, msg=name)
    return state


def test_the_exported_model_is_the_teacher(unbroken):
    _, state = outcome(unbroken)
    inside = "teacher.network.network."
    found = load_model(unbroken).network.state_dict()
    assert {f"{inside}{name}" for name in found} == {n for n in state if n.startswith(inside)}
    for name, value in found.items():
        torch.testing.assert_close(value, state[f"{inside}{name}"].to(value))
    apart = state["student.network.norm.weight"] - state[f"{inside}norm.weight"]
    assert apart.abs().max() > 1e-6


def test_it_does_not_collapse(store, tmp_path):
    """Of three classes that it is told nothing of it tells some apart; collapsed it tells one."""
    task = dataclasses.replace(DINO, hidden=(32,), prototypes=48)
    brief = TrainSettings(samples=960, select="last")
    changes = {"task": task, "batch": BatchSize(samples=24, micro=24), "train": brief}
    figures = train(
        job(store, tmp_path, **changes, model=ViT(width=24, depth=1, heads=2, patch=4)),
        world=World.alone(),
    )
    assert figures["val/groups"] > 1.5 and figures["val/spread"] > 0.5


def test_scoring_it_says_what_to_do_instead(store, unbroken):
    with pytest.raises(ConfigError, match=r"val/groups and others, are in its metrics.jsonl; swa"):
        score(job(store, unbroken), "test", world=World.alone())


@pytest.mark.parametrize(("number", "parallel"), [(1, Parallel()), (2, Parallel(shard=2))])
def test_student_and_teacher_begin_as_given_weights(
    ranks, store, unbroken, tmp_path, number, parallel
):
    """With updates too small to see, the model at the end is the one given, read in float32."""
    init = Init(from_=str(unbroken), sha256=checksum(unbroken / "model.safetensors"))
    still = {"optim": AdamW(lr=1e-12), "init": init, "parallel": parallel, "seed": 8}
    brief = TrainSettings(samples=12, precision="fp64")
    ranks(number, train, job(store, tmp_path, train=brief, schedule=Schedule(), **still))
    given, found = (load_file(f / "model.safetensors") for f in (unbroken, tmp_path))
    for name, value in given.items():
        if not name.startswith("head"):
            torch.testing.assert_close(found[name], value, rtol=0, atol=1e-7, msg=name)


def test_the_average_of_an_average_is_refused(store, tmp_path):
    with pytest.raises(ConfigError, match=r"train.ema=100 beside task.kind=dino: its teacher"):
        job(store, tmp_path, train=TrainSettings(ema=100))


def test_the_cost_of_a_sample_is_that_of_its_views():
    """Each learned from at three times a forward pass; the large ones seen by the teacher at one.
    What prototypes cost is known, and stretching 4 x 4 places to those of small views."""
    subject = job("none", pathlib.Path("none"))

    def of(size: int) -> tuple[int, int]:
        inputs = Inputs(bands=load_sensor("rgb").bands, size=size)
        found = work(lambda: VIT.build(inputs, outputs), inputs, passes=1)
        assert found is not None and found[1] is not None
        return found[0] + 2 * 8 * 12, found[1]

    inputs = Inputs(bands=load_sensor("rgb").bands, size=16)
    outputs = DINO.bind(Label(kind="none"), None, inputs).outputs
    (large, tokens), (small, few) = of(16), of(8)
    found = work(lambda: built(subject, inputs, outputs), inputs, sides=[16, 16, 8, 8])
    small += 2 * 4 * 4 * 16 + 2 * 2 * 4 * 16
    assert found == (3 * (2 * large + 2 * small) + 2 * large, 2 * tokens + 2 * few)


def test_the_dry_run_tells_the_teachers_bytes_and_shares_them():
    contents = Synthetic(size=16, bands=3, label="none").open().contents
    subject = job("none", pathlib.Path("none"), train=TrainSettings(samples=72))
    two = dataclasses.replace(subject, parallel=Parallel(shard=2))
    alone, shared = lay_out(subject, contents, 1), lay_out(two, contents, 2)
    one, other = (layout.largest.memory for layout in (alone, shared))
    assert one.teacher == 4 * alone.parameters + 8  # and the number of samples seen
    assert other.teacher == pytest.approx(one.teacher / 2, rel=0.05)
    assert one.gradients < 1.1 * one.teacher and one.optimiser < 2.1 * one.teacher
    assert "\n  teacher  " in words(alone)


def test_of_a_run_with_a_teacher_the_end_is_exported_unless_asked_otherwise(store, tmp_path):
    """What a teacher tells apart says nothing of what features are worth."""
    unsaid = TrainSettings(samples=72)
    taught = job(store, tmp_path, train=unsaid)
    assert taught.select == job(store, tmp_path, task=MOCO, train=unsaid).select == "last"
    assert dataclasses.replace(taught, task=Contrast()).select == "best"
    asked = dataclasses.replace(unsaid, select="best")
    assert dataclasses.replace(taught, train=asked).select == "best"


def test_views_that_are_varied_by_nothing_are_doubted(store, tmp_path):
    plain = job(store, tmp_path, task=Contrast(), augment=Augment())
    (said,) = plain.doubts()
    assert "task.kind=contrast compares views of a sample" in said and "gain: 0.1" in said
    assert not dataclasses.replace(plain, augment=Augment(drop_bands=0.1)).doubts()
    assert not dataclasses.replace(plain, task=Contrast(views=Views(seasons=True))).doubts()
    assert not dataclasses.replace(plain, task=Pretrain()).doubts()
