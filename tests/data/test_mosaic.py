"""Samples put back on their ground are the ground; pictures show every class and part."""

import dataclasses

import matplotlib.image
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from swath.config import ConfigError
from swath.data.build import build
from swath.data.chip import IGNORE
from swath.data.mosaic import mosaic
from swath.data.picture import chips_picture, part_map, split_picture
from swath.data.sensor import Band
from swath.data.split import PARTS, Split, select
from swath.data.stats import unplain
from swath.data.stretch import _lightened, colour_bands, limits_of, shown, stretch, stretched
from swath.datasets.cube import Cube
from swath.datasets.synthetic import Synthetic


def synthetic(folder, split=None, **settings):
    dataset = Synthetic(**{"samples": 14, "size": 16, "bands": 3, **settings})
    return build(dataset, folder, split or Split(by="random"), progress=False)


def cube(folder, window=5):
    draw = np.random.default_rng(0)
    image = draw.integers(1, 5000, (20, 24, 4)).astype(np.uint16)
    truth = np.zeros((20, 24), np.uint8)
    for i, (row, col) in enumerate([(0, 0), (0, 12), (11, 0), (11, 12)]):
        truth[row : row + 9, col : col + 11] = i % 2 + 1
    np.save(folder / "image.npy", image)
    np.save(folder / "truth.npy", truth)
    dataset = Cube(image=str(folder / "image.npy"), labels=str(folder / "truth.npy"), window=window)
    split = Split(by="region", val=0.0, test=0.5)
    return image, truth, build(dataset, folder / "s", split, progress=False)


