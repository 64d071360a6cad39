"""The 3-D network for hyperspectral windows."""

import pytest
import torch

from swath.config import ConfigError
from swath.nn.conv3d import Conv3d, extents


def build(bands: int = 20, size: int = 7, **settings) -> Conv3d:
    torch.manual_seed(0)
    plan = {"filters": (4, 3), "kernel": (3, 3, 5), "strides": (2, 1), "hidden": (8,)}
    names = tuple(f"b{i}" for i in range(bands))
    return Conv3d(names, size, 3, dropout=0.0, **{**plan, **settings})


@pytest.mark.parametrize("bands, strides", [(20, (1, 1)), (21, (2, 1)), (33, (2, 3))])
def test_extents_are_those_of_the_convolutions(bands, strides):
    """Counted beforehand as torch finds them."""
    x = torch.zeros(1, 1, bands, 7, 7)
    for conv in build(bands, strides=strides).convs:
        x = conv(x)
    assert tuple(x.shape[2:]) == extents(bands, 7, (3, 3, 5), strides)


@pytest.mark.parametrize("bands, size, strides", [(4, 7, (1, 1)), (20, 4, (1, 1)), (20, 9, (8, 1))])
def test_too_little_leaves_nothing(bands, size, strides):
    assert min(extents(bands, size, (3, 3, 5), strides)) <= 0


def test_the_kernels_long_side_lies_along_the_bands():
    """A filter that sees only bands 0..4 of the centre pixel must not see anything else."""
    model = build(bands=5, size=3, filters=(1,), strides=(1,), hidden=())
    with torch.no_grad():
        model.convs[0].weight.zero_()
        model.convs[0].weight[0, 0, :, 1, 1] = torch.arange(1.0, 6.0)
        model.convs[0].bias.zero_()
        model.head.weight.fill_(1.0)
        model.head.bias.zero_()
    window = torch.rand(2, 5, 3, 3)
    expected = (window[:, :, 1, 1] * torch.arange(1.0, 6.0)).sum(1)
    torch.testing.assert_close(model(window)[:, 0], expected)


def test_windows_of_another_size_are_refused():
    with pytest.raises(ConfigError, match="are 9 x 7 pixels, the model was built for 7 x 7"):
        build()(torch.zeros(1, 20, 9, 7))
