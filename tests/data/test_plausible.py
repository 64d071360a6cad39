"""Pixels that cannot be what their sensor says stop a build and a map; dark ones do not."""

import dataclasses
import re

import numpy as np
import pytest
import rasterio

from swath.config import ConfigError
from swath.data.build import build
from swath.data.imagery import Imagery
from swath.data.normalize import Normalizer
from swath.data.plausible import check_scale, levels, strays, suspicions, unlike
from swath.data.sensor import load_sensor
from swath.data.split import Split
from swath.data.stats import BandStats
from swath.datasets.folder import Folder
from swath.datasets.masks import Masks
from swath.datasets.scene import Scene
from tests.geo.rasters import real, write

RNG = np.random.default_rng(0)
REFLECTANCE = RNG.gamma(2.0, 0.06, (2, 64, 64)).astype(np.float32)
"""Mostly below 0.3, a few pixels near 1, as over land."""
L2A = load_sensor("sentinel2_l2a")
BANDS = ("B02", "B03")
AS_IT_IS = r"They look like reflectance itself: set scale: 1 beside sensor"


def imagery(path, **given) -> Imagery:
    return Imagery(path=str(path), **({"sensor": "sentinel2_l2a", "order": BANDS} | given))


@pytest.fixture
def scene(tmp_path):
    return write(tmp_path / "scene.tif", REFLECTANCE)


def test_a_scene_of_reflectance_read_as_counts_is_refused(scene):
    """Its reflectances would be 10,000 times too small. File, numbers and the way out are said."""
    said = (
        rf"{scene}: pixels are float32, [\d.e-]+ to [\d.]+; sensor sentinel2_l2a reads them as "
        rf"counts of 0.0001, so that nearly all are a reflectance below [\d.]+e-05. "
        rf"{AS_IT_IS}, or name a"
    )
    with pytest.raises(ConfigError, match=said):
        imagery(scene).open()
    with imagery(scene, scale=1).open() as opened:
        assert opened.sensor.scale == 1 and opened.sensor.unit == "reflectance"
        np.testing.assert_array_equal(opened.read(), REFLECTANCE)


def test_every_builder_finds_it(scene, tmp_path):
    """Before the first shard is written. With the setting that was named, all build."""
    for i in range(6):
        write(tmp_path / f"classes/{'ab'[i % 2]}/{i}.tif", REFLECTANCE)
        write(tmp_path / f"pairs/images/{i}.tif", REFLECTANCE)
        write(tmp_path / f"pairs/masks/{i}.tif", np.ones((64, 64), np.uint8))
    given = {"sensor": "sentinel2_l2a", "order": BANDS}
    datasets = [
        Scene(imagery=imagery(scene), chip=16),
        Folder(path=str(tmp_path / "classes"), **given),
        Masks(path=str(tmp_path / "pairs"), classes={"1": "land"}, **given),
    ]
    for number, dataset in enumerate(datasets):
        split = Split(by="block" if number == 0 else "random", test=0.4)
        with pytest.raises(ConfigError, match=AS_IT_IS):
            build(dataset, tmp_path / f"wrong{number}", split, progress=False)
        change = {"imagery": imagery(scene, scale=1)} if number == 0 else {"scale": 1.0}
        right = dataclasses.replace(dataset, **change)
        store = build(right, tmp_path / f"right{number}", split, progress=False)
        assert store.contents.modalities[0].sensor.scale == 1


def test_landsat_has_an_offset_to_set_too():
    with pytest.raises(
        ConfigError, match=r"counts of 2e-05 from -0.1 on.*set scale: 1, offset: 0 be"
    ):
        check_scale(load_sensor("landsat8_oli"), REFLECTANCE, "a.tif")


@pytest.mark.parametrize("dtype", [np.uint8, np.int8])
def test_a_picture_for_the_eye_has_no_counts(dtype):
    pixels = RNG.integers(1, 120, (2, 64, 64)).astype(dtype)
    with pytest.raises(ConfigError, match=r"largest number of that type, is a reflectance of 0.0"):
        check_scale(L2A, pixels, "a.tif")
    check_scale(load_sensor("rgb"), pixels, "a.tif")


