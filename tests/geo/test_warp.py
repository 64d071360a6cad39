"""Warping against closed forms: planes stay planes, holes stay holes."""

import numpy as np
import pytest
from pyproj import Transformer

from swath.geo import warp
from swath.geo.window import Window
from tests.geo.rasters import UTM, place


def plane(height: int, width: int, pixel: float) -> np.ndarray:
    """Return x/100 + y/1000 at the pixels' centres, counted from the corner."""
    y, x = np.mgrid[:height, :width] * pixel + pixel / 2
    return x / 100 + y / 1000


def test_bilinear_keeps_a_plane_exactly():
    """Linear interpolation of a linear function is the function, but at the outer half pixel."""
    coarse, fine = warp.box(20, 20, place(60), UTM), warp.box(120, 120, place(10), UTM)
    found = warp.warp(plane(20, 20, 60), coarse, fine, "bilinear", warp.pace(fine, coarse))
    inner = slice(3, -3)
    np.testing.assert_allclose(found[inner, inner], plane(120, 120, 10)[inner, inner], atol=1e-9)


@pytest.mark.parametrize("resampling", ["nearest", "bilinear", "cubic", "average"])
@pytest.mark.parametrize("pixel", [10.0, 45.0])
def test_no_data_is_never_mixed_into_data(resampling, pixel):
    """A constant field with holes must stay constant wherever there is a value."""
    values = np.full((40, 40), 7.0)
    rng = np.random.default_rng(0)
    values[rng.random((40, 40)) < 0.2] = np.nan
    side = int(40 * 20 / pixel)
    source, target = warp.box(40, 40, place(20), UTM), warp.box(side, side, place(pixel), UTM)
    found = warp.warp(values, source, target, resampling, warp.pace(target, source))
    observed = np.isfinite(found)
    assert 0.5 < observed.mean() < 0.95
    np.testing.assert_allclose(found[observed], 7.0, rtol=1e-12)


def test_a_pixel_is_observed_where_the_source_under_its_centre_is():
    values = np.ones((8, 8))
    values[3, 4] = np.nan
    source, target = warp.box(8, 8, place(20), UTM), warp.box(16, 16, place(10), UTM)
    found = warp.warp(values, source, target, "bilinear", (0.5, 0.5))
    holes = np.zeros((16, 16), bool)
    holes[6:8, 8:10] = True
    np.testing.assert_array_equal(np.isnan(found), holes)


def test_another_crs_agrees_with_proj_pixel_by_pixel():
    """Nearest neighbour through a CRS, against the place that PROJ gives each centre."""
    source = warp.box(60, 60, place(10), UTM)
    target = warp.at_resolution(source, 12.0, "EPSG:3035")
    values = np.arange(3600.0).reshape(60, 60)
    found = warp.warp(values, source, target, "nearest", warp.pace(target, source))
    rows, cols = np.mgrid[: target.shape[0], : target.shape[1]] + 0.5
    a, b, c, d, e, f = tuple(target.affine)[:6]
    x, y = Transformer.from_crs("EPSG:3035", UTM, always_xy=True).transform(
        a * cols + b * rows + c, d * cols + e * rows + f
    )
    corner = place(10)
    col, row = (x - corner.c) / 10, (corner.f - y) / 10
    inside = (col >= 0) & (col < 60) & (row >= 0) & (row < 60)
    # Within 1e-3 of a pixel's edge either neighbour is right.
    clear = np.minimum(abs(col - np.rint(col)), abs(row - np.rint(row))) > 1e-3
    expected = np.full(target.shape, np.nan)
    expected[inside] = values[row[inside].astype(int), col[inside].astype(int)]
    np.testing.assert_array_equal(found[clear], expected[clear])
    assert inside.sum() > 2000


def test_the_source_window_holds_all_that_the_kernel_needs():
    """Warping from the window alone must equal warping from everything, but for the places that
    GDAL interpolates between different CRS (noise from 0 to 1 per pixel: 1e-3 is 1e-3 px)."""
    rng = np.random.default_rng(1)
    values = rng.random((90, 110))
    source = warp.box(90, 110, place(20), UTM)
    for crs, resolution, most in (
        ("EPSG:3035", 23.0, 1e-3),
        ("EPSG:3035", 7.0, 1e-3),
        (UTM, 50.0, 1e-9),
    ):
        whole = warp.at_resolution(source, resolution, crs)
        pace = warp.pace(whole, source)
        everything = {r: warp.warp(values, source, whole, r, pace) for r in ("bilinear", "cubic")}
        area = Window(whole.shape[0] // 3, whole.shape[1] // 4, 11, 17)
        target = warp.crop(whole, area)
        for resampling, expected in everything.items():
            need = warp.source_window(target, source, warp.margin(target, source, resampling))
            assert need is not None and need.height < 90
            part = warp.warp(values[need.slices], warp.crop(source, need), target, resampling, pace)
            np.testing.assert_allclose(part, expected[area.slices], atol=most, rtol=0)


def test_grids_of_the_same_pixels_are_recognised():
    one = warp.box(50, 50, place(10), UTM)
    assert warp.offset(one, warp.box(9, 9, place(10, 330070, 5822010), UTM)) == (3, 7)
    assert warp.offset(one, warp.box(9, 9, place(10, 330074, 5822010), UTM)) is None
    assert warp.offset(one, warp.box(9, 9, place(20), UTM)) is None
    assert warp.offset(one, warp.box(9, 9, place(10), "EPSG:32632")) is None


def test_grids_far_apart_share_no_window():
    one = warp.box(50, 50, place(10), UTM)
    assert warp.source_window(warp.box(50, 50, place(10, 500000), UTM), one, 3) is None
    # Elsewhere by its CRS: the same numbers, another zone.
    assert warp.source_window(warp.box(50, 50, place(10), "EPSG:32640"), one, 3) is None


def test_a_grid_at_another_resolution_covers_the_first():
    one = warp.box(33, 47, place(10), UTM)
    found = warp.at_resolution(one, 25.0, None)
    left, bottom, right, top = tuple(one.extent.boundingbox)[:4]
    west, south, east, north = tuple(found.extent.boundingbox)[:4]
    assert west <= left < west + 25 and east >= right > east - 25
    assert south <= bottom < south + 25 and north >= top > north - 25
    assert west % 25 == 0 and abs(found.affine.e) == 25
