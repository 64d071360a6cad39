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
from swath.datasets.masks import Masks
from swath.datasets.scene import Scene
from swath.predict.evaluate import pixel_hectares, reference, score_maps, write_scores
from tests.geo.rasters import UTM, cog, place, write
from tests.predict.small import LAND, write_scene

PLACE = tuple(place())[:6]
IDENTITY = rasterio.Affine.identity()


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Chips of 32 px, overlapping by half, with labels on part of the ground, split by block."""
    folder = tmp_path_factory.mktemp("store")
    imagery: Imagery = write_scene(folder, 96, 128, hole=False)
    rng = np.random.default_rng(5)
    truth = np.kron(rng.integers(0, 3, (12, 16)), np.ones((8, 8), int)).astype(np.uint8)
    truth[rng.random(truth.shape) < 0.5] = 9
    cog(folder / "truth.tif", truth[None])
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
    cog(tmp_path / "scene.tif", found[None], nodata=255)
    scores = score_maps([tmp_path / "scene.tif"], store)
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


@pytest.mark.parametrize(
    ("sizes", "unit", "area"),
    [((None, None), "px", 2048), ((10, 10), "ha", 20.48), ((10, 20), "px", 2048)],
)
def test_several_maps_are_scored_as_one(tmp_path, sizes, unit, area):
    """Every labelled pixel of each counts once. Pictures without a place are told apart by name;
    areas are in hectares only if all maps have pixels of one size."""
    truth = np.random.default_rng(1).integers(0, 3, (2, 32, 32)).astype(np.uint8)
    found = truth.copy()
    found[1, :16] = 1
    paths = []
    for name, mask, mapped, size in zip("ab", truth, found, sizes, strict=True):
        on = {"crs": size and UTM, "transform": place(size) if size else IDENTITY}
        write(tmp_path / f"images/{name}.tif", np.stack([mask] * 3) + np.uint8(1), **on)
        write(tmp_path / f"masks/{name}.tif", mask, **on)
        paths.append(cog(tmp_path / f"images_{name}.tif.tif", mapped[None], **on))
    classes = {str(i): name for i, name in enumerate(LAND.classes)}
    dataset = Masks(path=str(tmp_path), classes=classes, order=("red", "green", "blue"))
    split = Split(by="image", val=0.0, test=0.5)
    store = build(dataset, tmp_path / "store", split, progress=False, threads=1)
    scores = score_maps(paths, store, part="all")
    assert scores["scored"] == 2048 and scores["file"] == "images_a.tif.tif, images_b.tif.tif"
    assert scores["oa"] == pytest.approx((found == truth).mean())
    assert scores["area"]["unit"] == unit
    assert sum(scores["area"]["mapped"]) == pytest.approx(area)
    assert score_maps(paths[1:], store, part="all")["oa"] == (found == truth)[1].mean()


def test_scores_of_model_and_map_stand_in_one_file(tmp_path):
    write_scores(tmp_path, "model", {"oa": 0.5, "kappa": float("nan")})
    write_scores(tmp_path, "map", {"oa": np.float64(0.6), "users": np.array([1.0, np.nan])})
    assert json.loads((tmp_path / "scores.json").read_text()) == {
        "model": {"oa": 0.5, "kappa": None},
        "map": {"oa": 0.6, "users": [1.0, None]},
    }


def test_a_map_of_elsewhere_is_refused(store, tmp_path):
    pixels = np.zeros((1, 96, 128), np.uint8)
    cog(tmp_path / "a.tif", pixels, transform=(10.0, 0.0, 0.0, 0.0, -10.0, 0.0))
    with pytest.raises(ConfigError, match=r"lies on none of the grounds .*scene 96 x 128 px"):
        score_maps([tmp_path / "a.tif"], store)


def test_a_map_of_other_classes_is_refused(store, tmp_path):
    cog(tmp_path / "a.tif", np.full((1, 96, 128), 7, np.uint8))
    with pytest.raises(ConfigError, match=r"holds classes \[7\]; the store knows 0 to 2"):
        score_maps([tmp_path / "a.tif"], store)
    cog(tmp_path / "b.tif", np.zeros((1, 96, 128), np.float32))
    with pytest.raises(ConfigError, match="is no map of classes"):
        score_maps([tmp_path / "b.tif"], store)


def test_areas_are_in_hectares_where_the_crs_counts_in_metres_or_feet():
    assert pixel_hectares(PLACE, "EPSG:32633") == pytest.approx(0.01)
    foot = 1200 / 3937
    assert pixel_hectares((100, 0, 0, 0, -100, 0), "EPSG:2263") == pytest.approx(foot**2)
    assert pixel_hectares((0.001, 0, 0, 0, -0.001, 0), "EPSG:4326") is None
    assert pixel_hectares(None, None) is None
    assert pixel_hectares(PLACE, rasterio.CRS.from_epsg(32633)) == pytest.approx(0.01)
