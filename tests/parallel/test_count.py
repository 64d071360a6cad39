"""What an update exchanges is what the closed forms say; and Hybrid-STOP, counted both ways.

P: parameters, here in bytes. An update has 6 microbatches of b = 2 samples, n = 16 tokens of width
d = 32; the transformer has L = 4 blocks. Everything is in float64.
"""

from __future__ import annotations

import pathlib
from collections import Counter
from dataclasses import dataclass

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from swath.nn.random import Draws
from swath.parallel.apply import spread
from swath.parallel.count import Exchange, Volume, counted
from swath.parallel.mesh import Mesh
from swath.parallel.replica import Replica
from swath.parallel.settings import Parallel
from swath.parallel.world import World
from swath.train.settings import TrainSettings
from swath.train.state import TrainState
from swath.train.step import train_step
from tests.layouts.following import AdamW, dealt
from tests.layouts.subjects import BATCH, SUBJECTS
from tests.parallel.hybrid_stop import Peak, Shared, write_out

WITHIN = 0.02
"""The tolerance to which bytes have to agree."""
SUBJECT = SUBJECTS["vit"]
TOKENS = BATCH.micro * 16 * 32 * 8
"""b n d in bytes: what a block hands on."""
BLOCKS = 4


def size(module: nn.Module) -> int:
    return sum(p.nbytes for p in module.parameters())


def parameters() -> int:
    return size(SUBJECT.network(torch.float64))


def update(parallel: Parallel) -> tuple[Volume, Volume]:
    """Return what an update exchanges in all, and among tensor ranks; without what is as small as a
    sum of losses, of weights and of squares."""
    mesh = Mesh.of(World.start("cpu"), parallel)
    model = spread(SUBJECT.network(torch.float64), mesh, parallel)
    replica, objective = Replica(model, mesh), SUBJECT.objective()
    state = TrainState(model, AdamW().build(model))
    batches = dealt(SUBJECT, 0, mesh, replica.in_step)
    settings = TrainSettings(samples=BATCH.samples, clip=0.1)
    with counted() as volume:
        train_step(state, batches, objective.loss, replica, settings, BATCH.samples, 1.0)
    volume.exchanges = [e for e in volume.exchanges if e.bytes > 24]
    return volume, volume.within(mesh.devices["tensor"].get_group())


@pytest.mark.parametrize("number", [2, 3, 4])
def test_replicas_sum_each_gradient_once(ranks, number):
    """A payload of P, for which each sends 2 (n - 1) / n P, whatever its number of microbatches."""
    for volume, _ in ranks(number, update, Parallel()):
        assert set(volume.calls) == {"all_reduce"}
        assert volume.bytes["all_reduce"] == pytest.approx(parameters(), rel=WITHIN)
        sent = 2 * (number - 1) / number * parameters()
        assert volume.wire["all_reduce"] == pytest.approx(sent, rel=WITHIN)


@pytest.mark.parametrize("reshard", [True, False])
def test_shards_gather_parameters_and_scatter_gradients(ranks, reshard):
    """P for each forward pass, and blocks again for its backward unless held; gradients once an
    update. What is in no block is held: the backward pass begins with it."""
    passes = BATCH.passes // 2
    blocks = size(SUBJECT.network(torch.float64).blocks)
    for volume, _ in ranks(2, update, Parallel(shard=2, reshard=reshard)):
        gathers = passes * (parameters() + blocks * reshard)
        assert volume.bytes["all_gather"] == pytest.approx(gathers, rel=WITHIN)
        assert volume.wire["all_gather"] == pytest.approx(gathers / 2, rel=WITHIN)
        assert volume.bytes["reduce_scatter"] == pytest.approx(parameters(), rel=WITHIN)
        assert volume.wire["reduce_scatter"] == pytest.approx(parameters() / 2, rel=WITHIN)
        assert set(volume.calls) == {"all_gather", "reduce_scatter"}


def axes(parallel: Parallel) -> set[tuple[str, ...]]:
    mesh = Mesh.of(World.start("cpu"), parallel)
    model = spread(SUBJECT.network(torch.float64), mesh, parallel)
    return {p.device_mesh.mesh_dim_names for p in model.parameters()}


