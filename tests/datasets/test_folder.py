"""Class folders as EuroSAT publishes them: JPEG, and GeoTIFF of 13 bands with places."""

import numpy as np
import pytest
import rasterio

from swath.config import ConfigError
from swath.data.build import build
from swath.data.split import Split, select
from swath.datasets.folder import Folder

EUROSAT = (*(f"B{n:02d}" for n in range(1, 13)), "B8A")
CLASSES = ("AnnualCrop", "Forest", "River")


def tifs(root, per_class=6, size=16, bands=13):
    """Chips side by side in two UTM zones; band k holds k * 100 + the number of the chip."""
    for k, name in enumerate(CLASSES):
        (root / name).mkdir(parents=True)
        for i in range(per_class):
            zone, x = (32632, 300_000 + 160 * (k * per_class + i)) if i % 2 else (32633, 500_000)
            image = np.full((bands, size, size), i, np.uint16)
            image += np.arange(1, bands + 1, dtype=np.uint16)[:, None, None] * 100
            with rasterio.open(
                root / name / f"{name}_{i + 1}.tif", "w", driver="GTiff", dtype="uint16",
                count=bands, height=size, width=size, crs=f"EPSG:{zone}",
                transform=rasterio.Affine(10, 0, x, 0, -10, 5_000_000 - 160 * (k * per_class + i)),
            ) as file:  # fmt: skip
                file.write(image)


def jpegs(root, names=CLASSES, per_class=3, size=16):
    for k, name in enumerate(names):
        (root / name).mkdir(parents=True)
        for i in range(per_class):
            image = np.full((3, size, size), 60 * k + 20, np.uint8)
            with rasterio.open(
                root / name / f"{name}_{i + 1}.jpg", "w", driver="JPEG", dtype="uint8", count=3,
                height=size, width=size,
            ) as file:  # fmt: skip
                file.write(image)


def test_thirteen_bands_come_in_the_order_that_was_asked(tmp_path):
    """EuroSAT's files have B8A last; taken for channel 9 it would be water vapour."""
    tifs(tmp_path)
    source = Folder(
        path=str(tmp_path), sensor="sentinel2_l1c", order=EUROSAT, bands=("B8A", "B02", "B09")
    ).open()
    assert source.contents.label.classes == CLASSES
    chip = source.chip(7)
    assert (chip.name, chip.label) == ("Forest/Forest_2", 1)
    np.testing.assert_array_equal(chip.images["image"][:, 0, 0], [1301, 201, 901])
    said = (
        "13 channels without names; say which bands they are with order, .*order: \\[B01, B02, B03"
    )
    with pytest.raises(ConfigError, match=said):
        Folder(path=str(tmp_path), sensor="sentinel2_l1c").open()
    with pytest.raises(ConfigError, match="Sensor rgb has only 3 bands; swath show --kinds lists"):
        Folder(path=str(tmp_path)).open()
    loose = tmp_path / "Forest"
    with pytest.raises(
        ConfigError, match=r"but Forest_1.tif and 5 more lie in no folder.*a folder"
    ):
        Folder(path=str(loose)).open()


def test_images_with_places_are_split_in_blocks(tmp_path):
    """Each CRS is a ground; a chip lies where its file says; blocks do not mix zones."""
    tifs(tmp_path)
    source = Folder(path=str(tmp_path), sensor="sentinel2_l1c", order=EUROSAT, block_m=500.0).open()
    assert [g.crs for g in source.contents.grounds] == ["EPSG:32632", "EPSG:32633"]
    zones: dict[int, set[int]] = {}
    for i in range(len(source)):
        chip = source.chip(i)
        ground = source.contents.grounds[chip.where.ground]
        a, _, x, _, e, y = ground.transform
        with rasterio.open(tmp_path / f"{chip.name}.tif") as file:
            assert x + a * chip.where.col == file.transform.c
            assert y + e * chip.where.row == file.transform.f
        zones.setdefault(chip.groups["block"], set()).add(chip.where.ground)
    assert len(zones) > 4
    assert all(len(found) == 1 for found in zones.values())
    dataset = Folder(path=str(tmp_path), sensor="sentinel2_l1c", order=EUROSAT, block_m=500.0)
    store = build(dataset, tmp_path / "s", Split(seed=1), progress=False)
    train, test = (select(store, None, part) for part in ("train", "test"))
    blocks = store.column("groups/block")
    assert not set(blocks[train.indices]) & set(blocks[test.indices])
    assert test.share_touching() == 0


