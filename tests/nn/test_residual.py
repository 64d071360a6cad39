"""The ResNet's wiring, checked by closed forms."""

import pytest
import torch

from swath.nn.residual import BasicBlock, Bottleneck, ResNet

BANDS = ("B02", "B03", "B04")


@pytest.mark.parametrize("depth", [18, 34, 50])
def test_depth_counts_the_layers_with_weights(depth):
    """Convolutions on the main path and the head: that is what the number in the name means."""
    model = ResNet(BANDS, depth, 10, 0.0)
    convs = [n for n, _ in model.named_parameters() if "conv" in n and n.endswith("weight")]
    assert len(convs) + 1 == depth


@pytest.mark.parametrize("depth, widest", [(18, 512), (50, 2048)])
def test_features_halve(depth, widest):
    model = ResNet(BANDS, depth, 10, 0.0).eval()
    features = model.features(torch.randn(1, 3, 64, 96))
    assert [tuple(f.shape[-2:]) for f in features] == [(64 >> i, 96 >> i) for i in range(1, 6)]
    assert [f.shape[1] for f in features] == list(model.channels)
    assert model.channels[-1] == widest


@pytest.mark.parametrize("block, inputs", [(BasicBlock, 64), (Bottleneck, 256)])
def test_a_silent_branch_leaves_the_shortcut(block, inputs):
    """With the last norm's scale at 0 a block is the identity on what is positive."""
    made = block(inputs, 64, 1).eval()
    torch.nn.init.zeros_((made.bn3 if block is Bottleneck else made.bn2).weight)
    x = torch.rand(2, inputs, 5, 5)
    assert torch.equal(made(x), x)


def test_convolutions_start_by_he_et_al():
    """Variance 2 / (outputs * kernel area), so that gradients neither vanish nor explode."""
    torch.manual_seed(0)
    weight = ResNet(BANDS, 18, 10, 0.0).layer3[0].conv1.weight
    assert weight.std().item() == pytest.approx((2 / (256 * 9)) ** 0.5, rel=0.01)
