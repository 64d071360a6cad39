"""Matrices and tokens shared among ranks: refusals, what is left exact, what no rank may assume.

That layouts follow one process is in tests/layouts.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.distributed.tensor import DTensor

from swath.config import ConfigError
from swath.data.sensor import load_sensor
from swath.models import Inputs, Outputs
from swath.models.resnet import ResNet
from swath.models.vit import ViT
from swath.nn.random import Dropout
from swath.optimizers.adamw import AdamW
from swath.parallel.apply import spread
from swath.parallel.mesh import Mesh
from swath.parallel.replica import Replica
from swath.parallel.settings import Degrees, Parallel
from swath.parallel.tensor import _shared, split
from swath.parallel.world import World
from swath.train.ema import Average
from swath.train.settings import TrainSettings
from swath.train.state import TrainState
from swath.train.step import train_step
from tests.layouts.following import compare, dealt, learned, whole
from tests.layouts.subjects import SUBJECTS


def network(model, size=16, dense=False):
    inputs = Inputs(bands=load_sensor("rgb").bands, size=size)
    return model.build(inputs, Outputs(channels=4, dense=dense))


def refused(model: nn.Module, **settings) -> str:
    parallel = Parallel(**settings)
    mesh = Mesh(World(0, parallel.tensor, torch.device("cpu")), Degrees(tensor=parallel.tensor))
    with pytest.raises(ConfigError) as told:
        split(model, mesh, parallel)
    return str(told.value)


def test_heads_that_do_not_divide_are_refused():
    told = refused(network(ViT(width=36, depth=1, heads=6, patch=4)), tensor=4)
    assert "tensor=4 cannot share the 6 heads of blocks.0.attn" in told
    assert "set tensor=3, or model.heads" in told


def test_widths_that_do_not_divide_are_refused():
    model = network(ViT(width=36, depth=1, heads=6, patch=4))
    model.blocks[0].mlp = type(model.blocks[0].mlp)(36, 50)
    told = refused(model, tensor=3)
    assert "tensor=3 cannot share the 50 numbers of blocks.0.mlp" in told and "tensor=2" in told


def test_a_network_without_matrices_to_share_is_refused():
    told = refused(network(ResNet(depth=18), 32), tensor=2)
    assert "ResNet has no matrices to share" in told and "set tensor=1" in told


def test_sharing_tokens_needs_ranks_that_share_a_tensor():
    with pytest.raises(
        ConfigError, match="sequence=true has no effect with tensor=1; set tensor=2"
    ):
        Parallel(sequence=True)


def test_what_torch_cannot_recompute_is_refused():
    with pytest.raises(ConfigError, match="set recompute=full, or wrap=block"):
        Parallel(shard=2, wrap="matrix", recompute="selective")


def test_draws_for_each_token_are_refused_where_tokens_are_shared():
    """Two ranks would draw the same for different tokens, and one process something else."""
    model = network(ViT(width=32, depth=2, heads=4, patch=4))
    model.blocks[1].drop_path = Dropout(0.1)
    assert "1.drop_path in ViT draws for each token" in refused(model, tensor=2, sequence=True)


def test_a_network_that_does_not_say_where_its_tokens_are_cannot_share_them():
    blocks = nn.Sequential(*network(ViT(width=32, depth=2, heads=4, patch=4)).blocks)
    told = refused(blocks, tensor=2, sequence=True)
    assert "Sequential does not say where tokens can be shared; leave sequence out" in told


def odd_tokens(pool: str | None, size: int) -> str:
    parallel = Parallel(tensor=2, sequence=True)
    mesh = Mesh.of(World.start("cpu"), parallel)
    model = ViT(width=32, depth=1, heads=4, patch=4, pool=pool)
    model = spread(network(model, size, dense=pool is None), mesh, parallel)
    with pytest.raises(ConfigError) as told:
        model(torch.zeros(1, 3, size, size))
    return str(told.value)


def test_tokens_that_do_not_divide_are_refused(ranks):
    for told in ranks(2, odd_tokens, "token", 16):
        assert "17 tokens cannot be shared evenly by tensor=2" in told
        assert "set model.pool=mean" in told
    for told in ranks(2, odd_tokens, None, 12):
        assert "9 tokens cannot be shared" in told and "else change model.patch" in told


def sizes_in_turn() -> str:
    """Images of one size after those of another, as a network that takes any size may see them."""
    parallel = Parallel(tensor=2, sequence=True)
    mesh = Mesh.of(World.start("cpu"), parallel)
    blocks = nn.ModuleList(network(ViT(width=32, depth=1, heads=4, patch=4)).blocks)

    class Tokens(nn.Module):
        trunk = ("blocks",)

        def __init__(self) -> None:
            super().__init__()
            self.blocks = blocks

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.blocks[0](x)

    model = spread(Tokens(), mesh, parallel)
    for tokens in (16, 6):
        assert model(torch.zeros(1, tokens, 32)).shape == (1, tokens, 32)
    with pytest.raises(ConfigError) as told:
        model(torch.zeros(1, 9, 32))
    return str(told.value)


def test_each_number_of_tokens_is_looked_at(ranks):
    for told in ranks(2, sizes_in_turn):
        assert "9 tokens cannot be shared evenly by tensor=2" in told


def test_a_piece_without_blocks_of_one_list_shares_those_of_another():
    """As the first piece of a pipeline, all of whose blocks are the encoder's."""
    model = nn.Module()
    model.trunk = ("blocks", "decoder_blocks")
    model.blocks = network(ViT(width=32, depth=2, heads=4, patch=4)).blocks
    model.decoder_blocks = nn.ModuleList()
    assert [len(layers) for layers in _shared(model, 2)] == [2]