def test_pictures_without_places_are_split_at_random_or_as_given(tmp_path):
    """There is no block to keep together, and the message says what there is."""
    jpegs(tmp_path / "images")
    dataset = Folder(path=str(tmp_path / "images"))
    source = dataset.open()
    chip = source.chip(4)
    assert chip.images["image"].shape == (3, 16, 16)
    assert abs(int(chip.images["image"].mean()) - 80) < 3  # JPEG
    said = (
        r"not grouped by 'block' \(its images have no place on the Earth\); there are random; "
        "set build.split.by=random"
    )
    with pytest.raises(ConfigError, match=said):
        build(dataset, tmp_path / "s", Split(), progress=False)
    assert not (tmp_path / "s").exists()  # found out before anything was packed
    store = build(dataset, tmp_path / "s", Split(by="random", test=0.3), progress=False)
    assert select(store, None, "test").share_touching() is None
    (tmp_path / "train.txt").write_text("\n".join(f"{c}_1.jpg\n{c}_3.jpg" for c in CLASSES))
    (tmp_path / "test.txt").write_text("\n".join(f"{c}_2.jpg" for c in CLASSES))
    lists = {part: str(tmp_path / f"{part}.txt") for part in ("train", "test")}
    published = Folder(path=str(tmp_path / "images"), splits=lists)
    store = build(published, tmp_path / "t", Split(by="given"), progress=False)
    assert select(store, None, "test").indices.tolist() == [1, 4, 7]
    assert select(store, None, "val").size == 0


def test_folders_called_train_and_test_give_the_split(tmp_path):
    """The other common layout: the part above the class."""
    for part in ("train", "test"):
        jpegs(tmp_path / part, per_class=2)
    source = Folder(path=str(tmp_path), classes=("River", "Forest")).open()
    chips = [source.chip(i) for i in range(len(source))]
    assert [c.given for c in chips] == ["test"] * 4 + ["train"] * 4
    assert [c.label for c in chips] == [0, 0, 1, 1] * 2


def test_mistakes_are_named(tmp_path):
    """Missing folders and classes, an image of another size, a torn file, a name in two lists."""
    jpegs(tmp_path / "a")
    with pytest.raises(ConfigError, match="no folder for class Sea; there are AnnualCrop, Forest"):
        Folder(path=str(tmp_path / "a"), classes=("Forest", "Sea")).open()
    with pytest.raises(ConfigError, match="b: there is no such folder"):
        Folder(path=str(tmp_path / "b")).open()
    (tmp_path / "empty" / "Forest").mkdir(parents=True)
    with pytest.raises(ConfigError, match="no images in class folders"):
        Folder(path=str(tmp_path / "empty")).open()
    jpegs(tmp_path / "big", names=("x",), size=24, per_class=1)
    (tmp_path / "big/x/x_1.jpg").rename(tmp_path / "a/Forest/Forest_9.jpg")
    source = Folder(path=str(tmp_path / "a")).open()
    with pytest.raises(ConfigError, match=r"Forest_9.jpg: has 24 x 24 px, but .* has 16 x 16"):
        source.chip(6)
    (tmp_path / "a/River/River_2.jpg").write_bytes(b"torn")
    with pytest.raises(ConfigError, match=r"River_2.jpg: is not a raster, or is damaged"):
        source.chip(8)
    (tmp_path / "train.txt").write_text("Forest_1.jpg\nForest_2.jpg\n")
    (tmp_path / "test.txt").write_text("Forest_2.jpg\n")
    lists = {part: str(tmp_path / f"{part}.txt") for part in ("train", "test")}
    with pytest.raises(ConfigError, match="Forest_2 is in the list of train too"):
        Folder(path=str(tmp_path / "a"), splits=lists).open()
