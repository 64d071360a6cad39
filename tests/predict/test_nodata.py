"""What "not observed" looks like is the scene's business, not the training data's."""

import dataclasses

import numpy as np
import rasterio

from swath.data.sensor import load_sensor
from swath.predict.map import predict
from swath.predict.settings import Predict
from swath.train.export import LoadedModel
from tests.predict.small import untrained, write_scene


def test_another_no_data_value_than_in_training_gives_the_same_map(tmp_path):
    """0 was no-data in training; here 65535 is, in a corner and, elsewhere, in one band."""
    maps = []
    for mark in (0, 65535):
        folder = tmp_path / str(mark)
        folder.mkdir()
        settings = write_scene(folder, 40, 48)
        with rasterio.open(settings.path, "r+") as file:
            pixels = file.read()
            pixels[pixels == 0] = mark
            file.nodata = mark
            file.write(pixels)
        with settings.open() as scene:
            assert scene.sensor.nodata == mark
            written = predict(untrained(), scene, Predict(probabilities=True), folder / "map")
        with rasterio.open(written["probabilities"]) as raster:
            maps.append(raster.read())
    assert 0 < np.isnan(maps[0]).mean() < 0.5
    np.testing.assert_array_equal(maps[1], maps[0])


COLOURS = ("B04", "B03", "B02")


def of_sentinel() -> LoadedModel:
    """Return a model that standardizes counts of Sentinel-2."""
    made = untrained()
    normalize = dataclasses.replace(
        made.normalize,
        bands=COLOURS,
        scale=(1e-4,) * 3,
        offset=(0.0,) * 3,
        unit=("reflectance",) * 3,
    )
    bands = load_sensor("sentinel2_l2a").select(COLOURS).bands
    inputs = dataclasses.replace(made.about.inputs, bands=bands)
    about = dataclasses.replace(made.about, normalize=normalize, inputs=inputs)
    return LoadedModel(made.network, made.objective, about)


def test_a_scene_with_an_offset_that_nobody_took_off_is_told(tmp_path, caplog):
    """A map is made all the same: it might be a desert."""
    settings = write_scene(tmp_path, 40, 48, hole=False)
    settings = dataclasses.replace(settings, sensor="sentinel2_l2a", order=COLOURS)
    with settings.open() as scene:
        predict(of_sentinel(), scene, Predict(), tmp_path / "map")
    assert not caplog.messages
    with rasterio.open(settings.path, "r+") as file:
        file.write(file.read() + 1000)
    with settings.open() as scene:
        predict(of_sentinel(), scene, Predict(), tmp_path / "another")
    dark, far = caplog.messages
    assert dark.startswith(f"{settings.path}: no band is dark anywhere: the darkest 2 % of B0")
    assert far.startswith(f"{settings.path}: medians of bands lie far from what the model was tr")
    assert "B04 0.248 (trained on 0.15 +- 0.04)" in far
    assert far.endswith("; all by about 0.098: check offset beside sensor, here and there")


def test_reflectance_is_mapped_by_a_model_of_counts(tmp_path):
    """The sensor says what a number means, in training and here: the two scenes are the same."""
    model = of_sentinel()
    settings = write_scene(tmp_path, 40, 48, hole=False)
    settings = dataclasses.replace(settings, sensor="sentinel2_l2a", order=COLOURS)
    maps = []
    for scale in (None, 1.0):
        with settings.open() as scene:
            found = predict(model, scene, Predict(probabilities=True), tmp_path / f"map{scale}")
        with rasterio.open(found["probabilities"]) as raster:
            maps.append(raster.read())
        with rasterio.open(settings.path) as file:
            profile, pixels = file.profile, file.read()
        path = tmp_path / "reflectance.tif"
        profile |= {"dtype": "float32", "nodata": np.nan}
        with rasterio.open(path, "w", **profile) as file:
            file.write((pixels * 1e-4).astype(np.float32))
        settings = dataclasses.replace(settings, path=str(path), scale=1.0)
    np.testing.assert_allclose(maps[1], maps[0], atol=1e-4)
