"""A scene of several files reads as one image, and what is wrong with them is said."""

import re
from concurrent.futures import ThreadPoolExecutor

import hypothesis
import numpy as np
import pytest
import rasterio.warp
from hypothesis import strategies as st

from swath.config import ConfigError, dump, load
from swath.data.imagery import Georeference, Imagery
from swath.geo.window import Window, windows
from tests.geo.rasters import UTM, place, real, write

RNG = np.random.default_rng(0)
B02 = RNG.integers(1, 4000, (60, 90), dtype=np.uint16)
B05 = RNG.integers(1, 4000, (30, 45), dtype=np.uint16)
B09 = RNG.integers(1, 4000, (10, 15), dtype=np.uint16)
BANDS = ("B05", "B02", "B09")


@pytest.fixture
def folder(tmp_path):
    """Bands of 20, 10 and 60 m over the same 600 m x 900 m."""
    write(tmp_path / "T33_B02.tif", B02)
    write(
        tmp_path / "T33_B05.jp2",
        B05,
        place(20),
        driver="JP2OpenJPEG",
        QUALITY="100",
        REVERSIBLE="YES",
    )
    write(tmp_path / "T33_B09.tif", B09, place(60))
    (tmp_path / "T33_B02.tif.aux.xml").write_text("<PAMDataset/>")
    return tmp_path


def imagery(path, **given) -> Imagery:
    return Imagery(path=str(path), **({"bands": BANDS, "sensor": "sentinel2_l1c"} | given))


def test_bands_of_three_resolutions_come_on_the_finest_grid(folder):
    scene = imagery(folder).open()
    assert scene.sensor.names == BANDS and scene.sensor.nodata == 0
    assert (scene.height, scene.width, scene.dtype) == (60, 90, np.uint16)
    assert scene.ground.transform == tuple(place())[:6] and scene.ground.crs == UTM
    image = scene.read()
    np.testing.assert_array_equal(image[1], B02)
    assert scene.valid().all()
    # The middle of four pixels of 20 m, by hand: weights 9, 3, 3, 1 sixteenths.
    a = B05[10:12, 20:22].astype(float)
    expected = (9 * a[0, 0] + 3 * a[0, 1] + 3 * a[1, 0] + a[1, 1]) / 16
    assert abs(float(image[0, 21, 41]) - expected) <= 0.5
    nearest = imagery(folder, resampling="nearest").open().read()
    np.testing.assert_array_equal(nearest[2], B09.repeat(6, 0).repeat(6, 1))


def test_the_grid_may_be_another_bands_or_a_resolution(folder):
    coarse = imagery(folder, grid="B09", resampling="average").open()
    assert (coarse.height, coarse.width) == (10, 15)
    means = B02.reshape(10, 6, 15, 6).mean((1, 3))
    assert np.abs(coarse.read()[1] - means).max() <= 0.5
    other = imagery(folder, resolution_m=30.0).open()
    assert other.ground.transform[0] == 30 and (other.height, other.width) == (20, 30)
    laea = imagery(folder, crs="EPSG:3035").open()
    assert laea.ground.crs == "EPSG:3035" and 0.8 < laea.valid().mean() < 1


@hypothesis.settings(max_examples=25, deadline=None)
@hypothesis.given(st.integers(0, 59), st.integers(0, 89), st.data())
def test_a_pixel_does_not_depend_on_the_window(tmp_path_factory, row, col, data):
    """Chips that overlap must agree, and a map must not show how it was cut."""
    path = tmp_path_factory.getbasetemp() / "windows"
    if not path.exists():
        write(path / "a_B02.tif", B02)
        write(path / "a_B09.tif", B09, place(60))
    scene = imagery(path, bands=("B02", "B09"), crs="EPSG:3035", resolution_m=13.0).open()
    row, col = min(row, scene.height - 1), min(col, scene.width - 1)
    height = data.draw(st.integers(1, scene.height - row))
    width = data.draw(st.integers(1, scene.width - col))
    part = Window(row, col, height, width)
    np.testing.assert_array_equal(scene.read(part), scene.read()[:, *part.slices])


