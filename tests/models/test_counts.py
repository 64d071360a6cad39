"""Numbers of parameters against published ones and closed forms."""

import itertools

import pytest
import torch

from swath.config import ConfigError
from swath.data.sensor import Band
from swath.models import Inputs, Model, Outputs
from swath.models._transformer import PRINTED, SIZES
from swath.models.conv3d import Conv3d
from swath.models.resnet import ResNet
from swath.models.unet import UNet
from swath.models.vit import ViT


def parameters(settings: Model, bands: int, size: int, channels: int, dense: bool = False) -> int:
    """Count on the meta device, where a large model costs nothing."""
    inputs = Inputs(bands=tuple(Band(name=f"B{i}") for i in range(bands)), size=size)
    with torch.device("meta"):
        model = settings.build(inputs, Outputs(channels=channels, dense=dense))
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("depth, count", [(18, 11_689_512), (34, 21_797_672), (50, 25_557_032)])
def test_resnet_has_the_published_number(depth, count):
    """At 3 bands and 1,000 classes, as torchvision's documentation of its weights gives them."""
    assert parameters(ResNet(depth=depth), 3, 224, 1000) == count


def test_vit_has_the_published_number():
    """ViT-B/16 at 224 px: 86,567,656, as torchvision's and timm's."""
    assert parameters(ViT(preset="base", patch=16), 3, 224, 1000) == 86_567_656


@pytest.mark.parametrize("preset", SIZES)
def test_vit_blocks_follow_the_closed_form(preset):
    """Each block has attention of 4 d² weights, two layers (three if gated) of d * hidden, and
    biases and scales; the settings' text rounds that."""
    width, depth, _, hidden, gated = SIZES[preset]
    hidden, layers = hidden or 4 * width, 2 + gated
    beside = (4 + 1 + 4) * width + (layers - 1) * hidden
    blocks = depth * (4 * width**2 + layers * width * hidden + beside)
    patch, tokens = 3 * 16**2 * width + width, (1 + 14**2) * width + width
    around = patch + tokens + 2 * width + 10 * width + 10
    assert parameters(ViT(preset=preset, patch=16), 3, 224, 10) == blocks + around
    said = {"tiny": 5.3, "small": 21, "base": 85, "large": 302, "huge": 629}
    said |= {"1b": 900, "3b": 3000, "5b": 5300, "15b": 15000}
    assert blocks / 1e6 == pytest.approx(said[preset], rel=0.03)


@pytest.mark.parametrize("preset", PRINTED)
def test_large_presets_have_nearly_the_printed_number(preset):
    """Encoders alone, without a head's thousand classes: arXiv:2404.11706 prints millions."""
    found = parameters(ViT(preset=preset, patch=16), 3, 224, 1)
    assert 0.985 * PRINTED[preset] < found < PRINTED[preset]


def test_hidden_layers_are_as_told():
    """Gated, there is a layer more, of 48 * 40 weights and 40 biases."""
    size = {"width": 48, "depth": 1, "heads": 3, "patch": 8}
    plain, gated, wide = (
        parameters(ViT(**size, **more), 3, 16, 2)
        for more in ({"hidden": 40}, {"hidden": 40, "gated": True}, {"hidden": 192})
    )
    assert gated - plain == 48 * 40 + 40
    assert wide == parameters(ViT(**size), 3, 16, 2) == plain + 2 * 48 * 152 + 152
    with pytest.raises(ConfigError, match="hidden=0 must be at least 1"):
        ViT(hidden=0)
    with pytest.raises(ConfigError, match="preset=5b has a gated of its own"):
        ViT(preset="5b", gated=False)


def test_conv3d_has_the_plan_of_lange_et_al():
    """48/32/32 filters of 3x3x5, dense 128/128, on 9x9 windows of 220 bands: 7.80 M."""
    kernel = 3 * 3 * 5
    convs = sum(i * o * kernel + o for i, o in itertools.pairwise((1, 48, 32, 32)))
    flat = 32 * (220 - 3 * 4) * (9 - 3 * 2) ** 2
    dense = sum(i * o + o for i, o in itertools.pairwise((flat, 128, 128, 16)))
    assert parameters(Conv3d(), 220, 9, 16) == convs + dense == 7_803_888


def test_strides_thin_the_3d_network():
    """Steps along the bands shrink the first dense layer, by about their product."""
    full, thin = (parameters(Conv3d(strides=s), 200, 9, 16) for s in (None, (2, 2, 1)))
    left = ((200 - 5) // 2 + 1 - 5) // 2 + 1 - 4
    assert full - thin == 32 * 9 * 128 * (188 - left)


def test_plain_unet_is_as_small_as_it_looks():
    """Width w: every 3x3 convolution counted, in multiples of 9 w²; norms and 1x1 beside."""
    width, bands, classes = 32, 13, 9
    encoder = 1 + (2 + 4) + (8 + 16) + (16 + 16)
    decoder = 8 * 2 + 4 * 1 + 2 * 1  # in * out: (4+4) -> 2, (2+2) -> 1, (1+1) -> 1
    norms = 2 * width * (1 + 2 * 2 + 2 * 4 + 2 * 4 + 2 + 1 + 1)
    ends = bands * width + width + width * classes + classes
    expected = 9 * width**2 * (encoder + decoder) + norms + ends
    assert parameters(UNet(width=width), bands, 64, classes, dense=True) == expected
