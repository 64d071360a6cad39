"""Sizes made to fit: the padding that a network needs inside, and bilinear doubling."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def pad_to_multiple(image: Float[Tensor, "b c h w"], multiple: int) -> Float[Tensor, "b c H W"]:
    """Return ``image`` with its last row and column repeated until both sides are multiples."""
    height, width = image.shape[-2:]
    below, right = -height % multiple, -width % multiple
    if not below and not right:
        return image
    return F.pad(image, (0, right, 0, below), mode="replicate")


def double(image: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c H W"]:
    """Return ``image`` at twice the size, bilinear between pixel centres, edges held.

    The values are those of ``F.interpolate(scale_factor=2, mode="bilinear")``. That one has no
    deterministic backward pass on a GPU; a transposed convolution of each channel has, and is
    no slower.
    """
    channels = image.shape[1]
    slope = torch.tensor([0.25, 0.75, 0.75, 0.25], dtype=image.dtype, device=image.device)
    kernel = (slope[:, None] * slope)[None, None].expand(channels, 1, 4, 4)
    framed = F.pad(image, (1, 1, 1, 1), mode="replicate")
    return F.conv_transpose2d(framed, kernel, stride=2, padding=3, groups=channels)
