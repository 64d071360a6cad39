"""Views: several pieces of each sample, cut at random and resized, for a task to compare.

A piece lies anywhere, between pixels too, and its area and shape are drawn; then the view is varied
as ``augment`` says. All draws are keyed by the run's seed, the sample's position and the number of
the view, in evaluation by the sample's index: never by a rank.

Resizing interpolates linearly; where it makes smaller, it averages over as much more than a pixel
as a new pixel is larger than an old one. So a piece of the size of its view is copied, half the
size is the mean of 2 x 2 pixels, and a ramp stays the same ramp. A new pixel counts as observed if
at least half of what it is made of was, and is made of that alone.

Source of multi-crop (global and local): Caron et al. 2020, arXiv:2006.09882.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from swath.config import ConfigError
from swath.data import draw
from swath.data.augment import Augment

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Pieces:
    """Pieces of one kind that are cut out of each sample."""

    number: int
    """Of them, for each sample."""
    size: int | None = None
    """Height and width in pixels that they are resized to. None: those of the sample; of local ones
    half of the global ones'."""
    scale: tuple[float, float]
    """Least and largest area of a piece, as a share of the sample's."""

    def __post_init__(self) -> None:
        low, high = self.scale
        if not 0 < low <= high <= 1:
            raise ConfigError(f"scale={list(self.scale)} must be shares, 0 < least <= most <= 1")
        if self.number < 0 or (self.size is not None and self.size < 1):
            raise ConfigError(
                f"number={self.number} must not be negative, size={self.size} at least 1 px"
            )


@dataclass(frozen=True, kw_only=True)
class Global(Pieces):
    """Large pieces; the network is built for their size."""

    number: int = 2
    scale: tuple[float, float] = (0.2, 1.0)


@dataclass(frozen=True, kw_only=True)
class Local(Pieces):
    """Small pieces beside the large ones, which cost little."""

    number: int = 0
    scale: tuple[float, float] = (0.05, 0.2)


