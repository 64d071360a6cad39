"""The result depends on the settings and the seed; the machine only decides how fast.

One small run, with everything that could betray the machine: drop-out, augmentation, ignored pixels
of unequal number, batch statistics, averaging, clipping, a schedule. Its loss curve, the samples it
saw at each position and its final weights are compared with those of runs that were stopped by
a signal, killed, spread over ranks, or read ahead differently.
"""

import dataclasses
import json
import os
import pathlib
import random
import signal
import time
from dataclasses import dataclass

import pytest
import torch
from safetensors.torch import load_file

from swath import exits
from swath.batch.schedule import Schedule
from swath.batch.size import BatchSize
from swath.config import ConfigError
from swath.data.augment import Augment
from swath.data.build import build
from swath.data.chip import Batch
from swath.data.mix import Also
from swath.data.settings import DataSettings
from swath.data.split import Split
from swath.data.views import Global, Views
from swath.datasets.synthetic import Synthetic
from swath.models import Model
from swath.models.mae import MAE
from swath.models.unet import UNet
from swath.models.vit import ViT
from swath.nn.norm import BatchNorm2d
from swath.optimizers.adamw import AdamW
from swath.parallel.settings import Parallel
from swath.parallel.world import World
from swath.tasks.contrast import Contrast
from swath.tasks.pretrain import Pretrain
from swath.tasks.segment import Segment
from swath.train.interrupt import Interrupted
from swath.train.job import TrainJob
from swath.train.record import Recorder, read
from swath.train.settings import Compute, TrainSettings
from swath.train.setup import train
from tests.several import three

UPDATES = 8
CURVE = ("update", "samples", "loss", "grad_norm", "lr")
TOLERANCE = {"fp64": 1e-9, "fp32": 1e-6}


@dataclass(frozen=True, kw_only=True)
class Batchwise(Model):
    """A small network whose output depends on the statistics of the microbatch."""

    def build(self, inputs, outputs):
        return torch.nn.Sequential(
            torch.nn.Conv2d(len(inputs.bands), 8, 3, padding=1),
            BatchNorm2d(8),
            torch.nn.ReLU(),
            torch.nn.Dropout(0.2),
            torch.nn.Conv2d(8, outputs.channels, 1),
        )


MODELS = {"unet": UNet(width=8, depth=1), "batch norm": Batchwise()}


def watched(objective, seen: str):
    """Return ``objective``, which now writes down which sample was trained on at which position."""
    plain_loss = objective.loss

    def loss(model: torch.nn.Module, batch: Batch):
        pairs = zip(batch.positions.tolist(), batch.indices.tolist(), strict=True)
        with open(seen, "a") as file:
            file.write("".join(f"{position} {index}\n" for position, index in pairs))
        return plain_loss(model, batch)

    object.__setattr__(objective, "loss", loss)
    return objective


@dataclass(frozen=True, kw_only=True)
class Watched(Segment):
    """Segment, watched."""

    seen: str

    def bind(self, label, counts, inputs=None):
        return watched(super().bind(label, counts, inputs), self.seen)


@dataclass(frozen=True, kw_only=True)
class WatchedFill(Pretrain):
    """Pretrain, watched."""

    seen: str

    def bind(self, label, counts, inputs=None):
        return watched(super().bind(label, counts, inputs), self.seen)


@dataclass
class Outcome:
    curve: list[dict]
    samples: dict[int, int]  # position -> sample
    weights: dict[str, torch.Tensor]


def outcome(folder: pathlib.Path) -> Outcome:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    curve = [{k: v for k, v in line.items() if k in CURVE or k.startswith("val")} for line in lines]
    samples: dict[int, int] = {}
    for line in (folder / "seen").read_text().splitlines():
        position, index = map(int, line.split())
        assert samples.setdefault(position, index) == index, f"position {position} changed"
    return Outcome(curve, samples, load_file(folder / "model.safetensors"))


