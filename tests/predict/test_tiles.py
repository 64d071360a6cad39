"""Windows cover the scene, their weights add up, rows are read once."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swath.config import ConfigError
from swath.predict.tiles import TOTAL, Rows, deal, raised_cosine, reflect, tiling, totals

sizes = st.integers(1, 70)
overlaps = st.sampled_from([0.0, 0.25, 0.5, 0.75, 0.9])


@settings(max_examples=60, deadline=None)
@given(sizes, sizes, st.integers(4, 24), overlaps, st.booleans())
def test_every_pixel_counts_and_weights_stay_in_bounds(height, width, tile, overlap, dense):
    """A pixel without weight would be a hole in the map; a sum above TOTAL would not fit."""
    plan = tiling(height, width, tile, overlap, 0, dense)
    profile = np.array(plan.profile)
    for starts, length in ((plan.rows, height), (plan.cols, width)):
        total = totals(profile, starts, tile, 0, length)
        assert total.min() >= 1 and total.max() <= TOTAL
    covered = [plan.finished(strip) for strip in range(len(plan.rows))]
    assert [row for first, end in covered for row in range(first, end)] == list(range(height))


@settings(max_examples=60, deadline=None)
@given(sizes, sizes, st.integers(4, 24), overlaps)
def test_rows_equal_a_reflected_scene_and_are_read_once(height, width, tile, overlap):
    scene = np.arange(2 * height * width).reshape(2, height, width)
    plan = tiling(height, width, tile, overlap, 0, True)
    read = []
    rows = Rows(lambda first, end: (read.extend(range(first, end)), scene[:, first:end])[1], plan)
    right = max(plan.cols[-1] + tile - width, 0)
    below = max(plan.rows[-1] + tile - height, 0)
    whole = np.pad(scene, ((0, 0), (plan.pad, below), (plan.pad, right)), mode="reflect")
    for strip, row in enumerate(plan.rows):
        np.testing.assert_array_equal(
            rows.take(strip), whole[:, row + plan.pad : row + plan.pad + tile]
        )
    assert read == list(range(height))


def test_reflect_equals_numpy():
    for length in (1, 2, 3, 7):
        index = reflect(np.arange(-9, length + 9), length)
        np.testing.assert_array_equal(index, np.pad(np.arange(length), 9, mode="reflect"))


@pytest.mark.parametrize(("overlap", "edge"), [(8, 0), (16, 0), (16, 3), (5, 2)])
def test_neighbours_weights_add_up_to_one(overlap, edge):
    """sin² and cos²: where two windows share pixels, together they count once."""
    weights = raised_cosine(32, overlap, edge)
    stride = 32 - overlap
    two = np.zeros(32 + stride)
    two[:32] += weights
    two[stride:] += weights
    np.testing.assert_allclose(two[stride:32], 1)
    assert (weights[:edge] == 0).all()


def test_interrupted_rows_need_only_the_windows_that_touch_them():
    plan = tiling(100, 100, 16, 0.5, 0, True)
    assert plan.needed_from(0) == 0
    assert plan.needed_from(5) == 4
    assert tiling(100, 100, 16, 0.0, 0, True).needed_from(5) == 5


def test_windows_that_would_leave_gaps_are_refused():
    with pytest.raises(ConfigError, match=r"edge=5 px .* leave gaps; set edge to at most 4"):
        tiling(100, 100, 16, 0.5, 5, True)
    with pytest.raises(ConfigError, match="edge=2 has no effect: this model answers once a window"):
        tiling(100, 100, 16, 0.5, 2, False)


@settings(max_examples=60, deadline=None)
@given(sizes, st.integers(4, 24), overlaps, st.integers(1, 9), st.data())
def test_strips_are_dealt_once_and_evenly(height, tile, overlap, ranks, data):
    """Each to one rank, in order; and no other cuts give the busiest rank fewer rows of windows."""
    plan = tiling(height, 9, tile, overlap, 0, True)
    every = list(range(len(plan.rows)))
    strips = sorted(data.draw(st.sets(st.sampled_from(every))))
    shares = deal(plan, strips, ranks)
    assert len(shares) == ranks
    assert [strip for share in shares for run in share for strip in run] == strips

    def rows(share):
        return sum(run.stop - plan.needed_from(run.start) for run in share)

    def runs(piece):
        """Return ascending strips as runs."""
        found = []
        for strip in piece:
            if found and found[-1].stop == strip:
                found[-1] = range(found[-1].start, strip + 1)
            else:
                found.append(range(strip, strip + 1))
        return found

    if ranks == 2 and strips:
        cuts = [(runs(strips[:i]), runs(strips[i:])) for i in range(len(strips) + 1)]
        assert max(map(rows, shares)) == min(max(map(rows, cut)) for cut in cuts)


def test_more_ranks_than_strips_leave_some_without():
    plan = tiling(64, 64, 32, 0.5, 0, True)
    shares = deal(plan, range(len(plan.rows)), 20)
    assert [len(share) for share in shares] == [1] * len(plan.rows) + [0] * (20 - len(plan.rows))
