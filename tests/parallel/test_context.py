"""Tokens of one sample on several ranks: attention, its gradients, and what they cost.

Whole models over whole updates are in tests/layouts.
"""

import weakref

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from swath.config import ConfigError
from swath.models import Inputs, Outputs
from swath.models.unet import UNet
from swath.models.vit import ViT
from swath.nn.attention import Attention, Mix
from swath.nn.block import Block
from swath.nn.random import Dropout
from swath.parallel import kernel
from swath.parallel.apply import spread
from swath.parallel.attention import KINDS
from swath.parallel.context import share_tokens
from swath.parallel.count import counted
from swath.parallel.mesh import Mesh
from swath.parallel.operations import Operations
from swath.parallel.replica import Replica
from swath.parallel.runs import Join, Runs
from swath.parallel.settings import Degrees, Parallel
from swath.parallel.world import World
from swath.train.evaluate import evaluating, over_ranks
from tests.layouts.following import dealt
from tests.layouts.subjects import BANDS, SUBJECTS

ALL = sorted(KINDS)


# Runs of tokens


def test_runs_are_as_even_as_can_be():
    world = World(1, 4, torch.device("cpu"))
    assert Runs.of(19, world).lengths == (5, 5, 5, 4)
    assert Runs.of(8, world).lengths == (2, 2, 2, 2)
    assert Runs.of(17, world).own(torch.arange(17)[None], 1).tolist() == [[5, 6, 7, 8]]


def test_fewer_tokens_than_ranks_are_refused():
    with pytest.raises(ConfigError, match=r"context=4: a sample has 3 tokens.* at most 3"):
        Runs.of(3, World(0, 4, torch.device("cpu")))


def joined_and_back(tokens: int) -> tuple[Tensor, Tensor]:
    world = World.start("cpu")
    runs = Runs.of(tokens, world)
    run = torch.full((2, runs.lengths[world.rank], 3), 1.0 + world.rank, requires_grad=True)
    whole = Join.apply(run, runs, 1)
    # What a rank makes of the whole differs here, so that a sum can be told from a slice.
    (whole * torch.arange(tokens)[:, None] * (1.0 + world.rank)).sum().backward()
    return whole.detach(), run.grad


@pytest.mark.parametrize("tokens", [8, 17])
def test_joined_tokens_take_the_sum_of_all_ranks_gradients(ranks, tokens):
    lengths, start = Runs.of(tokens, World(0, 4, torch.device("cpu"))).lengths, 0
    expected = torch.cat([torch.full((n,), 1.0 + rank) for rank, n in enumerate(lengths)])
    for (whole, grad), length in zip(ranks(4, joined_and_back, tokens), lengths, strict=True):
        assert torch.equal(whole, expected[None, :, None].expand(2, -1, 3))
        places = torch.arange(start, start + length)
        assert torch.equal(grad, (10.0 * places)[None, :, None].expand(2, -1, 3))
        start += length


# Attention, kind by kind


