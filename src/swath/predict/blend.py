"""Weighted sums of overlapping windows, in whole numbers, a strip of rows at a time.

A probability p becomes the whole number round(p * 2**14) before it is weighted and added, so the
sums are exact: no order of the windows can change a bit of them. Weights add up to at most 2**16
at a pixel and sums therefore to 2**30, which an int32 holds. Values without bounds (heights,
biomass) are added as float64, always window after window from the upper left.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int32, Shaped
from torch import Tensor

from swath.predict.tiles import TOTAL, Tiling, totals

ONE = 1 << 14
"""The whole number that stands for probability 1."""

assert ONE * TOTAL * TOTAL < 2**31, "a sum of weighted probabilities must fit an int32"


def quantise(probabilities: Float[Tensor, "*shape"]) -> Int32[Tensor, "*shape"]:
    """Return probabilities 0..1 as whole numbers 0..2**14; NaN becomes 0."""
    return (probabilities.nan_to_num(0.0).clamp(0, 1) * ONE).round().to(torch.int32)


class Blend:
    """The sums of one row of windows and of what it shares with the next, on one device.

    ``add`` every window of a row of windows, then ``finish`` it. Memory: channels x tile x width
    numbers of 4 bytes (8 for values).
    """

    def __init__(
        self, tiling: Tiling, channels: int, first: int, device: torch.device, values: bool
    ) -> None:
        """first: the row of windows to begin with. values: numbers instead of probabilities."""
        self.tiling = tiling
        self.values = values
        kind = torch.float64 if values else torch.int32
        real = torch.float64 if values else torch.float32
        profile = torch.tensor(tiling.profile, dtype=kind, device=device)
        self._weight = profile[:, None] * profile
        self._left = tiling.cols[0]
        width = tiling.cols[-1] + tiling.tile - self._left
        self._sums = torch.zeros(channels, tiling.tile, width, dtype=kind, device=device)
        self.strip = first
        """The row of windows that answers are added to."""
        across = np.array(tiling.profile)
        self._across, self._down = (
            torch.from_numpy(totals(across, starts, tiling.tile, 0, length)).to(device, real)
            for starts, length in ((tiling.cols, tiling.width), (tiling.rows, tiling.height))
        )

    def add(self, answer: Shaped[Tensor, "k tile tile"], col: int) -> None:
        """Add the answer of the window that begins at ``col`` in the present row of windows."""
        left = col - self._left
        place = self._sums[:, :, left : left + self.tiling.tile]
        place.addcmul_(answer.to(place), self._weight.expand_as(place))

    def finish(self) -> Float[Tensor, "k rows width"]:
        """Return the means over the finished rows, and go on to the next row of windows.

        Probabilities are float32 in 0..1, values float64. Rows may be none.
        """
        tiling, strip = self.tiling, self.strip
        first, end = tiling.finished(strip)
        top = tiling.rows[strip]
        cols = slice(-self._left, -self._left + tiling.width)
        weight = self._down[first:end, None] * self._across
        sums = self._sums[:, first - top : end - top, cols]
        means = sums.to(weight) / (weight if self.values else weight * ONE)
        if strip + 1 < len(tiling.rows):
            step = tiling.rows[strip + 1] - top
            rest = self._sums[:, step:].clone()
            self._sums[:, : rest.shape[1]] = rest
            self._sums[:, rest.shape[1] :] = 0
        self.strip += 1
        return means
