"""Every baseline of the collection on every kind of label, and against scikit-learn by hand."""

import dataclasses
from dataclasses import dataclass

import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier

from swath.baselines import Baseline, Learner, _fit, fit_and_score
from swath.baselines._table import Chosen, Tables, _names
from swath.baselines.forest import Forest
from swath.baselines.linear import Linear
from swath.baselines.majority import Majority
from swath.baselines.persistence import Persistence
from swath.baselines.svm import SVM
from swath.config import ConfigError, find, kinds
from swath.data.build import build
from swath.data.chip import IGNORE, Chip, Contents, Ground, Label, Modality, Where
from swath.data.dataset import Dataset
from swath.data.mosaic import mosaic
from swath.data.sensor import Band, Sensor
from swath.data.split import Split, select
from swath.datasets.synthetic import Synthetic

SPLIT = Split(test=0.3, val=0.1)
MAIN = {
    "class": ("oa", True),
    "mask": ("oa", True),
    "flags": ("map", True),
    "value": ("rmse", False),
    "raster": ("rmse", False),
}


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """A small learnable store of each kind of label, built when first asked for."""
    folder, built = tmp_path_factory.mktemp("stores"), {}

    def store(kind):
        if kind not in built:
            dataset = Synthetic(samples=100, size=8, bands=4, label=kind, classes=3, noise=0.3)
            built[kind] = build(dataset, folder / kind, SPLIT, progress=False)
        return built[kind]

    return store


def small(kind):
    """Return the baseline of ``kind``, small enough for a test."""
    cls = find(Baseline, kind)
    if kind == "persistence":
        return cls(bands=("F0", "F1", "F2"))
    if kind == "forest":
        return cls(trees=10, samples=500)
    return cls(samples=500) if issubclass(cls, Learner) else cls()


@pytest.mark.parametrize("label", MAIN)
@pytest.mark.parametrize("kind", kinds(Baseline))
def test_every_baseline_scores_every_kind_of_label(kind, label, stores):
    """With the figures of the tasks; what learns beats the majority; twice gives the same."""
    store, baseline = stores(label), small(kind)
    if kind == "persistence" and label not in ("value", "raster"):
        with pytest.raises(ConfigError, match="persistence predicts quantities"):
            fit_and_score(baseline, store)
        return
    found = fit_and_score(baseline, store)
    figure, larger = MAIN[label]
    assert found["kind"] == kind and found["part"] == "test" and found["split"] == "block"
    assert 0 < found["fitted"] <= found["train"] and found["scored"] > 0
    assert found["share_touching"] == select(store, SPLIT, "test").share_touching()
    if isinstance(baseline, Learner):
        least = fit_and_score(Majority(), store)[figure]
        assert (found[figure] > least) if larger else (found[figure] < least)
    again = fit_and_score(baseline, store, threads=2)
    assert again == pytest.approx(found, nan_ok=True) and again["name"] == baseline.title


def test_each_step_is_said(stores, monkeypatch):
    """An SVM takes minutes to fit; in a log file nothing else shows that it works."""
    lines = []
    monkeypatch.setattr(_fit.log, "info", lambda text, *given: lines.append(text % given))
    found = fit_and_score(Forest(trees=3, samples=20), stores("mask"))
    assert lines == [
        "forest, pixel: reading the training part",
        f"forest, pixel: fitting on 20 of its {found['train']:,} pixels, 4 features each",
        "forest, pixel: scoring the test part",
    ]


def test_majority_is_the_commonest_class(stores):
    """Its accuracy is that class's share of the test pixels, its balanced accuracy one in three."""
    store = stores("mask")
    found = fit_and_score(Majority(), store)
    train = select(store, SPLIT, "train").counts
    test = select(store, SPLIT, "test").counts
    assert found["oa"] == pytest.approx(test[train.argmax()] / test.sum())
    assert found["balanced"] == pytest.approx(1 / 3) and found["kappa"] == pytest.approx(0)
    assert found["scored"] == test.sum() and found["train"] == train.sum()