def test_counts_read_as_reflectance_are_refused():
    """The other way: a sensor file without its scale."""
    plain = L2A.counted(1.0, None)
    said = r"half of them are a reflectance above 1.23e\+03, which nothing has. Set the scale of a"
    with pytest.raises(ConfigError, match=said):
        check_scale(plain, [np.full((9, 9), 1234, np.uint16)], "a.tif")
    for pixels in (np.full((9, 9), 1e20, np.float32), np.full((9, 9), 65535, np.uint16)):
        with pytest.raises(ConfigError, match="or set nodata, if these mean that nothing was obs"):
            check_scale(L2A, [pixels], "a.tif")


@pytest.mark.parametrize(
    ("sensor", "pixels"),
    [
        ("sentinel2_l2a", RNG.integers(0, 4, (64, 64)).astype(np.uint16)),  # a night
        ("sentinel2_l2a", RNG.integers(0, 4, (64, 64)).astype(np.float32)),  # as real numbers
        ("sentinel2_l2a", RNG.normal(12, 3, (64, 64))),  # deep water in SWIR, resampled
        ("sentinel2_l2a", RNG.normal(3000, 500, (64, 64))),  # counts as real numbers
        ("sentinel2_l2a", RNG.integers(8000, 16000, (64, 64)).astype(np.uint16)),  # cloud, glint
        ("sentinel2_l2a", np.zeros((64, 64), np.float32)),  # nothing
        ("sentinel2_l2a", RNG.random(9)),  # too few to tell
        ("landsat8_oli", RNG.integers(5000, 9000, (64, 64)).astype(np.uint16)),
        ("sentinel1_grd", RNG.normal(-14, 3, (64, 64))),  # decibel
        ("sentinel1_grd", RNG.gamma(1, 0.05, (64, 64))),  # radar, linear
        ("landsat7_etm", RNG.integers(0, 255, (64, 64)).astype(np.uint8)),  # counts of 8 bits
    ],
)
def test_dark_scenes_radar_and_plain_counts_pass(sensor, pixels):
    """No false alarm: only what cannot be is an error."""
    check_scale(load_sensor(sensor), [pixels], "a.tif")


def test_a_scale_must_be_a_unit(scene):
    with pytest.raises(ConfigError, match="sensor sentinel2_l2a: scale=0 must be above 0"):
        imagery(scene, scale=0.0).open()


def counts(*medians, seed=0):
    """Return counts of as many bands of soft ground with those medians, uint16."""
    draw = np.random.default_rng(seed)
    return [(m * draw.gamma(9, 1 / 9, 4096)).clip(1, 65535).astype(np.uint16) for m in medians]


MEADOW = counts(300, 400, 700, 500, 1100, 2500, 3000, 3200, 3300, 3300, 2200, 1200)
"""Of level 2A, all its 12 bands."""
WATER = counts(600, 500, 400, 250, 200, 150, 120, 100, 90, 80, 40, 30)
SNOW = counts(7000, 7200, 6500, 6600, 6900, 6900, 6700, 7000, 6600, 6300, 1100, 1200)
CLOUD = counts(7000, 6500, 6400, 6800, 6900, 7000, 7100, 7200, 7300, 3000, 800, 3500, seed=1)


def told(sensor, bands) -> str:
    return "; ".join(suspicions(sensor, levels(bands)))


