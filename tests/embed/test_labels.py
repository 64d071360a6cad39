"""Part, class and place of vectors, where a split divides the pixels of a sample."""

import numpy as np
import pyproj
import pytest

import swath
from swath.data.places import middles
from swath.data.split import PARTS, select
from swath.embed.labels import Labels


@pytest.fixture
def store(inside):
    """Of a scene, split by blocks that cut the samples."""
    return swath.build(swath.load("recipe.yaml"), progress=False)


@pytest.mark.parametrize(("grid", "unit"), [((), 0), ((4, 4), 8), ((3, 3), 13)])
def test_a_vector_is_of_the_part_that_most_of_its_pixels_are_in(store, grid, unit):
    """Counted from what each part's own selection leaves of the labels."""
    samples = np.arange(0, store.samples, 5)
    every = select(store, None, "all")
    part, label = Labels(every, grid, unit).of(samples)
    read = store.read(samples, [], groups=(every.grouping,)).result()
    left = [
        select(store, None, name).restrict(read["label"], read[f"groups/{every.grouping}"])
        for name in PARTS
    ]
    mixed = 0
    for place in np.ndindex(part.shape):
        down, across = (
            (slice(None), slice(None))
            if not grid
            else (slice(unit * i, unit * i + unit) for i in place[1:])
        )
        pixels = [one[place[0], down, across] for one in left]
        counts = [int((one != 255).sum()) for one in pixels]
        mixed += sum(count > 0 for count in counts) > 1
        assert counts[part[place]] == max(counts)
        mine = pixels[part[place]]
        assert np.bincount(mine[mine != 255]).argmax() == label[place]
    assert bool(mixed) == (unit != 8)  # cells of 8 px lie in one block of 32 each


def test_places_are_those_of_the_middle(store):
    """The scene begins at 500000 E, 5800000 N of UTM 33, with pixels of 10 m."""
    lat, lon = middles(store).T
    _, row, col, _, _ = store.column("where")[7].tolist()
    move = pyproj.Transformer.from_crs(32633, 4326, always_xy=True)
    expected = move.transform(500000 + 10 * (col + 16), 5800000 - 10 * (row + 16))
    np.testing.assert_allclose((lon[7], lat[7]), expected, atol=1e-9)
