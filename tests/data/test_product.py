"""A product of Sentinel-2 as ESA delivers it is a scene, without a path for each band."""

import numpy as np
import pytest

from swath.config import ConfigError
from swath.data.imagery import Imagery
from tests.geo.rasters import place, write

RNG = np.random.default_rng(0)
NATIVE = {"B02": 10, "B08": 10, "B05": 20, "B8A": 20, "B01": 60}
HAS = {10: ("B02", "B08"), 20: ("B01", "B02", "B05", "B8A"), 60: ("B01", "B02", "B05", "B8A")}
"""Which of these bands level 2A has in which resolution (since baseline 04.00, B01 in 20 m too)."""
TILE = "GRANULE/L2A_T33UUU_A000000_20220601T101559"
SIZE = 120  # m x 10


def jp2(path, pixels, pixel):
    return write(path, pixels, place(pixel), driver="JP2OpenJPEG", QUALITY="100", REVERSIBLE="YES")


@pytest.fixture(scope="module")
def product(tmp_path_factory):
    """The folder of a product, and the pixels of each band by resolution."""
    folder = tmp_path_factory.mktemp("s2") / "S2A_MSIL2A_20220601T101559_T33UUU.SAFE"
    written = {}
    for pixel, bands in HAS.items():
        images = folder / TILE / f"IMG_DATA/R{pixel}m"
        for band in (*bands, "SCL"):
            pixels = RNG.integers(1, 5000, (SIZE // pixel * 10,) * 2, dtype=np.uint16)
            jp2(images / f"T33UUU_20220601T101559_{band}_{pixel}m.jp2", pixels, pixel)
            written[band, pixel] = pixels
    quality = folder / TILE / "QI_DATA"
    jp2(quality / "MSK_QUALIT_B02.jp2", np.ones((SIZE, SIZE), np.uint8), 10)
    return folder, written


def imagery(path, bands=tuple(NATIVE), **given) -> Imagery:
    return Imagery(path=str(path), sensor="sentinel2_l2a", bands=bands, **given)


@pytest.mark.parametrize(
    ("inside", "files"),
    [
        ("", None),
        (f"{TILE}/IMG_DATA", None),
        ("", "GRANULE/*/IMG_DATA/R*m/*_{band}_*m.jp2"),
        (f"{TILE}/IMG_DATA", "**/*_{band}_*.jp2"),
    ],
)
def test_each_band_is_read_as_the_instrument_saw_it(product, inside, files):
    """B02 is there in 10, 20 and 60 m, B01 in 20 and 60: the native file's pixels come back."""
    folder, written = product
    scene = imagery(folder / inside, files=files, resampling="nearest").open()
    assert (scene.height, scene.width) == (SIZE, SIZE)
    pixels = scene.read()
    for band, found in zip(NATIVE, pixels, strict=True):
        step = NATIVE[band] // 10
        native = written[band, NATIVE[band]].repeat(step, 0).repeat(step, 1)
        np.testing.assert_array_equal(found, native)


def test_the_nearest_resolution_serves_where_the_native_one_was_not_copied(product):
    folder, written = product
    scene = imagery(folder, ("B02",), files=f"{TILE}/IMG_DATA/R[26]0m/*_{{band}}_*.jp2").open()
    np.testing.assert_array_equal(scene.read()[0], written["B02", 20])


def test_a_flat_folder_of_the_same_files(product, tmp_path):
    folder, written = product
    for file in folder.glob(f"{TILE}/IMG_DATA/R20m/*_B*.jp2"):
        (tmp_path / file.name).symlink_to(file)
    scene = imagery(tmp_path, ("B05", "B02")).open()
    np.testing.assert_array_equal(scene.read(), [written["B05", 20], written["B02", 20]])


def test_level_1c_has_its_images_in_one_folder(tmp_path):
    folder = tmp_path / "S2A_MSIL1C.SAFE"
    pixels = RNG.integers(1, 5000, (20, 20), dtype=np.uint16)
    jp2(folder / "GRANULE/L1C_T33UUU/IMG_DATA/T33UUU_20220601_B03.jp2", pixels, 10)
    scene = Imagery(path=str(folder), sensor="sentinel2_l1c", bands=("B03",)).open()
    np.testing.assert_array_equal(scene.read()[0], pixels)
    assert scene.name == "S2A_MSIL1C"


def test_metadata_with_another_offset_than_the_sensor_are_noticed(product, caplog):
    """Since baseline 04.00 counts have an offset of -1000; nothing in the pixels tells it."""
    folder, _ = product
    lines = [f'<BOA_ADD_OFFSET band_id="{i}">-1000</BOA_ADD_OFFSET>' for i in range(13)]
    file = folder / "MTD_MSIL2A.xml"
    file.write_text("\n".join(["<list>", *lines, "</list>"]))
    imagery(folder, ("B02",)).open()
    (said,) = caplog.messages
    assert said == (
        f"{file}: BOA_ADD_OFFSET is -1000 counts, but sensor sentinel2_l2a has 0: reflectance "
        "comes out wrong by 0.1; set offset: -0.1 beside sensor"
    )
    caplog.clear()
    imagery(folder, ("B02",), offset=-0.1).open()
    assert not caplog.messages
    file.unlink()


# What a user can do wrong, and what is said.


def says(message: str, path, *bands, **given) -> None:
    with pytest.raises(ConfigError, match=message):
        imagery(path, bands or ("B02",), **given).open()


def test_products_that_cannot_be_read(product, tmp_path):
    folder, _ = product
    says(rf"found none\).*It holds {folder.name}: path may be that folder", folder.parent)
    (tmp_path / "half.SAFE").mkdir()
    says(r"half.SAFE: has no GRANULE/\*/IMG_DATA inside, .*unpack it whole", tmp_path / "half.SAFE")
    for tile in "AB":
        (tmp_path / f"old.SAFE/GRANULE/{tile}/IMG_DATA").mkdir(parents=True)
    says(r"old.SAFE: has 2 tiles; .*such as path: .*GRANULE/A/IMG_DATA", tmp_path / "old.SAFE")
    says(r"no file for band B11 of sentinel2_l2a .*found B02\)", folder, "B02", "B11")


def test_a_pattern_that_hits_files_of_one_resolution_lists_them(product):
    """Which one is meant cannot be known, so each is named with the size of its pixels."""
    says(
        r"band B02 is in 4 files: .*/IMG_DATA/R10m/T33UUU_20220601T101559_B02_10m.jp2 \(10 m\), "
        r".*_B02_20m.jp2 \(20 m\), .*_B02_60m.jp2 \(60 m\), .*MSK_QUALIT_B02.jp2 \(10 m\); choose "
        r"one of them with files: \{B02: .*_10m.jp2, ...\}, or a pattern that only one",
        product[0],
        files="**/*_{band}*.jp2",
    )
