"""The dry run: what it says of memory and exchanges is what real ranks have; and every recipe is
laid out on every machine."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import gc
import json
import logging
import math
import pathlib
from collections import Counter
from typing import Any

import pytest
import torch

import swath
from swath import run
from swath.batch.size import BatchSize
from swath.config import ConfigError
from swath.data import draw
from swath.data.chip import Batch, Contents
from swath.data.settings import DataSettings
from swath.datasets.synthetic import Synthetic
from swath.machine import load_machine, machines
from swath.models.vit import ViT
from swath.optimizers.adamw import AdamW
from swath.parallel.count import Volume, counted
from swath.parallel.dry import Traffic
from swath.parallel.fill import spread_hollow
from swath.parallel.mesh import Mesh
from swath.parallel.replica import Replica
from swath.parallel.settings import Parallel
from swath.parallel.world import World
from swath.tasks.classify import Classify
from swath.train.dry import Layout, lay_out
from swath.train.dry_text import advice, memory_bytes, plain, spread, words
from swath.train.ema import Average
from swath.train.job import TrainJob
from swath.train.precision import AUTOCAST
from swath.train.settings import Compute, TrainSettings
from swath.train.state import TrainState
from swath.train.step import train_step
from tests.lab import invoke
from tests.parallel.heap import Peak, asked

ROOT = pathlib.Path(__file__).parents[2]
RECIPES = sorted(
    str(path.relative_to(ROOT))
    for path in ROOT.glob("recipes/**/*.yaml")
    if path.name != "assess.yaml"  # which compares runs, and is none
)
CONTENTS = Synthetic(size=64, label="class", classes=3).open().contents
"""Four bands, 64 x 64 pixels: 64 tokens of 8 x 8 and a class token."""
SHAPE = ViT(width=256, depth=4, heads=4)
MICRO = 4


def job(
    parallel: Parallel, model: ViT = SHAPE, micro: int = MICRO, ranks: int = 4, **more: Any
) -> TrainJob:
    """Return a run whose replicas have three microbatches in an update, as pipelines four."""
    many = (3 if parallel.pipeline == 1 else 4) * parallel.over(ranks).data_ranks
    settings = {
        "batch": BatchSize(samples=micro * many, micro=micro),
        "train": TrainSettings(samples=4800, ema=480),
        "compute": Compute(device="cpu"),
        **more,
    }
    data = DataSettings(store="none")
    return TrainJob(
        folder="none", data=data, model=model, task=Classify(), parallel=parallel, **settings
    )


# Recipes on machines


@functools.cache
def seen(recipe: str) -> tuple[swath.Run, Contents]:
    files = [ROOT / recipe]
    whole = files[0].with_name("recipe.yaml")
    if whole.exists() and whole != files[0]:  # what it changes is laid over that
        files.insert(0, whole)
    found = run.load(*files)
    assert found.build is not None
    return found, found.build.dataset.open().contents


@functools.cache
def recipe_on(recipe: str, ranks: int) -> Layout:
    """Lay ``recipe`` out, in updates with a microbatch for each rank at least."""
    found, contents = seen(recipe)
    batch = found.batch
    samples = batch.micro * max(batch.passes, found.parallel.over(ranks).data_ranks)
    longer = dataclasses.replace(found.train, samples=max(found.train.samples, samples))
    larger = dataclasses.replace(batch, samples=samples)
    changed = dataclasses.replace(found, batch=larger, train=longer)
    return lay_out(changed.job(), contents, ranks)


NODES = [*((name, 1) for name in machines()), ("jupiter", 64)]


@pytest.mark.parametrize(("name", "nodes"), NODES)
@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_is_laid_out_on_every_machine(recipe, name, nodes, monkeypatch):
    """Gradients are summed once, the optimiser has two numbers for each parameter, and it fits."""
    monkeypatch.chdir(ROOT)
    machine = load_machine(name)
    ranks = nodes * machine.accelerators
    layout = recipe_on(recipe, ranks)
    assert layout.degrees.ranks == layout.ranks == ranks
    memory = layout.largest.memory
    assert memory.total <= memory_bytes(machine)
    state = 4 * layout.parameters
    optim = seen(recipe)[0].optim
    moments = 2 if isinstance(optim, AdamW) else int(getattr(optim, "momentum", 0) > 0)
    assert memory.optimiser == pytest.approx(moments * state, rel=0.01)
    assert memory.activations > 0
    summed = [row for row in layout.largest.traffic if row.bytes > 0.9 * state]
    if ranks > 1:
        (row,) = summed
        assert (row.kind, len(row.members)) == ("all_reduce", ranks)
        assert row.bytes == pytest.approx(state, rel=0.02)
    told = words(layout, machine)
    assert f"of a {machine.accelerator.name}" in told and "fits" in told
    assert plain(layout, machine)["machine"]["nodes"] == nodes


# What real ranks have


def measured(parallel: Parallel, precision: str) -> tuple[int, Counter, Counter]:
    """Return the most bytes that this rank has had for a model, its optimiser and a second update,
    and that update's exchanges, by kind: calls and bytes."""
    found = (0, Counter[str](), Counter[str]())
    for updates in (1, 2):  # the first time fills caches of torch's kernels
        found = _measured(job(parallel), precision, updates)
    return found


