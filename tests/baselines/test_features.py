"""Neighbourhoods against loops, and samples drawn the same however the data is sharded."""

import numpy as np
import pytest

from swath.baselines._features import around, columns, of_pixels, of_samples
from swath.baselines._table import Sample, Table
from swath.data.fold import fit


def image(nodata=0.2):
    rng = np.random.default_rng(0)
    found = rng.normal(size=(2, 20, 23)) + 5000
    found[rng.random(found.shape) < nodata] = np.nan
    return found


@pytest.mark.parametrize("size", [5, 15])
def test_means_and_deviations_equal_a_loop(size):
    """Over observed pixels alone; edges are mirrored without repeating the edge pixel."""
    values, half = image(), size // 2
    mean, deviation = around(values, size)
    padded = np.pad(values, ((0, 0), (half, half), (half, half)), mode="reflect")
    for y, x in ((0, 0), (7, 11), (19, 22), (3, 20)):
        window = padded[:, y : y + size, x : x + size]
        np.testing.assert_allclose(mean[:, y, x], np.nanmean(window, axis=(1, 2)), rtol=1e-12)
        np.testing.assert_allclose(deviation[:, y, x], np.nanstd(window, axis=(1, 2)), rtol=1e-6)


def test_a_window_without_observed_pixels_has_no_mean():
    """NaN, not 0: a forest would take 0 for a very dark place."""
    values = np.full((1, 9, 9), np.nan)
    values[0, 0, 0] = 3.0
    mean, deviation = around(values, 5)
    assert mean[0, 0, 0] == 3.0 and deviation[0, 0, 0] == 0 and np.isnan(mean[0, 8, 8])


def test_features_have_names_and_the_pixel_comes_first():
    """The order is what a persistence baseline and a reader of importances rely on."""
    values, rows, cols = image(), np.array([2, 19]), np.array([5, 0])
    found = of_pixels(values, rows, cols, "neighbourhood")
    names = columns(("red", "nir"), "neighbourhood", whole=False)
    assert found.shape == (2, len(names)) and names[:3] == ("red", "nir", "red mean 5x5")
    np.testing.assert_array_equal(found[:, :2], values[:, rows, cols].T.astype(np.float32))
    deviation = around(values, 15)[1]
    place = names.index("nir sd 15x15")
    np.testing.assert_array_equal(found[:, place], deviation[1, rows, cols].astype(np.float32))


def test_whole_samples_have_means_and_deviations_of_their_observed_pixels():
    images = np.stack([image(), image(0.9)])
    found = of_samples([images], "neighbourhood")
    assert columns(("a", "b"), "neighbourhood", whole=True) == ("a", "b", "a sd", "b sd")
    expected = np.concatenate(
        [np.nanmean(images, axis=(2, 3)), np.nanstd(images, axis=(2, 3))], axis=1
    )
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def table(rows=1000):
    rng = np.random.default_rng(1)
    return Table(np.arange(rows), rng.normal(size=(rows, 3)), rng.integers(0, 5, rows))


def parts(whole, cuts):
    for start, end in zip([0, *cuts], [*cuts, len(whole.ids)], strict=True):
        yield Table(whole.ids[start:end], whole.x[start:end], whole.y[start:end])


def test_the_rows_drawn_do_not_depend_on_the_shards():
    """Other shards, another order: the same rows in the same order, with their labels."""
    whole = table()
    expected, seen = fit(Sample(50, seed=3), [whole])
    for cuts in ((500,), (1, 2, 3, 900), tuple(range(100, 1000, 100))):
        shards = list(parts(whole, cuts))
        for order in (shards, shards[::-1]):
            found, number = fit(Sample(50, seed=3), order)
            assert number == seen == 1000
            for name in ("ids", "x", "y"):
                np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    np.testing.assert_array_equal(expected.x, whole.x[expected.ids])


def test_rows_are_drawn_evenly_and_by_the_seed():
    """Of 1000 rows half are drawn; each tenth of them must hold about 50 (sd 3.4)."""
    first, second = (fit(Sample(500, seed), [table()])[0].ids for seed in (0, 1))
    assert len(np.unique(first)) == 500 and len(np.intersect1d(first, second)) < 300
    assert np.abs(np.bincount(first // 100, minlength=10) - 50).max() < 17
    everything, _ = fit(Sample(5000, seed=0), [table()])
    np.testing.assert_array_equal(np.sort(everything.ids), np.arange(1000))
