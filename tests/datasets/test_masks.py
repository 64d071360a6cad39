"""Images and their masks, paired by name, cut to chips that can be put back."""

import shutil

import numpy as np
import pytest

from swath.baselines import fit_and_score
from swath.baselines.majority import Majority
from swath.config import ConfigError
from swath.data.build import build
from swath.data.chip import IGNORE
from swath.data.mosaic import mosaic
from swath.data.split import Split, select
from swath.datasets.masks import Masks
from swath.geo.window import Window
from tests.geo.rasters import UTM, place, write

RNG = np.random.default_rng(0)
IMAGES = {name: RNG.integers(0, 256, (3, 40, 60), dtype=np.uint8) for name in ("a", "b", "c")}
MASKS = {name: RNG.integers(0, 3, (40, 60), dtype=np.uint8) for name in IMAGES}
CLASSES = {"0": "ground", "1": "roof", "2": "road"}


@pytest.fixture
def folder(tmp_path):
    for name in IMAGES:
        write(tmp_path / "images" / f"{name}.png", IMAGES[name], crs=None, driver="PNG")
        write(tmp_path / "masks" / f"{name}.png", MASKS[name], crs=None, driver="PNG")
    return tmp_path


def masks(folder, **given) -> Masks:
    return Masks(path=str(folder), **({"classes": CLASSES} | given))


def test_whole_images(folder):
    source = masks(folder).open()
    assert len(source) == 3 and source.contents.label.classes == ("ground", "roof", "road")
    (modality,) = source.contents.modalities
    assert (modality.height, modality.width, modality.dtype) == (40, 60, "uint8")
    assert modality.sensor.names == ("red", "green", "blue")
    for i, name in enumerate(IMAGES):
        chip = source.chip(i)
        np.testing.assert_array_equal(chip.images["image"], IMAGES[name])
        np.testing.assert_array_equal(chip.label, MASKS[name])
        assert chip.groups == {"block": i, "image": i} and chip.given is None
        assert source.contents.grounds[chip.where.ground].name == f"images/{name}.png"


def test_large_images_are_cut(folder):
    source = masks(folder, chip=32, stride=20, bands=("blue", "red")).open()
    assert len(source) == 3 * 2 * 3
    for i in range(len(source)):
        chip = source.chip(i)
        name = list(IMAGES)[chip.where.ground]
        area = Window(chip.where.row, chip.where.col, 32, 32).slices
        np.testing.assert_array_equal(chip.images["image"], IMAGES[name][[2, 0]][:, *area])
        np.testing.assert_array_equal(chip.label, MASKS[name][area])
        assert chip.groups["image"] == chip.where.ground


def test_an_image_and_the_group_of_that_name_are_put_back_apart(folder):
    """The modality and a grouping are both called image: a baseline on pixels wants the first."""
    split = Split(by="random", val=0.0, test=0.5)
    store = build(masks(folder, chip=20), folder / "s", split, progress=False)
    np.testing.assert_array_equal(mosaic(store, 1, "image"), IMAGES["b"])
    assert (mosaic(store, 1, "image", grouping=True) == 1).all()
    figures = fit_and_score(Majority(), store, split)
    assert figures["train"] == 20 * 20 * len(select(store, split, "train").indices)


def test_masks_painted_in_colours(folder):
    palette = np.array([[255, 255, 255], [255, 0, 0], [0, 0, 255]], np.uint8)
    for name, mask in MASKS.items():
        write(
            folder / "painted" / f"{name}_m.png",
            palette[mask].transpose(2, 0, 1),
            crs=None,
            driver="PNG",
        )
    classes = {"#ffffff": "ground", "#0000ff": "built", "#ff0000": "built"}
    source = masks(folder, masks="painted/{stem}_m.png", classes=classes).open()
    assert source.contents.label.colours == ("#ffffff", "#0000ff")
    np.testing.assert_array_equal(source.chip(1).label, MASKS["b"] > 0)
    with pytest.raises(ConfigError, match=r"b_m\.png: values outside the class map: #ff0000; add"):
        masks(
            folder, masks="painted/{stem}_m.png", classes={"#ffffff": "g", "#0000ff": "b"}
        ).open().chip(1)
    with pytest.raises(ConfigError, match=r"classes are colours, but the mask has 1 channel"):
        masks(folder, classes=classes).open().chip(0)


def test_the_given_split_is_told_by_folders(tmp_path):
    for part in ("Training", "valid", "test"):
        write(tmp_path / part / "images" / "x.png", IMAGES["a"], crs=None, driver="PNG")
        write(tmp_path / part / "gt" / "x.tif", MASKS["a"], crs=None)
    source = masks(tmp_path, images="*/images/*", masks="{folder}/../gt/{stem}.tif").open()
    assert [source.chip(i).given for i in range(3)] == ["train", "test", "val"]


