"""The examples of docs/howto/own_part.md do what the page says of them."""

import dataclasses
import pathlib
import re
import sys
import types

import numpy as np
import pytest
import torch

from swath.adapt import Adapt
from swath.config import ConfigError, find
from swath.data.chip import Label
from swath.data.sensor import Band
from swath.datasets.synthetic import Synthetic
from swath.models import Inputs, Model, Outputs
from swath.models.vit import ViT
from swath.optimizers.adamw import AdamW
from swath.parallel.settings import Parallel
from swath.tasks import Task
from swath.tasks.segment import Segment
from swath.train.adapted import heads
from swath.train.dry import lay_out
from tests import laws
from tests.parallel.test_dry import job

PAGE = pathlib.Path(__file__).parents[1] / "docs/howto/own_part.md"


@pytest.fixture(scope="module", autouse=True)
def mylab():
    """A module of the user's own with all that the page shows."""
    module = types.ModuleType("mylab_of_the_page")
    sys.modules[module.__name__] = module
    for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL):
        exec(compile(block, str(PAGE), "exec"), module.__dict__)
    yield
    del sys.modules[module.__name__]


def test_the_model_fits_any_image_and_refuses_other_bands():
    inputs = Inputs(bands=(Band(name="B04"), Band(name="B08")), size=8)
    settings = find(Model, "mylab_of_the_page:PerPixel")(width=4)
    model = settings.build(inputs, Outputs(channels=3, dense=True))
    assert model(torch.zeros(2, 2, 5, 7)).shape == (2, 3, 5, 7)
    with pytest.raises(ConfigError, match=r"has 3 bands, the model was built for 2 \(B04, B08\)"):
        model(torch.zeros(2, 3, 5, 7))
    with pytest.raises(ConfigError, match=r"PerPixel gives an output for every pixel.* resnet"):
        settings.build(inputs, Outputs(channels=3, dense=False))


@pytest.mark.parametrize(
    "law",
    [
        laws.accumulation_changes_nothing,
        laws.resuming_changes_nothing,
        laws.order_changes_no_score,
        laws.loss_and_score_agree,
        laws.prediction_is_of_the_outputs_shape,
    ],
    ids=lambda law: law.__name__,
)
def test_the_task_obeys_the_laws(law):
    task = find(Task, "mylab_of_the_page:Restore")()
    law(laws.Case(task, Label(kind="raster", classes=laws.CLASSES)))


def test_the_task_refuses_other_labels_with_the_tasks_that_fit():
    task = find(Task, "mylab_of_the_page:Restore")()
    with pytest.raises(ConfigError, match=r"Restore learns labels of kind raster; .*segment"):
        task.bind(Label(kind="mask", classes=("a", "b")), np.ones(2))


def test_the_way_of_adapting_lets_biases_and_the_head_learn_alone():
    """What does not learn has no gradient, and the optimiser no group of it."""
    inputs = Inputs(bands=(Band(name="B04"),), size=8)
    outputs, model = Outputs(channels=3, dense=True), ViT(width=8, depth=1, heads=2, patch=4)
    way = find(Adapt, "mylab_of_the_page:Biases")(faster=10)
    network = model.build(inputs, outputs)
    way.fit(network, heads(model, inputs, outputs))
    learning = {name for name, p in network.named_parameters() if p.requires_grad}
    biases = {name for name, _ in network.named_parameters() if name.endswith("bias")}
    idle = {"blocks.0.attn.k.bias"}  # softmax does not heed it, and it never learns
    assert "blocks.0.attn.q.bias" in biases and learning == biases - idle | {"head.weight"}
    assert way.factors(network) == dict.fromkeys(biases, 10)
    groups = AdamW().build(network).param_groups
    assert sum(len(group["params"]) for group in groups) == len(learning)


@pytest.mark.parametrize("axis", ["shard", "tensor", "pipeline"])
def test_the_network_of_hints_is_shared(axis):
    """Two ranks hold about half of it each."""
    deep = find(Model, "mylab_of_the_page:Deep")(width=64)
    contents = Synthetic(size=8, label="mask", classes=3).open().contents

    def held(ranks: int, parallel: Parallel) -> int:
        run = dataclasses.replace(job(parallel, ranks=ranks), model=deep, task=Segment())
        return lay_out(run, contents, ranks).largest.memory.parameters

    assert held(2, Parallel(**{axis: 2})) < 0.6 * held(1, Parallel())


def test_the_network_of_hints_is_one_network_in_all_pieces():
    """Its links in a row are all of its parameters, each in one link; another image is refused."""
    inputs = Inputs(bands=(Band(name="B04"), Band(name="B08")), size=8)
    deep = find(Model, "mylab_of_the_page:Deep")(width=8, depth=3)
    network = deep.build(inputs, Outputs(channels=3, dense=True))
    names = [name for link in network.chain() for name in link.parts]
    parameters = [name for name, _ in network.named_parameters()]
    assert all(sum(p.startswith(f"{n}.") for n in names) == 1 for p in parameters)
    assert network(torch.zeros(2, 2, 5, 7)).shape == (2, 3, 5, 7)
    with pytest.raises(ConfigError, match=r"has 3 bands, the model was built for 2 \(B04, B08\)"):
        network(torch.zeros(2, 3, 5, 7))
