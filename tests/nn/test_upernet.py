"""Decoders of a vision transformer: against Hugging Face's UPerNet, torch's own, closed forms."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from transformers import UperNetConfig
from transformers.models.upernet.modeling_upernet import UperNetHead

from swath.config import ConfigError
from swath.models import Outputs
from swath.models.vit import ViT
from swath.nn.features import features
from swath.nn.upernet import Pyramid, UPerNet, _onto
from tests.models.test_every_model import inputs

CLASSES = 5
SETTINGS = {"width": 24, "depth": 5, "heads": 3, "patch": 4}


def built(**settings) -> nn.Module:
    torch.manual_seed(0)
    model = ViT(**{**SETTINGS, **settings}).build(inputs(), Outputs(channels=CLASSES, dense=True))
    return model.double().eval()


def theirs(ours: UPerNet, head: nn.Conv2d) -> UperNetHead:
    """Return Hugging Face's head with our weights, and norms by groups as ours are."""
    config = UperNetConfig(hidden_size=head.in_channels, num_labels=CLASSES)
    other = UperNetHead(config, ours.pyramid.channels).double()
    pairs = [
        *(
            (block.layers[1], mixed)
            for block, mixed in zip(other.psp_modules.blocks, ours.pooled, strict=True)
        ),
        (other.bottleneck, ours.whole),
        *zip(other.lateral_convs, ours.lateral, strict=True),
        *zip(other.fpn_convs, ours.smooth, strict=True),
        (other.fpn_bottleneck, ours.fuse),
    ]
    for their, mine in pairs:
        their.batch_norm = nn.GroupNorm(mine[1].num_groups, mine[1].num_channels).double()
        their.conv.load_state_dict(mine[0].state_dict())
        their.batch_norm.load_state_dict(mine[1].state_dict())
    other.classifier.load_state_dict(head.state_dict())
    taken = {*other.classifier.parameters(), *(p for their, _ in pairs for p in their.parameters())}
    assert taken == {*other.parameters()}
    return other