def test_forest_equals_scikit_learn_by_hand(stores):
    """On the pixels of the ground, fitted in the order in which they were drawn."""
    store = stores("mask")
    found = fit_and_score(Forest(trees=5, min_leaf=2, per_tree=100), store, seed=4)
    from swath.baselines._table import Sample
    from swath.data.fold import fit

    tables = Tables(store, "pixel", None)
    train, _ = fit(Sample(10**6, 4), tables.shards(select(store, None, "train")))
    forest = RandomForestClassifier(5, min_samples_leaf=2, max_samples=100, random_state=4)
    forest.fit(train.x, train.y)
    image = mosaic(store, 0, "fine")
    label = mosaic(store, 0, "label", select(store, None, "test").indices)
    rows, cols = np.nonzero(label != IGNORE)
    right = forest.predict(image[:, rows, cols].T.astype(np.float32)) == label[rows, cols]
    assert found["oa"] == pytest.approx(right.mean(), abs=1e-12)


def test_persistence_is_the_band_in_its_unit(tmp_path):
    """A band that holds the quantity itself leaves no error but where it was not observed."""
    store = build(Overlapping(), tmp_path / "store", SPLIT, progress=False)
    found = fit_and_score(Persistence(bands=("height",)), store)
    assert found["rmse"] == pytest.approx(0, abs=1e-6) and found["r2"] == pytest.approx(1)
    with pytest.raises(ConfigError, match="no band depth; there are height, other"):
        fit_and_score(Persistence(bands=("depth",)), store)
    with pytest.raises(ConfigError, match=r"for 1 quantities \(height\); name one band for each"):
        fit_and_score(Persistence(bands=("height", "other")), store)


@dataclass(frozen=True, kw_only=True)
class Overlapping(Dataset):
    """Chips of 16 pixels every 8 pixels, of a ground whose first band is its label, in cm."""

    def open(self):
        return OverlappingSource()


