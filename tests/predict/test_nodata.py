"""What "not observed" looks like is the scene's business, not the training data's."""

import numpy as np
import rasterio

from swath.predict.map import predict
from swath.predict.settings import Predict
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