def test_output_and_gradients_are_those_of_another_implementation():
    torch.manual_seed(0)
    ours, head = UPerNet(24, 16, 4).double(), nn.Conv2d(16, CLASSES, 1).double()
    for p in ours.parameters():  # scales and offsets are more than ones and zeros
        p.data += 0.1 * torch.randn_like(p)
    other = theirs(ours, head)
    levels = [
        torch.randn(2, channels, 48 // 2**level, 32 // 2**level).double().requires_grad_()
        for level, channels in enumerate(ours.pyramid.channels)
    ]
    found, expected = head(ours.fused(levels)), other(levels)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    weight = torch.randn_like(found)
    mine, their = (torch.autograd.grad((x * weight).sum(), levels) for x in (found, expected))
    for a, b in zip(mine, their, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def test_the_pyramid_enlarges_by_learned_steps_and_halves_by_the_largest():
    torch.manual_seed(0)
    pyramid = Pyramid(6, 4, 4).double()
    maps = list(torch.randn(4, 2, 6, 5, 3).double())
    found = pyramid(maps)
    first, norm, _, second = pyramid.levels[0]
    twice = F.conv_transpose2d(maps[0], first.weight, first.bias, stride=2)
    torch.testing.assert_close(found[0], second(F.gelu(norm(twice))))
    assert [tuple(f.shape[1:]) for f in found] == [(4, 20, 12), (4, 10, 6), (6, 5, 3), (6, 3, 2)]
    assert found[2] is maps[2]
    assert torch.equal(found[3][:, :, 2, 1], maps[3][:, :, 4, 2])  # alone in its window


@pytest.mark.parametrize(("patch", "finest"), [(1, 1), (2, 2), (3, 2), (4, 4), (8, 4)])
def test_no_level_is_finer_than_the_pixels(patch, finest):
    model = built(decoder="upernet", patch=patch)
    assert model.decoder.pyramid.factors == (finest, max(1, finest // 2), 1)


def test_places_stay_where_they_are_on_a_grid_of_odd_size():
    """Pairs of a ramp 0..4 have their middles at 0.5, 2.5 and 4.5."""
    pairs = (2 * torch.arange(3.0) + 0.5).double().expand(1, 1, 3, 3)
    found = _onto(pairs, torch.empty(1, 1, 5, 5))
    torch.testing.assert_close(found[0, 0, 0, 1:], torch.arange(1.0, 5).double())


def test_the_linear_decoder_is_a_layer_on_tokens_and_bilinear_in_between():
    """As torch's own interpolation enlarges the logits; beyond the image nothing is left."""
    model, image = built(decoder="linear"), torch.randn(2, 4, 22, 13).double()
    tokens, grid = model.tokens(image)
    assert grid == (6, 4) and tuple(model.head.weight.shape) == (CLASSES, 24)
    logits = (tokens @ model.head.weight.T + model.head.bias).mT.unflatten(2, grid)
    expected = F.interpolate(logits, scale_factor=4, mode="bilinear")[..., :22, :13]
    torch.testing.assert_close(model(image), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("reads", [None, (0, 1, 3, 4), (2, 2, 2, 4), (4, 4, 4, 4)])
def test_upernet_reads_the_tokens_after_four_blocks(reads):
    """Each through the last norm, as DINOv2 takes features of several blocks."""
    model, image = built(decoder="upernet", reads=reads), torch.randn(2, 4, 22, 13).double()
    found = features(model, image)
    maps = [
        model.norm(found[f"blocks.{number}"]).mT.unflatten(2, (6, 4))
        for number in reads or (0, 1, 2, 4)
    ]
    with torch.no_grad():
        logits = model.head(model.decoder(maps))
        assert logits.shape[-2:] == (24, 16)
        torch.testing.assert_close(model(image), logits[..., :22, :13], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("decoder", ["linear", "upernet"])
def test_an_image_is_answered_as_the_padded_one(decoder):
    """Its last row and column repeated to whole patches: nothing shifts."""
    model, image = built(decoder=decoder, patch=8), torch.randn(1, 4, 21, 30).double()
    padded = F.pad(image, (0, 2, 0, 3), mode="replicate")
    torch.testing.assert_close(model(image), model(padded)[..., :21, :30], rtol=0, atol=1e-12)


@pytest.mark.parametrize("decoder", ["patch", "linear", "upernet"])
@pytest.mark.parametrize("depth", [1, 2, 5])
def test_the_links_in_a_row_are_the_network(decoder, depth):
    """What a pipeline cuts between; tokens that were read go along."""
    model, image = built(decoder=decoder, depth=depth), torch.randn(2, 4, 22, 13).double()
    x = image
    for link in model.chain():
        x = link.run(x, image)
    assert torch.equal(x, model(image))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"decoder_width": 32}, r"decoder_width=32 has no effect with decoder=patch; .*upernet"),
        ({"decoder": "linear", "reads": (0, 1, 2, 4)}, r"reads=\[0, 1, 2, 4\] has no effect with"),
        ({"decoder": "upernet", "decoder_width": 1}, r"decoder_width=1 must be at least 2"),
        ({"decoder": "upernet", "reads": (0, 1, 2, 3)}, r"of which the last is 4, as \[0, 1, 2, 4"),
        ({"decoder": "upernet", "reads": (2, 1, 3, 4)}, r"must be four blocks in rising order"),
        ({"decoder": "upernet", "reads": (1, 4)}, r"reads=\[1, 4\] must be four blocks"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        ViT(**{**SETTINGS, **settings})


def test_a_decoder_for_one_output_an_image_is_refused():
    with pytest.raises(ConfigError, match="decoder=linear has no effect: the task wants one outp"):
        ViT(decoder="linear").build(inputs(), Outputs(channels=3, dense=False))


def test_defaults_read_at_quarters_of_the_depth():
    """After blocks 3, 6, 9 and 12 of 12; BEiT's are 4, 6, 8 and 12."""
    assert ViT(preset="base")._quarters == (2, 5, 8, 11)
    assert ViT(preset="large")._quarters == (5, 11, 17, 23)


@pytest.mark.parametrize("width", [2, 8, 64])
def test_the_mean_of_a_whole_image_is_heard(width):
    """One place is left of it: a norm within each channel would make it zero, whatever it is."""
    model = built(decoder="upernet", decoder_width=width).decoder
    once, twice = (model.pooled[0](torch.randn(1, 24, 1, 1).double()) for _ in range(2))
    assert not torch.equal(once, twice)
