"""What a comparison says of places that pretraining saw: against points on the ground, counted."""

from __future__ import annotations

import dataclasses
import pathlib
import shutil
from dataclasses import dataclass

import numpy as np
import pytest

import swath
from swath.assess import verb
from swath.assess.plan import Plan
from swath.data.build import build
from swath.data.split import Split, select
from swath.data.store import Store
from swath.datasets.synthetic import Synthetic, SyntheticSource


@dataclass(frozen=True, kw_only=True)
class Placed(Synthetic):
    """Invented samples of pixels of ``gsd`` metres, at a corner of ``crs``."""

    crs: str | None = "EPSG:32633"
    corner: tuple[float, float] = (500000.0, 5800000.0)
    gsd: float = 10.0
    lost: int = 0
    """So many of the first samples have no place."""

    def open(self) -> SyntheticSource:
        source = SyntheticSource(self)
        (ground,) = source.contents.grounds
        a = (self.gsd, 0.0, self.corner[0], 0.0, -self.gsd, self.corner[1])
        ground = dataclasses.replace(ground, crs=self.crs, transform=a)
        source.contents = dataclasses.replace(source.contents, grounds=(ground,))
        plain = source.chip

        def chip(index: int):
            found = plain(index)
            return dataclasses.replace(found, where=None) if index < self.lost else found

        source.chip = chip  # type: ignore[method-assign]
        return source


