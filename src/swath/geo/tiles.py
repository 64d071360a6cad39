"""Any window of a large image, put together from tiles of which the last used are kept.

Tiles lie on a fixed grid, so a pixel is computed in the same way whichever window asks for it,
overlapping windows cost one reading, and memory is bounded.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future

import numpy as np

from swath.geo.window import Window


class Tiles:
    """An image (c, height, width) behind ``read``, which may be called from any thread."""

    def __init__(
        self,
        height: int,
        width: int,
        read: Callable[[Window], np.ndarray],
        *,
        pixel_bytes: int,
        size: int = 512,
        memory_bytes: int = 256 << 20,
    ) -> None:
        """read: return (c, h, w) of a window inside the image.
        pixel_bytes: bytes of one pixel with all its channels.
        memory_bytes: kept at most; but two rows of tiles, which reading by strips needs, stay.
        """
        self.height, self.width, self.size = height, width, size
        self._read = read
        across = -(-width // size)
        self._most = max(memory_bytes // (pixel_bytes * size * size), 2 * across)
        self._kept: OrderedDict[tuple[int, int], Future[np.ndarray]] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, window: Window) -> np.ndarray:
        """Return a copy of the pixels (c, h, w) under ``window``, which lies inside the image."""
        if not window.within(self.height, self.width):
            raise ValueError(f"{window} reaches out of an image of {self.height} x {self.width}")
        out: np.ndarray | None = None
        for row in range(window.row // self.size, -(-(window.row + window.height) // self.size)):
            for col in range(window.col // self.size, -(-(window.col + window.width) // self.size)):
                area = self._area(row, col)
                tile = self._tile(row, col)
                if out is None:
                    out = np.empty((len(tile), window.height, window.width), tile.dtype)
                part = window.overlap(area)
                assert part is not None, f"tile {row}, {col} does not touch {window}"
                out[:, *part.inside(window).slices] = tile[:, *part.inside(area).slices]
        assert out is not None, f"{window} is empty"
        return out

    def _area(self, row: int, col: int) -> Window:
        top, left = row * self.size, col * self.size
        return Window(
            top, left, min(self.size, self.height - top), min(self.size, self.width - left)
        )

    def _tile(self, row: int, col: int) -> np.ndarray:
        with self._lock:
            found = self._kept.get((row, col))
            if found is not None:
                self._kept.move_to_end((row, col))
            else:
                mine: Future[np.ndarray] = Future()
                self._kept[row, col] = mine
                while len(self._kept) > self._most:
                    self._kept.popitem(last=False)
        if found is not None:
            return found.result()  # waits if another thread is reading it
        try:
            tile = self._read(self._area(row, col))
        except BaseException as error:
            with self._lock:  # the next one tries again
                if self._kept.get((row, col)) is mine:
                    del self._kept[row, col]
            mine.set_exception(error)
            raise
        mine.set_result(tile)
        return tile