def test_how_a_scene_is_tiled_inside_does_not_show(folder):
    """Half counts must not be rounded by the noise of a tile's own coordinates."""
    whole = imagery(folder).open().read()
    for size in (7, 16, 33):
        scene = imagery(folder).open()
        scene._tiles.size = size
        np.testing.assert_array_equal(scene.read(), whole)
    halves = sum(int((16 * w) % 16 == 8) for w in np.unique(_bilinear_twice(B05)))
    assert halves > 50  # there were some to be rounded


def _bilinear_twice(values: np.ndarray) -> np.ndarray:
    """Return bilinear values at half the pixel size, away from the edges, by hand."""
    v = values.astype(float)
    rows = (3 * v[1:] + v[:-1]) / 4
    return (3 * rows[:, 1:] + rows[:, :-1]) / 4


def test_a_scene_is_read_from_many_threads(folder):
    scene = imagery(folder).open()
    whole = imagery(folder).open().read()
    areas = windows(60, 90, 16, 7)
    with ThreadPoolExecutor(8) as pool:
        for area, pixels in zip(areas, pool.map(scene.read, areas), strict=True):
            np.testing.assert_array_equal(pixels, whole[:, *area.slices])


def test_no_data_stays_no_data_and_data_stays_data(tmp_path):
    """Holes of the coarse band are holes on the fine grid; nothing observed turns into 0."""
    coarse = np.full((30, 45), 900, np.uint16)
    coarse[5:8, 10:20] = 0
    write(tmp_path / "a_B02.tif", B02)
    write(tmp_path / "a_B05.tif", coarse, place(20))
    scene = imagery(tmp_path, bands=("B02", "B05")).open()
    image = scene.read()
    np.testing.assert_array_equal(image[1], coarse.repeat(2, 0).repeat(2, 1))
    np.testing.assert_array_equal(scene.valid(), image[1] == 900)
    np.testing.assert_array_equal(scene.observed(image)[0], np.ones((60, 90), bool))


def test_an_observed_value_never_becomes_the_no_data_value(tmp_path):
    """The file says 255 is no-data; its zeros are dark pixels, though 0 is the other's no-data."""
    dark = np.zeros((60, 90), np.uint16)
    dark[:9] = 255
    write(tmp_path / "a_B02.tif", B02, nodata=0)
    write(tmp_path / "a_B03.tif", dark, nodata=255)
    scene = imagery(tmp_path, bands=("B02", "B03")).open()
    image = scene.read()
    assert scene.sensor.nodata == 0
    assert (image[1, :9] == 0).all() and (image[1, 9:] == 1).all()


def test_nan_in_float_imagery_becomes_no_data(tmp_path):
    pixels = B02.astype(np.float32)
    pixels[3:6, 7:30], pixels[50, 50], pixels[51, 51] = np.nan, -9999, np.inf
    write(tmp_path / "a_B02.tif", pixels, nodata=-9999)
    write(tmp_path / "a_B05.tif", B05.astype(np.float32), place(20))
    scene = imagery(tmp_path, bands=("B02", "B05")).open()
    assert scene.dtype == np.float32 and np.isnan(scene.sensor.nodata)
    expected = np.isfinite(pixels) & (pixels != -9999)
    np.testing.assert_array_equal(scene.valid(), expected)
    assert np.isnan(scene.read()[0][~expected]).all()


def test_a_band_that_ends_early_leaves_no_data(tmp_path):
    write(tmp_path / "a_B02.tif", B02)
    write(tmp_path / "a_B05.tif", B05[:20], place(20))
    valid = imagery(tmp_path, bands=("B02", "B05")).open().valid()
    np.testing.assert_array_equal(valid, np.arange(60)[:, None].repeat(90, 1) < 40)


def test_one_file_with_all_bands(tmp_path):
    pixels = RNG.integers(1, 99, (4, 20, 30), dtype=np.uint8)
    path = write(tmp_path / "a.tif", pixels)
    order = ("B3", "-", "B1", "B2")
    scene = imagery(path, bands=None, sensor="landsat7_etm", order=order).open()
    assert scene.sensor.names == ("B3", "B1", "B2")
    np.testing.assert_array_equal(scene.read(), pixels[[0, 2, 3]])
    scene = imagery(
        path, bands=("B1",), sensor="landsat7_etm", order=("B3", "-", "B1", "B2")
    ).open()
    np.testing.assert_array_equal(scene.read(), pixels[[2]])


