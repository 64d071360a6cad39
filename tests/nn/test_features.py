"""Features and attention: what layers give, by hand and by hooks alike."""

import pytest
import torch

from swath.config import ConfigError
from swath.data.sensor import load_sensor
from swath.models import Inputs, Outputs
from swath.models.conv3d import Conv3d
from swath.models.mae import MAE
from swath.models.resnet import ResNet
from swath.models.unet import UNet
from swath.models.vit import ViT
from swath.nn.features import attention, cells, features, layers_of

RGB = load_sensor("rgb").bands


def built(settings, size=24, dense=False):
    torch.manual_seed(0)
    return settings.build(Inputs(bands=RGB, size=size), Outputs(channels=4, dense=dense)).double()


def images(size=24, b=2):
    draw = torch.Generator().manual_seed(1)
    return torch.randn(b, 3, size, size, generator=draw, dtype=torch.float64)


VIT = ViT(width=16, depth=3, heads=2, patch=8)


def test_features_of_a_vit_are_its_tokens():
    """The last ones are what its own ``tokens`` returns; the head reads the class token of them."""
    network, image = built(VIT), images()
    found = features(network, image)
    assert list(found) == [*(f"blocks.{i}" for i in range(3)), "norm"] == layers_of(network)
    torch.testing.assert_close(found["norm"], network.tokens(image)[0], rtol=0, atol=0)
    torch.testing.assert_close(network.head(found["norm"][:, 0]), network(image), rtol=0, atol=0)
    torch.testing.assert_close(network.norm(found["blocks.2"]), found["norm"], rtol=0, atol=0)
    assert not found["norm"].requires_grad and network.training


def test_of_a_masked_autoencoder_all_patches_are_seen():
    """Its encoder's tokens, though training hides three in four; not what the decoder fills in."""
    outputs = Outputs(channels=3, dense=True, masked=True)
    settings = MAE(width=16, depth=2, heads=2, patch=8, decoder_depth=1, decoder_width=32)
    network = settings.build(Inputs(bands=RGB, size=24), outputs).double()
    found = features(network, images(), ["norm"])["norm"]
    assert found.shape == (2, 9, 16) and cells(network, images(), "norm").map.shape == (2, 16, 3, 3)
    torch.testing.assert_close(found, network.tokens(images())[0], rtol=0, atol=0)
    assert list(attention(network, images(), ["blocks.1"])) == ["blocks.1.attn"]


def test_attention_is_the_softmax_by_hand():
    """From the input of the block and the weights of queries and keys, written out."""
    network, image = built(VIT), images()
    found = attention(network, image)
    assert list(found) == [f"blocks.{i}.attn" for i in range(3)]
    block, x = network.blocks[1], features(network, image, ["blocks.0"])["blocks.0"]
    x = block.norm1(x)
    for head in range(2):
        mine = slice(8 * head, 8 * head + 8)
        q = x @ block.attn.q.weight[mine].T + block.attn.q.bias[mine]
        k = x @ block.attn.k.weight[mine].T + block.attn.k.bias[mine]
        scores = torch.einsum("bne,bme->bnm", q, k) / 8**0.5
        by_hand = scores.exp() / scores.exp().sum(-1, keepdim=True)
        torch.testing.assert_close(found["blocks.1.attn"][:, head], by_hand)
    one = attention(network, image, ["blocks.1"])
    assert list(one) == ["blocks.1.attn"] and one["blocks.1.attn"].shape == (2, 2, 10, 10)


def test_features_of_convolutions_are_maps():
    network, image = built(ResNet(width=4), 64), images(64)
    found = features(network, image, ["layer1", "layer4"])
    assert [found[n].shape for n in found] == [(2, 4, 16, 16), (2, 32, 2, 2)]
    with torch.no_grad():
        network.eval()
        torch.testing.assert_close(found["layer4"], network.features(image)[-1], rtol=0, atol=0)
    unet = built(UNet(width=4, depth=2), dense=True)
    found = features(unet, images(), ["decoder", "encoder.levels.1", "head"])
    assert found["encoder.levels.1"].shape == (2, 16, 6, 6)
    torch.testing.assert_close(unet.head(found["decoder"]), found["head"], rtol=0, atol=0)


def test_the_head_too_is_a_layer_of_a_vit():
    network, image = built(VIT).eval(), images()
    torch.testing.assert_close(features(network, image, ["head"])["head"], network(image))


@pytest.mark.parametrize(
    ("settings", "layer", "size", "unit", "grid"),
    [
        (VIT, "norm", 20, 8, (3, 3)),
        (ResNet(width=4), "layer4", 70, 32, (3, 3)),
        (UNet(width=4, depth=2), "decoder", 21, 1, (21, 21)),
        (UNet(width=4, depth=2), "encoder.levels.1", 21, 4, (6, 6)),
    ],
)
def test_cells_lie_where_their_pixels_are(settings, layer, size, unit, grid):
    """Also where the image is no multiple of the step: the last pixel changes the cells near it
    more than those at the other end."""
    network = built(settings, size, dense=isinstance(settings, UNet)).eval()
    image = images(size, b=1)
    found = cells(network, image, layer)
    assert found.unit == unit and found.map.shape[2:] == grid
    assert (found.token is not None) == isinstance(settings, ViT)
    other = image.clone()
    other[..., -1, -1] += 5
    change = (cells(network, other, layer).map - found.map).abs().amax((0, 1))
    near, far = change[-grid[0] // 3 :, -grid[1] // 3 :], change[: grid[0] // 3, : grid[1] // 3]
    assert near.mean() > 1.3 * far.mean()


def test_windows_of_a_3d_cnn_have_one_vector():
    network = built(Conv3d(filters=(2,), kernel=(3, 3, 2), strides=(1,), hidden=(5,)), 5)
    found = cells(network, images(5), network.embeds)
    assert found.map is None and found.token.shape == (2, 5)
    assert cells(network, images(5), "convs.0").token.shape == (2, 2)


def test_layers_that_are_not_there_are_told():
    network = built(VIT)
    for names, words in (
        (["blocks.7"], "ViT has no layer 'blocks.7'; did you mean 'blocks."),
        (["zzz"], "there are blocks.0, blocks.1, blocks.2, norm"),
    ):
        with pytest.raises(ConfigError, match=words):
            features(network, images(), names)
    with pytest.raises(ConfigError, match=r"layer 'norm' has no attention; there is blocks.0.attn"):
        attention(network, images(), ["norm"])
    with pytest.raises(ConfigError, match="UNet has no attention; a vit has"):
        attention(built(UNet(width=4, depth=1), dense=True), images())
    with pytest.raises(ConfigError, match=r"'encoder' gives several features; name a layer in it"):
        features(built(UNet(width=4, depth=1), dense=True), images(), ["encoder"])
