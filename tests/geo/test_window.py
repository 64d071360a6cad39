"""Windows cover an image, and know what they share."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from swath.geo.window import Window, starts, windows


@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 25), st.data())
def test_windows_cover_every_pixel_and_stay_inside(height, width, size, data):
    """A pixel that no window covers would never be trained on, nor mapped."""
    stride = data.draw(st.integers(1, size))
    seen = np.zeros((height, width), int)
    for window in windows(height, width, size, stride):
        assert window.within(height, width)
        assert (window.height, window.width) == (min(size, height), min(size, width))
        seen[window.slices] += 1
    assert seen.min() >= 1


def test_the_last_window_is_shifted_inside():
    assert starts(100, 40, 30) == [0, 30, 60]
    assert starts(101, 40, 30) == [0, 30, 60, 61]
    assert starts(40, 40, 40) == [0]
    assert starts(7, 40, 40) == [0]


def test_a_stride_that_leaves_gaps_is_refused():
    with pytest.raises(ValueError, match="windows of 8 px every 9 px do not cover"):
        starts(100, 8, 9)


def test_overlap_is_what_both_windows_index():
    image = np.arange(400).reshape(20, 20)
    left, right = Window(2, 3, 8, 9), Window(5, 10, 10, 10)
    both = left.overlap(right)
    assert both == Window(5, 10, 5, 2)
    np.testing.assert_array_equal(image[both.slices], image[left.slices][both.inside(left).slices])
    assert left.overlap(Window(10, 3, 4, 4)) is None
    assert not Window(-1, 0, 3, 3).within(20, 20)
