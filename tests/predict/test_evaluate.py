"""A map scored on the held-out labels of a store, against counting by hand."""

import json

import numpy as np
import pytest
import rasterio

from swath.config import ConfigError
from swath.data.build import build
from swath.data.chip import IGNORE
from swath.data.imagery import Imagery
from swath.data.mosaic import mosaic
from swath.data.split import Split, select
from swath.datasets._labels import Labels
from swath.datasets.scene import Scene
from swath.geo.cog import write_cog
from swath.predict.evaluate import pixel_hectares, reference, score_map, write_scores
from tests.predict.small import LAND, write_scene

UTM = (10.0, 0.0, 330000.0, 0.0, -10.0, 5822040.0)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Chips of 32 px, overlapping by half, with labels on part of the ground, split by block."""
    folder = tmp_path_factory.mktemp("store")
    imagery: Imagery = write_scene(folder, 96, 128, hole=False)
    rng = np.random.default_rng(5)
    truth = np.kron(rng.integers(0, 3, (12, 16)), np.ones((8, 8), int)).astype(np.uint8)
    truth[rng.random(truth.shape) < 0.5] = 9
    write_cog(folder / "truth.tif", truth[None], UTM, "EPSG:32633")
    labels = Labels(
        raster=str(folder / "truth.tif"),
        classes={str(i): name for i, name in enumerate(LAND.classes)},
        others="ignore",
    )
    dataset = Scene(imagery=imagery, labels=labels, chip=32, stride=16, block=16)
    split = Split(by="block", val=0.0, test=0.3)
    return build(dataset, folder / "store", split, progress=False, threads=1)


def test_the_reference_is_the_held_out_pixels_once_each(store):
    """Chips overlap, but a labelled pixel counts once, and only in its own part."""
    parts = [reference(select(store, None, part), 0) != IGNORE for part in ("train", "test")]
    labelled = mosaic(store, 0, "label") != IGNORE
    assert not (parts[0] & parts[1]).any() and parts[1].any()
    np.testing.assert_array_equal(parts[0] | parts[1], labelled)


def test_scores_equal_counting_by_hand(store, tmp_path):
    truth = reference(select(store, None, "test"), 0)
    rng = np.random.default_rng(0)
    found = rng.integers(0, 3, truth.shape).astype(np.uint8)
    found[:8] = IGNORE
    write_cog(tmp_path / "scene.tif", found[None], UTM, "EPSG:32633", nodata=255)
    scores = score_map(tmp_path / "scene.tif", store)
    known = (truth != IGNORE) & (found != IGNORE)
    assert scores["scored"] == known.sum() and scores["split"] == "block"
    assert scores["oa"] == pytest.approx((found == truth)[known].mean())
    assert scores["confusion"][2][1] == ((truth == 2) & (found == 1)).sum()
    assert scores["users"][0] == pytest.approx((truth == 0)[known & (found == 0)].mean())
    assert scores["producers"][0] == pytest.approx((found == 0)[known & (truth == 0)].mean())
    assert scores["area"]["mapped"][1] == pytest.approx((found == 1).sum() * 0.01)  # 10 m pixels
    total = sum(scores["area"]["estimated"])
    assert total == pytest.approx((found != IGNORE).sum() * 0.01)
    assert 0 < scores["share_touching"] <= 1


def test_scores_of_model_and_map_stand_in_one_file(tmp_path):
    write_scores(tmp_path, "model", {"oa": 0.5, "kappa": float("nan")})
    write_scores(tmp_path, "map", {"oa": np.float64(0.6), "users": np.array([1.0, np.nan])})
    assert json.loads((tmp_path / "scores.json").read_text()) == {
        "model": {"oa": 0.5, "kappa": None},
        "map": {"oa": 0.6, "users": [1.0, None]},
    }


def test_a_map_of_elsewhere_is_refused(store, tmp_path):
    pixels = np.zeros((1, 96, 128), np.uint8)
    write_cog(tmp_path / "a.tif", pixels, (10.0, 0.0, 0.0, 0.0, -10.0, 0.0), "EPSG:32633")
    with pytest.raises(ConfigError, match=r"lies on none of the grounds .*scene 96 x 128 px"):
        score_map(tmp_path / "a.tif", store)


def test_a_map_of_other_classes_is_refused(store, tmp_path):
    write_cog(tmp_path / "a.tif", np.full((1, 96, 128), 7, np.uint8), UTM, "EPSG:32633")
    with pytest.raises(ConfigError, match=r"holds classes \[7\]; the store knows 0 to 2"):
        score_map(tmp_path / "a.tif", store)
    write_cog(tmp_path / "b.tif", np.zeros((1, 96, 128), np.float32), UTM, "EPSG:32633")
    with pytest.raises(ConfigError, match="is no map of classes"):
        score_map(tmp_path / "b.tif", store)


def test_areas_are_in_hectares_where_the_crs_counts_in_metres_or_feet():
    assert pixel_hectares(UTM, "EPSG:32633") == pytest.approx(0.01)
    foot = 1200 / 3937
    assert pixel_hectares((100, 0, 0, 0, -100, 0), "EPSG:2263") == pytest.approx(foot**2)
    assert pixel_hectares((0.001, 0, 0, 0, -0.001, 0), "EPSG:4326") is None
    assert pixel_hectares(None, None) is None
    assert pixel_hectares(UTM, rasterio.CRS.from_epsg(32633)) == pytest.approx(0.01)