def test_band_descriptions_tell_the_order(tmp_path):
    """The 13-band files of EuroSAT end B11, B12, B8A: their own words are believed."""
    pixels = RNG.integers(1, 99, (4, 20, 30), dtype=np.uint8)
    path = write(
        tmp_path / "a.tif",
        pixels.astype(np.uint16),
        names=("B2", "scene class", "B12 (SWIR)", "B8A"),
    )
    scene = imagery(path, bands=None).open()
    assert scene.sensor.names == ("B02", "B12", "B8A")
    np.testing.assert_array_equal(scene.read(), pixels[[0, 2, 3]])
    picture = write(tmp_path / "p.png", pixels[:3], crs=None, driver="PNG")
    place_ = Georeference(crs=UTM, transform=tuple(place())[:6])
    scene = imagery(picture, bands=("blue",), sensor="rgb", georeference=place_).open()
    np.testing.assert_array_equal(scene.read(), pixels[[2]])


def test_files_by_name_pattern_and_channel(folder):
    pair = write(folder / "pair.tif", np.stack([B02, B02 + 1]))
    by_name = imagery(
        folder, bands=("B03", "B02"), files={"B02": pair.name + "#1", "B03": "{path}/pair.tif#2"}
    )
    np.testing.assert_array_equal(
        imagery(folder, bands=("B03", "B02"), files={"B02": "pair.tif#1", "B03": "pair.tif#2"})
        .open()
        .read(),
        np.stack([B02 + 1, B02]),
    )
    assert by_name.files["B03"] == "{path}/pair.tif#2"
    found = imagery(folder.parent, bands=("B02",), files=folder.name + "/*_{band}.*if").open()
    np.testing.assert_array_equal(found.read()[0], B02)


def test_settings_survive_their_yaml(tmp_path):
    given = imagery(tmp_path, bands=("B02",), files={"B02": "a.tif#2"}, when="2017-02-16T10:21")
    file = tmp_path / "a.yaml"
    file.write_text(dump(given))
    assert load(Imagery, [file]) == given


# What a user can do wrong, and what is said.


def says(message: str, path, **given) -> None:
    with pytest.raises(ConfigError, match=message):
        imagery(path, **given).open()


def test_missing_folder_band_or_file(folder):
    says(r"nowhere: there is no such file or folder", folder / "nowhere")
    says(
        r"no file for band B03, B04 of sentinel2_l1c \(looked for .*; found B02\); choose "
        r"bands, as bands: \[B02\], or say",
        folder,
        bands=("B02", "B03", "B04"),
    )
    says(r"no band 'B2' \(did you mean", folder, bands=("B2",))
    says(r"B03\.tif: there is no such file", folder, bands=("B03",), files={"B03": "T33_B03.tif"})
    says(r"files names no file for band B02", folder, bands=("B02",), files={"B05": "T33_B05.jp2"})
    says(r"grid: band 'B03' is not among", folder, grid="B03")
    write(folder / "T32_B02.tif", B02)
    says(
        r"band B02 is in 2 files: T32_B02.tif \(10 m\), T33_B02.tif \(10 m\); choose one of "
        r"them with files: \{B02: T32_B02.tif, ...\}, or a pattern that only one of them matches",
        folder,
    )


def test_the_folder_of_a_file_that_has_all_bands(tmp_path):
    """Who names the folder is told that path may be the file, and what to type."""
    file = write(tmp_path / "all.tif", np.stack([B02, B02, B02]))
    says(
        r"found none\); .*It holds all.tif \(3 channels\): path may be the file itself, as in "
        rf"{{path: {file}, order: \[B01, B02, B03\]}}$",
        tmp_path,
        bands=None,
    )
    says(r"order is for one file with all bands: .*path may be the file itself, as in", tmp_path,
         order=("B02", "B03", "B04"))  # fmt: skip
    with rasterio.open(file, "r+") as raster:
        raster.descriptions = ("B02", "B03", "B04")
    write(tmp_path / "other.tif", np.stack([B02, B02]))
    said = rf"and 1 more: path may be the file itself, as in {{path: {file}}}; of several scenes a "
    says(rf"{said}pattern, as path: {tmp_path}/\*\.tif$", tmp_path, bands=None)


def test_no_sensor_is_guessed(tmp_path):
    """Level 1C taken for 2A, or the other way, would map wrong numbers and say nothing."""
    path = write(tmp_path / "a.tif", np.stack([B02, B02]))
    said = r"a.tif: which sensor took this\? Say it beside path, such as sensor: sentinel2_l2a"
    says(said, path, bands=None, sensor=None, order=("B02", "B03"))


