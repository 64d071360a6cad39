"""A small lab: a scene of two kinds of ground, its labels and a recipe, for tests of whole runs."""

import pathlib

import numpy as np
import pytest
from typer.testing import CliRunner

from swath import cli

RECIPE = """\
name: small
build:
  dataset:
    kind: scene
    imagery: {path: scene.tif, sensor: rgb, bands: [red, green, blue]}
    labels: {raster: labels.tif, classes: {"1": water, "2": land}}
    chip: 32
    stride: 16
    block: 32
  split: {by: block, test: 0.3, val: 0.1}
data: {store: stores/small}
model: {kind: unet, width: 8, depth: 1, dropout: 0}
task: {kind: segment}
batch: {samples: 4, micro: 2}
train: {samples: 40, evaluate_every: 20}
baselines: [{kind: forest, trees: 5}, {kind: majority}]
"""


def invoke(*words: str) -> str:
    """Run a verb in this process and return what it printed; fail if it failed."""
    result = CliRunner().invoke(cli.app, list(words), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture(scope="session")
def lab(tmp_path_factory) -> pathlib.Path:
    """A folder with a scene of two kinds of ground, its labels and a recipe."""
    import rasterio

    folder = tmp_path_factory.mktemp("lab")
    draw = np.random.default_rng(0)
    rows, cols = np.mgrid[:128, :160]
    land = (np.sin(rows / 17) + np.cos(cols / 23) > 0).astype(np.uint8)
    image = 60 + 90 * land[None] + draw.normal(0, 12, (3, *land.shape))
    grid = {
        "crs": "EPSG:32633",
        "transform": rasterio.Affine(10, 0, 500000, 0, -10, 5800000),
        "height": 128,
        "width": 160,
        "dtype": "uint8",
    }
    with rasterio.open(folder / "scene.tif", "w", count=3, **grid) as file:
        file.write(image.clip(1, 255).astype(np.uint8))
        file.descriptions = ("red", "green", "blue")
    with rasterio.open(folder / "labels.tif", "w", count=1, **grid) as file:
        file.write(land + 1, 1)
    (folder / "recipe.yaml").write_text(RECIPE)
    return folder


@pytest.fixture
def inside(lab, monkeypatch) -> pathlib.Path:
    monkeypatch.chdir(lab)
    return lab


@pytest.fixture
def trained(inside) -> pathlib.Path:
    """The lab after ``swath train`` (the first time; then it is done already)."""
    invoke("train", "recipe.yaml")
    return inside
