"""The page of a task that compares views shows them; the run is scored, probed and not mapped."""

import base64
import dataclasses
import re

import swath
import swath.run
from swath.data.mix import Also
from swath.nn.projector import Projector
from swath.report.viewed import viewed
from swath.run import after_training
from swath.train.export import load_model

RECIPE = """\
name: views
build:
  dataset: {kind: synthetic, samples: 40, size: 16, bands: 3, label: class, nodata: 0.1}
  split: {by: random, val: 0.2, test: 0.3}
data: {store: store}
augment: {flips: true, blur: 0.5}
model: {kind: vit, patch: 4, width: 16, depth: 1, heads: 2, pool: mean, positions: waves}
task: {kind: contrast, hidden: [16], width: 8, views: {global: {size: 12}}}
batch: {samples: 8, micro: 4}
train: {samples: 32, evaluate_every: 16}
"""

LABELLED = """\
name: labelled
init: {from: runs/views}
data: {store: store}
model: {kind: vit, patch: 4, width: 16, depth: 1, heads: 2, pool: mean, positions: waves}
task: {kind: classify}
batch: {samples: 8, micro: 4}
train: {samples: 8}
"""

OTHER = ("build.dataset.seed=1", "build.split={by: random, val: 0, test: 0}")


def test_a_run_that_compares_views_from_store_to_report(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    run = swath.load("recipe.yaml")
    figures = swath.train(run)
    assert "swath predict" not in after_training(run, figures)
    scores = swath.evaluate(run)["model"]
    assert {"loss", "top1", "alignment", "uniformity", "share_touching"} <= scores.keys()
    assert 0 < scores["loss"] < 4 and 0 <= scores["top1"] <= 1
    assert swath.evaluate(run)["model"] == scores
    page = swath.report(run).read_text()
    pictures = re.findall(r"data:image/png;base64,([^\"']+)", page)
    assert len(set(pictures[:18])) == 18 and "as they are compared" in page
    assert "swath predict" not in page

    model = load_model(run.place)
    assert isinstance(model.network.head, Projector)
    shown = viewed(model, run.data, run.augment)
    assert [p["name"] for p in shown["shown"][0]["pictures"]] == ["image", "view 1", "view 2"]
    first = shown["shown"][0]["pictures"][0]["uri"].removeprefix("data:image/png;base64,")
    assert base64.b64decode(first) == base64.b64decode(pictures[0])

    swath.run.build(swath.load("recipe.yaml", "data.store=other", *OTHER), progress=False)
    both = dataclasses.replace(run.data, also=(Also(store="other"), Also(store="gone")))
    shown = viewed(model, both, run.augment)
    captions = [one["caption"] for one in shown["shown"]]
    assert captions == ["store, test"] * 3 + ["other, train"] * 3
    assert shown["about"].startswith("6 of 52 samples of the test and train parts, spread evenly")

    (tmp_path / "labelled.yaml").write_text(LABELLED)
    with caplog.at_level("INFO", "swath"):
        swath.train(swath.load("labelled.yaml"))
    table = caplog.text.split("begun with the weights of")[1]
    assert re.search(r"left out +6: head\.\* \(6\)", table)
    assert re.search(r"new +2: head.weight, head.bias", table)
    features = swath.embed(run)  # of the layer before the projector
    assert features.width == 16