def _measured(job: TrainJob, precision: str, updates: int) -> tuple[int, Counter, Counter]:
    mesh = Mesh.of(World.start("cpu"), job.parallel)
    _ = mesh.learners, mesh.totals
    objective = job.task.bind(CONTENTS.label, None)
    inputs = swath.models.Inputs(bands=CONTENTS.modalities[0].sensor.bands, size=64)
    narrow = AUTOCAST.get(precision)
    gc.collect()
    before = asked()
    network = spread_hollow(
        lambda: job.model.build(inputs, objective.outputs), mesh, job.parallel, narrow=narrow
    )
    replica = Replica(network, mesh, autocast=narrow)
    state = TrainState(network, job.optim.build(network), Average(network, 480))
    volume, peak = Volume(), Peak()
    for number in range(updates):
        batches = (drawn() for _ in job.batch.mine(mesh.data_rank, mesh.data_ranks))
        with contextlib.ExitStack() as reading:
            if number == 1:
                volume, peak = reading.enter_context(counted()), reading.enter_context(Peak())
            train_step(state, batches, objective.loss, replica, job.train, job.batch.samples, 1.0)
    return peak.bytes - before, volume.calls, volume.bytes


def drawn() -> Batch:
    return Batch(
        image=torch.randn(MICRO, 4, 64, 64),
        valid=torch.ones(MICRO, 64, 64, dtype=torch.bool),
        target=torch.zeros(MICRO, dtype=torch.int64),
        positions=torch.arange(MICRO),
        indices=torch.arange(MICRO),
        seed=1,
    )


LAYOUTS = {
    "replicate 4": Parallel(),
    "shard 4": Parallel(shard=4),
    "tensor 2, shard 2": Parallel(tensor=2, shard=2),
    "pipeline 2, shard 2": Parallel(pipeline=2, shard=2),
    "context 2, shard 2": Parallel(context=2, shard=2),
    "gpipe 4": Parallel(pipeline=4, schedule="gpipe"),
    "shard 4, recompute": Parallel(shard=4, recompute="full"),
}


CASES = [*((name, "fp32") for name in LAYOUTS), ("shard 4", "bf16")]


@pytest.mark.parametrize(("name", "precision"), CASES)
def test_prediction_is_what_four_ranks_have(ranks, name, precision):
    """Memory within 10 % of what the C library handed out; exchanges, call for call."""
    parallel = LAYOUTS[name]
    settings = TrainSettings(samples=4800, ema=480, precision=precision)  # type: ignore[arg-type]
    layout = lay_out(job(parallel, train=settings), CONTENTS, 4)
    real = ranks(4, measured, parallel, precision, timeout_seconds=240)
    each = 4 // layout.degrees.pipeline
    for share in layout.shares:  # of a pipeline, a rank of each stage
        most = max(size for size, _, _ in real[share.rank : share.rank + each])
        print(f"| {name}, {precision} {share.at} | ", end="")  # docs/howto/dry_run.md has these
        print(f"{share.memory.total / 2**20:.1f} | {most / 2**20:.1f} |")
        for size, calls, payload in real[share.rank : share.rank + each]:
            assert share.memory.total == pytest.approx(size, rel=0.1)
            found: dict[str, Counter] = {"calls": Counter(), "bytes": Counter()}
            for row in share.traffic:
                found["calls"][row.kind] += row.calls
                found["bytes"][row.kind] += row.bytes
            assert (found["calls"], found["bytes"]) == (calls, payload)


# What it says


@pytest.mark.parametrize(
    "parallel",
    [
        Parallel(shard=2),
        Parallel(tensor=2),
        Parallel(pipeline=2),
        Parallel(pipeline=2, schedule="gpipe"),
        Parallel(pipeline=2, schedule="interleaved", stages=2),
    ],
    ids=lambda p: f"{p.schedule}-{p.shard}-{p.tensor}-{p.pipeline}",
)
def test_many_microbatches_are_continued_exactly(parallel):
    """As if each of ten had been gone through."""
    model = ViT(width=32, depth=4, heads=4)
    batch = BatchSize(samples=10 * parallel.over(2).data_ranks, micro=1)
    subject = job(parallel, model, ranks=2, batch=batch)
    short, whole = lay_out(subject, CONTENTS, 2), lay_out(subject, CONTENTS, 2, most=10)
    assert whole.microbatches == (10, 10)
    for one, other in zip(short.shares, whole.shares, strict=True):
        assert one.memory.total == pytest.approx(other.memory.total, rel=0.002)
        assert [dataclasses.astuple(row) for row in one.traffic] == [
            dataclasses.astuple(row) for row in other.traffic
        ]


