"""Every file of datasets/ goes through the same claims; a new one needs an input made up here."""

import datetime
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from swath.config import build, kinds, plain
from swath.data.build import build as build_store
from swath.data.chip import IGNORE
from swath.data.dataset import Dataset
from swath.data.imagery import Imagery
from swath.data.split import Split
from swath.datasets.bigearthnet import BigEarthNet
from swath.datasets.cube import Cube
from swath.datasets.folder import Folder
from swath.datasets.masks import Masks
from swath.datasets.scenes import Scenes
from swath.datasets.stac import Stac
from swath.datasets.synthetic import Synthetic
from tests.datasets.test_bigearthnet import pixels, version_1
from tests.datasets.test_cube import small
from tests.datasets.test_folder import jpegs
from tests.datasets.test_scene import PIXELS, scene, vectors
from tests.geo.rasters import write


def bigearthnet(folder) -> BigEarthNet:
    names = [f"S2A_MSIL2A_20170613T101031_{n}_0" for n in range(3)]
    labels = ["Water bodies", "Coniferous forest"]
    version_1(folder, [(name, labels, pixels(n)) for n, name in enumerate(names)])
    return BigEarthNet(path=str(folder / "S2"))


def cube(folder) -> Cube:
    _, _, image, truth = small(folder)
    return Cube(image=image, labels=truth, window=3)


def class_folders(folder) -> Folder:
    jpegs(folder)
    return Folder(path=str(folder))


def masks(folder) -> Masks:
    draw = np.random.default_rng(0)
    for name in ("a", "b", "c"):
        image = draw.integers(0, 256, (3, 16, 16), dtype=np.uint8)
        write(folder / "images" / f"{name}.png", image, crs=None, driver="PNG")
        mask = draw.integers(0, 2, (16, 16), dtype=np.uint8)
        write(folder / "masks" / f"{name}.png", mask, crs=None, driver="PNG")
    return Masks(path=str(folder), classes={"0": "ground", "1": "roof"})


def whole_scene(folder) -> Dataset:
    write(folder / "a_B02.tif", PIXELS)
    vectors(folder / "fields.gpkg")
    return scene(folder)


def many_scenes(folder) -> Scenes:
    for day in ("20200501", "20200601"):
        write(folder / f"{day}_scene.tif", PIXELS, names=("B02",))
    one = Imagery(path=str(folder / "*_scene.tif"), sensor="sentinel2_l1c")
    return Scenes(scenes=(one,), chip=20, stride=15)


def static_catalogue(folder) -> Stac:
    pystac = pytest.importorskip("pystac")
    item = pystac.Item("one", None, None, datetime.datetime(2020, 5, 1), {})
    item.add_asset("B02", pystac.Asset(str(write(folder / "one.tif", PIXELS))))
    extent = pystac.Extent(
        pystac.SpatialExtent([[0, 0, 1, 1]]), pystac.TemporalExtent([[None, None]])
    )
    collection = pystac.Collection("all", "scenes", extent)
    collection.add_item(item)
    top = pystac.Catalog("top", "made for a test")
    top.add_child(collection)
    top.normalize_and_save(str(folder / "c"), pystac.CatalogType.SELF_CONTAINED)
    where = {"catalogue": str(folder / "c/catalog.json"), "collection": "all"}
    return Stac(**where, sensor="sentinel2_l1c", bands=("B02",), chip=20)


MADE = {
    "bigearthnet": bigearthnet,
    "cube": cube,
    "folder": class_folders,
    "masks": masks,
    "scene": whole_scene,
    "scenes": many_scenes,
    "stac": static_catalogue,
    "synthetic": lambda folder: Synthetic(samples=6, size=16),
}
"""What writes a small input to a folder and returns the settings that read it."""


def test_every_dataset_has_an_input():
    assert sorted(MADE) == kinds(Dataset)


@pytest.mark.parametrize("kind", sorted(MADE))
def test_a_scene_without_a_sensor_is_taken_for_the_datasets(kind, tmp_path):
    """What a scene says itself stays; the dataset's own scene is of the same sensor."""
    dataset, other = MADE[kind](tmp_path), Imagery(path="elsewhere", scale=0.5)
    assumed, own = dataset.assume(other), dataset.scene()
    assert replace(assumed, sensor=None, offset=None) == other
    if own is not None:
        assert assumed.sensor == own.sensor is not None


@pytest.mark.parametrize("kind", sorted(MADE))
def test_its_samples_are_as_announced_and_come_back_from_the_store(kind, tmp_path):
    """The builder trusts ``contents``; threads may ask for any sample, in any order."""
    dataset = MADE[kind](tmp_path)
    assert build(Dataset, plain(dataset), "written") == dataset
    source = dataset.open()
    contents, label = source.contents, source.contents.label
    with ThreadPoolExecutor(2) as threads:
        chips = list(threads.map(source.chip, range(len(source))))
    again = [source.chip(i) for i in reversed(range(len(source)))][::-1]

    for chip, same in zip(chips, again, strict=True):
        assert chip.name == same.name and chip.where == same.where
        assert chip.images.keys() == {m.name for m in contents.modalities}
        for m in contents.modalities:
            image = chip.images[m.name]
            assert image.shape == (len(m.sensor.bands), m.height, m.width)
            assert image.dtype == m.dtype
            np.testing.assert_array_equal(image, same.images[m.name])
        np.testing.assert_array_equal(chip.label, same.label)
        assert chip.groups.keys() == set(contents.groupings)
        if contents.grounds:
            assert 0 <= chip.where.ground < len(contents.grounds)

    split = Split(by="random", val=0, test=0)
    store = build_store(dataset, tmp_path / "store", split, progress=False)
    assert store.samples == len(chips) > 2
    assert store.column("name").tolist() == [chip.name for chip in chips]
    read = store.read(np.arange(len(chips)), groups=contents.groupings).result()
    for m in contents.modalities:
        np.testing.assert_array_equal(read[m.name], [chip.images[m.name] for chip in chips])
    for name in contents.groupings:
        np.testing.assert_array_equal(read[f"groups/{name}"], [c.groups[name] for c in chips])
    if label.kind == "none":
        assert "label" not in read and all(chip.label is None for chip in chips)
        return
    labels = np.stack([np.asarray(chip.label) for chip in chips])
    if label.kind == "mask":  # where no band saw anything the store has no label
        labels = np.where(read["label"] == IGNORE, IGNORE, labels)
        assert (read["label"] != IGNORE).any()
    np.testing.assert_array_equal(read["label"], labels)
