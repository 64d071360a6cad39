"""The average is the closed form of a sum of past weights."""

import math

import pytest
import torch
from torch import nn

from swath.train.ema import Average


def run(average: Average, model: nn.Linear, values: list[float], batch: int) -> None:
    for value in values:
        nn.init.constant_(model.weight, value)
        average.update(model, batch)


def test_early_it_is_the_plain_mean():
    model = nn.Linear(1, 1).double()
    average = Average(model, samples=10**9)
    run(average, model, [1.0, 2.0, 6.0], 4)
    assert average.tensors["weight"].item() == pytest.approx(3.0, rel=1e-12)


def test_late_it_forgets_exponentially_over_its_samples():
    """After a step of the weights from 0 to 1, exp(-n batch / samples) of the old is left."""
    model = nn.Linear(1, 1).double()
    average = Average(model, samples=50)
    run(average, model, [0.0] * 100, 10)
    run(average, model, [1.0] * 7, 10)
    assert average.tensors["weight"].item() == pytest.approx(1 - math.exp(-70 / 50), rel=1e-12)


def test_half_the_batch_twice_forgets_as_much():
    one, two = nn.Linear(1, 1).double(), nn.Linear(1, 1).double()
    coarse, fine = Average(one, samples=50), Average(two, samples=50)
    run(coarse, one, [0.0] * 100 + [1.0] * 5, 10)
    run(fine, two, [0.0] * 200 + [1.0] * 10, 5)
    torch.testing.assert_close(coarse.tensors["weight"], fine.tensors["weight"])


def test_worn_and_taken_off_the_model_has_its_own_weights_again():
    model = nn.BatchNorm2d(2)  # buffers are averaged too, whole numbers are not
    average = Average(model, samples=10)
    with torch.no_grad():
        model.running_mean.fill_(3.0)
        model.num_batches_tracked.fill_(7)
    average.update(model, 10)
    with torch.no_grad():
        model.running_mean.fill_(5.0)
    with pytest.raises(KeyError), average.worn_by(model):
        assert model.running_mean.tolist() == [3.0, 3.0] and model.num_batches_tracked == 7
        raise KeyError
    assert model.running_mean.tolist() == [5.0, 5.0]
    assert average.tensors["running_mean"].tolist() == [3.0, 3.0]
