"""Windows around labelled pixels, from every kind of file, grouped so that regions stay whole."""

import pathlib

import numpy as np
import pytest
import scipy.io

from swath.config import ConfigError
from swath.datasets.cube import Cube

INDIAN_PINES = pathlib.Path(__file__).parents[3] / "shared/data/indian_pines"


def small(tmp_path, bands=6):
    draw = np.random.default_rng(0)
    cube = draw.integers(1, 5000, (12, 14, bands)).astype(np.uint16)
    truth = np.zeros((12, 14), np.uint8)
    truth[1:4, 1:4] = truth[7:9, 2:6] = 1  # two regions
    truth[2:6, 8:12] = 3  # one
    np.save(tmp_path / "cube.npy", cube)
    np.save(tmp_path / "truth.npy", truth)
    return cube, truth, str(tmp_path / "cube.npy"), str(tmp_path / "truth.npy")


def test_each_labelled_pixel_is_the_centre_of_its_window(tmp_path):
    """Also at the edge, where the image is mirrored."""
    cube, truth, image, labels = small(tmp_path)
    source = Cube(image=image, labels=labels, window=5, every=2).open()
    assert len(source) == (truth > 0).sum()
    assert source.contents.label.classes == ("class 1", "class 3")
    for i in range(len(source)):
        chip = source.chip(i)
        row, col = (int(v) for v in chip.name.split("_"))
        assert (chip.where.row + 2, chip.where.col + 2) == (row, col)
        np.testing.assert_array_equal(chip.images["cube"][:, 2, 2], cube[row, col, ::2])
        assert {0: 1, 1: 3}[chip.label] == truth[row, col]
    corner = source.chip(0).images["cube"]  # pixel (1, 1): its window reaches 1 beyond the edge
    np.testing.assert_array_equal(corner[0, 0], corner[0, 2])


def test_regions_are_connected_and_of_one_class(tmp_path):
    """A region is what a split keeps whole; min_regions leaves out classes that have too few."""
    _, _, image, labels = small(tmp_path)
    source = Cube(image=image, labels=labels, window=3).open()
    chips = [source.chip(i) for i in range(len(source))]
    of_region = {}
    for chip in chips:
        of_region.setdefault(chip.groups["region"], set()).add(chip.label)
    assert sorted(map(tuple, of_region.values())) == [(0,), (0,), (1,)]
    assert len({c.groups["pixel"] for c in chips}) == len(chips)
    only = Cube(image=image, labels=labels, window=3, min_regions=2).open()
    assert only.contents.label.classes == ("class 1",)
    with pytest.raises(ConfigError, match="no class has 5 regions or more"):
        Cube(image=image, labels=labels, min_regions=5).open()


def test_mat_and_envi_give_the_same_windows_as_npy(tmp_path):
    """The published forms of one scene are the same scene."""
    import rasterio

    cube, truth, _, _ = small(tmp_path)
    scipy.io.savemat(tmp_path / "cube.mat", {"scene": cube, "note": np.zeros((2, 2))})
    scipy.io.savemat(tmp_path / "truth.mat", {"scene_gt": truth})
    with rasterio.open(
        tmp_path / "cube.img", "w", driver="ENVI", dtype="uint16", count=6, height=12, width=14,
        crs="EPSG:32616", transform=rasterio.Affine(20, 0, 500000, 0, -20, 4470000),
    ) as file:  # fmt: skip
        file.write(cube.transpose(2, 0, 1))
    npy, mat, envi = (
        Cube(image=str(tmp_path / i), labels=str(tmp_path / t), window=5).open()
        for i, t in (
            ("cube.npy", "truth.npy"),
            ("cube.mat", "truth.mat"),
            ("cube.hdr", "truth.npy"),
        )
    )
    for i in (0, 7, len(npy) - 1):
        for other in (mat, envi):
            np.testing.assert_array_equal(npy.chip(i).images["cube"], other.chip(i).images["cube"])
            assert npy.chip(i).label == other.chip(i).label
    assert envi.contents.grounds[0].crs == "EPSG:32616"
    assert envi.contents.grounds[0].transform == (20, 0, 500000, 0, -20, 4470000)


def test_mistakes_are_named(tmp_path):
    """Missing and broken files, keys, shapes, classes and sensors."""
    cube, truth, image, labels = small(tmp_path)

    def message(**settings):
        with pytest.raises(ConfigError) as caught:
            Cube(**{"image": image, "labels": labels, **settings}).open()
        return str(caught.value)

    assert "no.npy: there is no such file" in message(image=str(tmp_path / "no.npy"))
    (tmp_path / "torn.npy").write_bytes((tmp_path / "cube.npy").read_bytes()[:90])
    assert "torn.npy: is not a .npy array, or is damaged" in message(
        image=str(tmp_path / "torn.npy")
    )
    scipy.io.savemat(tmp_path / "two.mat", {"a": cube, "b": cube})
    two = str(tmp_path / "two.mat")
    assert "say which variable to read; it has a (12, 14, 6), b (12, 14, 6)" in message(image=two)
    assert "has no variable 'c'" in message(image=two, image_key="c")
    np.save(tmp_path / "wide.npy", truth[:, :9])
    assert "has 12 x 9 pixels, but" in message(labels=str(tmp_path / "wide.npy"))
    assert "label values [3] are outside the class map; 2 classes are named" in message(
        classes=("a", "b")
    )
    assert "has 6 bands, but sensor sentinel2_l1c has 13" in message(sensor="sentinel2_l1c")
    assert "window=4 must be odd" in message(window=4)


@pytest.mark.skipif(not INDIAN_PINES.exists(), reason=f"{INDIAN_PINES} is not there")
def test_indian_pines_has_its_published_counts():
    """10,249 labelled pixels in 16 classes; 8 classes have three regions or more."""
    files = {
        "image": str(INDIAN_PINES / "Indian_pines_corrected.npy"),
        "labels": str(INDIAN_PINES / "Indian_pines_gt.npy"),
        "sensor": "aviris_indian_pines",
    }
    source = Cube(**files).open()
    assert len(source) == 10249
    labels = [source.chip(i).label for i in range(0, len(source))]
    counts = [46, 1428, 830, 237, 483, 730, 28, 478, 20, 972, 2455, 593, 205, 1265, 386, 93]
    assert np.bincount(labels).tolist() == counts
    assert len(Cube(**files, min_regions=3).open().contents.label.classes) == 8