def assert_same(found: Outcome, expected: Outcome, tolerance: float) -> None:
    assert found.samples == expected.samples
    assert len(found.curve) == len(expected.curve)
    for mine, theirs in zip(found.curve, expected.curve, strict=True):
        assert mine == pytest.approx(theirs, rel=tolerance, abs=tolerance)
    for name, value in expected.weights.items():
        torch.testing.assert_close(
            found.weights[name], value, rtol=tolerance, atol=tolerance, msg=f"{name} differs"
        )


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> pathlib.Path:
    path = tmp_path_factory.mktemp("same_curve") / "store"
    data = Synthetic(samples=40, size=16, bands=3, unlabelled=0.4, nodata=0.2)
    build(data, path, Split(by="random", val=0.2, test=0.1), progress=False)
    return path


def job(store: pathlib.Path, folder: pathlib.Path, model: str = "unet", **changes) -> TrainJob:
    """Six microbatches an update, so that 4 ranks have unequal numbers of them."""
    folder.mkdir(parents=True, exist_ok=True)
    whole = TrainJob(
        folder=str(folder),
        data=DataSettings(store=str(store), balance=0.5),
        augment=Augment(flips=True, rotations=True, crop=12, noise=0.1),
        model=MODELS[model],
        task=Watched(seen=str(folder / "seen"), class_weights=0.5, smoothing=0.1),
        batch=BatchSize(samples=12, micro=2),
        # With a larger eps, gradients that are 0 but for rounding (biases before a norm) stay 0.
        optim=AdamW(lr=3e-3, eps=1e-4),
        schedule=Schedule(warmup=24),
        train=TrainSettings(
            samples=12 * UPDATES, ema=40, evaluate_every=36, checkpoint_every=24, precision="fp64"
        ),
        compute=Compute(device="cpu", threads=1),
        seed=7,
    )
    return dataclasses.replace(whole, **changes)


def in_precision(job: TrainJob, precision: str) -> TrainJob:
    return dataclasses.replace(job, train=dataclasses.replace(job.train, precision=precision))


@pytest.fixture(scope="module")
def unbroken(store, tmp_path_factory):
    """``unbroken(precision, model)``: how the run comes out when nothing happens."""
    known: dict[tuple[str, str], Outcome] = {}

    def run(precision: str = "fp64", model: str = "unet") -> Outcome:
        if (precision, model) not in known:
            folder = tmp_path_factory.mktemp("unbroken")
            train(in_precision(job(store, folder, model), precision), world=World.alone())
            known[precision, model] = outcome(folder)
        return known[precision, model]

    return run


def test_the_unbroken_run_is_a_run(unbroken):
    """It sees every position once, its weights move and its loss is finite: else all is equal."""
    run = unbroken()
    assert sorted(run.samples) == list(range(12 * UPDATES))
    losses = [line["loss"] for line in run.curve if "loss" in line]
    assert len(losses) == UPDATES and losses[-1] < losses[0]
    assert [line["samples"] for line in run.curve if "val/miou" in line] == [36, 72, 96]


def test_another_seed_is_another_curve(store, unbroken, tmp_path):
    """The negative control: the comparison can fail."""
    train(job(store, tmp_path, seed=8), world=World.alone())
    with pytest.raises(AssertionError):
        assert_same(outcome(tmp_path), unbroken(), 1e-3)


@pytest.mark.parametrize("stop", range(1, UPDATES))
def test_stopped_by_a_signal_after_any_update(stop, store, unbroken, tmp_path, monkeypatch):
    write = Recorder.write

    def and_signal(recorder, figures):
        write(recorder, figures)
        if figures["update"] == stop and "loss" in figures:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Recorder, "write", and_signal)
    with pytest.raises(Interrupted) as left:
        train(job(store, tmp_path), world=World.alone())
    assert left.value.code == exits.LEFT and read(tmp_path)[-1]["update"] == stop
    monkeypatch.undo()
    train(job(store, tmp_path), world=World.alone())
    assert_same(outcome(tmp_path), unbroken(), 1e-9)