def qkv(tokens: int, heads: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """Queries, keys, values and the gradient of the output, whole."""
    draw = torch.Generator().manual_seed(3)
    shape = (2, heads, tokens, 8)
    return [torch.randn(shape, generator=draw, dtype=torch.float64).to(dtype) for _ in range(4)]


def asked(kind: str, tokens: int, heads: int) -> list[Tensor]:
    """The output for this rank's tokens, and the gradients of their queries, keys and values."""
    world = World.start("cpu")
    runs = Runs.of(tokens, world)
    *parts, grad = (runs.own(t, 2) for t in qkv(tokens, heads))
    for part in parts:
        part.requires_grad_()
    attention = KINDS[kind](Mix())
    attention.runs = runs
    out = attention(*parts)
    out.backward(grad)
    return [out.detach(), *(part.grad for part in parts)]


def expected(tokens: int, heads: int) -> list[Tensor]:
    *parts, grad = qkv(tokens, heads)
    for part in parts:
        part.requires_grad_()
    out = F.scaled_dot_product_attention(*parts)
    out.backward(grad)
    return [out.detach(), *(part.grad for part in parts)]


@pytest.mark.parametrize("number", [2, 3, 4])
@pytest.mark.parametrize("kind", ALL)
def test_attention_equals_that_of_whole_samples(ranks, kind, number):
    """17 tokens divide by none of these numbers; 12 heads by all."""
    found = ranks(number, asked, kind, 17, 12)
    for each, whole in zip(zip(*found, strict=True), expected(17, 12), strict=True):
        torch.testing.assert_close(torch.cat(each, 2), whole, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_attention_in_parts_equals_the_whole_in_plain_products(dtype):
    """The way of a ring, by matrix products, against torch's kernel; on the CPU the kernel's parts
    as well."""
    q, k, v, grad = qkv(17, 4, dtype)
    exact = [t.to(torch.float64) for t in (q, k, v, grad)]
    for t in exact[:3]:
        t.requires_grad_()
    whole = F.scaled_dot_product_attention(*exact[:3])
    whole.backward(exact[3])
    wanted = [whole, *(t.grad for t in exact[:3])]
    for one, back in (
        (kernel.plain_part, kernel.plain_part_back),
        (kernel.part, kernel.part_back),
    ):
        _compare_parts(one, back, (q, k, v, grad), wanted)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_attention_in_parts_equals_the_whole_on_a_gpu(dtype):
    q, k, v, grad = (t.cuda() for t in qkv(17, 4, dtype))
    exact = [t.to(torch.float64) for t in (q, k, v, grad)]
    for t in exact[:3]:
        t.requires_grad_()
    whole = F.scaled_dot_product_attention(*exact[:3])
    whole.backward(exact[3])
    wanted = [whole, *(t.grad for t in exact[:3])]
    _compare_parts(kernel.part, kernel.part_back, (q, k, v, grad), wanted)


def _compare_parts(one, back, tensors, wanted) -> None:
    q, k, v, grad = tensors
    keys, values = k.split([9, 8], 2), v.split([9, 8], 2)
    out, logs = kernel.merged(*(one(q, a, b) for a, b in zip(keys, values, strict=True)))
    out = out.to(q.dtype)
    sums = [back(grad, q, a, b, out, logs) for a, b in zip(keys, values, strict=True)]
    gq = sums[0][0] + sums[1][0]
    gk, gv = (torch.cat([sums[0][i], sums[1][i]], 2) for i in (1, 2))
    near = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 4e-2}[q.dtype]
    for mine, right in zip((out, gq, gk, gv), wanted, strict=True):
        torch.testing.assert_close(mine.double(), right, rtol=near, atol=near)


# What it costs


def sent(kind: str, tokens: int, heads: int) -> list[dict[str, float]]:
    """Calls and bytes on the wire, forward and backward."""
    world = World.start("cpu")
    runs = Runs.of(tokens, world)
    *parts, grad = (runs.own(t, 2) for t in qkv(tokens, heads))
    attention = KINDS[kind](Mix())
    attention.runs = runs
    with counted() as forward:
        out = attention(*(part.requires_grad_() for part in parts))
    with counted() as backward:
        out.backward(grad)
    passes = (forward, backward)
    return [{k: (v.calls[k], v.wire[k]) for k in v.wire if v.wire[k]} for v in passes]


@pytest.mark.parametrize("number", [2, 4])
def test_bytes_on_the_wire_are_those_of_the_closed_form(ranks, number):
    """b n d numbers of 8 bytes, on c ranks."""
    tokens, heads = 16, 4
    bnd, share = 2 * tokens * heads * 8 * 8, (number - 1) / number
    # Calls, bytes; forward, then backward.
    closed = {
        "gather": [
            {"all_gather": (2, 2 * bnd * share)},
            {"reduce_scatter": (2, 2 * bnd * share)},
        ],
        "lss": [{"all_gather": (1, 2 * bnd * share)}, {"reduce_scatter": (1, 2 * bnd * share)}],
        "ring": [
            {"send": (number - 1, 2 * bnd * share)},
            {"send": (2 * (number - 1), 4 * bnd * share)},
        ],
        "ulysses": [
            {"all_to_all": (2, 4 * bnd / number * share)},
            {"all_to_all": (2, 4 * bnd / number * share)},
        ],
    }
    for kind in ALL:
        for found in ranks(number, sent, kind, tokens, heads):
            assert found == closed[kind], kind


class Peak(Operations):
    """The most bytes that were alive at a time, of those made inside."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self.seen: weakref.WeakSet = weakref.WeakSet()

    def done(self, func, given, result):
        for t in tree_leaves(result):
            if isinstance(t, Tensor) and t.untyped_storage() not in self.seen:
                storage = t.untyped_storage()
                self.seen.add(storage)
                self.now += storage.nbytes()
                self.most = max(self.most, self.now)
                weakref.finalize(storage, self._gone, storage.nbytes())

    def _gone(self, size: int) -> None:
        self.now -= size


def held(kind: str, each: int) -> tuple[int, int]:
    """Bytes at most alive in a pass forward and one back, with ``each`` tokens on each rank."""
    world = World.start("cpu")
    runs = Runs.of(each * world.ranks, world)
    *parts, grad = (runs.own(t, 2) for t in qkv(each * world.ranks, 4))
    attention = KINDS[kind](Mix())
    attention.runs = runs
    for part in parts:
        part.requires_grad_()
    with Peak() as forward:
        out = attention(*parts)
    with Peak() as backward:
        out.backward(grad)
    return forward.most, backward.most


def test_a_ring_never_holds_all_keys_and_values(ranks):
    """With as many tokens on each rank, six ranks hold what four do; gathering holds more.

    gloo may let go of what it has sent a little late, so a run more or less says nothing.
    """
    run = 2 * (2 * 4 * 64 * 8 * 8)
    few, many = (np.min(ranks(n, held, "ring", 64), axis=0) for n in (4, 6))
    assert (many - few < run).all()
    few, many = (np.min(ranks(n, held, "gather", 64), axis=0) for n in (4, 6))
    assert (many - few >= 2 * run).all()


# In a model


def of_two_sizes(parallel: Parallel) -> dict[str, np.ndarray]:
    """Gradients of a loss over two images of unlike sizes, summed over ranks."""
    mesh = Mesh.of(World.start("cpu"), parallel)
    model = spread(SUBJECTS["vit"].network(torch.float64).eval(), mesh, parallel)
    draw = torch.Generator().manual_seed(2)
    images = [torch.randn(2, 3, s, s, generator=draw, dtype=torch.float64) for s in (12, 20)]
    # Both go forward before either goes back.
    loss = sum(model(image).square().sum() for image in images)
    (loss / mesh.degrees.context).backward()
    return {
        name: mesh.learners.sum(p.grad).numpy()
        for name, p in model.named_parameters()
        if p.grad is not None
    }


@pytest.mark.parametrize("kind", ALL)
def test_samples_of_two_sizes_go_through_before_one_goes_back(ranks, kind):
    """Blocks compute again in the backward pass, each with the tokens of its own sample."""
    (alone,) = ranks(1, of_two_sizes, Parallel())
    parallel = Parallel(context=2, attention=kind, recompute="full")
    for found in ranks(2, of_two_sizes, parallel):
        assert found.keys() == alone.keys()
        for name, grad in found.items():
            np.testing.assert_allclose(grad, alone[name], rtol=1e-9, atol=1e-12, err_msg=name)


def in_bfloat16(parallel: Parallel) -> tuple[float, np.ndarray]:
    mesh = Mesh.of(World.start("cpu"), parallel)
    model = spread(SUBJECTS["vit"].network(torch.float32), mesh, parallel)
    replica = Replica(model, mesh, autocast=torch.bfloat16)
    loss, weight = replica.gradients([SUBJECTS["vit"].batch(1)], SUBJECTS["vit"].objective().loss)
    grads = torch.cat([p.grad.flatten() for p in replica.parameters])
    return (loss / weight).item(), grads.numpy().copy()


@pytest.mark.parametrize("kind", ALL)
def test_autocast_stays_as_near_as_rounding_allows(ranks, kind):
    """bfloat16 keeps 8 bits; one process itself is a hundredth away from float32."""
    ((loss, grads),) = ranks(1, in_bfloat16, Parallel())
    for found, others in ranks(2, in_bfloat16, Parallel(context=2, attention=kind)):
        assert found == pytest.approx(loss, rel=1e-2)
        assert np.linalg.norm(others - grads) < 0.02 * np.linalg.norm(grads)


def scored(parallel: Parallel) -> dict[str, np.ndarray]:
    """What a model's scores are made of, summed over ranks."""
    mesh = Mesh.of(World.start("cpu"), parallel)
    subject = SUBJECTS["vit-dense"]
    replica = Replica(spread(subject.network(torch.float64), mesh, parallel), mesh)
    objective = subject.objective()
    tally = objective.empty()
    with torch.no_grad(), evaluating(replica.model):
        for batch in dealt(subject, 0, mesh, even=False):
            tally = tally + replica.call(objective.score, batch)
    return over_ranks(tally if mesh.speaks else objective.empty(), mesh.totals).sums


def test_every_pixel_is_scored_once(ranks):
    (alone,) = ranks(1, scored, Parallel())
    for parallel in (Parallel(context=2, attention="ring"), Parallel(context=2, replicate=2)):
        for found in ranks(parallel.fixed, scored, parallel):
            for name, value in found.items():
                np.testing.assert_allclose(value, alone[name], rtol=1e-12, err_msg=name)


# What does not fit


def test_heads_that_do_not_divide_are_refused():
    model = ViT(patch=4, width=24, depth=2, heads=6).build(
        Inputs(bands=BANDS, size=16), Outputs(channels=2, dense=True)
    )
    told = (
        r"ulysses shares heads, and context=4 does not divide the 6 heads of 0.attn; set context=3"
    )
    with pytest.raises(ConfigError, match=told):
        _refused(model, Parallel(context=4, attention="ulysses"))
    told = r"context=2 x tensor=2 does not divide the 6 heads of 0.attn; set context=1"
    with pytest.raises(ConfigError, match=told):
        _refused(model, Parallel(context=2, tensor=2, attention="ulysses"))


def test_a_model_without_tokens_is_refused():
    model = UNet(width=8, depth=2).build(
        Inputs(bands=BANDS, size=16), Outputs(channels=2, dense=True)
    )
    with pytest.raises(ConfigError, match=r"context=2: .* has no tokens to share.*set context=1"):
        _refused(model, Parallel(context=2))


class Blocks(nn.Module):
    trunk = ("blocks",)

    def __init__(self, *blocks: nn.Module) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)


