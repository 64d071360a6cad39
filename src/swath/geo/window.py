"""Rectangles of pixels: one window, and the windows that cover an image.

Rows run from north to south and columns from west to east, as in the files; a window knows
nothing of the Earth.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Window:
    """``height`` x ``width`` pixels whose upper left one is (``row``, ``col``)."""

    row: int
    col: int
    height: int
    width: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """Rows and columns, to index the last two axes of an array."""
        return (
            slice(self.row, self.row + self.height),
            slice(self.col, self.col + self.width),
        )

    def within(self, height: int, width: int) -> bool:
        """Return whether the window lies wholly in an image of ``height`` x ``width`` pixels."""
        return (
            min(self.row, self.col) >= 0
            and self.row + self.height <= height
            and self.col + self.width <= width
        )

    def overlap(self, other: Window) -> Window | None:
        """Return the pixels shared with ``other``; None if there are none."""
        row, col = max(self.row, other.row), max(self.col, other.col)
        height = min(self.row + self.height, other.row + other.height) - row
        width = min(self.col + self.width, other.col + other.width) - col
        return Window(row, col, height, width) if height > 0 and width > 0 else None

    def inside(self, other: Window) -> Window:
        """Return this window counted from the upper left pixel of ``other``."""
        return Window(self.row - other.row, self.col - other.col, self.height, self.width)


def starts(length: int, size: int, stride: int) -> list[int]:
    """Return where windows of ``size`` begin so that they cover ``length`` pixels in order.

    They are ``stride`` apart, but the last one is shifted back to end with the image. An image
    shorter than a window has one start, 0.
    """
    if size < 1 or not 1 <= stride <= size:
        raise ValueError(f"windows of {size} px every {stride} px do not cover an image")
    if length <= size:
        return [0]
    return [*range(0, length - size, stride), length - size]


def windows(height: int, width: int, size: int, stride: int) -> list[Window]:
    """Return windows of ``size`` x ``size`` px that cover the image, row by row.

    The last of a row or column is shifted inside. Where the image is smaller than a window, the
    window is cut to the image. ValueError if ``stride`` would leave gaps.
    """
    return [
        Window(row, col, min(size, height), min(size, width))
        for row in starts(height, size, stride)
        for col in starts(width, size, stride)
    ]