def test_truncated_file(folder):
    path = folder / "T33_B05.jp2"
    path.write_bytes(path.read_bytes()[:700])
    with pytest.raises(ConfigError, match=r"T33_B05\.jp2: .*damaged"):
        imagery(folder).open().read()


def test_no_crs_no_place_or_elsewhere(tmp_path):
    write(tmp_path / "a_B02.tif", B02)
    write(tmp_path / "a_B05.tif", B05, place(20), crs=None)
    bands = ("B02", "B05")
    says(r"a_B05\.tif: band B05 has no coordinate reference system .*georef", tmp_path, bands=bands)
    # The same numbers in another zone are another place.
    write(tmp_path / "a_B05.tif", B05, place(20), crs="EPSG:32632")
    says(
        r"a_B05.tif: band B05 lies elsewhere than the scene: it covers lon 6\.\d+.*lon 12\.",
        tmp_path,
        bands=bands,
    )
    scene = imagery(tmp_path, bands=bands, georeference=Georeference(crs=UTM)).open()
    assert scene.valid().all()
    wrong = {"crs": "EPSG:1"}, {"georeference": Georeference(crs="EPSG:1")}
    for given in wrong:
        says(r"crs='EPSG:1' is no coordinate reference system", tmp_path, bands=("B02",), **given)
    degrees = {"crs": "EPSG:4326", "resolution_m": 10.0}
    says(r"EPSG:4326 counts in degrees", tmp_path, bands=("B02",), **degrees)


def test_bands_in_another_order(tmp_path):
    path = write(tmp_path / "a.tif", np.stack([B02, B02]), names=("B02", "B03"))
    says(
        r"a\.tif: channel 1 is asked for as B03, but the file describes it as B02; correct",
        path,
        bands=None,
        order=("B03", "B02"),
    )
    write(tmp_path / "x" / "a_B04.tif", B02, names=("B08",))
    says(r"asked for as B04, but .* as B08", tmp_path / "x", bands=("B04",))


def test_channels_without_names_and_wrong_numbers_of_them(tmp_path):
    path = write(tmp_path / "a.tif", np.stack([B02, B02]))
    says(r"has 2 channels without names; say which .*order: \[B01, B02\]$", path, bands=None)
    says(r"such as order: \[VV, VH\]$", path, bands=None, sensor="sentinel1_grd")
    says(r"has 2 channels, but order names 1 \(B02\)", path, bands=None, order=("B02",))
    says(r"band B04 is missing; the file has B02, B03", path, bands=("B04",), order=("B02", "B03"))
    says(r"is a folder; order is for one file", tmp_path, order=("B02",))
    says(r"has 2 channels; say which is band B02, such as B02: a.tif#1", tmp_path,
         bands=("B02",), files={"B02": "a.tif"})  # fmt: skip
    says(r"there is no channel 7; it has 2", tmp_path, bands=("B02",), files={"B02": "a.tif#7"})


def test_bands_of_no_known_sensor_stand_in_a_file_of_ones_own(tmp_path):
    """The message has the lines to write; channels are then what they list, in order."""
    path = write(tmp_path / "a.tif", np.stack([B02, B02 + 1, B02 + 2, B02 + 3]))
    said = (
        r"has only 3 bands; .*write a file of your own, such as own.yaml with the two lines "
        r'"(name: own)" and "(bands: \[{name: b1}, {name: b2}, {name: b3}, {name: b4}\])", and set '
        r"sensor: own.yaml$"
    )
    with pytest.raises(ConfigError, match=said) as told:
        imagery(path, bands=None, sensor="rgb").open()
    own = tmp_path / "own.yaml"
    own.write_text("\n".join(re.search(said, str(told.value)).groups()))
    scene = imagery(path, bands=None, sensor=str(own)).open()
    assert scene.sensor.names == ("b1", "b2", "b3", "b4")
    some = imagery(path, bands=("b4", "b1"), sensor=str(own)).open()
    np.testing.assert_array_equal(some.read(), np.stack([B02 + 3, B02]))
    own.write_text("name: own\nbands: [{name: b1}, {name: b2}, {name: b3}]")
    says("has 4 channels without names", path, bands=None, sensor=str(own))
    says(r"'drone'; there are .*; for other bands write a file", path, bands=None, sensor="drone")


