"""Padding, doubling, enlarging and means against torch's own."""

import pytest
import torch
import torch.nn.functional as F

from swath.nn.resize import _double_by_convolution, enlarged, pad_to_multiple, pooled


@pytest.mark.parametrize("height, width", [(1, 1), (1, 5), (4, 6), (7, 3)])
def test_doubling_is_bilinear_interpolation(height, width):
    """What GPUs are given: values and gradients equal to F.interpolate's, down to one pixel."""
    x = torch.randn(2, 3, height, width, dtype=torch.float64, requires_grad=True)
    mine = _double_by_convolution(x)
    theirs = F.interpolate(x, scale_factor=2, mode="bilinear")
    torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-14)
    weight = torch.randn_like(mine)
    (a,) = torch.autograd.grad((mine * weight).sum(), x)
    (b,) = torch.autograd.grad((theirs * weight).sum(), x)
    torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("size", [(1, 1), (3, 4), (6, 5), (12, 9), (4, 23)])
def test_enlarging_is_bilinear_interpolation_and_pooling_takes_means(size):
    x = torch.randn(2, 3, 3, 4, dtype=torch.float64, requires_grad=True)
    pairs = [
        (enlarged(x, size), F.interpolate(x, size=size, mode="bilinear")),
        (pooled(x, size[0]), F.adaptive_avg_pool2d(x, size[0])),
    ]
    for mine, theirs in pairs:
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-14)
        weight = torch.randn_like(mine)
        (a,) = torch.autograd.grad((mine * weight).sum(), x)
        (b,) = torch.autograd.grad((theirs * weight).sum(), x)
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)


def test_padding_repeats_the_last_row_and_column():
    x = torch.arange(15.0).reshape(1, 1, 3, 5)
    padded = pad_to_multiple(x, 4)
    assert padded.shape == (1, 1, 4, 8)
    assert torch.equal(padded[..., :3, :5], x)
    assert torch.equal(padded[0, 0, 3, :5], x[0, 0, 2])
    assert torch.equal(padded[0, 0, :3, 7], x[0, 0, :, 4])


def test_an_image_that_fits_is_left_alone():
    x = torch.randn(1, 2, 8, 16)
    assert pad_to_multiple(x, 8) is x