@dataclass(frozen=True, kw_only=True)
class Views:
    """Views of each sample, for training and for evaluation; each is then varied as ``augment``
    says, by draws of its own."""

    global_: Global = field(default_factory=Global)
    """Large pieces; all of it: scale: [1, 1]."""
    local: Local = field(default_factory=Local)
    """Small pieces, none by default."""
    ratio: float = 4 / 3
    """Largest ratio of a piece's sides; 1: squares only."""
    seasons: bool = False
    """Whether every second view is of another sample, cut from the same ground at another date,
    where the store has one: of several scenes of the same tiles (kind scenes or stac)."""

    def __post_init__(self) -> None:
        if self.global_.number < 1:
            raise ConfigError(f"global.number={self.global_.number} must be at least 1")
        if not self.ratio >= 1:
            raise ConfigError(f"ratio={self.ratio:g} is that of the longer side, 1 or more")
        if self.local.size is not None and not self.local.number:
            raise ConfigError(
                f"local.size={self.local.size} has no effect with local.number=0; leave it out"
            )

    @property
    def whole(self) -> bool:
        """Whether views are whole samples, their pixels as large as they were."""
        own = self.global_.scale == (1, 1) and self.global_.size is None
        return own and not self.local.number

    def kinds(self, height: int, width: int) -> list[tuple[int, tuple[float, float]]]:
        """Return size and scale of each view, global ones first, of samples of that many pixels."""
        large = self.global_.size or min(height, width)
        small = self.local.size or max(1, large // 2)
        first = [(large, self.global_.scale)] * self.global_.number
        return first + [(small, self.local.scale)] * self.local.number


@dataclass(frozen=True)
class Viewer:
    """Makes ``views`` of samples, each varied by ``augment``."""

    views: Views
    augment: Augment

    def __post_init__(self) -> None:
        if self.augment.crop is not None:
            raise ConfigError(
                f"augment.crop={self.augment.crop}: task.views cuts pieces itself; leave crop out, "
                "and set task.views.global.size to the size that the network is to see"
            )

    def size(self, height: int, width: int) -> int:
        """Return height and width of a global view of samples of that many pixels."""
        return self.views.kinds(height, width)[0][0]

    def __call__(
        self,
        image: Tensor,
        observed: Tensor,
        positions: np.ndarray,
        seed: int,
        other: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Return the views (b, c, h_i, w_i) of images (b, c, h, w), global ones first, and where
        each was observed, likewise; a pixel that was not is 0.

        other: images of which every second view is, and where they were observed.
        """
        height, width = image.shape[2:]
        both = ((image, observed), other or (image, observed))
        views, seen = [], []
        for number, (size, scale) in enumerate(self.views.kinds(height, width)):
            own = draw.key(seed, number, "view")
            boxes = pieces(positions, own, height, width, scale, self.views.ratio)
            view, there = resized(*both[number % 2], boxes, size)
            view, there, _ = self.augment(view, there, None, positions, own)
            views.append(view)
            seen.append(there)
        return tuple(views), tuple(seen)


def pieces(
    positions: np.ndarray,
    seed: int,
    height: int,
    width: int,
    scale: tuple[float, float],
    ratio: float,
) -> np.ndarray:
    """Return top, left, height and width in pixels, float64 (b, 4), of a piece for each position.

    Its share of the area is even over ``scale``, the ratio of its sides even on a logarithmic
    scale up to ``ratio`` either way, or as far as the piece fits into the sample.
    """
    luck = draw.uniform(seed, positions, "piece", 4)
    area = (scale[0] + (scale[1] - scale[0]) * luck[:, 0]) * height * width
    flattest, tallest = width**2 / area, area / height**2  # width over height that just fit
    low, high = (np.log(np.clip(r, tallest, flattest)) for r in (1 / ratio, ratio))
    shape = np.exp(low + (high - low) * luck[:, 1])
    tall, wide = np.minimum((area / shape) ** 0.5, height), np.minimum((area * shape) ** 0.5, width)
    return np.stack([luck[:, 2] * (height - tall), luck[:, 3] * (width - wide), tall, wide], 1)


def resized(image: Tensor, observed: Tensor, boxes: np.ndarray, size: int) -> tuple[Tensor, Tensor]:
    """Return pieces of images (b, c, h, w), which are 0 where not ``observed``, of ``size`` x
    ``size`` pixels, and where they are observed.

    boxes: (b, 4), as :func:`pieces` returns them.
    """
    import torch

    height, width = image.shape[2:]
    down = _weights(boxes[:, 0], boxes[:, 2], height, size, image)
    across = _weights(boxes[:, 1], boxes[:, 3], width, size, image)

    def cut(maps: Tensor) -> Tensor:
        many = maps.shape[1]
        rows = torch.bmm(maps.flatten(1, 2), across).unflatten(1, (many, height))
        return torch.bmm(rows.mT.flatten(1, 2), down).unflatten(1, (many, size)).mT

    with _exactly():
        values, share = cut(image), cut(observed.to(image))
    there = share >= 0.5 - 1e-4  # half of it: not to be decided by rounding
    return (values / share).masked_fill_(~there, 0.0), there


def _weights(start: np.ndarray, length: np.ndarray, pixels: int, size: int, like: Tensor) -> Tensor:
    """Return how much of each of ``pixels`` goes into each new one: (b, pixels, size), whose
    columns add up to 1.

    The line through the pixels' values, averaged over ``length / size - 1`` pixels around the new
    one's middle: the difference of its integrals at both ends.
    """
    import torch

    at = torch.from_numpy(np.stack([start, length])).to(like.device)[..., None]
    step = at[1] / size
    middle = at[0] + (torch.arange(size, device=like.device) + 0.5) * step - 0.5
    middle = middle.clamp(0, pixels - 1)  # beyond the outermost middles their values go on
    away = middle[:, None] - torch.arange(pixels, device=like.device)[:, None]
    reach = (step - 1).clamp(min=0)[..., None] / 2
    line = (1 - away.abs()).clamp(min=0)
    mean = (_integral(away + reach) - _integral(away - reach)) / (2 * reach).clamp(min=1e-6)
    weights = line.where(reach < 5e-7, mean)
    return (weights / weights.sum(1, keepdim=True)).to(like.dtype)


def _integral(x: Tensor) -> Tensor:
    """Return the integral up to ``x`` of max(0, 1 - |t|)."""
    x = x.clamp(-1, 1)
    return 0.5 + x - 0.5 * x * x.abs()


@contextlib.contextmanager
def _exactly() -> Iterator[None]:
    """Multiply matrices of float32 as such: a run's precision is that of its network."""
    import torch

    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
