"""The page of a masked autoencoder shows what was hidden and what was made of it."""

import base64
import dataclasses
import re

import numpy as np
import pytest
import torch

import swath
from swath.config import ConfigError
from swath.data.split import Split
from swath.report.filled import filled_in
from swath.run import after_training
from swath.tasks.pretrain import Pretrain
from swath.train.export import load_model
from tests import laws

RECIPE = """\
name: filled
build:
  dataset: {kind: synthetic, samples: 30, size: 16, bands: 4, label: none, nodata: 0.2}
  split: {by: random, val: 0.2, test: 0.3}
data: {store: store}
model: {kind: mae, patch: 4, width: 16, depth: 1, heads: 2, decoder_depth: 1, decoder: cross}
task: {kind: pretrain}
batch: {samples: 8, micro: 4}
train: {samples: 16, evaluate_every: 8}
"""
UNTESTED = Split(by="random", val=0.2, test=0)


@pytest.mark.parametrize("normalise", [True, False])
@torch.no_grad()
def test_patches_shown_stand_as_they_are_and_hidden_ones_as_the_network_says(normalise):
    (case,) = (case for case in laws.cases() if isinstance(case.task, Pretrain))
    task = type(case.task)(normalise=normalise).bind(case.label, None, laws.INPUTS)
    model, batch = case.model(0.0), case.batch(range(3))
    batch.valid[:] = True
    image, hidden = task.filled(model, batch)
    _, asked = task.drawn(model, batch)
    assert (hidden.sum((2, 3)) == 4 * asked.shape[1]).all()
    there = ~hidden
    assert torch.equal(image[there], batch.image[there]) and not there.all()
    told = ((image - batch.image)[~there] ** 2).mean()
    if not normalise:
        loss, weight = task.loss(model, batch)
        assert told.item() == pytest.approx((loss / weight).item(), rel=1e-9)


def test_a_run_without_labels_is_scored_and_shown_and_not_mapped(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    run = swath.load("recipe.yaml")
    swath.train(run)
    scores = swath.evaluate(run)["model"]
    assert scores["loss"] > 0 and {"r2", "r2/F0", "share_touching"} <= scores.keys()
    assert swath.evaluate(run)["model"] == scores
    page = swath.report(run).read_text()
    pictures = re.findall(r"data:image/png;base64,([^\"']+)", page)
    assert len(pictures) >= 18 and len({*pictures[:3]}) == 3
    grey = [_share_of_grey(picture) for picture in pictures[:3]]
    assert grey[1] > 0.7 > grey[0] + 0.2
    assert "swath predict" not in page and "Hidden patches filled in by mae, 4 bands" in page

    model, data = load_model(run.place), dataclasses.replace(run.data, split=UNTESTED)
    shown = filled_in(model, data, "fp32", run.compute)
    assert shown["about"].startswith("6 of 6 samples of the val part (there is no test part), spre")
    assert len(shown["shown"]) == 6
    data = dataclasses.replace(data, split=dataclasses.replace(UNTESTED, val=0))
    told = filled_in(model, data, "fp32", run.compute)["about"]
    assert told.startswith("6 of 30 samples of the train part (there is no other), spread")


def test_nothing_is_advised_that_needs_a_test_part(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipe.yaml").write_text(RECIPE.replace("test: 0.3", "test: 0"))
    run = swath.load("recipe.yaml", "train={samples: 8}", "baselines=[{kind: majority}]")
    told = after_training(run, swath.train(run))
    assert told.endswith("\nnext: swath embed runs/filled, swath report runs/filled")
    page = swath.report(run).read_text()
    assert "of the val part (there is no test part)" in page
    assert "swath evaluate" not in page and "swath baseline" not in page
    with pytest.raises(ConfigError, match=r"the split has no test part: split.test is 0; set"):
        swath.evaluate(run)


def _share_of_grey(picture: str) -> float:
    from rasterio.io import MemoryFile

    with MemoryFile(base64.b64decode(picture)) as memory, memory.open() as file:
        pixels = file.read()
    values, counts = np.unique(pixels.reshape(len(pixels), -1), axis=1, return_counts=True)
    alike = (values == values[:1]).all(0)
    return counts[alike].max(initial=0) / counts.sum()
