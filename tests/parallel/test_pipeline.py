"""A network on several ranks, some layers on each, gives what it gives on one."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from swath.config import ConfigError
from swath.data.sensor import load_sensor
from swath.models import Inputs, Model, Outputs
from swath.models.resnet import ResNet
from swath.models.unet import UNet
from swath.models.vit import ViT
from swath.nn.chain import Link
from swath.nn.settle import Update
from swath.parallel.apply import spread
from swath.parallel.cut import cut
from swath.parallel.mesh import Mesh
from swath.parallel.replica import Replica
from swath.parallel.settings import Degrees, Parallel
from swath.parallel.world import World
from swath.tasks.classify import Classify
from swath.train.evaluate import evaluate
from swath.train.score import score
from swath.train.setup import train
from tests.layouts.subjects import SUBJECTS, Subject
from tests.test_same_curve import assert_same, job, outcome, store

__all__ = ["store"]  # a fixture

INPUTS = Inputs(bands=load_sensor("rgb").bands, size=16)
IMAGES = torch.randn(2, 3, 24, 20, generator=torch.Generator().manual_seed(3))
FOUR = SUBJECTS["vit"]
NORMED = Subject(ResNet(depth=18), Classify(), 32, dense=False)
PAIR = Parallel(pipeline=2)
TURNS = Parallel(pipeline=2, schedule="interleaved", stages=2)


def built(model: Model, dense: bool = False) -> nn.Module:
    torch.manual_seed(0)
    return model.build(INPUTS, Outputs(channels=4, dense=dense)).eval()


def deep(depth: int) -> nn.Module:
    return built(ViT(patch=8, width=8, depth=depth, heads=2))


def place(rank: int, parallel: Parallel) -> Mesh:
    """Return the mesh of ``rank`` in a pipeline that sends nothing."""
    ranks = parallel.pipeline
    return Mesh(World(rank, ranks, torch.device("cpu")), Degrees(pipeline=ranks))


# Cutting


@pytest.mark.parametrize(
    "model",
    [
        built(ViT(patch=8, width=8, depth=2, heads=2, pool="token")),
        built(ViT(patch=8, width=8, depth=2, heads=2, pool="mean", positions="waves")),
        built(ViT(patch=8, width=8, depth=2, heads=2, embed="wavelengths"), dense=True),
        built(ResNet(depth=18)),
    ],
    ids=["token", "mean", "dense", "resnet"],
)
def test_the_links_in_a_row_are_the_network(model):
    x = IMAGES
    for link in model.chain():
        x = link.run(x, IMAGES)
    assert torch.equal(x, model(IMAGES))


@pytest.mark.parametrize(("depth", "ranks", "stages"), [(4, 2, 1), (7, 3, 1), (7, 2, 2), (3, 3, 1)])
def test_blocks_are_dealt_out_evenly_under_their_own_names(depth, ranks, stages):
    model = deep(depth)
    schedule = "interleaved" if stages > 1 else "1f1b"
    parallel = Parallel(pipeline=ranks, stages=stages, schedule=schedule)
    pieces = {}
    for rank in range(ranks):
        mine = cut(model, place(rank, parallel), parallel)
        assert [number % ranks for number in mine] == [rank] * stages
        pieces |= mine
    held = [dict(pieces[number].named_parameters()) for number in range(ranks * stages)]
    blocks = [{name.split(".")[1] for name in h if name.startswith("blocks.")} for h in held]
    counts = [len(b) for b in blocks]
    assert sum(counts) == depth and max(counts) - min(counts) <= 1
    assert "pos_embed" in held[0] and "head.weight" in held[-1]
    assert sorted(name for h in held for name in h) == sorted(dict(model.named_parameters()))
    x = IMAGES
    for number in range(ranks * stages):
        x = pieces[number](x, IMAGES)
    assert torch.equal(x, model(IMAGES))
    assert all(p is held[-1][n] for n, p in model.named_parameters() if n in held[-1]), "copied"


def test_more_pieces_than_blocks_are_refused():
    with pytest.raises(ConfigError, match="pipeline=4 makes 4 pieces and the model has 3 blocks"):
        cut(deep(3), place(0, Parallel(pipeline=4)), Parallel(pipeline=4))
    with pytest.raises(ConfigError, match=r"pipeline=2 x stages=2 .* pipeline x stages to 3 or"):
        cut(deep(3), place(0, TURNS), TURNS)


@pytest.mark.parametrize("kind", [UNet(width=4, depth=1), UNet(width=4, encoder="resnet18")])
def test_a_network_that_is_no_chain_is_refused(kind):
    with pytest.raises(ConfigError, match=r"pipeline=2: \w+ is no chain .*vit, mae and resnet are"):
        cut(built(kind, dense=True), place(0, PAIR), PAIR)


class Tied(nn.Module):
    """Two links that use one layer: its gradient would be in two places."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def chain(self) -> list[Link]:
        return [Link(lambda x, _: self.layer(x), ("layer",), unit=True) for _ in range(2)]