class Scaled(nn.Module):
    """A chain with a scale of its own between columns and rows, for all heads."""

    split = {"inner": "columns", "outer": "rows"}  # noqa: RUF012
    head_width = 2

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(4, 8), nn.Linear(8, 4)
        self.scale = nn.LayerNorm(2)

    def forward(self, x):
        return self.outer(self.scale(self.inner(x).unflatten(-1, (-1, 2))).flatten(-2))


def gradients_of_scale(tensor: int) -> list[np.ndarray]:
    torch.manual_seed(3)
    parallel = Parallel(tensor=tensor)
    mesh = Mesh.of(World.start("cpu"), parallel)
    replica = Replica(spread(Scaled().double(), mesh, parallel), mesh)
    batch = SUBJECTS["vit"].batch(0)

    def loss(model, batch):
        total = model(batch.image[:, 0, :, :4]).square().sum()
        return total, torch.tensor(1.0)

    replica.gradients([batch], loss)
    return [
        replica.norm().numpy(),
        *whole({n: p.grad for n, p in replica.model.named_parameters()}).values(),
    ]


def test_what_lies_between_columns_and_rows_learns_from_all_heads(ranks):
    """A rank sees its own heads alone; a scale that all heads share must get the sum."""
    (alone,) = ranks(1, gradients_of_scale, 1)
    for shared in ranks(2, gradients_of_scale, 2):
        for mine, expected in zip(shared, alone, strict=True):
            np.testing.assert_allclose(mine, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("sequence", [False, True])
def test_float32_follows_one_process(ranks, sequence):
    """Sharded float32 gradients once asked gloo for a product that it does not have."""
    subject, parallel = SUBJECTS["vit"], Parallel(shard=2, tensor=2, sequence=sequence)
    expected = learned(subject, Parallel(), torch.float32)
    for found in ranks(4, learned, subject, parallel, torch.float32):
        compare(found, expected, 1e-4)


def survived(foreach: bool) -> dict[str, float]:
    """Two updates, one of them again from a state taken between them."""
    parallel, subject = Parallel(shard=2, tensor=2, sequence=True), SUBJECTS["vit"]
    mesh = Mesh.of(World.start("cpu"), parallel)
    model = spread(subject.network(torch.float64), mesh, parallel)
    replica, objective = Replica(model, mesh), subject.objective()
    optimizer = AdamW().build(model)
    for group in optimizer.param_groups:
        group["foreach"] = foreach
    state = TrainState(model, optimizer, Average(model, 24))

    def update(first: int) -> dict[str, float]:
        batches = dealt(subject, first, mesh, replica.in_step)
        return train_step(
            state, batches, objective.loss, replica, TrainSettings(samples=60), 12, 1.0
        )

    update(0)
    taken = {k: {n: t.clone() for n, t in part.items()} for k, part in state.tensors().items()}
    numbers = state.numbers()
    once = update(12)
    after = whole({**model.state_dict(), **state.average.tensors})
    with torch.no_grad():
        for part, tensors in state.tensors().items():
            for name, value in tensors.items():
                value.copy_(taken[part][name])
    state.take(numbers)
    again = update(12)
    for name, value in whole({**model.state_dict(), **state.average.tensors}).items():
        np.testing.assert_array_equal(value, after[name], err_msg=name)
    own = whole(model.state_dict())
    with state.average.worn_by(model):
        assert any((own[n] != v).any() for n, v in whole(model.state_dict()).items())
    for name, value in whole(model.state_dict()).items():
        np.testing.assert_array_equal(value, own[name])
    assert once == again
    return once


@pytest.mark.parametrize("foreach", [False, True])
def test_state_and_average_survive_with_shared_matrices(ranks, foreach):
    """foreach is what AdamW does on GPUs: parameters of two meshes in one operation."""
    figures = ranks(4, survived, foreach)
    assert all(f == figures[0] for f in figures)


def held(parallel: Parallel) -> dict[str, int]:
    mesh = Mesh.of(World.start("cpu"), parallel)
    model = spread(SUBJECTS["vit"].network(torch.float64), mesh, parallel)
    parts = {n: p.to_local() if isinstance(p, DTensor) else p for n, p in model.named_parameters()}
    return {name: part.numel() for name, part in parts.items()}


def test_a_rank_holds_its_share_of_a_matrix_only(ranks):
    (whole_one,) = ranks(1, held, Parallel())
    for mine in ranks(4, held, Parallel(shard=2, tensor=2)):
        for name in ("blocks.0.attn.q.weight", "blocks.3.mlp.fc2.weight"):
            assert mine[name] * 4 == whole_one[name]