def test_draws_for_each_token_are_refused():
    soft = nn.Sequential(Block(8, 2, 16), Dropout(0.1))
    with pytest.raises(ConfigError, match=r"context=2: 1.1 draws for each token"):
        _refused(Blocks(Block(8, 2, 16), soft), Parallel(context=2))


def test_blocks_that_would_ask_their_own_tokens_only_are_refused():
    other = nn.TransformerEncoderLayer(8, 2, 16)
    with pytest.raises(
        ConfigError, match=r"context=2: block 1 has no swath.nn.attention.Attention"
    ):
        _refused(Blocks(Block(8, 2, 16), other), Parallel(context=2))


def test_a_kind_of_attention_that_has_no_effect_is_refused():
    with pytest.raises(ConfigError, match="attention=ring has no effect with context=1"):
        Parallel(attention="ring")


def _refused(model: nn.Module, parallel: Parallel) -> None:
    """Ask one rank of those that would be needed."""
    world = World(0, parallel.fixed, torch.device("cpu"))
    degrees = Degrees(context=parallel.context, tensor=parallel.tensor)
    share_tokens(model, Alone(world, degrees), parallel)
    attentions = [m for m in model.modules() if isinstance(m, Attention)]
    raise AssertionError(f"{len(attentions)} attentions were replaced")


class Alone(Mesh):
    def along(self, *axes: str) -> World:
        return World.alone()
