"""Normalising: closed forms, no-data set apart, exact for wide integers, and errors that help."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from swath.config import ConfigError, build, plain
from swath.data.normalize import Normalize, Normalizer, normalizer
from swath.data.sensor import Band, Sensor, load_sensor
from swath.data.stats import BandStats

SENSOR = Sensor(
    name="s", bands=(Band(name="a"), Band(name="b")), scale=1e-4, offset=-0.1, nodata=0.0
)
BANDS = [(SENSOR, 0), (SENSOR, 1)]


def stats(mean=(1000.0, 50.0), std=(200.0, 10.0), pixels=9):
    rest = {"nodata": 0.0, "low": 0.0, "high": 1.0, "p02": 0.0, "p50": 0.5, "p98": 1.0}
    return [
        BandStats(name=n, pixels=pixels, mean=m, std=s, **rest)
        for n, m, s in zip("ab", mean, std, strict=True)
    ]


def test_standardized_training_pixels_have_mean_0_and_deviation_1():
    pixels = np.random.default_rng(0).integers(1, 60_000, (5, 2, 8, 8)).astype(np.uint16)
    found = stats(pixels.mean((0, 2, 3)), pixels.std((0, 2, 3)))
    image, observed = normalizer(Normalize(), BANDS, found)(torch.from_numpy(pixels))
    assert image.dtype == torch.float32 and observed.all()
    assert image.mean((0, 2, 3)).abs().max() < 1e-5
    assert (image.std((0, 2, 3), correction=0) - 1).abs().max() < 1e-5


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "int32", "float32", "float64"])
def test_no_data_becomes_0_and_is_not_observed(dtype):
    """Of any type; in one band only, the other band of the pixel stays."""
    pixels = np.array([[[[0, 100]], [[60, 0]]]], dtype)
    image, observed = normalizer(Normalize(), BANDS, stats())(torch.from_numpy(pixels))
    assert observed.tolist() == [[[[False, True]], [[True, False]]]]
    assert image.tolist() == [[[[0.0, -4.5]], [[1.0, 0.0]]]]


def test_nan_and_infinity_are_no_data_in_float_imagery():
    pixels = torch.tensor([[[[float("nan"), float("inf"), 3.0]]]])
    plain_sensor = Sensor(name="s", bands=(Band(name="a"),))
    image, observed = normalizer(Normalize(kind="none"), [(plain_sensor, 0)], None)(pixels)
    assert observed.tolist() == [[[[False, False, True]]]]
    assert image.tolist() == [[[[0.0, 0.0, 3.0]]]]


def test_scale_gives_the_unit_of_the_sensor():
    """Reflectance: 1e-4 * 5000 - 0.1 = 0.4."""
    pixels = torch.full((1, 2, 1, 1), 5000, dtype=torch.int16)
    image, _ = normalizer(Normalize(kind="scale"), BANDS, None)(pixels)
    torch.testing.assert_close(image, torch.full((1, 2, 1, 1), 0.4))


def test_wide_integers_are_not_rounded_first():
    """2^24 + 1 has no float32; about its mean of 2^24 it is 1, not 0 or 2."""
    made = normalizer(Normalize(), BANDS[:1], stats((2.0**24, 0), (1.0, 1.0))[:1])
    image, _ = made(torch.tensor([[[[2**24 + 1]]]], dtype=torch.int32))
    assert image.item() == 1.0


def test_clip_counts_standard_deviations():
    pixels = torch.tensor([[[[1, 60_000]], [[1, 255]]]], dtype=torch.int32)
    image, _ = normalizer(Normalize(clip=3), BANDS, stats())(pixels)
    assert image.min() == -3 and image.max() == 3


def test_a_constant_band_becomes_0():
    image, _ = normalizer(Normalize(), BANDS, stats((7.0, 7.0), (0.0, 0.0)))(
        torch.full((1, 2, 3, 3), 7, dtype=torch.uint8)
    )
    assert (image == 0).all()


def test_a_normalizer_travels_in_json():
    """It is part of a trained model; the same bits come back."""
    made = normalizer(Normalize(clip=4), BANDS, stats((1 / 3, 0.1)))
    assert build(Normalizer, json.loads(json.dumps(plain(made), allow_nan=False)), "x") == made
    assert made.only([1]).bands == ("b",) and made.only([1]).shift == (0.1,)


def test_another_scale_than_in_training_gives_the_same_inputs(caplog):
    """Counts of an older baseline, with an offset, and reflectance itself are one ground."""
    trained = load_sensor("sentinel2_l2a").select(["B02", "B03"])
    made = normalizer(Normalize(), [(trained, 0), (trained, 1)], stats())
    counts = torch.tensor([[[[1200.0, 900.0]], [[55.0, 48.0]]]])
    expected = made(counts)[0]
    for scale, offset in ((1.0, 0.0), (1e-4, -0.1), (2e-5, -0.1)):
        other = trained.counted(scale, offset)
        stored = (counts * trained.scale + trained.offset - offset) / scale
        got = made.of([other, other])
        torch.testing.assert_close(got(stored)[0], expected, rtol=1e-4, atol=1e-4)
        assert got.scale == (scale, scale) and got.only([1]).offset == (offset,)
        torch.testing.assert_close(got.of([trained, trained])(counts)[0], expected)
    assert made.of([trained, trained]) == made and not caplog.messages
    count = dataclasses.replace(trained.counted(1.0, None), unit="", name="mine")
    assert made.of([count, count]).shift == made.shift
    assert caplog.messages == [
        "sensor mine counts B02, B03 in 1 (unit not said), the model was trained on counts of "
        "0.0001 reflectance; they are taken for the same"
    ]


def test_mistakes_are_clear():
    with pytest.raises(ConfigError, match=r"clip=4.0 has no effect with kind=scale"):
        Normalize(kind="scale", clip=4.0)
    with pytest.raises(ConfigError, match=r"clip=-1.0 must be above 0"):
        Normalize(clip=-1.0)
    with pytest.raises(ConfigError, match=r"no training pixel of band a, b was observed"):
        normalizer(Normalize(), BANDS, stats(pixels=0))
    with pytest.raises(ConfigError, match=r"takes 2 bands \(a, b\), the image has 3"):
        normalizer(Normalize(), BANDS, stats())(torch.zeros(1, 3, 2, 2))
