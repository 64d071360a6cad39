"""UPerNet on the tokens of a vision transformer: features for every place from those of four sizes.

A transformer's tokens lie on one grid at every depth. The tokens after four of its blocks are made
a pyramid: enlarged four times and twice, as they are, and halved. On the smallest the means over
1, 2, 3 and 6 pieces a side are laid beside it, so that each place knows the whole image; then each
level is added to the next finer one, all are enlarged to the finest, and mixed.

Norms are by groups of channels, not by batch: a microbatch is often a few samples here, of which
batch statistics would be poor (Wu & He 2018, arXiv:1803.08494), and nothing depends on what else is
in it. The enlarging layers go to the decoder's width at once, where BEiT's keep the encoder's.

Sources: Xiao et al. 2018, arXiv:1807.10221; means, Zhao et al. 2017, arXiv:1612.01105; the pyramid
from a vision transformer, Bao et al. 2021, arXiv:2106.08254 (BEiT), as He et al. 2022,
arXiv:2111.06377, and SatMAE, Cong et al. 2022, arXiv:2207.08051, use it, too.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from swath.nn.resize import enlarged, pooled

POOLED = (1, 2, 3, 6)
"""Pieces a side whose means each place is told."""


def _norm(channels: int) -> nn.GroupNorm:
    """Return a norm of up to 8 groups, of 8 channels or more each: of a mean over the whole image
    one place is left, and in a group of one channel nothing would be."""
    groups = next(n for n in (8, 4, 2, 1) if n == 1 or channels % (8 * n) == 0)
    return nn.GroupNorm(groups, channels)


class Mixed(nn.Sequential):
    """A convolution, group norm and ReLU."""

    def __init__(self, inputs: int, outputs: int, size: int) -> None:
        convolution = nn.Conv2d(inputs, outputs, size, padding=size // 2, bias=False)
        super().__init__(convolution, _norm(outputs), nn.ReLU())


class Pyramid(nn.Module):
    """Four maps on one grid, made ``finest``, ``finest`` / 2, 1 and 1/2 times as large.

    finest: 4, 2 or 1; pixels to a side of a token at most, for nothing finer can be told.
    channels: of each level that comes out.
    """

    def __init__(self, inputs: int, width: int, finest: int) -> None:
        super().__init__()
        self.factors = (finest, max(1, finest // 2), 1)
        levels: list[nn.Module] = []
        for factor in self.factors:
            layers: list[nn.Module] = []
            while factor > 1:
                layers += [_norm(width), nn.GELU()] if layers else []
                coming = width if layers else inputs
                layers.append(nn.ConvTranspose2d(coming, width, 2, stride=2))
                factor //= 2
            levels.append(nn.Sequential(*layers))
        self.levels = nn.ModuleList(levels)
        self.channels = [width if factor > 1 else inputs for factor in self.factors] + [inputs]

    def forward(self, maps: Sequence[Float[Tensor, "b d h w"]]) -> list[Tensor]:
        """Return the maps in their new sizes, the largest first; ``maps`` in that order, too."""
        found = [level(each) for level, each in zip(self.levels, maps, strict=False)]
        # An odd grid's last row and column are halved alone.
        return [*found, F.max_pool2d(maps[3], 2, ceil_mode=True)]


class UPerNet(nn.Module):
    """Features for every place of the finest level, from four maps on the grid of tokens."""

    def __init__(self, inputs: int, width: int, finest: int) -> None:
        super().__init__()
        self.pyramid = Pyramid(inputs, width, finest)
        *finer, last = self.pyramid.channels
        self.pooled = nn.ModuleList(Mixed(last, width, 1) for _ in POOLED)
        self.whole = Mixed(last + len(POOLED) * width, width, 3)
        self.lateral = nn.ModuleList(Mixed(each, width, 1) for each in finer)
        self.smooth = nn.ModuleList(Mixed(width, width, 3) for _ in finer)
        self.fuse = Mixed((len(finer) + 1) * width, width, 3)

    def forward(self, maps: Sequence[Float[Tensor, "b d h w"]]) -> Float[Tensor, "b k H W"]:
        """Return the features. maps: of four blocks, the finest level's first."""
        return self.fused(self.pyramid(maps))

    def fused(self, levels: Sequence[Tensor]) -> Float[Tensor, "b k H W"]:
        """Return the features from the levels of a pyramid (b, d, h, w), finest first."""
        *finer, last = levels
        size = (last.shape[-2], last.shape[-1])
        means = [
            enlarged(mix(pooled(last, pieces)), size)
            for pieces, mix in zip(POOLED, self.pooled, strict=True)
        ]
        found = [self.whole(torch.cat([last, *means], 1))]  # coarsest first
        for level, lateral in zip(reversed(finer), reversed(self.lateral), strict=True):
            found.append(lateral(level) + _onto(found[-1], level))
        first, *sums = found
        smooth = [layer(x) for layer, x in zip(reversed(self.smooth), sums, strict=True)]
        every = [_onto(x, finer[0]) for x in (*reversed(smooth), first)]
        return self.fuse(torch.cat(every, 1))


def _onto(x: Float[Tensor, "b d h w"], finer: Tensor) -> Float[Tensor, "b d H W"]:
    """Return ``x`` on the grid of ``finer``: enlarged a whole number of times, and what reaches
    beyond an odd grid cut off, so that places stay where they are."""
    height, width = finer.shape[-2:]
    times = [-(-there // here) for there, here in zip((height, width), x.shape[-2:], strict=True)]
    size = (x.shape[-2] * times[0], x.shape[-1] * times[1])
    return enlarged(x, size)[..., :height, :width]
