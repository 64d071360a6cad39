"""Groups of channels on tensor ranks: one pass is that of one process, and what travels for it.

That runs follow one process, in many layouts, is in tests/layouts.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from swath.config import ConfigError
from swath.data.sensor import Band
from swath.models import Inputs, Outputs
from swath.models._channels import Channels
from swath.models.vit import ViT
from swath.nn.channels import ChannelEmbed
from swath.parallel.apply import spread
from swath.parallel.channels import share_channels
from swath.parallel.count import counted
from swath.parallel.mesh import Mesh
from swath.parallel.replica import Replica
from swath.parallel.settings import Degrees, Parallel
from swath.parallel.tensor import complete, pieces
from swath.parallel.world import World
from tests.layouts.following import whole

CHANNELS, WIDTH, PATCHES, SAMPLES = 11, 16, 16, 2


def network(aggregate: str, groups: tuple[int, ...] = (8, 4)) -> nn.Module:
    torch.manual_seed(3)
    model = ViT(
        patch=4,
        width=WIDTH,
        depth=1,
        heads=4,
        pool="mean",
        channels=Channels(groups=groups, aggregate=aggregate, heads=2),
    )
    inputs = Inputs(bands=tuple(Band(name=f"B{i}") for i in range(CHANNELS)), size=16)
    made = model.build(inputs, Outputs(channels=3, dense=False)).double()
    embed = made.patch_embed
    with torch.no_grad():  # queries begin near zero, where all channels would count alike
        for level in embed.levels:
            level.query.mul_(50)
    return made


def passed(tensor: int, aggregate: str) -> dict[str, Any]:
    """Return output and gradients, whole, and what was sent forward and backward."""
    parallel = Parallel(tensor=tensor)
    mesh = Mesh.of(World.start("cpu"), parallel)
    model = spread(network(aggregate), mesh, parallel)
    draws = torch.Generator().manual_seed(4)
    image = torch.randn(SAMPLES, CHANNELS, 16, 16, dtype=torch.float64, generator=draws)
    with counted() as forward:
        output = model(image)
    with counted() as backward:
        (output * torch.arange(3)).sum().backward()
    if tensor > 1:
        complete(pieces(model), mesh)
    grads = {n: p.grad for n, p in model.named_parameters() if p.requires_grad}
    return {
        "output": output.detach().numpy(),
        "grads": whole(grads),
        "forward": (dict(forward.calls), forward.bytes["all_gather"]),
        "backward": dict(backward.calls),
    }


@pytest.mark.parametrize("aggregate", ["linear", "attention"])
def test_output_and_every_gradient_are_those_of_one_process(ranks, aggregate):
    """And a token of each patch for each of four groups is all that is sent for channels, and only
    forward: beside it there are the block's own sums, two each way."""
    alone = passed(1, aggregate)
    for number in (2, 4):
        for found in ranks(number, passed, number, aggregate):
            np.testing.assert_allclose(found["output"], alone["output"], rtol=1e-12, atol=1e-12)
            assert set(found["grads"]) == set(alone["grads"])
            for name, grad in alone["grads"].items():
                np.testing.assert_allclose(found["grads"][name], grad, rtol=1e-12, atol=1e-12)
            sent = 4 * SAMPLES * PATCHES * WIDTH * 8
            assert found["forward"] == ({"all_gather": 1, "all_reduce": 2}, sent)
            assert found["backward"] == {"all_reduce": 2}


def shares(tensor: int) -> tuple[int, int, int]:
    mesh = Mesh.of(World.start("cpu"), Parallel(tensor=tensor))
    embed = spread(network("attention"), mesh, Parallel(tensor=tensor)).patch_embed
    local = [getattr(owner, name).to_local() for owner, name in embed.shared]
    assert isinstance(embed, ChannelEmbed)
    return tuple(p.shape[1] for p in local)


def test_a_rank_holds_what_belongs_to_its_groups(ranks):
    """Of 16 places of channels in 8 groups (11 are taken), and of their queries, a quarter."""
    assert ranks(4, shares, 4) == [(4, 4, 2, 1)] * 4


def test_groups_that_ranks_do_not_divide_are_refused():
    mesh = Mesh(World(0, 4, torch.device("cpu")), Degrees(tensor=4))
    with pytest.raises(ConfigError) as told:
        share_channels(network("linear", (6,)), mesh)
    assert (
        "tensor=4 cannot share the 6 groups that model.channels.groups=[6] ends" in f"{told.value}"
    )
    assert "set tensor=3, or end groups with a multiple of 4" in str(told.value)


def narrow_gradients(tensor: int, shard: int) -> dict[str, np.ndarray]:
    """Under shards gathered in bf16, as a run in bf16 has them."""
    parallel = Parallel(tensor=tensor, shard=shard)
    mesh = Mesh.of(World.start("cpu"), parallel)
    made = network("attention").float()
    model = spread(made, mesh, parallel, narrow=torch.bfloat16)
    replica = Replica(model, mesh, autocast=torch.bfloat16)
    assert len(replica.parameters) == len(list(made.parameters())) - 1  # all but keys' biases
    image = torch.randn(2, CHANNELS, 16, 16, generator=torch.Generator().manual_seed(5))
    with torch.autocast("cpu", torch.bfloat16):
        model(image).float().sum().backward()
    names = dict(model.named_parameters())
    return whole(
        {n: p.grad for n, p in names.items() if n.startswith("patch_embed.") and p.grad is not None}
    )


def test_all_of_it_is_sharded_and_summed_in_a_narrow_type(ranks):
    """Two samples ranks with the same image: twice the gradient of one, for every parameter."""
    (alone,) = ranks(1, narrow_gradients, 1, 1)
    for found in ranks(2, narrow_gradients, 1, 2):
        assert set(found) == set(alone)
        for name, grad in alone.items():
            away = np.linalg.norm(found[name] - 2 * grad)
            assert away < 0.02 * np.linalg.norm(2 * grad) + 1e-6, name
