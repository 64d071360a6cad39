"""Sizes made to fit: the padding that a network needs inside, and bilinear doubling."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


def pad_to_multiple(image: Float[Tensor, "b c h w"], multiple: int) -> Float[Tensor, "b c H W"]:
    """Return ``image`` with its last row and column repeated until both sides are multiples."""
    height, width = image.shape[-2:]
    below, right = -height % multiple, -width % multiple
    if not below and not right:
        return image
    return _edges_repeated(image, 0, below, 0, right)


def double(image: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c H W"]:
    """Return ``image`` at twice the size, bilinear between pixel centres, edges held.

    On a CPU by torch's own interpolation. That one has no deterministic backward pass on a GPU; a
    transposed convolution of each channel has, and gives the same values. On a CPU it would take
    150 of 620 ms of a U-Net's update (8 samples of 13x96x96, width 32, one core).
    """
    if image.device.type == "cpu":
        return F.interpolate(image, scale_factor=2.0, mode="bilinear", align_corners=False)
    return _double_by_convolution(image)


class Double(nn.Module):
    """:func:`double` as a layer, which may be replaced."""

    def forward(self, image: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c H W"]:
        return double(image)


def _double_by_convolution(image: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c H W"]:
    channels = image.shape[1]
    slope = torch.tensor([0.25, 0.75, 0.75, 0.25], dtype=image.dtype, device=image.device)
    kernel = (slope[:, None] * slope)[None, None].expand(channels, 1, 4, 4)
    framed = _edges_repeated(image, 1, 1, 1, 1)
    return F.conv_transpose2d(framed, kernel, stride=2, padding=3, groups=channels)


def _edges_repeated(
    image: Float[Tensor, "b c h w"], above: int, below: int, left: int, right: int
) -> Float[Tensor, "b c H W"]:
    """Return ``image`` with its outermost rows and columns repeated outwards, in pixels.

    The same as ``F.pad(mode="replicate")``, whose backward pass has no deterministic kernel on a
    GPU and which torch.compile (2.13, CPU) gets wrong for channels-last memory.
    """
    sides = [image[..., :1]] * left + [image] + [image[..., -1:]] * right
    wide = torch.cat(sides, -1) if len(sides) > 1 else image
    ends = [wide[..., :1, :]] * above + [wide] + [wide[..., -1:, :]] * below
    return torch.cat(ends, -2) if len(ends) > 1 else wide
