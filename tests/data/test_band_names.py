"""Bands are matched by name: loosely (B2 for B02), but not into the bands of another instrument."""

import logging

import numpy as np
import pytest

import swath
import swath.train.export
from swath.config import ConfigError
from swath.data.files import check_assumed
from swath.data.imagery import Imagery
from swath.data.sensor import check_light, load_sensor
from tests.geo.rasters import write

SENTINEL = load_sensor("sentinel2_l1c").names
LANDSAT = load_sensor("landsat8_oli").names
EARTH_ENGINE = ("B2", "B3", "B4", "B8A", "B11", "B12")
"""Sentinel-2 as Google Earth Engine exports it."""


@pytest.fixture
def stack(tmp_path):
    """Return a function that writes a file with channels of those names."""

    def made(names, name="scene.tif"):
        pixels = np.full((len(names), 8, 8), 7500, np.uint16)
        return str(write(tmp_path / name, pixels, names=tuple(names)))

    return made


def test_a_sentinel_scene_is_not_mapped_by_a_landsat_model(stack, monkeypatch):
    """As a newcomer had it: no sensor named, so it was taken for the store's; B02 (blue) was read
    as Landsat's B2, and B8A and B12 were dropped without a word."""
    path = stack(SENTINEL)
    monkeypatch.setattr(swath.train.export, "load_model", lambda folder: 1 / 0)
    built = "build={dataset: {kind: scene, imagery: {path: a, sensor: landsat8_oli}}}"
    with pytest.raises(ConfigError) as caught:
        swath.predict(swath.load("data.store=s", built, f"predict.scene.path={path}"))
    said = str(caught.value)
    assert said.startswith(f"{path}: its bands are called B01, B02, B03, ")
    assert (
        "B12, as those of sentinel2_l1c. It names no sensor, and the model was trained on" in said
    )
    assert "landsat8_oli, whose bands are B1, B2, B3," in said
    assert said.endswith(
        "such as sensor: sentinel2_l1c; if it was landsat8_oli after all, set order: [B1, B2, B3, "
        'B4, B5, B6, B7, B8, B9, B10, B11, "-", ...]'
    )


@pytest.mark.parametrize(
    ("names", "assumed", "likely"),
    [
        (SENTINEL[1:4], "landsat8_oli", "sentinel2_l1c and sentinel2_l2a"),
        (LANDSAT, "sentinel2_l2a", "landsat8_oli"),
        (LANDSAT[1:7], "sentinel2_l1c", "landsat7_etm and landsat8_oli"),
        (SENTINEL, "sentinel2_l2a", "sentinel2_l1c"),  # B10 is of level 1C alone
        (("VV", "VH"), "landsat8_oli", "sentinel1_grd"),
    ],
)
def test_other_names_speak_against_an_assumed_sensor(stack, names, assumed, likely):
    said = rf"as those of {likely}. It names no sensor.* {assumed}, whose .* such as sensor: "
    with pytest.raises(ConfigError, match=said + likely.split()[0]):
        check_assumed(Imagery(path=stack(names), sensor=assumed))


@pytest.mark.parametrize(
    ("names", "assumed"),
    [
        (EARTH_ENGINE, "sentinel2_l2a"),
        (SENTINEL[:4], "sentinel2_l2a"),
        (LANDSAT[:7], "landsat7_etm"),
        (("red", "green", "blue"), "rgb"),
        (("", ""), "landsat8_oli"),
    ],
)
def test_names_of_the_assumed_sensor_are_taken(stack, names, assumed):
    """Also where another would do as well, and where there are none (order is asked for then)."""
    check_assumed(Imagery(path=stack(names), sensor=assumed))


def test_whoever_names_the_bands_is_believed(stack):
    order = tuple(f"B{i}" for i in range(1, 8))
    path = stack(SENTINEL[:7])
    check_assumed(Imagery(path=path, sensor="landsat8_oli", order=order))
    named = Imagery(path=path, sensor="landsat8_oli")  # as Harmonized Landsat Sentinel-2 does
    assert named.open().sensor.names == order


def test_a_folder_of_another_sensor(tmp_path):
    for band in SENTINEL:
        write(tmp_path / f"T33_{band}.tif", np.full((4, 4), 1500, np.uint16))
    with pytest.raises(ConfigError, match=r"called B01, .*B12, as those of sentinel2_l1c\. .*set"):
        check_assumed(Imagery(path=str(tmp_path), sensor="landsat8_oli"))
    check_assumed(Imagery(path=str(tmp_path), sensor="sentinel2_l1c"))


def test_a_sensor_that_is_named_must_have_the_bands(stack):
    """It is said which: all 13 channels are Sentinel-2's, and only 11 look like Landsat's."""
    said = (
        r"as those of sentinel2_l1c; sensor landsat8_oli has B1, .*, and none for channel "
        r"9 \(B8A\), 13 \(B12\). Set sensor: sentinel2_l1c, or say channel by channel"
    )
    with pytest.raises(ConfigError, match=said):
        Imagery(path=stack(SENTINEL), sensor="landsat8_oli").open()


def test_channels_that_are_no_band_are_told(stack, caplog):
    path = stack((*EARTH_ENGINE, "NDVI"))
    with caplog.at_level(logging.INFO, logger="swath"):
        scene = Imagery(path=path, sensor="sentinel2_l2a").open()
    assert scene.sensor.names == ("B02", "B03", "B04", "B8A", "B11", "B12")
    assert f"{path}: channel 7 (NDVI): no band of sentinel2_l2a, left out" in caplog.messages


def test_bands_of_one_name_must_see_the_same_light():
    """Landsat 7 calls green B2, Landsat 8 blue: what is called alike is not alike."""
    seven, eight = (load_sensor(name).select(("B2", "B3")).bands for name in LANDSATS)
    said = (
        r"^x: the model takes 2 bands \(B2, B3\) of landsat8_oli; here is B2 at 560 nm, not 482.04,"
        r" B3 at 660 nm, not 561.41: another instrument's colours under the same names"
    )
    with pytest.raises(ConfigError, match=said):
        check_light(eight, seven, "x: ")
    check_light(*(load_sensor(f"sentinel2_{level}").bands for level in ("l1c", "l2a")), "x: ")


LANDSATS = ("landsat7_etm", "landsat8_oli")
