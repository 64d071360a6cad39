"""Embeddings of a scene: in place, as the layer gives them, whatever the ranks; and in colours."""

import numpy as np
import pytest
import rasterio
import torch

from swath.config import ConfigError
from swath.embed.scene import components, embed_scene, picture
from swath.embed.settings import Embed
from swath.models.unet import UNet
from swath.models.vit import ViT
from swath.nn.features import cells
from swath.parallel.world import World
from swath.predict.settings import Predict
from tests.predict.small import untrained, write_scene

VIT = ViT(width=16, depth=1, heads=2, patch=8)
HALF = Predict(overlap=0.5)


@pytest.fixture(scope="module")
def imagery(tmp_path_factory):
    """70 x 90 px, neither a multiple of 8; the lower right corner was not observed."""
    return write_scene(tmp_path_factory.mktemp("scene"))


def embedded(imagery, folder, settings=HALF, model=VIT, embed=Embed()):  # noqa: B008
    with imagery.open() as scene:
        loaded = untrained(model=model)
        return embed_scene(loaded, scene, embed, settings, folder, world=World.start("cpu"))


def read(path):
    with rasterio.open(path) as raster:
        return raster.read(), raster.transform


def test_a_pixel_is_the_vector_of_its_patch(imagery, tmp_path):
    """Without overlap a window's patches are what the layer gives for that window alone."""
    path = embedded(imagery, tmp_path, Predict(overlap=0))
    found, transform = read(path)
    assert path == tmp_path / "norm/scene.tif" and found.shape == (16, 9, 12)
    assert tuple(transform)[:6] == (80, 0, 330000, 0, -80, 5822040)
    loaded = untrained(model=VIT)
    with imagery.open() as scene, rasterio.open(imagery.path) as raw:
        pixels = raw.read()[:, :32, 32:64]
        normalize = loaded.normalize.of([scene.sensor] * 3)
    image, _ = normalize(torch.from_numpy(pixels)[None])
    expected = cells(loaded, image, "norm").map[0]
    np.testing.assert_allclose(found[:, :4, 4:8], expected, atol=2e-5)
    with rasterio.open(imagery.path) as raw:
        seen = (raw.read() > 0).any(0)
    grown = np.zeros((72, 96), bool)
    grown[:70, :90] = seen
    known = grown.reshape(9, 8, 12, 8).any((1, 3))
    np.testing.assert_array_equal(np.isfinite(found).all(0), known)
    assert not known.all()


@pytest.mark.parametrize("model", [VIT, UNet(width=4, depth=1)], ids=["vit", "unet"])
def test_the_file_does_not_depend_on_ranks_or_windows_at_once(imagery, tmp_path, ranks, model):
    alone = embedded(imagery, tmp_path / "1", HALF, model)
    many = embedded(imagery, tmp_path / "m", Predict(overlap=0.5, windows_at_once=5), model)
    assert many.read_bytes() == alone.read_bytes()
    paths = ranks(3, embedded, imagery, tmp_path / "3", HALF, model)
    assert paths[0].read_bytes() == alone.read_bytes()
    assert read(alone)[0].shape[1:] == ((9, 12) if model is VIT else (70, 90))


def test_colours_are_principal_components(imagery, tmp_path):
    """Those of numpy's singular values; no data is 0, and stays transparent."""
    path = embedded(imagery, tmp_path)
    vectors = read(path)[0].reshape(16, -1).T.astype(np.float64)
    vectors = vectors[np.isfinite(vectors).all(1)]
    mean, directions = components(path)
    np.testing.assert_allclose(mean, vectors.mean(0), atol=1e-12)
    _, _, right = np.linalg.svd(vectors - vectors.mean(0))
    np.testing.assert_allclose(np.abs(directions.T @ right[:3].T), np.eye(3), atol=1e-6)
    tif, png = picture(path)
    colours, transform = read(tif)
    assert transform == read(path)[1] and colours.dtype == np.uint8
    known = np.isfinite(read(path)[0]).all(0)
    np.testing.assert_array_equal((colours > 0).all(0), known)
    shown = (vectors - mean) @ directions
    assert np.corrcoef(colours[0][known], shown[:, 0])[0, 1] > 0.97
    assert png.read_bytes().startswith(b"\x89PNG")


def test_what_has_no_effect_on_a_scene_is_told(imagery, tmp_path):
    for embed, settings, words in (
        (Embed(pool="mean"), HALF, "embed.pool=mean has no effect on a scene"),
        (Embed(), Predict(symmetries=4), "have no effect on embeddings"),
        (Embed(), Predict(tile=30), r"windows of 30 px .* multiples of 8 px.*predict.tile=24"),
    ):
        with pytest.raises(ConfigError, match=words):
            embedded(imagery, tmp_path, settings, embed=embed)