def test_an_offset_taken_off_twice_is_refused():
    """Half of a band cannot be far below 0; water, overcorrected, is a little."""
    twice = L2A.counted(None, -0.1)
    said = (
        r"a.tif: half of the pixels of band B01 are below \d+; sensor sentinel2_l2a reads them as "
        r"counts of 0.0001 from -0.1 on, so that they are a reflectance below -0.07\d*, which "
        r"nothing has. If another sensor took them, .*: set offset: 0 beside sensor, or set nodata"
    )
    with pytest.raises(ConfigError, match=said):
        check_scale(twice, MEADOW, "a.tif")
    with pytest.raises(ConfigError, match=r"pixels of band B2 are below .*another sensor took"):
        check_scale(load_sensor("landsat8_oli").select(["B2", "B3"]), MEADOW[1:3], "a.tif")
    check_scale(twice, [band + 1000 for band in WATER], "a.tif")
    check_scale(twice, [np.full(99, 800, np.uint16)], "a.tif")  # -0.02


def test_an_offset_forgotten_is_told():
    """Products since baseline 04.00 hold 1000 counts more. No error: desert looks the same."""
    for ground in (MEADOW, WATER, SNOW):
        added = [band + 1000 for band in ground]
        check_scale(L2A, added, "a.tif")
        said = told(L2A, added)
        assert "no band is dark anywhere: the darkest 2 % of B" in said
        assert (
            "scale 0.0001 and offset 0. Desert and closed cloud look so; so do Sentinel-2" in said
        )
        assert said.endswith("set offset: -0.1 beside sensor")
        assert not told(L2A.counted(None, -0.1), added)


def test_counts_of_landsat_as_sentinels_are_told():
    """5000 is a reflectance of 0 there, and of 0.5 here."""
    added = [band * 5 + 5000 for band in MEADOW]
    assert told(L2A, added).endswith("if these are such, set sensor: landsat8_oli")
    assert not told(load_sensor("landsat8_oli").select(BLUE), added[1:4])


BLUE = ("B2", "B3", "B4")


def test_rare_reflectance_is_told():
    dark, bright = MEADOW[:3], MEADOW[:3]
    dark = [np.where(np.arange(4096) % 20 == 0, 100, band + 1000) for band in dark]
    bright = [np.where(np.arange(4096) % 20 == 0, 20000, band) for band in bright]
    some = L2A.select(("B01", "B02", "B03"))
    said = r"the darkest 2 % are below a reflectance that is rare (B01 -0.09, B02 -0.09, B03 -0.09)"
    assert said in told(some.counted(None, -0.1), dark)
    assert "the brightest 2 % are above a reflectance that is rare (B01 2, B" in told(some, bright)


@pytest.mark.parametrize("ground", [MEADOW, WATER, SNOW, CLOUD], ids=["land", "water", "snow", "c"])
def test_nature_is_not_suspected(ground):
    check_scale(L2A, ground, "a.tif")
    assert not told(L2A, ground)
    assert not told(L2A.select(("B06", "B07", "B08")), MEADOW[5:8])  # all bright, on any meadow
    assert not told(load_sensor("landsat7_etm"), [np.full(99, 200, np.uint8)] * 8)  # plain counts


def test_a_build_tells_it(tmp_path, caplog):
    order = L2A.names[:3]
    pixels = np.stack([band.reshape(64, 64) + 1000 for band in MEADOW[:3]])
    path = write(tmp_path / "scene.tif", pixels)
    scene = Scene(imagery=imagery(path, order=order), chip=16)
    build(scene, tmp_path / "store", Split(by="block", test=0.4), progress=False)
    (said,) = [line for line in caplog.messages if "is dark" in line]
    assert said.startswith(f"{tmp_path / 'store'}: training pixels of image: no band is dark any")