def test_without_copies_nothing_is_summed_among_them(ranks):
    """Torch would call an all-reduce for each block and its one rank; our count has no such."""
    assert ranks(2, axes, Parallel(shard=2)) == [{("shard",)}] * 2
    assert ranks(4, axes, Parallel(shard=2)) == [{("replica", "shard")}] * 4


def test_copies_of_a_sharded_model_sum_their_shards_only(ranks):
    for volume, _ in ranks(4, update, Parallel(replicate=2, shard=2)):
        assert volume.bytes["reduce_scatter"] == pytest.approx(parameters(), rel=WITHIN)
        assert volume.bytes["all_reduce"] == pytest.approx(parameters() / 2, rel=WITHIN)


@pytest.mark.parametrize("number", [2, 4])
def test_a_block_among_tensor_ranks_is_four_all_reduces_of_its_tokens(ranks, number):
    """One for attention and one for the MLP, forward and backward, though q, k and v share one
    input: a plan that gave each of them its own would exchange half as much again."""
    for _, volume in ranks(number, update, Parallel(tensor=number)):
        assert volume.calls == Counter(all_reduce=4 * BLOCKS * BATCH.passes)
        assert volume.bytes["all_reduce"] == volume.calls["all_reduce"] * TOKENS
        sent = 8 * TOKENS * BLOCKS * BATCH.passes * (number - 1) / number
        assert volume.wire["all_reduce"] == pytest.approx(sent, rel=1e-12)


def test_sharing_tokens_sends_as_much(ranks):
    """Each all-reduce becomes an all-gather and a reduce-scatter. Besides, tokens are collected
    after the last block, and their gradients before the first; and norms, two of 2 d in each block,
    are summed once an update."""
    for _, volume in ranks(2, update, Parallel(tensor=2, sequence=True)):
        gathers = (4 * BLOCKS + 2) * BATCH.passes
        assert volume.calls["all_gather"] == gathers
        assert volume.bytes["all_gather"] == gathers * TOKENS
        assert volume.calls["reduce_scatter"] == 4 * BLOCKS * BATCH.passes
        assert volume.bytes["reduce_scatter"] == 4 * BLOCKS * BATCH.passes * TOKENS
        assert (volume.calls["all_reduce"], volume.bytes["all_reduce"]) == (1, BLOCKS * 4 * 32 * 8)


def every_kind() -> list[tuple[str, int]]:
    """One call of each kind among 2 ranks, of 48 bytes a rank."""
    world = World.start("cpu")
    x, other = torch.ones(6, dtype=torch.float64), 1 - world.rank
    whole = torch.empty(12, dtype=torch.float64)
    with counted() as volume:
        dist.all_reduce(x, async_op=True).wait()
        dist.all_gather_into_tensor(whole, x)
        dist.all_gather(list(whole.chunk(2)), x)
        dist.reduce_scatter_tensor(x, whole)
        dist.all_to_all_single(x.clone(), x)
        dist.broadcast(x, 0)
        dist.barrier()
        works = dist.batch_isend_irecv(
            [dist.P2POp(dist.isend, x, other), dist.P2POp(dist.irecv, x.clone(), other)]
        )
        for work in works:
            work.wait()
        dist.all_reduce(x, group=dist.new_subgroups(1)[0])
    before = len(volume.exchanges)
    dist.all_reduce(x)
    assert len(volume.exchanges) == before
    assert volume.within(dist.group.WORLD).bytes == volume.bytes
    return [(e.kind, e.bytes) for e in volume.exchanges]


def test_every_kind_is_counted_and_nothing_else(ranks):
    """Not a barrier, not what one rank sends to itself, not what comes after the block."""
    for found in ranks(2, every_kind):
        assert found == [
            ("all_reduce", 48),
            ("all_gather", 96),
            ("all_gather", 96),
            ("reduce_scatter", 96),
            ("all_to_all", 48),
            ("broadcast", 48),
            ("send", 48),
            ("recv", 48),
        ]


