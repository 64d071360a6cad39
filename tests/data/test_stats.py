"""Statistics are exact and do not depend on shards."""

import math

import numpy as np
import pytest

from swath.data.chip import Modality
from swath.data.fold import fit
from swath.data.sensor import Band, Sensor
from swath.data.stats import BandFold


def fold(dtype, nodata=None, bands=2, size=8):
    sensor = Sensor(name="s", bands=tuple(Band(name=f"b{i}") for i in range(bands)), nodata=nodata)
    return BandFold(Modality(name="m", sensor=sensor, height=size, width=size, dtype=dtype))


def pixels(dtype, n=20, seed=0):
    draw = np.random.default_rng(seed)
    x = draw.normal(-3, 5, (n, 2, 8, 8)) * 10.0 ** draw.integers(-3, 3, (n, 2, 8, 8))
    if np.dtype(dtype).kind in "iu":
        info = np.iinfo(dtype)
        x = np.clip(x + info.max // 3, info.min, info.max)
    return x.astype(dtype)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "float32"])
def test_statistics_equal_numpys(dtype):
    """Two-pass float64 is right to 1e-12; the exact sums must agree."""
    x = pixels(dtype)
    for i, band in enumerate(fit(fold(dtype), [(x, None)])):
        wide = x[:, i].astype(np.float64)
        assert band.mean == pytest.approx(wide.mean(), rel=1e-12)
        assert band.std == pytest.approx(wide.std(), rel=1e-12)
        assert (band.low, band.high, band.pixels) == (wide.min(), wide.max(), wide.size)
        for q, found in ((2, band.p02), (50, band.p50), (98, band.p98)):
            true = np.percentile(wide, q, method="inverted_cdf")
            assert found == pytest.approx(true, rel=0.008, abs=1e-6)


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
@pytest.mark.parametrize("cut", [[10], [1, 2, 3, 17], list(range(1, 20))])
def test_statistics_have_the_same_bits_for_any_sharding(dtype, cut):
    """The fold's law, also when merged from the other end."""
    x = pixels(dtype)
    (whole,) = [fit(fold(dtype), [(x, None)])]
    shards = [(part, None) for part in np.split(x, cut)]
    assert fit(fold(dtype), shards) == whole
    assert fit(fold(dtype), shards[::-1]) == whole


def test_no_data_nan_and_unused_pixels_do_not_enter():
    """They are counted as a share instead; pixels of other parts are not even that."""
    x = np.full((1, 2, 8, 8), 5.0, np.float32)
    x[0, 0, 0] = np.nan
    x[0, 0, 1] = -9999
    x[0, 1, 2] = np.inf
    used = np.ones((1, 8, 8), bool)
    used[0, 7] = False
    x[0, :, 7] = 77
    first, second = fit(fold("float32", nodata=-9999.0), [(x, used)])
    assert (first.mean, first.std, first.pixels) == (5.0, 0.0, 40)
    assert first.nodata == pytest.approx(16 / 56)
    assert (second.mean, second.high, second.nodata) == (5.0, 5.0, pytest.approx(8 / 56))


def test_sums_are_exact_where_floating_point_is_not():
    """1e8 + many 1e-8: float64 would lose the small ones; the squares of denormals stay."""
    small = np.float32(1e-8)
    x = np.full((1, 1, 8, 8), small, np.float32)
    x[0, 0, 0, 0], x[0, 0, 0, 1] = 1e8, -1e8
    (band,) = fit(fold("float32", bands=1), [(x, None)])
    assert band.mean == 62 * float(small) / 64
    tiny = np.full((1, 1, 8, 8), np.float32(1e-45))
    (band,) = fit(fold("float32", bands=1), [(tiny, None)])
    assert (band.mean, band.std) == (float(np.float32(1e-45)), 0.0)


def test_a_band_without_data_says_so():
    """NaN, not a zero that would be normalised with."""
    (band, _) = fit(fold("uint16", nodata=0), [(np.zeros((3, 2, 8, 8), np.uint16), None)])
    assert band.pixels == 0
    assert band.nodata == 1
    assert math.isnan(band.mean)
