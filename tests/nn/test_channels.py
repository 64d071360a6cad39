"""Aggregated channels: against torch's attention, one layer for all bands, and their own tree."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from swath.config import ConfigError
from swath.data.chip import Known
from swath.data.sensor import Band
from swath.models import Inputs, Outputs
from swath.models._channels import Channels
from swath.models.mae import MAE
from swath.models.vit import ViT
from swath.nn.channels import ChannelEmbed, asked
from swath.parallel.recompute import recompute

WIDTH, HEADS, PATCH = 8, 2, 4
EXACT = {"rtol": 1e-12, "atol": 1e-12}


def embed(bands: int, groups: tuple[int, ...], aggregate: str = "attention") -> ChannelEmbed:
    torch.manual_seed(1)
    names = tuple(f"B{i}" for i in range(bands))
    made = ChannelEmbed(names, PATCH, WIDTH, groups=groups, aggregate=aggregate, heads=HEADS)
    for p in made.parameters():  # queries and biases begin near zero, and would prove little
        p.data += 0.5 * torch.randn_like(p) * (p != 0)
    return made.double()


def image(bands: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randn(3, bands, 8, 12, generator=generator, dtype=torch.float64)


def tokens_of(one: ChannelEmbed, pixels: torch.Tensor, channel: int, slot: int) -> torch.Tensor:
    """Return the token of a channel by torch's convolution: (n, d)."""
    weight = one.proj.weight[:, slot : slot + 1]
    found = nn.functional.conv2d(pixels[:, channel : channel + 1], weight, stride=PATCH)
    return (found + one.channel_embed[:, slot, None, None]).permute(0, 2, 3, 1).flatten(0, 2)


def test_a_query_does_what_torchs_attention_of_one_query_does():
    """torch.nn.MultiheadAttention, whose layers for keys and values are taken into query and
    tokens, as nn/channels.py says."""
    torch.manual_seed(0)
    theirs = nn.MultiheadAttention(WIDTH, HEADS, dtype=torch.float64)
    nn.init.normal_(theirs.in_proj_bias)
    nn.init.normal_(theirs.out_proj.bias)
    x, q = torch.randn(5, 7, WIDTH).double(), torch.randn(WIDTH).double()  # 5 channels, 7 patches
    expected, _ = theirs(q.expand(1, 7, -1), x, x)

    (to_q, to_k, to_v), (of_q, _, of_v) = (
        p.chunk(3) for p in (theirs.in_proj_weight, theirs.in_proj_bias)
    )
    values = x @ to_v.T + of_v
    each = WIDTH // HEADS
    heads = (to_q @ q + of_q).unflatten(0, (HEADS, each)) / each**0.5
    query = torch.einsum("me,med->dm", heads, to_k.unflatten(0, (HEADS, each)))
    found = theirs.out_proj(asked(values, torch.linalg.solve(to_v.T, query)))
    torch.testing.assert_close(found, expected[0], **EXACT)