def test_wire_bytes_are_those_of_a_ring():
    kinds = ("all_reduce", "all_gather", "reduce_scatter", "all_to_all", "send", "recv")
    volume = Volume([Exchange(kind, 4, 1000, "group") for kind in kinds])
    assert list(volume.wire.values()) == [1500, 750, 750, 750, 1000, 0]


@dataclass(frozen=True)
class Found:
    """What a way of spreading the model over 4 ranks needs, for an update."""

    volume: Volume
    chain: Volume
    """Among tensor ranks."""
    peak: int
    """Most bytes of parameters there at once that are not this rank's own."""
    matrices: int
    """Bytes of the blocks' matrices that a rank holds."""
    loss: float
    norm: float


def ours(parallel: Parallel) -> Found:
    mesh = Mesh.of(World.start("cpu"), parallel)
    model = spread(SUBJECT.network(torch.float64), mesh, parallel)
    replica, objective = Replica(model, mesh), SUBJECT.objective()
    batches = dealt(SUBJECT, 0, mesh, replica.in_step)
    with counted() as volume, Peak(model) as peak:
        loss, _ = replica.gradients(batches, objective.loss)
    matrices = [p for p in model.blocks.parameters() if p.ndim == 2]
    return Found(
        volume,
        volume.within(mesh.devices["tensor"].get_group()),
        peak.bytes,
        sum(p.to_local().nbytes for p in matrices),
        loss.item(),
        replica.norm().item(),
    )


def by_hand() -> Found:
    """The same by Hybrid-STOP written out: gathers and sums of its own, no layer of torch's."""
    mesh = Mesh.of(World.start("cpu"), Parallel(shard=2, tensor=2))
    shard, tensor = (mesh.devices[axis].get_group() for axis in ("shard", "tensor"))
    model, objective = SUBJECT.network(torch.float64), SUBJECT.objective()
    draws = Draws(model)
    write_out(model, tensor, shard)
    totals = torch.zeros(2, dtype=torch.float64)
    with counted() as volume, Peak(nn.Module()) as peak:
        for batch in dealt(SUBJECT, 0, mesh, True):
            with draws.keyed(batch.seed):
                loss, weight = objective.loss(model, batch)
            loss.backward()
            totals += torch.stack([loss.detach(), weight])
    pieces = [m.piece for m in model.modules() if isinstance(m, Shared)]
    for p in model.parameters():
        p.grad = torch.zeros_like(p) if p.grad is None else p.grad
        if not any(p is piece for piece in pieces):
            dist.all_reduce(p.grad, group=shard)
    dist.all_reduce(totals, group=shard)
    squares = torch.stack([spread_square(model, pieces), rest_square(model, pieces, tensor)])
    dist.all_reduce(squares[0])
    norm = squares.sum().sqrt() / totals[1]
    matrices = sum(piece.nbytes for piece in pieces)
    chain = volume.within(tensor)
    return Found(volume, chain, peak.bytes, matrices, totals[0].item(), norm.item())


def spread_square(model: nn.Module, pieces: list[nn.Parameter]) -> Tensor:
    return torch.stack([piece.grad.square().sum() for piece in pieces]).sum()


def rest_square(model: nn.Module, pieces: list[nn.Parameter], tensor: dist.ProcessGroup) -> Tensor:
    """Return the squares of what is no matrix; biases of columns lie on all tensor ranks."""
    columns = [m.bias for m in model.modules() if isinstance(m, Shared) and m.way == "columns"]
    total = torch.stack([p.grad.square().sum() for p in columns]).sum()
    dist.all_reduce(total, group=tensor)
    for p in model.parameters():
        if not any(p is other for other in (*pieces, *columns)):
            total += p.grad.square().sum()
    return total


@pytest.fixture(scope="module")
def four(ranks) -> dict[str, Found]:
    """Four ways to spread the transformer over 4 ranks, as rank 0 sees them."""
    two = {"shard": 2, "tensor": 2}
    return {
        "hand": ranks(4, by_hand)[0],
        "matrix": ranks(4, ours, Parallel(**two, wrap="matrix"))[0],
        "block": ranks(4, ours, Parallel(**two))[0],
        "sharded": ranks(4, ours, Parallel(shard=4))[0],
    }