def train_until(job: TrainJob, last: int | None) -> None:
    """Train to the end; or, after recording update ``last``, wait there to be killed."""
    write = Recorder.write

    def and_wait(recorder: Recorder, figures: dict) -> None:
        write(recorder, figures)
        if figures["update"] == last:
            time.sleep(600)

    Recorder.write = and_wait  # type: ignore[method-assign]
    train(job, world=World.alone())


def test_killed_at_random_moments(ranks, store, unbroken, tmp_path):
    """SIGKILL: no handler runs, nothing is flushed. Three times, at moments never the same.

    A run to be killed does two or three updates more than the one before it and then waits, so that
    on the fastest or busiest machine it cannot end before the kill.
    """
    settings = job(store, tmp_path)
    for last in (3, 5, 7):
        before = len(read_lines(tmp_path))
        process = ranks.start(train_until, settings, last)
        deadline = time.monotonic() + 30
        while len(read_lines(tmp_path)) <= before:
            assert process.is_alive() and time.monotonic() < deadline, "no update within 30 s"
            time.sleep(0.002)
        time.sleep(random.uniform(0, 0.1))
        process.kill()
        process.join(60)
        assert process.exitcode == -signal.SIGKILL
    process = ranks.start(train_until, settings, None)
    process.join(60)
    assert process.exitcode == 0
    assert_same(outcome(tmp_path), unbroken(), 1e-9)


def read_lines(folder: pathlib.Path) -> list[str]:
    path = folder / "metrics.jsonl"
    return path.read_text().splitlines() if path.exists() else []


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("precision", ["fp64", "fp32"])
@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_spread_over_ranks(ranks, number, precision, model, store, unbroken, tmp_path):
    """Microbatches of one update on several gloo ranks; 4 do not divide 6."""
    settings = in_precision(job(store, tmp_path, model), precision)
    answers = ranks(number, train, settings)
    assert all(answer == answers[0] for answer in answers)
    assert_same(outcome(tmp_path), unbroken(precision, model), TOLERANCE[precision])


def test_killed_on_three_ranks_and_resumed_on_two(ranks, store, unbroken, tmp_path):
    """The half run saves as on SIGTERM; another number of ranks goes on with it."""
    answers = ranks(3, stopped_after, job(store, tmp_path), 5)
    assert answers == [exits.LEFT] * 3
    ranks(2, train, job(store, tmp_path))
    assert_same(outcome(tmp_path), unbroken(), 1e-9)


@pytest.mark.parametrize(
    ("before", "after"),
    [(Parallel(shard=3), Parallel()), (Parallel(), Parallel(replicate=1, shard=2))],
    ids=["shards", "replicas"],
)
def test_stopped_on_shards_or_replicas_and_resumed_on_the_other(
    ranks, before, after, store, unbroken, tmp_path
):
    """Stopped in mid-epoch; with shards, no rank but the first ever builds the whole model."""
    answers = ranks(3, stopped_after, job(store, tmp_path, parallel=before), 5)
    assert answers == [exits.LEFT] * 3
    ranks(2, train, job(store, tmp_path, parallel=after))
    assert_same(outcome(tmp_path), unbroken(), 1e-9)


def stopped_after(job: TrainJob, update: int) -> int:
    """Only rank 1 hears the signal; all must leave after the same update."""
    from swath.train import trainer

    step, world = trainer.train_step, World.start("cpu")

    def and_signal(state, *args):
        figures = step(state, *args)
        if state.progress.update == update and world.rank == 1:
            os.kill(os.getpid(), signal.SIGUSR1)
        return figures

    trainer.train_step = and_signal
    try:
        train(job)
    except Interrupted as left:
        return int(left.code)
    finally:
        trainer.train_step = step
    return 0


@pytest.mark.parametrize("prefetch", [1, 2, 50])
def test_read_ahead_by_more_or_less(prefetch, store, unbroken, tmp_path):
    compute = Compute(device="cpu", threads=1, prefetch=prefetch)
    train(job(store, tmp_path, compute=compute), world=World.alone())
    assert_same(outcome(tmp_path), unbroken(), 0.0)