def test_a_layer_belongs_to_one_link():
    with pytest.raises(AssertionError, match=r"2 links of Tied claim layer\.weight"):
        cut(Tied(), place(0, PAIR), PAIR)


def test_a_schedule_without_a_pipeline_is_refused():
    with pytest.raises(ConfigError, match="schedule=gpipe has no effect with pipeline=1"):
        Parallel(schedule="gpipe")


# Microbatches


def refused(parallel: Parallel, microbatches: int) -> str:
    mesh = Mesh.of(World.start("cpu"), parallel)
    replica = Replica(spread(deep(4), mesh, parallel), mesh)
    with pytest.raises(ConfigError) as told:
        replica.check(microbatches)
    return str(told.value)


@pytest.mark.parametrize(
    ("parallel", "microbatches", "message"),
    [
        (
            PAIR,
            1,
            "pipeline=2, schedule=1f1b: each replica has 1 microbatches.* at least 2",
        ),
        (
            Parallel(pipeline=2, replicate=2),
            3,
            "has 1 microbatches .* replicate or pipeline small",
        ),
        (TURNS, 5, "has 5 microbatches .* divide into 2 rounds; make them 4 or 6 by batch.samples"),
    ],
)
def test_numbers_of_microbatches_that_do_not_fit_are_refused(
    ranks, parallel, microbatches, message
):
    for told in ranks(parallel.fixed, refused, parallel, microbatches):
        assert re.search(message, told), told


def gradient(
    subject: Subject,
    parallel: Parallel,
    microbatches: int,
    keep_step: bool = False,
    autocast: torch.dtype | None = None,
) -> dict[str, Any]:
    """Return this rank's gradients, by name, and the losses and weights of all ranks."""
    mesh = Mesh.of(World.start("cpu"), parallel)
    dtype = torch.float32 if autocast else torch.float64
    model = spread(subject.network(dtype), mesh, parallel)
    replica = Replica(model, mesh, autocast=autocast)
    mine = [subject.batch(2 * i) for i in range(mesh.data_rank, microbatches, mesh.data_ranks)]
    if keep_step:
        mine.insert(1, subject.batch(100, counts=False))
    loss, weight = replica.gradients(mine, subject.objective().loss)
    norm = replica.norm()
    replica.settle(Update(samples=4, seen=4))
    buffers = {name: b.clone() for name, b in model.named_buffers()}
    grads = {name: _whole(p.grad) for name, p in model.named_parameters() if p.requires_grad}
    return {"sums": torch.stack([loss, weight]), "norm": norm, "tensors": {**buffers, **grads}}


def _whole(tensor: Tensor) -> Tensor:
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor.clone()


def same(everywhere: list[dict[str, Any]], alone: dict[str, Any], **near: float) -> None:
    for found in everywhere:
        torch.testing.assert_close(found["sums"], alone["sums"], **near)
        torch.testing.assert_close(found["norm"], alone["norm"], **near)
        for name, tensor in found["tensors"].items():
            torch.testing.assert_close(tensor, alone["tensors"][name], **near, msg=name)
    assert set().union(*(f["tensors"] for f in everywhere)) == set(alone["tensors"])


EXACT = {"rtol": 1e-10, "atol": 1e-12}


@functools.cache
def by_one(subject: Subject, microbatches: int) -> dict[str, Any]:
    return gradient(subject, Parallel(), microbatches)


@pytest.mark.parametrize(
    ("parallel", "microbatches"),
    [
        (PAIR, 2),
        (TURNS, 3),
        (Parallel(pipeline=2, schedule="gpipe"), 1),
        (Parallel(pipeline=2, replicate=2), 5),
        (Parallel(pipeline=2, replicate=2, schedule="gpipe"), 1),
    ],
    ids=["few", "odd", "one", "uneven", "none"],
)
def test_any_number_of_microbatches_gives_the_same_gradient(ranks, parallel, microbatches):
    """Also where replicas have unlike numbers of them, or none."""
    same(
        ranks(parallel.fixed, gradient, FOUR, parallel, microbatches),
        by_one(FOUR, microbatches),
        **EXACT,
    )


@pytest.mark.parametrize("subject", [FOUR, NORMED], ids=["vit", "resnet"])
@pytest.mark.parametrize("parallel", [PAIR, TURNS], ids=["1f1b", "interleaved"])
def test_a_microbatch_that_keeps_step_counts_nothing(ranks, subject, parallel):
    """Neither in the gradient nor in the batch statistics, which each rank has of its layers."""
    found = ranks(2, gradient, subject, parallel, 3, True)
    same(found, by_one(subject, 3), **EXACT)


def test_half_precision_travels_as_it_is(ranks):
    """The products are those of one process, to the last bit; sums over ranks are in float32."""
    alone = gradient(FOUR, Parallel(), 4, False, torch.bfloat16)
    found = ranks(2, gradient, FOUR, PAIR, 4, False, torch.bfloat16)
    same(found, alone, rtol=1e-5, atol=1e-7)


# Outputs


