"""Where and when samples were seen, and how large their pixels are: against closed forms."""

import dataclasses
import datetime
import math
import types

import numpy as np
import pytest
import torch

from swath.data.chip import Contents, Ground, Label, Modality
from swath.data.layout import UNKNOWN_TIME
from swath.data.places import gsd_m, middles, times
from swath.data.sensor import Band, Sensor
from swath.data.settings import DataSettings
from tests.several import made

RADIUS = 6378137.0  # of the sphere of EPSG:3857


def store(grounds, where, when=(), sensor_gsd=None, side=64) -> types.SimpleNamespace:
    sensor = Sensor(name="any", bands=(Band(name="a", gsd_m=sensor_gsd),))
    modality = Modality(name="m", sensor=sensor, height=side, width=side, dtype="uint16")
    contents = Contents(modalities=(modality,), label=Label(kind="none"), grounds=grounds)
    columns = {"where": np.array(where, np.int32), "when": np.array(when, np.int64)}
    return types.SimpleNamespace(
        contents=contents, samples=len(where), column=columns.__getitem__, channels=[(modality, 0)]
    )


def ground(crs="EPSG:3857", pixel=10.0) -> Ground:
    return Ground(
        name="g", height=999, width=999, crs=crs, transform=(pixel, 0, 1e6, 0, -pixel, 6e6)
    )


def test_places_are_those_of_spherical_mercator():
    """longitude = x / R, latitude = atan(sinh(y / R)); unknown where a sample or a ground has no
    place, or lies off the Earth."""
    where = [(0, 10, 20, 64, 64), (-1, 0, 0, 0, 0), (1, 0, 0, 64, 64)]
    nowhere = dataclasses.replace(ground(), crs=None)
    found = middles(store((ground(), nowhere), where))
    x, y = 1e6 + 10 * (20 + 32), 6e6 - 10 * (10 + 32)
    expected = [math.degrees(math.atan(math.sinh(y / RADIUS))), math.degrees(x / RADIUS)]
    np.testing.assert_allclose(found[0], expected, rtol=0, atol=1e-9)
    assert np.isnan(found[1:]).all()
    off = dataclasses.replace(ground("EPSG:32633"), transform=(10.0, 0, 1e12, 0, -10.0, 1e12))
    assert np.isnan(middles(store((off,), where[:1]))).all()


def test_times_are_those_of_the_calendar():
    """Against datetime, before 1970 and in a leap year too; noon is half a day."""
    moments = [
        datetime.datetime(2020, 12, 31, 12, tzinfo=datetime.UTC),
        datetime.datetime(1964, 3, 1, tzinfo=datetime.UTC),
        datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC),
    ]
    seconds = [int(m.timestamp()) for m in moments] + [UNKNOWN_TIME]
    found = times(store((), [(-1, 0, 0, 0, 0)] * 4, seconds))
    assert found[:3].tolist() == [[2020, 366.5], [1964, 61], [1970, 1]]
    assert np.isnan(found[3]).all()


@pytest.mark.parametrize(
    ("crs", "pixel", "expected"),
    [
        ("EPSG:32633", 10.0, 10.0),
        ("EPSG:3857", 10.0, 10 / math.cosh((6e6 - 4995) / RADIUS)),  # the cosine of the latitude
        ("EPSG:2263", 100.0, 100 * 1200 / 3937),  # New York, in feet of the US survey
        ("EPSG:4326", 0.001, 60.0),  # degrees: then the sensor says
    ],
)
def test_metres_from_pixel_to_pixel(crs, pixel, expected):
    one = store((ground(crs, pixel),), [(0, 0, 0, 64, 64)], sensor_gsd=60.0)
    assert gsd_m(one, one.channels) == pytest.approx(expected, rel=1e-7)
    half = store((ground(crs, pixel),), [(0, 0, 0, 128, 128)])  # an image half as fine
    if crs != "EPSG:4326":
        assert gsd_m(half, half.channels) == pytest.approx(2 * expected, rel=1e-7)
    assert gsd_m(store((), [(-1, 0, 0, 0, 0)]), one.channels) == 60.0
    assert gsd_m(store((), [(-1, 0, 0, 0, 0)]), half.channels) is None


def test_a_batch_knows_what_is_asked_for_and_nothing_else(tmp_path):
    path = made(tmp_path / "s", "sentinel1_grd", "VV VH", dtype="float32", size=8)
    plain = next(DataSettings(store=path).open().loader("train", micro=4).sweep())
    assert [b.name for b in plain.bands] == ["VV", "VH"]
    assert all(getattr(plain.known, name) is None for name in ("gsd_m", "where", "when"))
    data = DataSettings(store=path).open(asks=("gsd_m", "where", "when"))
    batches = list(data.loader("train", micro=4).sweep())
    indices = torch.cat([b.indices for b in batches])
    where, when = (torch.cat([getattr(b.known, n) for b in batches]) for n in ("where", "when"))
    assert batches[0].known.gsd_m == 10.0 and where.dtype == when.dtype == torch.float64
    unknown = indices % 3 == 2
    expected = torch.from_numpy(middles(data.store))[indices]
    torch.testing.assert_close(where, expected, rtol=0, atol=0, equal_nan=True)
    assert torch.equal(where.isnan().all(1), unknown)
    assert torch.equal(when.isnan().all(1), unknown)
    day = (1.5 + 9 * indices)[~unknown]
    assert torch.equal(when[~unknown], torch.stack([2018 + (day // 366), (day - 1) % 365 + 1], 1))