def test_the_mosaic_of_synthetic_samples_is_their_ground(tmp_path):
    """14 samples in 4 columns: the last row of the ground has two holes."""
    store = synthetic(tmp_path / "s", coarse=1)
    source = Synthetic(samples=14, size=16, bands=3, coarse=1).open()
    image, label = (mosaic(store, 0, what) for what in ("fine", "label"))
    group = mosaic(store, 0, "patch", grouping=True)
    coarse = mosaic(store, 0, "coarse")
    assert image.shape == (3, 64, 64)
    for i in range(14):
        chip = source.chip(i)
        here = np.s_[..., i // 4 * 16 : i // 4 * 16 + 16, i % 4 * 16 : i % 4 * 16 + 16]
        np.testing.assert_array_equal(image[here], chip.images["fine"])
        np.testing.assert_array_equal(label[here], chip.label)
        np.testing.assert_array_equal(group[here], chip.groups["patch"])
        np.testing.assert_array_equal(coarse[here][:, ::2, 1::2], chip.images["coarse"])
    assert (image[:, 48:, 32:] == 0).all()
    assert (label[48:, 32:] == IGNORE).all()
    assert (group[48:, 32:] == -1).all()


def test_windows_put_back_give_the_cube_and_its_ground_truth(tmp_path):
    """A window's label is its centre's; windows that reach over the edge are cut there."""
    image, truth, store = cube(tmp_path)
    label = mosaic(store, 0, "label")
    np.testing.assert_array_equal(label, np.where(truth > 0, truth - 1, IGNORE))
    back = mosaic(store, 0, "cube")
    covered = (back != 0).all(0)
    assert covered.sum() > (truth > 0).sum()
    np.testing.assert_array_equal(back[:, covered], image.transpose(2, 0, 1)[:, covered])
    region = mosaic(store, 0, "region", grouping=True)
    assert len(np.unique(region[truth > 0])) == 4


def test_windows_that_touch_training_centres_are_found(tmp_path):
    """Regions 3 pixels apart: of 7 x 7 windows, only those at the facing edges reach over."""
    _, truth, store = cube(tmp_path, window=7)
    test, train = (select(store, None, part) for part in ("test", "train"))
    trained = np.zeros(truth.shape, bool)
    for index in train.indices:
        _, row, col, _, _ = store.column("where")[index]
        trained[row + 3, col + 3] = True
    hits = []
    for index in test.indices:
        _, row, col, height, width = store.column("where")[index]
        hits.append(trained[max(row, 0) : row + height, max(col, 0) : col + width].any())
    assert 0 < np.mean(hits) < 1
    assert test.share_touching() == pytest.approx(np.mean(hits))
    alone = select(store, Split(by="random", val=0.0, test=0.5), "test")
    assert alone.share_touching() > 0.95


def test_what_cannot_be_mapped_is_said(tmp_path):
    """Values have no place per pixel; unknown grounds and modalities are named."""
    store = synthetic(tmp_path / "s", label="value")
    with pytest.raises(ConfigError, match="a label of kind value cannot be shown on a map"):
        mosaic(store, 0, "label")
    with pytest.raises(ConfigError, match="has no ground 3"):
        mosaic(store, 3, "fine")
    with pytest.raises(ConfigError, match="no modality 'fin'"):
        mosaic(store, 0, "fin")


@pytest.mark.parametrize("by", ["patch", "block", "random"])
def test_the_part_map_has_the_counts_of_the_selections(tmp_path, by):
    """What the picture shows is what is trained and tested on."""
    store = synthetic(tmp_path / "s", Split(by=by), unlabelled=0.3)
    parts = {part: select(store, None, part) for part in PARTS}
    found = part_map(store, 0, parts)
    for part, number in PARTS.items():
        assert (found == number).sum() == parts[part].size


@pytest.mark.parametrize("label", ["class", "flags", "mask", "value", "raster", "none"])
def test_pictures_are_drawn_for_every_kind_of_label(tmp_path, label):
    """They open as images and are not blank."""
    store = synthetic(tmp_path / "s", label=label, nodata=0.3)
    for draw in (chips_picture, split_picture):
        draw(store, tmp_path / "x.png")
        picture = matplotlib.image.imread(tmp_path / "x.png")
        assert picture.shape[0] > 200
        assert picture[..., :3].std() > 0.05


@pytest.mark.parametrize("label", ["class", "flags", "mask"])
def test_a_picture_says_which_sample_is_which(tmp_path, monkeypatch, label):
    """By the name that messages and the store's column have, above the class, if it has one."""
    store = synthetic(tmp_path / "s", label=label)
    titles = []
    monkeypatch.setattr(Axes, "set_title", lambda axis, text, **style: titles.append(text))
    monkeypatch.setattr(Figure, "savefig", lambda *given, **style: None)
    chips_picture(store, tmp_path / "x.png", n=5)
    names = [text.split("\n")[0] for text in titles]
    assert len(set(names)) == 5 and set(names) <= set(store.column("name").tolist())
    if label == "class":
        assert {text.split("\n")[1] for text in titles} <= {*store.contents.label.classes}


def test_chips_of_many_classes_are_drawn(tmp_path, monkeypatch):
    """Of masks; the line above the chips says among which, and that others have no label there."""
    store = synthetic(tmp_path / "s", Split(by="patch"), samples=40, size=8, unlabelled=0.9)
    titles, heads = [], []
    monkeypatch.setattr(Axes, "set_title", lambda axis, text, **style: titles.append(text))
    monkeypatch.setattr(Figure, "suptitle", lambda figure, text, **style: heads.append(text))
    monkeypatch.setattr(Figure, "savefig", lambda *given, **style: None)
    chips_picture(store, tmp_path / "x.png", n=3)
    train = select(store, None, "train")
    classes = (train.sample_counts() > 0).sum(1)
    names = store.column("name")[train.indices].tolist()
    drawn = [classes[names.index(title)] for title in titles]
    quarter = len(classes) // 4
    assert len(drawn) == 3 and min(drawn) >= np.sort(classes)[-quarter] > classes.min()
    whole = len(train.indices)
    assert heads[0].startswith(
        f"train: 3 of {whole} samples with a label in it, among the {quarter} with most classes; "
    )
    first = [*titles]
    titles.clear()
    chips_picture(store, tmp_path / "x.png", n=3)
    assert titles == first


def test_a_dark_scene_is_as_bright_as_its_own_pixels_allow(tmp_path):
    """Every second sample is of a scene a twentieth as bright: between the limits of all of them it
    would be black."""

    class Two(Synthetic):
        def open(self):
            source = super().open()
            chip, (ground,) = source.chip, source.contents.grounds
            source.contents = dataclasses.replace(source.contents, grounds=(ground, ground))

            def darker(index):
                found = chip(index)
                where = dataclasses.replace(found.where, ground=index % 2)
                image = found.images["fine"] // (1 + 19 * (index % 2))
                return dataclasses.replace(found, where=where, images={"fine": image})

            source.chip = darker
            return source

    dataset = Two(samples=20, size=16, bands=3, label="none")
    store = build(dataset, tmp_path / "s", Split(by="random"), progress=False)
    (modality,) = store.contents.modalities
    read = store.read(np.arange(20), ("fine",)).result()["fine"]
    bands = [modality.sensor.names.index(name) for name in colour_bands(modality.sensor)]
    limits = limits_of(store, modality, np.array([0, 1]))
    for place, own in enumerate((read[::2], read[1::2])):
        low, middle, high = np.percentile(own[:, bands], (2, 50, 98), axis=(0, 2, 3))
        np.testing.assert_allclose(limits[place, :, :2], np.stack([low, high], 1))
        (power,) = set(limits[place, :, 2].tolist())
        share = ((middle - low) / (high - low)).mean()
        assert power == pytest.approx(min(1, np.log(0.35) / np.log(share)))
        image = own[0]
        assert picture_mean(image, modality, limits[place]) > 0.25
    assert picture_mean(read[1], modality, limits[0]) < 0.02
    told = "each colour from the 2 % to the 98 % value of the {}, lightened where that is dark"
    assert stretch(store) == told.format("scene")
    one = synthetic(tmp_path / "one")
    stats = unplain(one.attributes["stats"])["fine"]
    (known,) = limits_of(one, one.modality("fine"), np.array([3]))
    assert known[0, :2].tolist() == [stats[bands[0]].p02, stats[bands[0]].p98]
    assert stretch(one) == told.format("training part")


def test_a_scene_that_is_dark_but_for_some_sand_is_lightened():
    """Its median, a tenth of the way to its brightest, is shown at 0.35; not beyond the
    power of 0.4, and what is bright enough stays as it is."""
    image = np.array([[[0, 50, 1000]]] * 3)
    seen = np.ones((1, 3), bool)
    for middle, power, brightness in ((100, 0.456, 0.35), (10, 0.4, 0.158), (600, 1, 0.6)):
        image[:, 0, 1] = middle
        limits = _lightened(np.array([[0, middle, 1000]] * 3))
        assert limits[:, 2] == pytest.approx(power, abs=1e-3)
        found = stretched(image, seen, limits)[0, :, 0]
        assert found == pytest.approx([0, brightness, 1], abs=1e-3)


def picture_mean(image, modality, limits) -> float:
    return float(np.mean(shown(image, modality, limits)))


def test_of_a_store_without_labels_no_counts_are_drawn(tmp_path, monkeypatch):
    drawn, keys = [], []
    monkeypatch.setattr(Axes, "barh", lambda *given, **style: drawn.append(1))
    monkeypatch.setattr(
        Figure,
        "legend",
        lambda figure, handles, **style: keys.extend(h.get_label() for h in handles),
    )
    monkeypatch.setattr(Figure, "savefig", lambda *given, **style: None)
    split_picture(synthetic(tmp_path / "none", label="none"), tmp_path / "x.png")
    assert not drawn and keys == ["train: 10 samples", "val: 1 sample", "test: 3 samples"]
    split_picture(synthetic(tmp_path / "class", label="class"), tmp_path / "x.png")
    assert drawn


def test_colours_are_true_false_or_asked_for():
    """False colour puts near infrared first."""
    source = Synthetic(bands=10).open()
    (modality,) = source.contents.modalities
    assert colour_bands(modality.sensor) == ("F2", "F1", "F0")
    assert colour_bands(modality.sensor, "false") == ("F8", "F4", "F2")  # 850, 650, 550 nm
    assert colour_bands(modality.sensor, ("F9",)) == ("F9",)
    with pytest.raises(ConfigError, match="no band 'F99'"):
        colour_bands(modality.sensor, ("F99",))
    bare = dataclasses.replace(modality.sensor, colour=())
    assert colour_bands(bare) == ("F4", "F2", "F1")  # 650, 550, 500 nm
    grey = dataclasses.replace(bare, bands=(Band(name="a"), Band(name="b")))
    assert colour_bands(grey) == ("a",)


def test_a_picture_is_stretched_between_percentiles_and_grey_where_nothing_was_seen():
    """By given limits, or by the observed pixels' own; both for three bands and for one."""
    image = np.stack([np.arange(100.0).reshape(10, 10)] * 3)
    seen = np.ones((10, 10), bool)
    image[:, 0, 0], seen[0, 0] = 1e9, False  # must not count
    for bands in (image, image[:1]):
        own = stretched(bands, seen)
        low, high = np.percentile(np.arange(1, 100), (2, 98))
        np.testing.assert_allclose(own[5, 5], (55 - low) / (high - low), rtol=1e-5)
        given = stretched(bands, seen, np.array([[0, 110]] * len(bands)))
        np.testing.assert_allclose(given[5, 5], 0.5, rtol=1e-6)
        assert (own[0, 0] == given[0, 0]).all() and 0.8 < own[0, 0, 0] < 0.9