def outputs(parallel: Parallel) -> list[Tensor]:
    """Return what a network gives for images of two sizes, and for the first again."""
    mesh = Mesh.of(World.start("cpu"), parallel)
    model = spread(deep(4), mesh, parallel)
    with torch.no_grad():
        return [model(image) for image in (IMAGES, IMAGES[:1, :, :8, :8], -IMAGES)]


@pytest.mark.parametrize("parallel", [Parallel(pipeline=3), TURNS], ids=["3", "interleaved"])
def test_every_rank_has_the_whole_output(ranks, parallel):
    (alone,) = ranks(1, outputs, Parallel())
    for found in ranks(parallel.fixed, outputs, parallel):
        assert all(map(torch.equal, found, alone))


def figures(parallel: Parallel) -> dict[str, float] | None:
    mesh = Mesh.of(World.start("cpu"), parallel)
    replica = Replica(spread(FOUR.network(torch.float64), mesh, parallel), mesh)
    mine = [FOUR.batch(2 * i) for i in range(mesh.data_rank, 5, mesh.data_ranks)]
    return evaluate(replica, FOUR.objective(), mine)


def test_figures_are_those_of_one_process(ranks):
    """Scores count once, though each rank of a pipeline computes them; parts have 3 and 2."""
    (alone,) = ranks(1, figures, Parallel())
    for found in ranks(4, figures, Parallel(pipeline=2, replicate=2)):
        assert found == pytest.approx(alone, rel=1e-12)


def wrong_bands() -> str:
    mesh = Mesh.of(World.start("cpu"), PAIR)
    model = spread(deep(4), mesh, PAIR)
    with torch.no_grad(), pytest.raises(ConfigError) as told:
        model(IMAGES[:, :2])
    return str(told.value)


def test_what_one_rank_refuses_all_refuse(ranks):
    """Only the first one meets the bands; the others must not wait for it."""
    for told in ranks(2, wrong_bands):
        assert "bands" in told


# State


def loaded() -> dict[str, Any]:
    mesh = Mesh.of(World.start("cpu"), PAIR)
    model, other = spread(deep(4), mesh, PAIR), deep(4)
    nn.init.ones_(other.blocks[2].attn.q.weight)
    whole = other.state_dict()
    model.load_state_dict(whole)
    mine = model.state_dict()
    assert all(torch.equal(value, whole[name]) for name, value in mine.items())
    with pytest.raises(RuntimeError, match=r"unknown .'blocks\.4\.norm1\.weight'"):
        model.load_state_dict({**whole, "blocks.4.norm1.weight": torch.ones(8)})
    with pytest.raises(RuntimeError, match=f"without .'{next(iter(mine))}'"):
        model.load_state_dict({n: t for n, t in whole.items() if n != next(iter(mine))})
    return {"names": list(mine), "modules": [name for name, _ in model.named_modules()]}


def test_a_rank_takes_its_layers_from_the_state_of_the_whole(ranks):
    first, second = ranks(2, loaded)
    assert sorted(first["names"] + second["names"]) == sorted(deep(4).state_dict())
    assert "blocks.2.mlp.fc1" in second["modules"] and "blocks.2" not in first["modules"]


def spoiled(rank: int) -> list[str]:
    mesh = Mesh.of(World.start("cpu"), PAIR)
    replica = Replica(spread(FOUR.network(torch.float64), mesh, PAIR), mesh)
    replica.gradients([FOUR.batch(0), FOUR.batch(2)], FOUR.objective().loss)
    assert replica.not_finite() == []
    if mesh.world.rank == rank:
        replica.parameters[-1].grad[0] = torch.inf
    return replica.not_finite()


@pytest.mark.parametrize(("rank", "name"), [(0, "blocks.1.mlp.fc2.bias"), (1, "head.bias")])
def test_every_rank_names_the_gradient_that_is_not_finite(ranks, rank, name):
    assert ranks(2, spoiled, rank) == [[name], [name]]


# A whole run


@pytest.mark.parametrize(
    "parallel", [Parallel(pipeline=2, replicate=2), TURNS], ids=["2x2", "turns"]
)
def test_a_run_is_that_of_one_process(ranks, store, tmp_path, parallel):
    """Its curve, its scores, the samples it saw, its checkpoints and the model it leaves."""
    model = ViT(patch=4, width=16, depth=4, heads=2, drop_path=0.2)

    def run(folder: pathlib.Path, parallel: Parallel, world: World | None) -> dict[str, Any]:
        asked = dataclasses.replace(job(store, folder), model=model, parallel=parallel)
        train(asked, world=world)
        return score(asked, "test", world=world)

    figures = run(tmp_path / "alone", Parallel(), World.alone())
    everywhere = ranks(parallel.fixed, run, tmp_path / "shared", parallel, None)
    assert everywhere == [pytest.approx(figures, rel=1e-9, nan_ok=True)] * parallel.fixed
    assert_same(outcome(tmp_path / "shared"), outcome(tmp_path / "alone"), 1e-9)
