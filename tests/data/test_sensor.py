"""The sensors that ship, and how bands are chosen from them."""

import math

import numpy as np
import pytest

from swath.config import ConfigError
from swath.data.sensor import Band, Sensor, load_sensor, sensors


@pytest.mark.parametrize("name", sensors())
def test_every_sensor_is_called_like_its_file_and_says_its_source(name):
    sensor = load_sensor(name)
    assert sensor.name == name and sensor.source
    assert set(sensor.colour) <= set(sensor.names)
    for band in sensor.bands:
        assert band.wavelength_nm is None or 300 < band.wavelength_nm < 15000, band
        assert band.width_nm is None or 0 < band.width_nm <= 2100, band


def test_sentinel2_is_as_published():
    """ESA's numbers for Sentinel-2A; the bands by resolution are 4, 6 and 3."""
    sensor = load_sensor("sentinel2_l1c")
    by_gsd = {g: [b.name for b in sensor.bands if b.gsd_m == g] for g in (10, 20, 60)}
    assert by_gsd == {
        10: ["B02", "B03", "B04", "B08"],
        20: ["B05", "B06", "B07", "B8A", "B11", "B12"],
        60: ["B01", "B09", "B10"],
    }
    assert sensor.select(["B8A"]).bands[0].wavelength_nm == 864.7
    assert load_sensor("sentinel2_l2a").names == tuple(n for n in sensor.names if n != "B10")
    assert (sensor.scale, sensor.nodata) == (1e-4, 0)


def test_indian_pines_has_its_200_bands():
    sensor = load_sensor("aviris_indian_pines")
    assert len(sensor.bands) == 200
    assert sensor.bands[0].wavelength_nm == 400.02 and sensor.bands[-1].wavelength_nm == 2498.96


def test_bands_are_selected_in_the_order_asked_for():
    sensor = load_sensor("sentinel2_l1c").select(["B08", "B02"])
    assert sensor.names == ("B08", "B02")
    assert sensor.colour == ()  # red is not among them
    assert load_sensor("rgb").select(["blue", "green", "red"]).colour == ("red", "green", "blue")


def test_a_sensor_file_that_lacks_something_says_where_whole_ones_are(tmp_path):
    (tmp_path / "mine.yaml").write_text("name: mine\n")
    with pytest.raises(ConfigError, match=r"a sensor needs 'bands'; for whole ones see .*sensors$"):
        load_sensor(tmp_path / "mine.yaml")


def test_unknown_bands_and_sensors_are_suggested():
    with pytest.raises(ConfigError, match=r"no sensor 'sentinel2' \(did you mean 'sentinel2_l"):
        load_sensor("sentinel2")
    sensor = load_sensor("sentinel2_l1c")
    with pytest.raises(ConfigError, match=r"sentinel2_l1c has no band 'b8a' \(did you mean 'B8A'"):
        sensor.select(["b8a"])
    with pytest.raises(ConfigError, match=r"no band 'red'; there are B01, B02"):
        sensor.select(["red"])
    with pytest.raises(ConfigError, match="B02, B02: one is named twice"):
        sensor.select(["B02", "B02"])
    with pytest.raises(ConfigError, match="no band is selected"):
        sensor.select([])


def test_a_users_own_file_is_read_and_its_mistakes_have_a_line(tmp_path):
    file = tmp_path / "drone.yaml"
    file.write_text("name: drone\nbands:\n  - {name: nir, wavelength_nm: 840}\nnodata: -1\n")
    assert load_sensor(file) == Sensor(
        name="drone", bands=(Band(name="nir", wavelength_nm=840.0),), nodata=-1.0
    )
    file.write_text("name: drone\nbands:\n  - {name: nir, wavelenght_nm: 840}\n")
    with pytest.raises(ConfigError, match=r"drone\.yaml:3: .*did you mean 'wavelength_nm'"):
        load_sensor(file)
    file.write_text("name: drone\nbands: [{name: a}, {name: a}]\n")
    with pytest.raises(ConfigError, match=r"drone\.yaml.*band a is there twice"):
        load_sensor(file)
    with pytest.raises(ConfigError, match=r"none\.yaml"):
        load_sensor(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("nodata", "stored", "observed"),
    [
        (0, np.array([0, 1, 65535], np.uint16), [False, True, True]),
        (None, np.array([0, 1], np.uint8), [True, True]),
        (math.nan, np.array([0, 1], np.uint8), [True, True]),
        (-9999.0, np.array([-9999, 0, np.nan, np.inf], np.float32), [False, True, False, False]),
        (None, np.array([0, np.nan], np.float32), [True, False]),
    ],
)
def test_no_data_is_what_the_sensor_says_and_what_is_no_number(nodata, stored, observed):
    sensor = Sensor(name="any", bands=(Band(name="one"),), nodata=nodata)
    assert sensor.observed(stored).tolist() == observed
    assert sensor.observed(stored.reshape(1, -1, 1)).shape == (1, len(stored), 1)