@pytest.mark.parametrize(
    ("value", "share", "shown"),
    [(-9999.0, 0.008, "-9999"), (-3.4028235e38, 0.008, "-3.4028235e+38"), (1e30, 1e-3, "1e+30")],
)
def test_a_few_pixels_of_an_undeclared_fill_value_are_found(value, share, shown, tmp_path, caplog):
    """Fewer than the 2 % that quantiles leave out; the band's deviation would be theirs alone."""
    pixels = REFLECTANCE.repeat(2, 1)
    pixels[1].flat[:: round(1 / share) - 1] = value
    path = write(tmp_path / "scene.tif", pixels)

    def made(name, nodata=None):
        scene = Scene(imagery=imagery(path, scale=1, nodata=nodata), chip=16)
        return build(scene, tmp_path / name, Split(by="block", test=0.0), progress=False)

    said = (
        r"training pixels of image: band B03: nearly all pixels are 0\.0\d+ to 0\.\d+, yet some "
        rf"are {re.escape(shown)}, so that .* set nodata: {re.escape(shown)} beside sensor"
    )
    if abs(value) > 1e20:  # nothing measured is
        with pytest.raises(ConfigError, match=said):
            made("wrong")
    else:
        made("wrong")
        assert re.search(said, caplog.text)
    caplog.clear()
    assert made("right", float(shown)).done and "nearly all" not in caplog.text


def test_bands_with_long_tails_are_not_suspected():
    """Radar with bright points, rain that hardly ever falls, a band of one value."""
    stats = {"pixels": 9, "nodata": 0.0, "mean": 0.0}
    radar = BandStats(**stats, name="VV", std=1.5, low=0, high=900, p02=0.01, p50=0.1, p98=0.6)
    rain = BandStats(**stats, name="rain", std=0.3, low=0, high=40, p02=0.0, p50=0.0, p98=0.0)
    assert not list(strays([radar, rain]))


def normalizer(bands, sensor=L2A) -> Normalizer:
    some = sensor.names[: len(bands)]
    return Normalizer(
        bands=some,
        shift=tuple(float(band.mean()) for band in bands),
        factor=tuple(float(band.std()) for band in bands),
        nodata=(0,) * len(bands),
        scale=(sensor.scale,) * len(bands),
        offset=(sensor.offset,) * len(bands),
        unit=(sensor.unit,) * len(bands),
    )


def test_a_scene_unlike_what_a_model_was_trained_on_is_told():
    made = normalizer(MEADOW)
    said = unlike(made, made, levels(SNOW)[:, 1])
    assert said.startswith("medians of bands lie far from what the model was trained on: B01 0.67")
    assert "(trained on 0.0301 +- 0.01), B02" in said and said.endswith("check scale and offset")
    said = unlike(made, made, levels(MEADOW)[:, 1] + 1000)
    assert said.endswith("; all by about 0.093: check offset beside sensor, here and there")
    assert not unlike(made, made, levels(MEADOW)[:, 1])
    assert not unlike(made, made, levels(counts(*(1.3 * b.mean() for b in MEADOW)))[:, 1])
    there = made.of([L2A.counted(None, -0.1)] * 12)  # the same ground, counted from 1000 on
    assert not unlike(made, there, levels(MEADOW)[:, 1] + 1000)


def test_a_model_without_statistics_compares_nothing():
    for shift, factor in ((0.0, 1.0), (0.0, 1e4)):  # as stored; reflectance
        made = dataclasses.replace(normalizer(MEADOW), shift=(shift,) * 12, factor=(factor,) * 12)
        assert not made.from_statistics and not unlike(made, made, levels(SNOW)[:, 1])


@pytest.mark.parametrize(
    ("name", "offset"), [("282D_485L_3_3", True), ("38D_378R_2_3", False), ("609U_541L_3_0", True)]
)
def test_real_products_with_and_without_the_offset(name, offset):
    """Level 1C of TerraMesh: coast and snow of baseline 04.00, a savanna from before."""
    with rasterio.open(
        f"zip://{real('terramesh')}/terramesh_examples.zip!S2L1C/{name}.tif"
    ) as file:
        bands = [band.ravel() for band in file.read()]
    sensor = load_sensor("sentinel2_l1c")
    check_scale(sensor, bands, name)
    assert ("1000 counts more" in told(sensor, bands)) == offset
    right = sensor.counted(None, -0.1 if offset else 0.0)
    check_scale(right, bands, name)
    assert not told(right, bands)