def test_images_with_a_place_are_grouped_by_squares_of_ground(tmp_path):
    """Two images in one square of 1 km, the third beyond."""
    for name, east in zip(IMAGES, (0, 300, 1100), strict=True):
        write(tmp_path / "images" / f"{name}.tif", IMAGES[name], place(10, 330000 + east))
        write(tmp_path / "masks" / f"{name}.tif", MASKS[name], place(10, 330000 + east))
    given = {"order": ("red", "green", "blue"), "block_m": 1000.0}
    source = masks(tmp_path, **given).open()
    assert [source.chip(i).groups["block"] for i in range(3)] == [0, 0, 1]
    assert source.contents.grounds[2].crs == UTM
    assert source.contents.grounds[2].transform[2] == 331100


def test_unlabelled_and_unobserved_pixels(tmp_path):
    pixels, mask = IMAGES["a"].astype(np.float32), MASKS["a"].copy()
    pixels[:, :4], mask[7] = np.nan, 77
    write(tmp_path / "images" / "a.tif", pixels, crs=None)
    write(tmp_path / "masks" / "a.tif", mask, crs=None, nodata=77)
    source = masks(tmp_path, order=("red", "green", "blue")).open()
    chip = source.chip(0)
    assert np.isnan(source.contents.modalities[0].sensor.nodata)
    np.testing.assert_array_equal(np.isnan(chip.images["image"]), np.isnan(pixels))
    np.testing.assert_array_equal(chip.label == IGNORE, mask == 77)
    write(tmp_path / "masks" / "a.tif", mask, crs=None)
    with pytest.raises(ConfigError, match=r"a\.tif: values outside the class map: 77; add them"):
        source.chip(0)
    label = masks(tmp_path, order=("red", "green", "blue"), others="ignore").open().chip(0).label
    np.testing.assert_array_equal(label == IGNORE, mask == 77)


def says(message: str, folder, **given) -> None:
    with pytest.raises(ConfigError, match=message):
        masks(folder, **given).open()


def test_folders_and_pairs_that_do_not_serve(folder):
    says(r"none: there is no such folder", folder / "none")
    says(r"no image matches 'pictures/\*'; correct", folder, images="pictures/*")
    write(folder / "masks" / "a.tif", MASKS["a"], crs=None)
    says(r"images/a\.png: 2 masks \(masks/a\.png, masks/a\.tif\) at masks/a\.\*", folder)
    (folder / "masks" / "a.tif").unlink()
    (folder / "masks" / "b.png").unlink()
    says(r"images/b\.png: no mask at masks/b\.\*", folder)


def test_images_that_do_not_fit_together(folder):
    write(folder / "images" / "b.png", IMAGES["b"][:, :30], crs=None, driver="PNG")
    says(
        r"images differ in size: images/a.png has 40 x 60 px, images/b.png 30 x 60; give chip",
        folder,
    )
    says(r"b\.png: 30 x 60 px are too few for a chip of 32", folder, chip=32)
    source = masks(folder, chip=30).open()
    with pytest.raises(ConfigError, match=r"b.png: the mask has 40 x 60 px, its image .* 30 x 60"):
        for i in range(len(source)):
            source.chip(i)
    write(folder / "images" / "b.png", IMAGES["b"].astype(np.uint16), crs=None, driver="PNG")
    says(r"images differ: images/a.png is uint8 with .* images/b.png is uint16 with", folder)


def test_blocks_of_ground_need_a_place(folder):
    says(
        r"block_m=1000: the images need a place in one CRS .*; they have none; leave",
        folder,
        block_m=1000.0,
    )


def test_settings_that_contradict_or_make_no_sense(folder):
    for message, given in (
        (r"masks='m/\*' has no \{stem\} in it", {"masks": "m/*"}),
        (r"classes: name at least one", {"classes": {}}),
        (r"'red' is neither a whole number nor a colour", {"classes": {"red": "a"}}),
        (r"give numbers or colours, not both", {"classes": {"1": "a", "#ff0000": "b"}}),
        (r"stride=8 needs a chip", {"stride": 8}),
        (r"1 colours for 3 classes", {"colours": ("#000000",)}),
    ):
        with pytest.raises(ConfigError, match=message):
            masks(folder, **given)


def test_images_are_told_apart_by_what_they_hold(folder, tmp_path_factory):
    """Wherever they lie, so that a map of one is not taken for another's."""
    first = masks(folder).open().origins
    assert len(first) > 1 and all(set(origin) == {"red", "green", "blue"} for origin in first)
    assert len({origin["red"] for origin in first}) == len(first)
    moved = shutil.copytree(folder, tmp_path_factory.mktemp("moved") / "here")
    assert masks(moved).open().origins == first
