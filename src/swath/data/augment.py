"""Vary training samples: turned, cut, brighter, noisier. Each draw is keyed by (seed, position).

It works on the device, on a microbatch that is already normalised, so noise is in standard
deviations of a band. A mask is turned and cut with its image. What was not observed stays 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np

from swath.config import ConfigError
from swath.data import draw

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Augment:
    """How samples are varied in training; nothing by default, and never in evaluation."""

    flips: bool = False
    """Mirror left to right, and top to bottom, each with probability 1/2."""
    rotations: bool = False
    """Turn by 0, 90, 180 or 270 degrees."""
    crop: int | None = None
    """Height and width in pixels of a piece cut out at random; None: the whole sample."""
    gain: float = 0.0
    """Each band times 1 + gain * n, n normal: haze and sun differ from scene to scene."""
    offset: float = 0.0
    """Each band plus offset * n, n normal, in standard deviations."""
    noise: float = 0.0
    """Each pixel of each band plus noise * n, n normal, in standard deviations."""
    blur: float = 0.0
    """Largest standard deviation in pixels of a Gaussian blur; each sample's is drawn evenly from 0
    up to it."""
    erase: float = 0.0
    """Probability that a rectangle (2 to 20 % of the area) is set to 0 in all bands."""
    drop_bands: float = 0.0
    """Probability of each band to be set to 0; one always stays."""

    def __post_init__(self) -> None:
        for name in ("erase", "drop_bands"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)} must be a probability below 1")
        for name in ("gain", "offset", "noise", "blur"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"{name}={getattr(self, name)} must not be negative")
        if self.crop is not None and self.crop < 1:
            raise ConfigError(f"crop={self.crop} must be at least 1 pixel, or null for no crop")

    @property
    def varies(self) -> bool:
        """Whether anything of a sample is varied but the piece that is cut out."""
        return any(getattr(self, f.name) for f in fields(self) if f.name != "crop")

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Return height and width of a varied sample; ConfigError if it cannot be varied so."""
        if self.crop is not None and self.crop > min(height, width):
            raise ConfigError(f"crop={self.crop} is larger than the samples, {height} x {width}")
        if self.crop is not None:
            return self.crop, self.crop
        if self.rotations and height != width:
            raise ConfigError(
                f"rotations need square samples, these are {height} x {width}; set a crop"
            )
        return height, width

    def __call__(
        self,
        image: Tensor,
        observed: Tensor,
        target: Tensor | None,
        positions: np.ndarray,
        seed: int,
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return a varied microbatch: image (b, c, h, w), observed likewise, target.

        A target of three or more dims, (b, ..., h, w), is a map: turned and cut with the image.
        """
        image, observed, target = self._turned(image, observed, target, positions, seed)
        coloured = self._coloured(image, positions, seed)
        if coloured is not image:
            image = coloured.masked_fill_(~observed, 0.0)
        if self.blur:
            widths = self.blur * draw.uniform(seed, positions, "blur")[:, 0]
            image = blurred(image, observed, widths, self.blur)
        if self.erase:
            hole = self._holes(positions, seed, *image.shape[2:]).to(image.device)[:, None]
            image, observed = image.masked_fill(hole, 0.0), observed & ~hole
        return image, observed, target

    def _turned(
        self,
        image: Tensor,
        observed: Tensor,
        target: Tensor | None,
        positions: np.ndarray,
        seed: int,
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        import torch

        height, width = image.shape[2:]
        size = self.size(height, width)
        if not (self.flips or self.rotations or self.crop is not None):
            return image, observed, target
        luck = draw.uniform(seed, positions, "turn", 5)
        tops = (luck[:, 0] * (height - size[0] + 1)).astype(int).tolist()
        lefts = (luck[:, 1] * (width - size[1] + 1)).astype(int).tolist()
        mirrored = (luck[:, 2:4] < 0.5) & self.flips
        turns = ((luck[:, 4] * 4).astype(int) * self.rotations).tolist()

        def turned(maps: Tensor) -> Tensor:
            out = torch.empty((*maps.shape[:-2], *size), dtype=maps.dtype, device=maps.device)
            for i, (top, left, turn) in enumerate(zip(tops, lefts, turns, strict=True)):
                piece = maps[i, ..., top : top + size[0], left : left + size[1]]
                piece = piece.flip(
                    [d for d, flip in zip((-1, -2), mirrored[i], strict=True) if flip]
                )
                out[i] = torch.rot90(piece, turn, (-2, -1))
            return out

        if target is not None and target.ndim >= 3:
            target = turned(target)
        return turned(image), turned(observed), target

    def _coloured(self, image: Tensor, positions: np.ndarray, seed: int) -> Tensor:
        import torch

        from swath.data.draw_tensor import normal

        bands = image.shape[1]

        def per_band(values: np.ndarray) -> Tensor:
            return torch.from_numpy(values).to(image)[:, :, None, None]

        if self.gain:
            luck = draw.normal(seed, positions, "gain", bands)
            image = image * per_band(1 + self.gain * luck)
        if self.offset:
            image = image + per_band(self.offset * draw.normal(seed, positions, "offset", bands))
        if self.noise:
            image = image.clone()
            keys = [draw.key(seed, position, "noise") for position in positions.tolist()]
            for row, key in zip(image, torch.tensor(keys, device=image.device), strict=True):
                row.add_(normal(key, row.shape), alpha=self.noise)
        if self.drop_bands:
            luck = draw.uniform(seed, positions, "drop_bands", bands + 1)
            kept = luck[:, :bands] >= self.drop_bands
            stays = (luck[:, bands] * bands).astype(int)  # drawn before it is known to be needed
            kept[np.arange(len(kept)), stays] |= ~kept.any(1)
            image = image * per_band(kept)
        return image

    def _holes(self, positions: np.ndarray, seed: int, height: int, width: int) -> torch.Tensor:
        """Return (b, h, w) bool: the rectangle to erase, in those samples that have one."""
        import torch

        luck = draw.uniform(seed, positions, "erase", 5)
        area = (0.02 + 0.18 * luck[:, 1]) * height * width
        aspect = 3.0 ** (2 * luck[:, 2] - 1)  # 1/3 to 3, evenly on a logarithmic scale
        holes = np.zeros((len(positions), height, width), bool)
        for hole, (yes, *_, y, x), a, r in zip(holes, luck, area, aspect, strict=True):
            if yes < self.erase:
                tall = int(np.clip(round((a * r) ** 0.5), 1, height))
                wide = int(np.clip(round((a / r) ** 0.5), 1, width))
                top, left = int(y * (height - tall + 1)), int(x * (width - wide + 1))
                hole[top : top + tall, left : left + wide] = True
        return torch.from_numpy(holes)


def blurred(image: Tensor, observed: Tensor, widths: np.ndarray, most: float) -> Tensor:
    """Return images (b, c, h, w), 0 where not ``observed``, each blurred by a Gaussian whose
    standard deviation ``widths`` (b,) says, in pixels; of what was observed alone.

    most: largest of the widths that may come; farther than three times it nothing reaches.
    """
    import torch
    from torch.nn.functional import conv2d

    reach = max(1, math.ceil(3 * most))
    x = torch.arange(-reach, reach + 1, device=image.device, dtype=image.dtype)
    width = torch.from_numpy(np.maximum(widths, 1e-3)).to(image)[:, None]
    bell = torch.exp(-0.5 * (x / width) ** 2)
    bell /= bell.sum(1, keepdim=True)

    def spread(maps: Tensor) -> Tensor:
        bands = maps.shape[1]
        flat = maps.flatten(0, 1)[None]
        own = bell.repeat_interleave(bands, 0)[:, None]
        flat = conv2d(flat, own[..., None], padding=(reach, 0), groups=len(own))
        flat = conv2d(flat, own[:, :, None], padding=(0, reach), groups=len(own))
        return flat[0].unflatten(0, (-1, bands))

    return (spread(image) / spread(observed.to(image))).masked_fill_(~observed, 0.0)