def test_hybrid_stop_by_hand_learns_the_same(four):
    for found in four.values():
        assert found.loss == pytest.approx(four["hand"].loss, rel=1e-12)
        assert found.norm == pytest.approx(four["hand"].norm, rel=1e-9)
        assert found.matrices == four["hand"].matrices


@pytest.mark.parametrize("wrap", ["matrix", "block"])
def test_hybrid_stop_is_shards_of_tensor_shares_on_the_wire(four, wrap):
    """Calls and bytes among tensor ranks are the same to the byte. Of parameters the hand-written
    one gathers matrices alone; ours has biases, norms and what is in no block on the way too."""
    hand, mine = four["hand"], four[wrap]
    assert (mine.chain.calls, mine.chain.bytes) == (hand.chain.calls, hand.chain.bytes)
    passes = BATCH.passes // 2
    whole = SUBJECT.network(torch.float64)
    columns = sum(
        getattr(m, name).bias.nbytes
        for m in whole.modules()
        for name, way in getattr(m, "split", {}).items()
        if way == "columns"
    )
    rest = size(whole) - 4 * hand.matrices - columns / 2
    also = mine.volume.bytes["all_gather"] - hand.volume.bytes["all_gather"]
    outside = size(whole) - size(whole.blocks)  # gathered once a pass
    assert also == pytest.approx(passes * (2 * rest - outside), rel=WITHIN)
    matrices = 2 * passes * 2 * hand.matrices
    assert hand.volume.bytes["all_gather"] == matrices


def test_hybrid_stop_gathers_less_at_once_than_sharding(four):
    """A rank of the hand-written one has one share of one matrix at a time. Torch gathers into a
    buffer first, and backward gathers ahead, so has two: of matrices' shares, or of blocks'."""
    whole = SUBJECT.network(torch.float64)
    block, largest = size(whole.blocks[0]), whole.blocks[0].mlp.fc1
    outside = size(whole) - BLOCKS * block  # gathered for the whole pass, and never cut by hand
    assert four["hand"].peak == largest.weight.nbytes / 2
    assert four["matrix"].peak - outside == pytest.approx(2 * size(largest) / 2, rel=WITHIN)
    assert four["block"].peak - outside == pytest.approx(2 * block / 2, rel=WITHIN)
    assert four["sharded"].peak - outside == pytest.approx(2 * block, rel=WITHIN)


def test_hybrid_stop_against_sharding_alone_on_the_wire(four):
    """Of F = 2 shards of T = 2 shares, gradients cost a rank (F - 1) / F P / T, against
    (n - 1) / n P of n = 4 shards: a third, but for what is in no matrix. Tokens are exchanged
    in return."""
    cut, alone = four["block"].volume, four["sharded"].volume
    assert set(alone.calls) == {"all_gather", "reduce_scatter", "all_reduce"}
    chain = four["block"].chain.wire["all_reduce"]
    assert chain == 4 * BLOCKS * (BATCH.passes // 2) * TOKENS
    fewer = alone.wire["reduce_scatter"] / cut.wire["reduce_scatter"]
    rest = parameters() - 4 * four["hand"].matrices
    expected = (3 / 4 * parameters()) / (1 / 2 * (2 * four["hand"].matrices + rest))
    assert fewer == pytest.approx(expected, rel=WITHIN)


def test_the_how_to_prints_what_was_counted(four):
    page = (pathlib.Path(__file__).parents[2] / "docs/howto/parallel.md").read_text()
    outside = parameters() - BLOCKS * size(SUBJECT.network(torch.float64).blocks[0])
    for name, found in four.items():
        volume, chain = found.volume, found.chain
        cells = [
            round(volume.wire["all_gather"]),
            volume.calls["all_gather"],
            round(chain.wire.get("all_reduce", 0)),
            chain.calls["all_reduce"],
            found.peak - (0 if name == "hand" else outside),
        ]
        assert " | ".join(f"{cell:,}" for cell in cells) in page, name
