"""Where and when an image was seen, told to a transformer: a vector that is added to each token.

The day of the year is told by sines and cosines of one to four turns a year, the year by those of
8, 32 and 128 years. A place is told by its point on the unit sphere, so that there is no seam at
180 degrees and none at the poles, by sines and cosines of 1, 2, 4 and 8 half turns along each axis:
the finest tells places about 1,600 km apart, a climate and not a field.

What is not known is told by a learned vector of its own. In training some samples are told that
although it is known, so that the network also works without: which ones, keys of the samples say
(``Known.keys``), and no microbatch. All of it begins at 0: then it tells nothing, and a network
that had none of it is as it was.

That time and place are added to tokens, and left out of some samples in training, is from Prithvi-
EO-2.0 (Szwarcman et al. 2024, arXiv:2412.02732), section 3.
"""

import math

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from swath.data.chip import Known
from swath.data.draw_tensor import each
from swath.nn.random import Random


class Situation(nn.Module):
    """Time, place, or both, for tokens of ``width`` numbers.

    withheld: share of the samples that are not told their time in training, and of those that are
    not told their place; drawn apart.
    """

    def __init__(self, width: int, *, time: bool, place: bool, withheld: float) -> None:
        super().__init__()
        self.time = Told(14, width, withheld, draw=0) if time else None
        self.place = Told(24, width, withheld, draw=1) if place else None

    def forward(self, tokens: Float[Tensor, "b t d"], known: Known | None) -> Tensor:
        """Return the tokens with time and place of their samples added, as far as known."""
        known = known or Known()
        if self.time is not None:
            time = None if known.when is None else of_time(known.when)
            tokens = tokens + self.time(time, tokens, known.keys)
        if self.place is not None:
            place = None if known.where is None else of_place(known.where)
            tokens = tokens + self.place(place, tokens, known.keys)
        return tokens


class Told(Random):
    """A linear layer of what is known, and one vector where nothing is.

    draw: its number among those that are made by the same keys.
    """

    def __init__(self, numbers: int, width: int, withheld: float, draw: int = 0) -> None:
        super().__init__()
        self.withheld, self.draw = withheld, draw
        self.proj = nn.Linear(numbers, width)
        self.unknown = nn.Parameter(torch.zeros(width))
        nn.init.zeros_(self.proj.weight)
        nn.init.zeros_(self.proj.bias)

    def forward(
        self,
        told: Float[Tensor, "b n"] | None,
        tokens: Tensor,
        keys: Int64[Tensor, " b"] | None = None,
    ) -> Float[Tensor, "b 1 d"]:
        """told: NaN where unknown; None: all of it is. keys: of the samples; without them it is
        drawn as dropout is."""
        if told is None:
            told = tokens.new_full((len(tokens), self.proj.in_features), math.nan)
        there = told.isfinite().all(1, keepdim=True)
        if self.training and self.withheld:
            if keys is None:
                kept = self.kept([len(told), 1], self.withheld, tokens) > 0
            else:
                kept = each(keys, self.draw)[:, None] >= self.withheld
            there = there & kept
        found = self.proj(told.nan_to_num().to(tokens))
        return found.where(there, self.unknown.to(found))[:, None]


def of_time(when: Float[Tensor, "b 2"]) -> Float[Tensor, "b 14"]:
    """Return what is told of years and days of the year."""
    turns = 2 * math.pi / 365.25 * (when[:, 1:] - 1) * torch.arange(1, 5, device=when.device)
    years = 2 * math.pi * when[:, :1] / torch.tensor([8.0, 32.0, 128.0], device=when.device)
    phase = torch.cat([turns, years], 1)
    return torch.cat([phase.sin(), phase.cos()], 1)


def of_place(where: Float[Tensor, "b 2"]) -> Float[Tensor, "b 24"]:
    """Return what is told of latitudes and longitudes in degrees."""
    lat, lon = where.deg2rad().unbind(1)
    point = torch.stack([lat.cos() * lon.cos(), lat.cos() * lon.sin(), lat.sin()], 1)
    rates = math.pi * torch.tensor([1.0, 2.0, 4.0, 8.0], dtype=where.dtype, device=where.device)
    phase = (point[:, :, None] * rates).flatten(1)
    return torch.cat([phase.sin(), phase.cos()], 1)
