"""Windows put together from tiles equal the image, in bounded memory."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swath.geo.tiles import Tiles
from swath.geo.window import Window

IMAGE = np.random.default_rng(0).integers(0, 255, (3, 70, 90), dtype=np.uint8)


def tiles(read=lambda w: IMAGE[:, *w.slices], **settings) -> Tiles:
    return Tiles(70, 90, read, **({"pixel_bytes": 3, "size": 16} | settings))


@settings(max_examples=50)
@given(st.integers(0, 69), st.integers(0, 89), st.data())
def test_any_window_equals_the_image(row, col, data):
    height = data.draw(st.integers(1, 70 - row))
    width = data.draw(st.integers(1, 90 - col))
    window = Window(row, col, height, width)
    np.testing.assert_array_equal(tiles().read(window), IMAGE[:, *window.slices])


def test_the_caller_may_change_what_it_got():
    reader = tiles()
    reader.read(Window(0, 0, 16, 16))[:] = 0
    np.testing.assert_array_equal(reader.read(Window(0, 0, 16, 16)), IMAGE[:, :16, :16])


def test_tiles_are_read_once_while_they_are_kept_and_then_dropped():
    asked = []

    def read(window):
        asked.append(window)
        return IMAGE[:, *window.slices]

    reader = tiles(read, memory_bytes=0)  # two rows of six tiles are kept all the same
    for top in range(0, 16, 4):  # strips within one row of tiles
        reader.read(Window(top, 0, 4, 90))
    assert len(asked) == 6
    reader.read(Window(0, 0, 70, 90))
    assert len(asked) == 30  # the first row was still there
    assert len(reader._kept) == 12
    reader.read(Window(0, 0, 1, 1))
    assert len(asked) == 31  # dropped meanwhile, so read again


def test_many_threads_read_a_tile_once():
    asked = []

    def read(window):
        asked.append(window)
        return IMAGE[:, *window.slices]

    reader = tiles(read)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: reader.read(Window(3, 3, 30, 30)), range(40)))
    assert len(asked) == 9
    for values in found:
        np.testing.assert_array_equal(values, IMAGE[:, 3:33, 3:33])


def test_a_failed_tile_is_tried_again():
    answers = [OSError("unplugged"), IMAGE[:, :16, :16]]

    def read(window):
        answer = answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return answer

    reader = tiles(read)
    with pytest.raises(OSError, match="unplugged"):
        reader.read(Window(0, 0, 4, 4))
    assert reader.read(Window(0, 0, 4, 4)).shape == (3, 4, 4)


def test_a_window_outside_is_refused():
    with pytest.raises(ValueError, match="reaches out of an image of 70 x 90"):
        tiles().read(Window(60, 0, 11, 5))