def test_shards_hold_their_share_of_everything():
    """An eighth of parameters, optimiser and average each; shapes say so."""
    alone = lay_out(job(Parallel(), ranks=1), CONTENTS, 1)
    shared = lay_out(job(Parallel(shard=8), ranks=8), CONTENTS, 8)
    one, other = alone.largest, shared.largest
    for name in ("parameters", "optimiser", "average"):
        whole = getattr(one.memory, name)
        assert getattr(other.memory, name) == pytest.approx(whole / 8, rel=0.05)
    assert (one.memory.gathered, one.traffic) == (0, ())
    held = {row.name: row for row in other.held}
    assert held["blocks.0.mlp.fc1.weight"].whole == (1024, 256)
    assert held["blocks.0.mlp.fc1.weight"].here == (128, 256)
    assert sum(row.bytes for row in one.held) == 4 * alone.parameters


def test_a_pipeline_tells_of_each_stage_and_names_the_largest():
    """Under 1f1b the first holds most microbatches."""
    batch = BatchSize(samples=32, micro=4)
    layout = lay_out(job(Parallel(pipeline=4), batch=batch), CONTENTS, 4)
    assert [share.at for share in layout.shares] == [{"pipeline": n} for n in range(4)]
    sizes = [share.memory.activations for share in layout.shares]
    assert sizes == sorted(sizes, reverse=True)
    assert "rank that needs most (rank 0, pipeline 0)" in words(layout)


def test_a_model_of_many_devices_needs_the_memory_of_none():
    """Six billion parameters on 4096 ranks, in less than a gigabyte."""
    model = ViT(width=16384, depth=2, heads=128, pool="mean")
    gc.collect()
    before = asked()
    subject = job(Parallel(shard=64, tensor=8), model, micro=1, ranks=4096)
    with Peak() as peak:
        layout = lay_out(subject, CONTENTS, 4096)
    assert layout.parameters > 6.4e9 and layout.ranks == 4096
    assert peak.bytes - before < 1e9
    assert layout.largest.memory.parameters == pytest.approx(4 * layout.parameters / 512, rel=0.05)


def test_bytes_on_links_by_closed_forms():
    """Among 8 ranks of two nodes of 4: in a ring each node passes on what one rank sends; with one
    rank on each node, all four of a node do."""

    def row(members: tuple[int, ...]) -> Traffic:
        return Traffic("all_reduce", ("replicate",), members, 1, 800, 1400.0)

    near, ring, far = row((0, 1, 2, 3)), row(tuple(range(8))), row((0, 4, 8, 12))
    assert dataclasses.astuple(spread(near, 0, 4)) == (1, 1400.0, 0.0)
    assert dataclasses.astuple(spread(ring, 0, 4)) == (2, 1050.0, 1400.0)
    assert dataclasses.astuple(spread(far, 0, 4)) == (4, 0.0, 5600.0)


def test_what_does_not_fit_says_what_to_change(monkeypatch):
    """And the change helps."""
    model = ViT(width=256, depth=4, heads=4)
    layout = lay_out(job(Parallel(), model, micro=64), CONTENTS, 4)
    machine = load_machine("summit")
    small = dataclasses.replace(machine.accelerator, memory_gb=0.2)
    machine = dataclasses.replace(machine, accelerator=small)
    told = words(layout, machine)
    assert "does not fit" in told and "parallel.recompute=full" in told
    (first, *_) = advice(layout, memory_bytes(machine))
    assert "batch.micro below 64, parallel.recompute=full" in first
    again = lay_out(job(Parallel(recompute="full"), model, micro=64), CONTENTS, 4)
    assert again.largest.memory.total < 0.6 * layout.largest.memory.total
    sharded = job(Parallel(shard=4), ViT(width=512, depth=4, heads=4), micro=1)
    lines = advice(lay_out(sharded, CONTENTS, 4), 10_000_000)
    assert any("with one microbatch a rank, not 3" in line for line in lines)


def test_the_verb_prints_a_layout_and_trains_nothing(lab, tmp_path, monkeypatch):
    """With no store yet, from the files that it will be built from."""
    monkeypatch.chdir(lab)
    recipe = [str(lab / "recipe.yaml"), f"folder={tmp_path}/none", f"data.store={tmp_path}/none"]
    told = invoke("train", *recipe, "--dry-run", "--ranks", "2", "--machine", "juwels_booster")
    for text in ("2 ranks, replicate 2", "of 37.3 GiB of a A100", "all_reduce", "10 updates of 4"):
        assert text in told
    assert not list(tmp_path.iterdir())
    found = json.loads(invoke("train", *recipe, "--dry-run", "--ranks", "2", "--json"))
    assert (found["ranks"], found["updates"], found["micro"]) == (2, 10, 2)
    (share,) = found["shares"]
    assert share["memory"]["total"] == sum(v for k, v in share["memory"].items() if k != "total")
    assert math.prod(share["held"][0]["here"]) * 4 == share["held"][0]["bytes"]


