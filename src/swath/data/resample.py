"""Bring bands of different resolution to one grid, on the device, no-data apart."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor


def resized(
    image: Tensor,
    observed: Tensor,
    size: tuple[int, int],
    method: Literal["nearest", "bilinear"],
) -> tuple[Tensor, Tensor]:
    """Return ``image`` and ``observed``, both (b, c, h, w), on a grid of ``size`` pixels.

    Both grids cover the same ground; pixels are areas, so that corners fall on corners. Bilinear
    weighs observed pixels only: what was not observed (0 in ``image``) pulls no neighbour.
    """
    from torch.nn import functional

    if tuple(image.shape[-2:]) == size:
        return image, observed
    seen = functional.interpolate(observed.float(), size, mode="nearest-exact") > 0.5
    if method == "nearest":
        return functional.interpolate(image, size, mode="nearest-exact"), seen

    def smooth(values: Tensor) -> Tensor:
        return functional.interpolate(
            values, size, mode="bilinear", align_corners=False, antialias=_shrinks(values, size)
        )

    if bool(observed.all()):
        return smooth(image), seen
    weight = smooth(observed.float())
    return (smooth(image) / weight.clamp_min(1e-6)).masked_fill(~seen, 0.0), seen


def _shrinks(image: Tensor, size: tuple[int, int]) -> bool:
    return image.shape[-2] > size[0] or image.shape[-1] > size[1]