class OverlappingSource:
    def __init__(self):
        rng = np.random.default_rng(0)
        self.image = rng.integers(1, 1000, (2, 64, 64)).astype(np.uint16)
        bands = (Band(name="height"), Band(name="other"))
        sensor = Sensor(name="s", bands=bands, scale=0.01, offset=-1.0, nodata=0)
        self.corners = [(r, c) for r in range(0, 49, 8) for c in range(0, 49, 8)]
        self.contents = Contents(
            modalities=(Modality(name="m", sensor=sensor, height=16, width=16, dtype="uint16"),),
            label=Label(kind="raster", classes=("height",), unit="m"),
            grounds=(Ground(name="g", height=64, width=64),),
            groupings=("block",),
            grouped_pixels=("block",),
        )

    def __len__(self):
        return len(self.corners)

    def chip(self, index):
        row, col = self.corners[index]
        part = np.s_[row : row + 16, col : col + 16]
        y, x = np.mgrid[part]
        return Chip(
            name=str(index),
            images={"m": self.image[:, *part]},
            label=(self.image[:1, *part] * 0.01 - 1).astype(np.float32),
            groups={"block": (y // 8 * 8 + x // 8).astype(np.int32)},
            where=Where(0, row, col, 16, 16),
        )


def test_each_pixel_is_a_row_once_however_chips_overlap(tmp_path):
    """And its neighbourhood is whole, though every chip ends within 8 pixels of it."""
    from swath.baselines._features import of_pixels

    store = build(Overlapping(), tmp_path / "store", SPLIT, progress=False)
    tables = Tables(store, "neighbourhood", None)
    shards = [list(tables.shards(select(store, None, p))) for p in ("train", "val", "test")]
    ids = np.concatenate([t.ids for part in shards for t in part])
    np.testing.assert_array_equal(np.sort(ids), np.arange(64 * 64))
    whole = OverlappingSource().image.astype(float)
    for table in (t for part in shards for t in part):
        expected = of_pixels(whole, table.ids // 64, table.ids % 64, "neighbourhood")
        np.testing.assert_allclose(table.x, expected, rtol=1e-6)


def test_strips_change_nothing(tmp_path, monkeypatch):
    """A ground too large for one shard is cut into strips with a margin."""
    from swath.baselines import _table

    store = build(Overlapping(), tmp_path / "store", SPLIT, progress=False)
    train = select(store, None, "train")
    (whole,) = Tables(store, "neighbourhood", None).shards(train)
    monkeypatch.setattr(_table, "_BYTES", 1)
    strips = list(Tables(store, "neighbourhood", None).shards(train))
    assert len(strips) > 2
    for name in ("ids", "x", "y"):
        joined = np.concatenate([getattr(t, name) for t in strips])
        np.testing.assert_allclose(joined, getattr(whole, name), rtol=1e-6)


def test_chosen_bands_are_the_features(stores):
    """A baseline sees what the network sees, no more."""
    store = stores("mask")
    assert Tables(store, "pixel", ("F1", "F3")).problem.columns == ("F1", "F3")
    with pytest.raises(
        ConfigError, match=r"data\.bands: .* has no band 'F9'; there are F0, F1, F2,"
    ):
        fit_and_score(Majority(), store, bands=("F9",))


def test_bands_are_named_and_ordered_as_a_model_takes_them(tmp_path):
    """With its image, as in s2/B02, and features come in the order asked."""
    dataset = Synthetic(samples=20, size=8, bands=2, coarse=2, label="mask", classes=2)
    store = build(dataset, tmp_path / "store", SPLIT, progress=False)
    fine, coarse = (m.name for m in store.contents.modalities)
    band, other = (m.sensor.bands[0].name for m in store.contents.modalities)
    train = select(store, None, "train")

    def columns(*bands):
        tables = Tables(store, "pixel", bands)
        return tables.problem.columns, np.concatenate([t.x for t in tables.shards(train)])

    names, x = columns(f"{coarse}/{other}", f"{fine}/F1", f"{fine}/{band}")
    assert names == (other, "F1", band)
    turned, back = columns(f"{fine}/{band}", f"{fine}/F1", f"{coarse}/{other}")
    assert turned == names[::-1]
    np.testing.assert_array_equal(x, back[:, ::-1])
    assert not np.array_equal(x[:, 1], x[:, 2])


def test_bands_of_one_name_keep_their_images(stores):
    """Else two features would be called alike, and persistence could take either."""
    (modality,) = stores("mask").contents.modalities
    twin = dataclasses.replace(modality, name="twin")
    assert _names([Chosen(modality, [1]), Chosen(twin, [1, 2])]) == ["fine/F1", "twin/F1", "F2"]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Forest(trees=0), "trees=0 must be at least 1"),
        (lambda: SVM(cost=0), "cost=0 and gamma=None must be above 0"),
        (lambda: Linear(penalty=-1.0), "penalty=-1.0 must be above 0"),
        (lambda: SVM(samples=0), "samples=0 must be at least 1"),
    ],
)
def test_settings_that_cannot_be_are_refused(make, said):
    with pytest.raises(ConfigError) as error:
        make()
    assert said in str(error.value)


def test_what_cannot_be_scored_is_said(stores, tmp_path):
    """Balance without classes, a part without samples, a store without labels."""
    with pytest.raises(ConfigError, match="balanced=true has no effect on quantities"):
        fit_and_score(Forest(balanced=True), stores("value"))
    with pytest.raises(ConfigError, match=r"the val part of the split is empty: split.val is 0"):
        fit_and_score(Majority(), stores("mask"), Split(val=0.0), part="val")
    bare = build(Synthetic(samples=9, label="none"), tmp_path / "bare", SPLIT, progress=False)
    with pytest.raises(ConfigError, match="has no labels, so there is no baseline to fit"):
        fit_and_score(Majority(), bare)