@pytest.mark.parametrize(("words_", "ranks"), [([], 1), (["parallel={shard: 2}"], 2)])
def test_without_ranks_as_few_are_laid_out_as_the_settings_allow(
    lab, tmp_path, monkeypatch, caplog, words_, ranks
):
    monkeypatch.chdir(lab)
    caplog.set_level(logging.INFO)
    words_ = ["recipe.yaml", f"data.store={tmp_path}/none", *words_]
    assert json.loads(invoke("train", *words_, "--dry-run", "--json"))["ranks"] == ranks
    count = "1 rank" if ranks == 1 else f"{ranks} ranks"
    assert f"laying out {count}, as few as parallel allows; --ranks says" in caplog.text


@pytest.mark.parametrize(
    ("words_", "message"),
    [
        (["--dry-run", "--ranks", "0"], "--ranks=0 must be at least 1"),
        (["--machine", "summit"], "--machine has no effect without --dry-run"),
        (["--json"], "--json has no effect without --dry-run"),
        (["--dry-run", "--ranks", "2", "--machine", "sumit"], "did you mean 'summit'"),
        (["--dry-run", "--ranks", "8"], "8 ranks cannot share 2 microbatches"),
        (["--dry-run", "--ranks", "3", "parallel.shard=2"], "needs a multiple of 2 ranks"),
        (["--dry-run", "--ranks", "2", "parallel.tensor=2"], "no matrices to share"),
        (["--dry-run", "--ranks", "2", "parallel.pipeline=2"], "no chain of layers"),
        (["--dry-run", "--ranks", "2", "parallel.shard=2", "parallel.offload=true"], "has no GPU"),
        (
            ["--dry-run", "--ranks", "2", "build=null", "data.store=none"],
            "there is no store, and no",
        ),
    ],
)
def test_mistakes(lab, monkeypatch, words_, message):
    monkeypatch.chdir(lab)
    with pytest.raises(ConfigError) as told:
        invoke("train", str(lab / "recipe.yaml"), *words_)
    assert message in str(told.value)


class Drawn(Classify):
    """A task of one's own, whose loss hides pixels that numpy draws by the samples' positions."""

    def bind(self, label, counts, inputs=None):
        return DrawnObjective(super().bind(label, counts, inputs))


class DrawnObjective:
    def __init__(self, plain):
        self.outputs, self.plain = plain.outputs, plain

    def loss(self, model, batch):
        assert batch.positions.cpu().numpy().tolist() == list(range(MICRO))
        drawn = draw.uniform(0, batch.positions.cpu().numpy(), "mine", batch.image[0].numel())
        hidden = torch.from_numpy(drawn < 0.5).view(batch.image.shape)
        image = batch.image.masked_fill(hidden.to(batch.image.device), 0.0)
        return self.plain.loss(model, dataclasses.replace(batch, image=image))


@pytest.mark.parametrize("parallel", [Parallel(), Parallel(pipeline=2)])
def test_a_task_may_draw_by_positions_through_numpy(parallel):
    """They are numbers in a dry run too, where pixels have none."""
    known = job(parallel)
    drawn = dataclasses.replace(known, task=Drawn())
    with_draws, without = (lay_out(one, CONTENTS, 2).largest for one in (drawn, known))
    assert with_draws.memory.parameters == without.memory.parameters > 0
    assert with_draws.memory.activations >= without.memory.activations


class Looked(Drawn):
    """A task of one's own, whose loss looks at a pixel."""

    def bind(self, label, counts, inputs=None):
        objective = Classify.bind(self, label, counts, inputs)
        looking = DrawnObjective(objective)
        looking.loss = lambda model, batch: objective.loss(model, batch.image[0, 0, 0, 0].item())
        return looking


def test_a_task_that_asks_for_values_is_told():
    with pytest.raises(ConfigError, match="--dry-run: the model or the task asks for a tensor's v"):
        lay_out(dataclasses.replace(job(Parallel()), task=Looked()), CONTENTS, 2)


def inside_a_group() -> str:
    try:
        lay_out(job(Parallel()), CONTENTS, 2)
    except ConfigError as error:
        return str(error)
    return "no error"


def test_a_rank_of_a_real_run_cannot_pretend(ranks):
    assert "needs a process of its own" in ranks(1, inside_a_group)[0]
