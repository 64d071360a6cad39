"""The examples of docs/howto/own_part.md do what the page says of them."""

import pathlib
import re
import sys
import types

import numpy as np
import pytest
import torch

from swath.config import ConfigError, find
from swath.data.chip import Label
from swath.data.sensor import Band
from swath.models import Inputs, Model, Outputs
from swath.tasks import Task
from tests import laws

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
