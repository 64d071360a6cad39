"""Few labels: nested, of every class, the same whoever asks; the other parts stay as they are."""

import numpy as np
import pytest

from swath.baselines import fit_and_score
from swath.baselines.majority import Majority
from swath.config import ConfigError
from swath.data.build import build
from swath.data.few import Few, drawn, fewer
from swath.data.settings import DataSettings
from swath.data.split import NONE, TRAIN, Split, select
from swath.datasets.synthetic import Synthetic
from swath.models.mae import MAE
from swath.settings import Run
from swath.tasks.contrast import Contrast
from swath.tasks.pretrain import Pretrain


@pytest.fixture(scope="module", params=["class", "mask", "flags", "value"])
def store(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("few") / "s"
    dataset = Synthetic(samples=120, size=8, bands=2, label=request.param, unlabelled=0)
    return build(dataset, str(path), Split(by="block", val=0.1, test=0.3), progress=False)


def test_small_shares_are_part_of_large_ones_and_every_class_is_there(store):
    every = select(store, None, "train")
    classes = np.flatnonzero(every.table.counts[every.parts == TRAIN].sum(0))
    for seed in (0, 1, 2):
        one, ten, half, all_ = (fewer(every, Few(share=s, seed=seed)) for s in (0.01, 0.1, 0.5, 1))
        assert set(one.indices) <= set(ten.indices) < set(half.indices) < set(all_.indices)
        assert all_.indices.tolist() == every.indices.tolist()
        assert all_.counts.tolist() == every.counts.tolist()
        assert set(np.flatnonzero(one.counts)) == set(classes)
        assert drawn(half) == len(half.indices) == pytest.approx(len(every.indices) / 2, abs=4)
        assert half.sample_counts().sum(0).tolist() == half.counts.tolist()
    again = fewer(every, Few(share=0.5, seed=2))
    assert again.indices.tolist() == half.indices.tolist()
    assert set(fewer(every, Few(share=0.5, seed=3)).indices) != set(half.indices)


def test_polygons_are_drawn_where_the_split_divides_pixels(tmp_path):
    """Every second row of a sample is a polygon of its own; what is not drawn is masked out."""
    from swath.data.census import Census
    from swath.data.split import GroupTable, Selection

    store = build(Synthetic(samples=4, size=8), str(tmp_path / "s"), Split(by="random", val=0),
                  progress=False)  # fmt: skip
    ids = np.arange(40)
    counts = np.zeros((40, 3), np.int64)
    counts[ids, [0] * 30 + [1] * 9 + [2]] = 5
    table = GroupTable(ids, counts, counts.sum(1))
    rows = Census(ids // 10, ids, table.classes, counts.sum(1))
    parts = np.full(40, TRAIN, np.uint8)
    every = Selection(
        store, Split(by="polygon"), "train", np.arange(4), "polygon", table, parts, rows
    )
    some = fewer(every, Few(share=0.1, seed=1))
    mine = np.flatnonzero(some.parts == TRAIN)
    assert np.bincount(table.classes[mine]).tolist() == [3, 1, 1] and drawn(some) == 5
    assert some.indices.tolist() == sorted(set((mine // 10).tolist()))
    label = np.arange(40).reshape(1, 5, 8) % 3
    shown = some.restrict(label.astype(np.uint8), ids.reshape(1, 5, 8))
    assert sorted(ids.reshape(1, 5, 8)[shown != 255].tolist()) == mine.tolist()
    assert (some.parts == NONE).sum() == 35


def test_training_sees_few_labels_and_statistics_of_all_images(store):
    whole = DataSettings(store=store.path).open()
    few = DataSettings(store=store.path, labels=Few(share=0.1)).open()
    assert few.normalize == whole.normalize
    assert len(few.select("train").indices) < len(whole.select("train").indices) / 4
    for part in ("val", "test"):
        assert few.select(part).indices.tolist() == whole.select(part).indices.tolist()
    seen = {int(i) for b in few.loader("train", micro=1).sweep() for i in b.indices}
    assert seen == set(few.select("train").indices.tolist())
    if store.contents.label.kind == "class":
        found = fit_and_score(Majority(), store, labels=Few(share=0.1))
        assert found["train"] == len(seen)


def test_mistakes_are_told():
    with pytest.raises(ConfigError, match=r"share=1.5 must be above 0 and at most 1, as 0.01"):
        Few(share=1.5)
    data = DataSettings(store="s", labels=Few(share=0.1))
    with pytest.raises(ConfigError, match=r"data.labels has no effect on task.kind=pretrain"):
        Run(data=data, model=MAE(width=16, depth=1, heads=1), task=Pretrain())
    for task in (Pretrain(), Contrast()):
        with pytest.raises(ConfigError, match=r"data.balance=0.5 balances classes, and task.kind="):
            Run(data=DataSettings(store="s", balance=0.5), model=MAE(), task=task)
    Run(data=DataSettings(store="s", balance=0.0), model=MAE(), task=Pretrain())
