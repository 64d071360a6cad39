"""What a run says when it begins, of one store and of several."""

import types

import pytest
import torch

from swath.batch.size import BatchSize
from swath.data.mix import Also
from swath.data.settings import DataSettings
from swath.data.split import Split
from swath.train.beginning import beginning
from tests.data.test_loader import made
from tests.several import three

UNSCORED = Split(by="random", val=0, test=0.2)


def told(data, validation=True, others=()):
    """The lines of 20 updates of 12 samples."""
    one = torch.nn.Linear(2, 3)
    one.bias.requires_grad_(False)
    mesh = types.SimpleNamespace(degrees=types.SimpleNamespace(pipeline=1))
    trainer = types.SimpleNamespace(
        batch=BatchSize(samples=12, micro=3),
        replica=types.SimpleNamespace(mesh=mesh, model=one),
        loader=data.training(micro=3, seed=0, augment=None),
        validation=validation or None,
        others=dict.fromkeys(others),
    )
    return beginning(trainer, data, 20)


def test_of_several_stores_each_is_told_with_its_passes_and_who_is_not_scored(tmp_path):
    """240 samples: half of them from the first store, which has 18 to train on."""
    s2, l8, s1 = three(tmp_path)
    also = (Also(store=l8, split=UNSCORED), Also(store=s1))
    data = DataSettings(store=s2, weight=2, also=also).open(labels=False, asks={"bands"})
    assert told(data) == [
        "6 parameters, 60 samples to learn from, 20 updates",
        f"{s2}: 18 samples, weight 2 (50% of the microbatches), 6.67 passes over them",
        f"{l8}: 24 samples, weight 1 (25% of the microbatches), 2.5 passes over them; not scored: "
        "it has no validation part",
        f"{s1}: 18 samples, weight 1 (25% of the microbatches), 3.33 passes over them",
    ]
    assert told(data, validation=False, others=["s1"])[1:] == [
        *(line.partition(";")[0] for line in told(data)[1:]),
        f"nothing is scored: {s2}, by which the best weights would be chosen, has no validation "
        "part; s1 has one",
    ]


@pytest.mark.parametrize("label", ["class", "mask"])
def test_of_one_store_samples_without_a_label_to_train_on_are_told(tmp_path, label):
    store = made(tmp_path / "s", samples=20, size=8, bands=3, label=label)
    (line,) = told(DataSettings(store=store, split=UNSCORED).open())
    among = " (those of 20 with a label in the training part)" if label == "mask" else ""
    samples, passes = (17, 14.1) if label == "mask" else (16, 15)
    assert line == (
        f"6 parameters, {samples} samples to learn from{among}, 20 updates, {passes} passes over"
        " them"
    )
