"""One update against its definition: clipping, and what a skipped one leaves behind."""

import pytest
import torch
from torch import nn

from swath.nn.norm import BatchNorm2d
from swath.optimizers.sgd import SGD
from swath.parallel.replica import Replica
from swath.parallel.world import World
from swath.train.ema import Average
from swath.train.settings import TrainSettings
from swath.train.state import TrainState
from swath.train.step import train_step
from tests.train.small import Keyed, Squares, weights


def network() -> nn.Module:
    torch.manual_seed(5)
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), BatchNorm2d(4), nn.Conv2d(4, 2, 1)).double()


def steps(
    model: nn.Module, loader: Keyed, *starts: int, average: Average | None = None, **settings
) -> list[dict]:
    """Descend plainly, with rate 1, along the gradients of two microbatches from each start."""
    state = TrainState(model, SGD(lr=1.0, momentum=0.0).build(model), average)
    replica, told = Replica(model, World.alone()), TrainSettings(samples=96, **settings)
    return [
        train_step(
            state,
            [loader.microbatch(start), loader.microbatch(start + 2)],
            Squares().loss,
            replica,
            told,
            4,
            1.0,
        )
        for start in starts
    ]


@pytest.mark.parametrize("share", [0.3, 0.7, 0.99, 1.5])
def test_a_gradient_longer_than_the_limit_is_cut_to_it(share):
    """A plain step is as long as the gradient; with a limit, as the shorter of the two."""
    model = network()
    (free,) = steps(model, Keyed(), 0, clip=None)
    before, model = weights(network()), network()
    (cut,) = steps(model, Keyed(), 0, clip=share * free["grad_norm"])
    assert cut["grad_norm"] == free["grad_norm"]  # as it was, not as it was used
    length = float((weights(model) - before).norm())
    assert length == pytest.approx(min(share, 1.0) * free["grad_norm"], rel=1e-4)


def test_a_skipped_update_leaves_no_trace_in_the_model():
    """Its batch statistics are forgotten too, instead of being folded in with the next ones."""
    skipping, spared = network(), network()
    skipped, _ = steps(skipping, Keyed(spoiled=(1,)), 0, 40, skip_nonfinite=1)
    steps(spared, Keyed(), 40)
    assert skipped["skipped"] == 1
    for name, value in spared.state_dict().items():
        assert torch.equal(skipping.state_dict()[name], value), name


def test_a_finite_loss_with_a_gradient_that_is_none_is_skipped():
    """As the root of 0 has: the loss alone would not tell."""
    model = network()
    state = TrainState(model, SGD(lr=1.0).build(model))
    figures = train_step(
        state,
        [Keyed().microbatch(0)],
        lambda model, _: ((0 * model[0].weight).sum().sqrt(), torch.ones(())),
        Replica(model, World.alone()),
        TrainSettings(samples=96, skip_nonfinite=1),
        4,
        1.0,
    )
    assert figures["loss"] == 0 and figures["skipped"] == 1
    assert torch.equal(weights(model), weights(network()))


def test_the_average_takes_in_all_that_an_update_changes():
    """Weights and batch statistics: after the first update it is the model itself."""
    model = network()
    average = Average(model, samples=100)
    steps(model, Keyed(), 0, average=average)
    for name, value in average.tensors.items():
        torch.testing.assert_close(value, model.state_dict()[name], rtol=1e-12, atol=1e-14)
        assert not torch.equal(value, network().state_dict()[name]), name