def test_all_no_data(folder):
    write(folder / "T33_B09.tif", np.zeros_like(B09), place(60))
    says(
        r"T33_B09\.tif: band B09 has no data anywhere \(every pixel is no-data, 0.*leave it out",
        folder,
    )
    write(folder / "T33_B09.tif", np.full(B09.shape, np.nan, np.float32), place(60))
    says(r"band B09 has no data anywhere", folder)


def test_settings_that_contradict_or_make_no_sense(tmp_path):
    for message, given in (
        (r"has no \{band\} in it", {"files": "*.tif"}),
        (
            r"order is for one file with all bands; give one of them",
            {"files": "{band}.tif", "order": ("B02",)},
        ),
        (r"resolution_m=0 is not a size", {"resolution_m": 0.0}),
        (r"when='yesterday' is not a time", {"when": "yesterday"}),
    ):
        with pytest.raises(ConfigError, match=message):
            imagery(tmp_path, **given)
    with pytest.raises(ConfigError, match="transform has 4 numbers; it takes 6"):
        Georeference(crs=UTM, transform=(1.0, 2.0, 3.0, 4.0))
    write(tmp_path / "a_B02.tif", B02)
    says(r"nodata=0.5 cannot occur in uint16", tmp_path, bands=("B02",), nodata=0.5)


# Real scenes, where they are.


def test_brandenburg_agrees_with_gdal_warping_whole_bands():
    """13 JPEG2000 bands of 10, 20 and 60 m; an independent warp of each, by hand."""
    path = real("s2_brandenburg_l1c") / "IMG_DATA"
    scene = imagery(path, bands=None, name="brandenburg", when="2017-02-16T10:21:01").open()
    assert (scene.height, scene.width) == (768, 1536) and scene.ground.crs == "EPSG:32633"
    assert scene.when.isoformat() == "2017-02-16T10:21:01+00:00"
    area = Window(300, 500, 256, 256)
    image = scene.read(area)
    for band in ("B01", "B04", "B11", "B8A"):
        pixels = image[scene.sensor.names.index(band)]
        with rasterio.open(next(path.glob(f"*_{band}.jp2"))) as file:
            whole = np.zeros((768, 1536))
            rasterio.warp.reproject(
                file.read(1).astype(float),
                whole,
                src_transform=file.transform,
                src_crs=file.crs,
                dst_transform=place(),
                dst_crs=file.crs,
                resampling=rasterio.warp.Resampling.bilinear,
            )
        assert np.abs(whole[area.slices] - pixels).max() <= 0.5 + 1e-5, band
    # One pixel of 20 m in B8A is 0, that is, no-data: four of 10 m.
    assert (~scene.valid()).sum() == 4


def test_a_landsat_scene_with_a_slanting_edge():
    file = "LC08_L1TP_224078_20200518_20200518_01_RT.TIF"
    path = real("landsat8_itaipu_scene") / file
    scene = imagery(path, bands=None, sensor="landsat8_oli", order=("B2", "B3", "B4")).open()
    assert (scene.height, scene.width) == (1860, 2041)
    with rasterio.open(path) as raster:
        np.testing.assert_array_equal(scene.read(), raster.read())
    assert abs(scene.valid().mean() - 0.835) < 0.001


def test_a_netcdf_cube_needs_a_place_and_takes_one():
    """The file's x and y are not understood by GDAL: it has a CRS and no transform."""
    path = real("s2_romania_series")
    name = "netcdf:{path}/sentinel2_cube_subset_romania_10m.nc"
    files = {"B02": f"{name}:B2#17", "B08": f"{name}:B8#17"}
    settings = {"bands": ("B02", "B08"), "files": files, "sensor": "sentinel2_l2a"}
    says(r":B2: band B02 has a CRS \(ETRS89 / LAEA Europe\) but no place in it", path, **settings)
    where = Georeference(crs="EPSG:3035", transform=(10.0, 0.0, 5271982.0, 0.0, -10.0, 2533004.0))
    scene = imagery(path, georeference=where, **settings).open()
    assert scene.read().shape == (2, 100, 100) and scene.valid().all()
    says(r"holds no image of its own; name one of those inside: netcdf:",
         path / "sentinel2_cube_subset_romania_10m.nc")  # fmt: skip
