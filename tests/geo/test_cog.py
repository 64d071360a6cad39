"""A COG holds what was written to it, with its colours, names and place, or is not there."""

import errno
import os
import shutil

import numpy as np
import pytest
import rasterio

from swath.config import ConfigError
from swath.geo.cog import CogWriter
from swath.geo.window import Window, windows
from tests.geo.rasters import UTM, cog, place

CLASSES = ("farm & field", "forest", "water")
COLOURS = ("#ffe699", "#006400", "#1f78b4")
RNG = np.random.default_rng(0)


def writer(path, **settings) -> CogWriter:
    given = {
        "count": 1,
        "height": 700,
        "width": 900,
        "dtype": "uint8",
        "transform": place(),
        "crs": UTM,
        "nodata": 255,
        "colours": COLOURS,
        "classes": CLASSES,
    }
    return CogWriter(path, **(given | settings))


def test_a_class_map_opens_with_colours_names_and_no_data(tmp_path):
    """QGIS takes the legend from the palette and from the names in the .aux.xml beside it."""
    pixels = RNG.integers(0, 3, (1, 700, 900), dtype=np.uint8)
    path = cog(
        tmp_path / "map.tif",
        pixels,
        nodata=255,
        descriptions=("class",),
        colours=COLOURS,
        classes=CLASSES,
        tags={"RUN": "a<b"},
    )
    with rasterio.open(path) as found:
        np.testing.assert_array_equal(found.read(), pixels)
        assert found.crs.to_epsg() == 32633 and found.transform == place()
        assert found.nodata == 255 and found.descriptions == ("class",)
        assert [found.colormap(1)[i] for i in range(3)] == [
            (0xFF, 0xE6, 0x99, 255),
            (0x00, 0x64, 0x00, 255),
            (0x1F, 0x78, 0xB4, 255),
        ]
        assert found.tags()["RUN"] == "a<b"
        assert found.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert found.overviews(1) == [2] and found.block_shapes == [(512, 512)]
        # An overview of classes holds classes of the map, no means of them.
        assert set(np.unique(found.read(1, out_shape=(350, 450)))) <= {0, 1, 2}
    names = (tmp_path / "map.tif.aux.xml").read_text()
    assert "<Category>farm &amp; field</Category>" in names and "<Category>water" in names
    assert sorted(p.name for p in tmp_path.iterdir()) == ["map.tif", "map.tif.aux.xml"]


def test_probabilities_keep_their_bits(tmp_path):
    pixels = RNG.random((3, 60, 70), dtype=np.float32)
    pixels[:, 5:9, 7:20] = np.nan
    path = cog(tmp_path / "p.tif", pixels, nodata=float("nan"), descriptions=CLASSES)
    with rasterio.open(path) as found:
        np.testing.assert_array_equal(found.read(), pixels)
        assert np.isnan(found.nodata) and found.descriptions == CLASSES


def test_windows_in_any_order_make_the_same_file(tmp_path):
    pixels = RNG.integers(0, 3, (2, 300, 200), dtype=np.int16)
    areas = windows(300, 200, 70, 50)
    RNG.shuffle(areas)
    settings = dict(count=2, height=300, width=200, dtype="int16", colours=None, classes=None)
    out = writer(tmp_path / "a.tif", **settings)
    for area in areas:
        out.write(area, pixels[:, *area.slices])
        np.testing.assert_array_equal(out.read(area), pixels[:, *area.slices])
    with rasterio.open(out.finish()) as found:
        np.testing.assert_array_equal(found.read(), pixels)
        assert found.nodata == 255


def test_there_is_no_map_before_it_is_finished_and_writing_goes_on(tmp_path):
    """A kill may come at any moment; what was synced is there for the next writer."""
    path = tmp_path / "map.tif"
    top, bottom = Window(0, 0, 400, 900), Window(400, 0, 300, 900)
    pixels = RNG.integers(0, 3, (1, 700, 900), dtype=np.uint8)
    first = writer(path)
    first.write(top, pixels[:, :400])
    first.sync()
    first.close()
    assert not path.exists()
    second = writer(path, resume=True)
    np.testing.assert_array_equal(second.read(top), pixels[:, :400])
    second.write(bottom, pixels[0, 400:])
    with rasterio.open(second.finish()) as found:
        np.testing.assert_array_equal(found.read(), pixels)


def test_without_resume_or_of_another_size_it_starts_anew(tmp_path):
    path = tmp_path / "map.tif"
    whole = Window(0, 0, 700, 900)
    for settings in ({}, {"resume": True, "height": 600}):
        first = writer(path)
        first.write(whole, np.ones((700, 900), np.uint8))
        first.close()
        second = writer(path, **settings)
        assert not second.read(Window(0, 0, 600, 900)).any()
        second.close()


def test_a_new_map_replaces_the_old_ones_names(tmp_path):
    path = tmp_path / "map.tif"
    cog(path, np.zeros((1, 20, 20), np.uint8), nodata=255, colours=COLOURS, classes=CLASSES)
    cog(path, np.zeros((1, 20, 20), np.float32))
    assert [p.name for p in tmp_path.iterdir()] == ["map.tif"]


def test_a_full_disk_is_said_before_the_work(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    monkeypatch.setattr(
        shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, 3072)
    )
    with pytest.raises(
        ConfigError, match=r"map.tif: the disk is full: .* 615 KiB .*3.0 KiB are free"
    ):
        writer(tmp_path / "map.tif")


def test_an_old_map_survives_a_failed_one(tmp_path, monkeypatch):
    path = tmp_path / "map.tif"
    cog(path, np.full((1, 20, 20), 1, np.uint8))
    old = path.read_bytes()
    monkeypatch.setattr(CogWriter, "read", lambda self, w: np.full((1, 20, 20), 9, np.uint8))
    with pytest.raises(OSError, match="does not hold what was written"):
        cog(path, np.full((1, 20, 20), 2, np.uint8))
    assert path.read_bytes() == old


def test_pixels_that_do_not_fit_are_refused(tmp_path):
    out = writer(tmp_path / "a.tif")
    with pytest.raises(ValueError, match=r"pixels \(1, 5, 5\) do not fit"):
        out.write(Window(0, 0, 5, 6), np.zeros((5, 5), np.uint8))
    with pytest.raises(ValueError, match="do not fit"):
        out.write(Window(699, 0, 5, 5), np.zeros((5, 5), np.uint8))
    with pytest.raises(ValueError, match="pixels are float64, the raster is uint8"):
        out.write(Window(0, 0, 5, 5), np.zeros((5, 5)))
    with pytest.raises(ConfigError, match="float32 pixels have no class colours"):
        writer(tmp_path / "b.tif", dtype="float32")
    with pytest.raises(ConfigError, match=r"a map cannot hold int64; use uint8, int16"):
        writer(tmp_path / "b.tif", dtype="int64", colours=None, classes=None)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 3), (2, 2)])
def test_a_map_of_a_pixel_is_a_map(tmp_path, height, width):
    """GDAL takes a raw file of a byte for no raster."""
    pixels = np.arange(height * width, dtype=np.uint8).reshape(1, height, width) % 3
    path = cog(tmp_path / "a.tif", pixels, nodata=255)
    with rasterio.open(path) as file:
        np.testing.assert_array_equal(file.read(), pixels)
