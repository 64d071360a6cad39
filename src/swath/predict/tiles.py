"""Where the windows of a map lie, how much each of their pixels counts, and the pixels they see.

The grid of windows reaches ``pad`` pixels beyond the scene, filled by reflection, so that the
scene's border is as far from a window's edge as any other pixel. A pixel's weight is the product
of a row weight and a column weight, both whole numbers: sums of whole numbers do not depend on
their order, so neither does the map.

Rows run from north to south, and all rows and columns here are counted from the scene's upper
left pixel; in the padding they are negative.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from swath.config import ConfigError
from swath.geo.window import starts

TOTAL = 256
"""The weights along one axis add up to at most this, at any pixel."""


@dataclass(frozen=True)
class Tiling:
    """Windows of ``tile`` px over a scene, ``stride`` px apart."""

    height: int
    width: int
    tile: int
    stride: int
    profile: tuple[int, ...]  # weight of a window's pixels along one axis, (tile,)
    pad: int  # reflected pixels on each side of the scene

    @property
    def rows(self) -> list[int]:
        """First row of each row of windows, from north to south."""
        return [
            row - self.pad for row in starts(self.height + 2 * self.pad, self.tile, self.stride)
        ]

    @property
    def cols(self) -> list[int]:
        """First column of each column of windows, from west to east."""
        return [col - self.pad for col in starts(self.width + 2 * self.pad, self.tile, self.stride)]

    def finished(self, strip: int) -> tuple[int, int]:
        """Return the rows [first, end) of the scene that no window after row ``strip`` touches,
        and that some window of it does: what can be written then."""
        rows = self.rows
        last = strip == len(rows) - 1
        first = 0 if strip == 0 else min(max(rows[strip], 0), self.height)
        return first, self.height if last else min(max(rows[strip + 1], first), self.height)

    def times(self, unit: int) -> Tiling:
        """Return these windows counted in pixels, ``unit`` to a side of what is a pixel here."""
        height, width, tile = self.height * unit, self.width * unit, self.tile * unit
        return Tiling(height, width, tile, self.stride * unit, (), self.pad * unit)

    def needed_from(self, strip: int) -> int:
        """Return the first row of windows that touches the rows finished by row ``strip``."""
        rows = self.rows
        return bisect_right(rows, rows[strip] - self.tile)


def tiling(height: int, width: int, tile: int, overlap: float, edge: int, dense: bool) -> Tiling:
    """Return the windows over a scene of ``height`` x ``width`` px; ConfigError if they leave gaps.

    overlap: share of a window's side that its neighbour also covers.
    edge: pixels along each side of a window that do not count.
    dense: the model answers for each pixel; otherwise once a window, and the answer goes to the
        ``stride`` x ``stride`` pixels in the window's middle.
    """
    stride = max(1, round(tile * (1 - overlap)))
    if edge and not dense:
        raise ConfigError(
            f"predict.edge={edge} has no effect: this model answers once a window, for the "
            f"{stride} x {stride} px in its middle; leave edge out"
        )
    if tile - 2 * edge < stride:
        raise ConfigError(
            f"predict.edge={edge} px cut from each side of windows of {tile} px every {stride} px "
            f"(overlap={overlap:g}) leave gaps; set edge to at most {(tile - stride) // 2} or "
            "raise overlap"
        )
    if dense:
        smooth = raised_cosine(tile, tile - stride, edge)
        pad = max((tile - stride) // 2, edge)
    else:
        pad = (tile - stride) // 2
        smooth = np.zeros(tile)
        smooth[pad : tile - pad] = 1  # stride px, or one more for symmetry
    bare = Tiling(height, width, tile, stride, (), pad)
    profile = _whole(smooth, (bare.rows, bare.cols))
    return Tiling(height, width, tile, stride, tuple(profile.tolist()), pad)


def deal(tiling: Tiling, strips: Sequence[int], ranks: int) -> list[list[range]]:
    """Return the runs of ``strips`` (ascending) that each rank makes; some ranks may have none.

    A run begins with the rows of windows that reach into it from above, which are computed for the
    run above too. So ranks have pieces of the list, cut where the rank with the most rows of
    windows to compute has the fewest.
    """
    rows = tiling.rows
    lead = {strip: strip - bisect_right(rows, rows[strip] - tiling.tile) for strip in strips}
    least, most = 1, len(strips) + sum(lead.values())
    while least < most:
        limit = (least + most) // 2
        if len(_pieces(strips, lead, limit)) <= ranks:
            most = limit
        else:
            least = limit + 1
    shares = _pieces(strips, lead, least)
    return [*shares, *[[] for _ in range(ranks - len(shares))]]


def _pieces(strips: Sequence[int], lead: dict[int, int], limit: int) -> list[list[range]]:
    """Return ``strips`` cut into pieces of up to ``limit`` rows of windows, or of one strip."""
    pieces: list[list[range]] = []
    rows = 0
    for strip in strips:
        runs = pieces[-1] if pieces else []
        if runs and runs[-1].stop == strip and rows + 1 <= limit:
            runs[-1] = range(runs[-1].start, strip + 1)
            rows += 1
        elif runs and runs[-1].stop != strip and rows + lead[strip] + 1 <= limit:
            runs.append(range(strip, strip + 1))
            rows += lead[strip] + 1
        else:
            pieces.append([range(strip, strip + 1)])
            rows = lead[strip] + 1
    return pieces


def raised_cosine(tile: int, overlap: int, edge: int) -> np.ndarray:
    """Return weights 0..1 (tile,) that rise as sin² over the ``overlap`` px shared with a
    neighbour, less ``edge`` px of 0 on each side; neighbours' weights add up to 1 up to an overlap
    of half a window."""
    inner = tile - 2 * edge
    ramp = min(overlap - 2 * edge, inner // 2)
    if ramp <= 0:
        slope = np.ones(inner)
    else:
        rising = np.sin(np.pi / 2 * (np.arange(ramp) + 0.5) / ramp) ** 2
        slope = np.concatenate([rising, np.ones(inner - 2 * ramp), rising[::-1]])
    return np.pad(slope, edge)


def totals(profile: np.ndarray, first: list[int], tile: int, begin: int, end: int) -> np.ndarray:
    """Return the sum of the windows' weights along one axis at pixels begin..end, int64."""
    total = np.zeros(end - begin, np.int64)
    for start in first:
        low, high = max(start, begin), min(start + tile, end)
        if low < high:
            total[low - begin : high - begin] += profile[low - start : high - start]
    return total


