"""A raster that cannot be used says which it is and what is wrong with it."""

import numpy as np
import pytest

from swath.config import ConfigError
from swath.geo.channel import Channel, File
from swath.geo.raster import crs_short, is_gdal_name, open_raster, read
from swath.geo.window import Window
from tests.geo.rasters import UTM, place, write

PIXELS = np.random.default_rng(0).integers(1, 4000, (2, 300, 400), dtype=np.uint16)


def test_missing_file(tmp_path):
    with pytest.raises(ConfigError, match=r"b\.tif: there is no such file$"):
        open_raster(tmp_path / "b.tif")
    with pytest.raises(ConfigError, match=r"no such file \(.* exists, .*/none does not\)"):
        open_raster(tmp_path / "none" / "b.tif")


def test_empty_file_and_no_raster(tmp_path):
    (tmp_path / "a.tif").touch()
    with pytest.raises(ConfigError, match=r"a\.tif: the file is empty"):
        open_raster(tmp_path / "a.tif")
    (tmp_path / "b.tif").write_text("not a raster")
    with pytest.raises(ConfigError, match=r"b\.tif: is not a raster, or is damaged"):
        open_raster(tmp_path / "b.tif")


@pytest.mark.parametrize("driver", ["GTiff", "JP2OpenJPEG"])
def test_truncated_file(tmp_path, driver):
    """The header is whole, so it opens; reading must not give zeros or noise in silence."""
    path = write(tmp_path / "a.tif", PIXELS, driver=driver)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with (
        pytest.raises(ConfigError, match=r"a\.tif: .*damaged"),
        open_raster(path) as raster,
    ):
        for row in range(0, 300, 100):
            read(raster, 1, Window(row, 0, 100, 400))
        read(raster, 2)


def test_no_crs_and_no_place(tmp_path):
    path = write(tmp_path / "a.tif", PIXELS, crs=None)
    with pytest.raises(ConfigError, match=r"a\.tif: has no coordinate reference system"):
        open_raster(path, georeferenced=True)
    path = write(tmp_path / "b.tif", PIXELS, transform=place(1.0, 0, 0) @ place(1.0, 0, 0))
    with pytest.raises(ConfigError, match=r"b\.tif: has a CRS \(EPSG:32633\) but no place in it"):
        open_raster(path, georeferenced=True)
    open_raster(path).close()


def test_gdal_names_are_told_from_paths():
    assert is_gdal_name("netcdf:a.nc:B2") and is_gdal_name("/vsizip/a.zip/b.tif")
    assert (
        not is_gdal_name("/data/a.tif") and not is_gdal_name("a:b/c") and not is_gdal_name("a.tif")
    )


def test_a_crs_without_code_is_called_by_name():
    from rasterio.crs import CRS

    assert crs_short(CRS.from_epsg(32633)) == "EPSG:32633"
    odd = CRS.from_proj4("+proj=laea +lat_0=51 +lon_0=11 +datum=WGS84")
    assert crs_short(odd) == "unknown"


def test_a_channel_that_is_not_there(tmp_path):
    file = File(str(write(tmp_path / "a.tif", PIXELS)))
    with pytest.raises(ConfigError, match=r"a\.tif: there is no channel 3; it has 2"):
        Channel(file, 3)


def test_complex_pixels_are_refused(tmp_path):
    file = File(str(write(tmp_path / "a.tif", PIXELS[0].astype(np.complex64))))
    with pytest.raises(ConfigError, match="pixels are complex64; expected whole or real"):
        Channel(file)


def test_what_was_observed_is_told_by_value_mask_and_nan(tmp_path):
    """Three ways in which files say it; all must count."""
    pixels = PIXELS[0].copy()
    pixels[:10] = 0
    values, observed = Channel(File(str(write(tmp_path / "a.tif", pixels, nodata=0)))).pixels()
    np.testing.assert_array_equal(values, pixels)
    np.testing.assert_array_equal(observed, pixels != 0)

    real = PIXELS[0].astype(np.float32)
    real[5, 5], real[6, 6], real[7, 7] = np.nan, np.inf, -9999
    _, observed = Channel(File(str(write(tmp_path / "b.tif", real, nodata=-9999)))).pixels()
    assert [tuple(p) for p in np.argwhere(~observed)] == [(5, 5), (6, 6), (7, 7)]

    rgba = np.full((4, 30, 30), 200, np.uint8)
    rgba[3, :, 20:] = 0
    path = write(tmp_path / "c.tif", rgba, photometric="RGB", alpha="YES")
    _, observed = Channel(File(str(path)), 1).pixels(Window(0, 10, 30, 20))
    np.testing.assert_array_equal(observed.any(axis=0), np.arange(20) < 10)


def test_a_channel_reads_the_same_from_many_threads(tmp_path):
    from concurrent.futures import ThreadPoolExecutor

    channel = Channel(File(str(write(tmp_path / "a.tif", PIXELS, tiled=True)), UTM, None), 2)
    areas = [Window(r, c, 64, 64) for r in range(0, 236, 17) for c in range(0, 336, 29)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda area: channel.pixels(area)[0], areas))
    for area, values in zip(areas, found, strict=True):
        np.testing.assert_array_equal(values, PIXELS[1][area.slices])
    channel.file.close()
    np.testing.assert_array_equal(channel.pixels(areas[0])[0], PIXELS[1][areas[0].slices])