def test_several_stores_spread_over_ranks_and_resumed(ranks, store, tmp_path):
    """Each microbatch is of one of two stores; which one, and what of it, no rank decides."""
    second = Synthetic(samples=24, size=16, bands=3, unlabelled=0.4, nodata=0.2, seed=1)
    build(second, tmp_path / "second", Split(by="random", val=0.2, test=0.1), progress=False)
    also = (Also(store=str(tmp_path / "second"), weight=0.5),)
    data = DataSettings(store=str(store), balance=0.5, also=also)
    train(job(store, tmp_path / "alone", data=data), world=World.alone())
    spread = job(store, tmp_path / "spread", data=data)
    assert ranks(3, stopped_after, spread, 5) == [exits.LEFT] * 3
    ranks(2, train, spread)
    assert_same(outcome(tmp_path / "spread"), outcome(tmp_path / "alone"), 1e-9)


def test_views_and_negatives_of_the_batch_spread_over_ranks_and_resumed(ranks, store, tmp_path):
    """Contrast: each view is compared with those of all ranks; stopped on 4, ended on 2;
    scores on the validation part, which is compared with itself, too."""

    def contrast(name: str) -> TrainJob:
        changes = {
            "model": ViT(patch=4, width=16, depth=1, heads=2, pool="mean", drop_path=0.1),
            "task": Contrast(hidden=(16,), width=8, views=Views(global_=Global(size=12))),
            "augment": Augment(flips=True, rotations=True, noise=0.1, blur=0.5, drop_bands=0.1),
            "data": DataSettings(store=str(store)),
        }
        whole = dataclasses.replace(job(store, tmp_path / name), **changes)
        (tmp_path / name / "seen").touch()
        return whole

    train(contrast("alone"), world=World.alone())
    alone = outcome(tmp_path / "alone")
    assert any("val/top1" in line for line in alone.curve)
    assert ranks(4, stopped_after, contrast("spread"), 3) == [exits.LEFT] * 4
    ranks(2, train, contrast("spread"))
    assert_same(outcome(tmp_path / "spread"), alone, 1e-9)


@pytest.mark.parametrize("degree", ["pipeline", "spatial"])
def test_views_are_computed_as_a_whole(degree, store, tmp_path):
    message = f"parallel.{degree}=2: task.kind=contrast compares several views.*set {degree}=1"
    with pytest.raises(ConfigError, match=message):
        job(store, tmp_path, task=Contrast(), parallel=Parallel(**{degree: 2}))


def test_several_sensors_spread_over_ranks_and_resumed(ranks, tmp_path):
    """Bands, sizes of samples and of pixels differ from store to store; some places and times are
    not known, and those that are known are withheld from some samples."""
    first, *others = three(tmp_path)
    data = DataSettings(store=first, also=tuple(Also(store=one) for one in others))
    small = {"patch": 2, "width": 16, "depth": 1, "heads": 2, "decoder_depth": 1}
    told = {"embed": "wavelengths", "positions": "metres", "time": True, "place": True}
    model = MAE(**small, **told, withheld=0.5, mask="both")

    def sensed(folder: pathlib.Path) -> TrainJob:
        task, augment = WatchedFill(seen=str(folder / "seen")), Augment(flips=True)
        whole = job(first, folder, data=data, augment=augment, task=task)
        return dataclasses.replace(whole, model=model)

    train(sensed(tmp_path / "alone"), world=World.alone())
    alone = outcome(tmp_path / "alone")
    scored = [line for line in alone.curve if "val/r2" in line]
    assert len(scored) == 3 and scored[0].keys() >= {"val/r2/B08", "val@l8/loss", "val@s1/r2/VH"}
    assert ranks(3, stopped_after, sensed(tmp_path / "spread"), 5) == [exits.LEFT] * 3
    ranks(2, train, sensed(tmp_path / "spread"))
    assert_same(outcome(tmp_path / "spread"), alone, 1e-9)