def _whole(smooth: np.ndarray, axes: tuple[list[int], ...]) -> np.ndarray:
    """Scale weights to whole numbers, at least 1 where above 0, whose sums stay within TOTAL."""
    tile, scale = len(smooth), float(TOTAL)
    while True:
        whole = np.where(smooth > 0, np.maximum(1, np.rint(smooth * scale)), 0).astype(np.int64)
        most = max(totals(whole, a, tile, a[0], a[-1] + tile).max() for a in axes)
        if most <= TOTAL:
            return whole
        if scale < 1:
            raise ConfigError(f"predict: windows of {tile} px overlap too often; lower the overlap")
        scale *= min(TOTAL / most, 0.999)


def reflect(index: np.ndarray, length: int) -> np.ndarray:
    """Return where pixels beyond 0..length-1 are mirrored to; the border pixel is not repeated."""
    if length == 1:
        return np.zeros_like(index)
    period = 2 * (length - 1)
    index = np.abs(index) % period
    return np.minimum(index, period - index)


class Rows:
    """The scene's rows as windows need them, from north to south; each row is read once.

    Holds at most the rows of one row of windows and of the step to the next.
    """

    def __init__(self, read: Callable[[int, int], np.ndarray], tiling: Tiling) -> None:
        """read: returns the scene's rows [first, end) as (c, end - first, width)."""
        self._read = read
        self._tiling = tiling
        self._kept: np.ndarray | None = None
        self._first = 0  # the row of the scene that ``_kept`` begins with
        self._cols = reflect(np.arange(tiling.cols[0], tiling.cols[-1] + tiling.tile), tiling.width)

    def take(self, strip: int) -> np.ndarray:
        """Return (c, tile, padded width): what the windows of row ``strip`` see, reflected."""
        row = self._tiling.rows[strip]
        wanted = reflect(np.arange(row, row + self._tiling.tile), self._tiling.height)
        low, end = int(wanted.min()), int(wanted.max()) + 1
        kept, first = self._kept, self._first
        if kept is None or low < first or low >= first + kept.shape[1]:
            kept, first = self._read(low, end), low
        elif end > first + kept.shape[1]:
            more = self._read(first + kept.shape[1], end)
            kept, first = np.concatenate([kept[:, low - first :], more], axis=1), low
        self._kept, self._first = kept, first
        if end - low == len(wanted):  # no row is mirrored
            return self._across(kept[:, low - first : end - first])
        return self._across(kept[:, wanted - first])

    def _across(self, rows: np.ndarray) -> np.ndarray:
        """Return rows (c, tile, width) with their sides mirrored: (c, tile, padded width)."""
        width = self._tiling.width
        left = -self._tiling.cols[0]
        padded = np.empty((*rows.shape[:2], len(self._cols)), rows.dtype)
        padded[:, :, left : left + width] = rows
        padded[:, :, :left] = rows[:, :, self._cols[:left]]
        padded[:, :, left + width :] = rows[:, :, self._cols[left + width :]]
        return padded