RUN = """\
data: {store: STORE}
batch: {samples: 4, micro: 4}
"""
VIT = "model={kind: vit, width: 8, depth: 1, heads: 1, patch: 4, pool: mean}"
MAE = "model={kind: mae, width: 8, depth: 1, heads: 1, patch: 4, decoder_depth: 1}"
SMALL = {"size": 8, "bands": 2, "label": "class"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Stores of one world, and runs that learned from them: ``here`` alone, and ``both``."""
    path = tmp_path_factory.mktemp("seen")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(path)
        one = Split(by="random", val=0.1, test=0.3)
        build(Placed(samples=40, **SMALL), "here", one, progress=False)
        # The same ground, 6.3 pixels off and larger, in the next zone; and a place far away.
        there = {"crs": "EPSG:32632", "corner": (908560.0, 5817120.0), "gsd": 17.0}
        build(Placed(samples=36, **SMALL, **there), "there", one, progress=False)
        build(Placed(samples=20, **SMALL, corner=(9e5, 5.1e6)), "far", one, progress=False)
        build(Placed(samples=20, **SMALL, lost=7), "lost", one, progress=False)
        build(Placed(samples=20, **SMALL, crs=None), "nowhere", one, progress=False)
        path.joinpath("run.yaml").write_text(RUN)
        learn("blind", "here", MAE, "task={kind: pretrain}")
        learn("both", "far", MAE, "task={kind: pretrain}", "data.also=[{store: here}]")
        learn("told", "far", VIT, "task={kind: classify}")
        learn("then", "far", VIT, "task={kind: classify}", "init.from=runs/blind")
        learn("lost", "lost", MAE, "task={kind: pretrain}")
        learn("nowhere", "nowhere", MAE, "task={kind: pretrain}")
    return path


def learn(name: str, store: str, *words: str) -> None:
    said = ["run.yaml", f"data.store={store}", f"name={name}", "train.samples=4", *words]
    swath.train(swath.load(*said))


def sentences(store: str, *names: str, **models: str) -> list[str]:
    """Return what a comparison on ``store`` would say, of weights by the names of their runs."""
    every = dict(zip(names, names, strict=True)) | models
    named = ", ".join(f"{model}: {{from: 'runs/{name}'}}" for model, name in every.items())
    task = f"[run.yaml, data.store={store}, '{VIT}', 'task={{kind: classify}}']"
    words = [f"models={{scratch: null, {named}}}", f"tasks={{land: {{run: {task}}}}}"]
    return Plan(verb.load(words)).seen


def counted(test: str, trained: str) -> float:
    """Return the share of test windows of which over 1 % lie in training samples: by points, 30 x
    30 in a window, each looked up in the samples of the other store."""
    import rasterio.warp

    mine, other = Store.open(test), Store.open(trained)
    known = other.column("where")[select(other, None, "train").indices]
    (ground,), (theirs,) = mine.contents.grounds, other.contents.grounds
    seen = []
    steps = (np.arange(30) + 0.5) / 30
    for _, row, col, height, width in mine.column("where")[select(mine, None, "test").indices]:
        rows, cols = np.meshgrid(row + steps * height, col + steps * width)
        x = ground.transform[2] + ground.transform[0] * cols.ravel()
        y = ground.transform[5] + ground.transform[4] * rows.ravel()
        x, y = map(np.array, rasterio.warp.transform(ground.crs, theirs.crs, x, y))
        across = (x - theirs.transform[2]) / theirs.transform[0]
        down = (y - theirs.transform[5]) / theirs.transform[4]
        inside = np.zeros(900, bool)
        for _, top, left, h, w in known:
            inside |= (top <= down) & (down < top + h) & (left <= across) & (across < left + w)
        share = inside.mean()
        assert not 0.005 < share < 0.02, "points cannot tell"
        seen.append(share > 0.01)
    return float(np.mean(seen))


def test_the_share_is_what_points_on_the_ground_say(folder, monkeypatch):
    """In another zone, with pixels of another size; alone, among further stores, through weights
    that a run began with, and none of it where nothing was seen."""
    monkeypatch.chdir(folder)
    share = counted("there", "here")
    assert 0.2 < share < 0.9
    told = f"land: of {share:.0%} of the test windows"
    told += " {} has learned from images of the same place, {}."
    without, labels = "without their labels", "with labels of its own training"
    assert sentences("there", "blind", "both", "then", "told") == [
        told.format("blind", without),
        told.format("both", without),
        told.format("then", labels),
        "land: told has learned from no image of the test places.",
    ]


def test_the_test_part_of_its_own_store_was_not_seen(folder, monkeypatch):
    """Its windows meet those of the training part, and no more; under another split they do not."""
    monkeypatch.chdir(folder)
    (own,) = sentences("here", "blind")
    assert own == "land: blind has learned from no image of the test places."
    assert sentences("nowhere", "nowhere")[0].endswith("no image of the test places.")
    test = select(Store.open("here"), Split(by="random", seed=5, val=0.1, test=0.3), "test")
    from swath.assess.seen import share_seen

    train = select(Store.open("here"), None, "train")
    expected = np.isin(test.indices, train.indices).mean()
    assert 0 < expected < 1 and share_seen(test, [train]) == expected


def test_weights_of_several_seeds(folder, monkeypatch):
    monkeypatch.chdir(folder)
    for seed, name in enumerate(("blind", "told", "both")):
        shutil.copytree(f"runs/{name}", f"runs/mae-{seed}")
    assert "land: of up to " in sentences("there", mae="mae-{seed}")[0]


@pytest.mark.parametrize(
    ("store", "name", "why"),
    [
        ("there", "lost", "2 of 11 samples of lost have no place"),
        ("there", "nowhere", "not all stores say where on the Earth they lie"),
        ("nowhere", "blind", "not all stores say where on the Earth they lie"),
        ("there", "file", "there is no model.json of a run beside runs/file.safetensors"),
        ("there", "bare", "there is no settings.yaml of a run beside runs/bare/model.safetensors"),
        ("there", "gone", "its store moved is not there"),
        ("there", "other", "lost is another store than it was then"),
        ("there", "began", "it began with runs/elsewhere, which is not there any more"),
    ],
)
def test_what_is_not_known_is_said(folder, monkeypatch, store, name, why):
    monkeypatch.chdir(folder)
    runs = pathlib.Path("runs")
    if name == "file":
        shutil.copy(runs / "blind/model.safetensors", runs / "file.safetensors")
        name = "file.safetensors"
    elif name not in ("lost", "nowhere", "blind"):
        shutil.copytree(runs / ("then" if name == "began" else "blind"), runs / name)
        settings = runs / name / "settings.yaml"
        text = settings.read_text()
        if name == "bare":
            settings.unlink()
        elif name == "began":
            settings.write_text(text.replace("runs/blind", "runs/elsewhere"))
        else:
            store_now = "moved" if name == "gone" else "lost"
            settings.write_text(text.replace("store: here", f"store: {store_now}"))
    (found,) = sentences(store, m=name)
    begin = "land: whether m has learned from images of the test places is not known: "
    assert found == f"{begin}{why}."
