"""Pixels that cannot be what their sensor says stop a build and a map; dark ones do not."""

import dataclasses

import numpy as np
import pytest

from swath.config import ConfigError
from swath.data.build import build
from swath.data.imagery import Imagery
from swath.data.plausible import check_scale
from swath.data.sensor import load_sensor
from swath.data.split import Split
from swath.datasets.folder import Folder
from swath.datasets.masks import Masks
from swath.datasets.scene import Scene
from tests.geo.rasters import write

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
    with pytest.raises(ConfigError, match="or set nodata, if these mean that nothing was observed"):
        check_scale(L2A, [np.full((9, 9), 1e20, np.float32)], "a.tif")


@pytest.mark.parametrize(
    ("sensor", "pixels"),
    [
        ("sentinel2_l2a", RNG.integers(0, 4, (64, 64)).astype(np.uint16)),  # a night
        ("sentinel2_l2a", RNG.integers(0, 4, (64, 64)).astype(np.float32)),  # as real numbers
        ("sentinel2_l2a", RNG.normal(12, 3, (64, 64))),  # deep water in SWIR, resampled
        ("sentinel2_l2a", RNG.normal(3000, 500, (64, 64))),  # counts as real numbers
        ("sentinel2_l2a", np.full((64, 64), 65535, np.uint16)),  # saturated: 6.5, clouds and glint
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