@pytest.mark.parametrize("bands", [8, 11])
def test_a_tree_is_what_its_levels_say(bands):
    """Channels to 4 groups, 4 to 2, 2 to one; of 11 channels the first three groups have 3."""
    one = embed(bands, (4, 2))
    pixels, room = image(bands), -(-bands // 4)
    sizes = {8: [2, 2, 2, 2], 11: [3, 3, 3, 2]}[bands]
    first, maps = 0, []
    for group, size in enumerate(sizes):
        slots = [group * room + i for i in range(size)]
        tokens = [tokens_of(one, pixels, first + i, slot) for i, slot in enumerate(slots)]
        maps.append(one.levels[0].proj(asked(torch.stack(tokens), one.levels[0].query[:, group])))
        first += size
    pairs = [
        one.levels[1].proj(asked(torch.stack(maps[2 * i : 2 * i + 2]), one.levels[1].query[:, i]))
        for i in range(2)
    ]
    last = one.levels[2].proj(asked(torch.stack(pairs), one.levels[2].query[:, 0]))
    expected = last.unflatten(0, (3, 2, 3)).permute(0, 3, 1, 2)
    torch.testing.assert_close(one(pixels), expected, **EXACT)


def test_one_linear_group_is_one_layer_for_all_bands():
    one = embed(6, (1,), "linear")
    expected = nn.functional.conv2d(
        image(6), one.proj.weight, one.channel_embed[:, 0], stride=PATCH
    )
    torch.testing.assert_close(one(image(6)), expected, **EXACT)


def test_linear_groups_are_layers_of_their_channels():
    one, pixels = embed(7, (2,), "linear"), image(7)
    maps = []
    for group, (some, size) in enumerate(((slice(0, 4), 4), (slice(4, 7), 3))):
        weight = one.proj.weight[:, 4 * group : 4 * group + size]
        found = nn.functional.conv2d(
            pixels[:, some], weight, one.channel_embed[:, group], stride=PATCH
        )
        maps.append(found.permute(0, 2, 3, 1).flatten(0, 2))
    expected = one.levels[0].proj(asked(torch.stack(maps), one.levels[0].query[:, 0]))
    torch.testing.assert_close(one(pixels).permute(0, 2, 3, 1).flatten(0, 2), expected, **EXACT)


def test_empty_places_stay_empty():
    """11 channels in 4 groups leave one of 12 places; it is zero and no gradient reaches it."""
    one = embed(11, (4, 2))
    one(image(11)).square().sum().backward()
    for table in (one.proj.weight, one.channel_embed):
        assert table.shape[1] == 12
        assert not table[:, 11].any() and not table.grad[:, 11].any()
        assert table[:, :11].any(0).all() and table.grad[:, :11].any(0).all()


@pytest.mark.parametrize("kind", ["selective", "full"])
def test_computing_groups_again_changes_nothing(kind):
    grads = []
    for again in (False, True):
        one = embed(11, (4, 2))
        if again:
            recompute(one, kind)
        one(image(11)).square().sum().backward()
        grads.append([p.grad for p in one.parameters()])
    torch.testing.assert_close(grads[1], grads[0], **EXACT)


def network(model: ViT | MAE, bands: int = 12) -> nn.Module:
    inputs = Inputs(bands=tuple(Band(name=f"B{i}") for i in range(bands)), size=16)
    masked = isinstance(model, MAE)
    return model.build(
        inputs, Outputs(channels=bands if masked else 3, dense=masked, masked=masked)
    )


SMALL = {"width": 16, "depth": 1, "heads": 2, "patch": 4}


def test_models_take_aggregated_channels():
    channels = Channels(groups=(4, 2))
    assert network(ViT(**SMALL, channels=channels))(torch.randn(2, 12, 16, 16)).shape == (2, 3)
    filling = network(MAE(**SMALL, decoder_depth=1, channels=channels))
    shown, asked_for = torch.tensor([[0, 5], [3, 1]]), torch.tensor([[2], [2]])
    assert filling(torch.randn(2, 12, 16, 16), shown, asked_for).shape == (2, 1, 16 * 12)


def told(**settings) -> str:
    with pytest.raises(ConfigError) as error:
        network(ViT(**SMALL, **settings))
    return str(error.value)


def test_groups_that_do_not_fit_are_refused():
    with pytest.raises(
        ConfigError, match=r"4 groups cannot be made of 10, .* make it 8 or another"
    ):
        Channels(groups=(10, 4))
    with pytest.raises(ConfigError, match=r"\[8, 1\] must be numbers above 1, or \[1\]"):
        Channels(groups=(8, 1))
    with pytest.raises(ConfigError, match=r"channels\.heads=0 must be at least 1"):
        Channels(heads=0)
    assert "20 groups cannot be made of 12 channels" in told(channels=Channels(groups=(20,)))
    assert "multiple of channels.heads=3" in told(channels=Channels(heads=3))
    assert "embed=wavelengths others" in told(channels=Channels(), embed="wavelengths")


def test_other_bands_are_refused():
    one = embed(6, (2,))
    with pytest.raises(ConfigError, match="the image has 5 bands, the model was built for 6"):
        one(image(5))
    with pytest.raises(ConfigError, match=r"bands X, X, .* weights for each of its own"):
        one(image(6), Known(bands=(Band(name="X"),) * 6))
