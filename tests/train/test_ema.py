"""The average is the closed form of a sum of past weights."""

import math
from unittest import mock

import pytest
import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor

from swath.nn.norm import BatchNorm2d
from swath.parallel.apply import spread
from swath.parallel.mesh import Mesh
from swath.parallel.settings import Parallel
from swath.parallel.world import World
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


def test_a_weight_of_two_names_is_worn_and_taken_off_once():
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    model[1].weight = model[0].weight
    average = Average(model, samples=10)
    nn.init.constant_(model[0].weight, 3.0)
    average.update(model, 10)
    nn.init.constant_(model[0].weight, 5.0)
    for _ in range(2):
        with average.worn_by(model):
            assert (model[1].weight == 3.0).all()
        assert (model[1].weight == 5.0).all()
        assert all((tensor == 3.0).all() for tensor in average.tensors.values())


def averaged(parallel: Parallel) -> dict[str, torch.Tensor]:
    """Return what a model answers with its own and with averaged weights, and the average."""
    world = World.start("cpu") if parallel.fixed > 1 else World.alone()
    torch.manual_seed(2)
    model = nn.Sequential(nn.Conv2d(3, 5, 1), BatchNorm2d(5)).double().eval()
    model = spread(model, Mesh.of(world, parallel), parallel)
    average = Average(model, samples=40)
    image = torch.ones(1, 3, 2, 2, dtype=torch.float64)
    for update in range(4):
        with torch.no_grad():
            for value in model.state_dict().values():
                value.add_(update) if value.is_floating_point() else value.add_(1)
        average.update(model, 10)
    own = model(image)
    with torch.no_grad(), average.worn_by(model):  # gathered weights must not be those of before
        worn = model(image)
    answers = {"own": own, "worn": worn, "after": model(image), **average.tensors}
    return {
        name: (t.full_tensor() if hasattr(t, "full_tensor") else t).detach()
        for name, t in answers.items()
    }


@pytest.mark.parametrize("reshard", [True, False])
def test_on_shards_it_is_the_same_average_and_is_worn_whole(ranks, reshard):
    """Five channels on three ranks; with reshard=false gathered weights stay about."""
    alone = averaged(Parallel())
    assert not torch.allclose(alone["own"], alone["worn"])
    for found in ranks(3, averaged, Parallel(shard=3, reshard=reshard)):
        assert found.keys() == alone.keys()
        for name, expected in alone.items():
            torch.testing.assert_close(found[name], expected)
        assert torch.equal(found["after"], found["own"])


def moved() -> tuple[int, list[float]]:
    """Let an average, of which each update takes another share, take in four while torch must not
    plan operations on shared tensors; return their number and this rank's part."""
    from torch.distributed.tensor._sharding_prop import ShardingPropagator as Plan

    mesh = init_device_mesh("cpu", (2,))
    model = nn.Linear(3, 1, bias=False)
    model.weight = nn.Parameter(distribute_tensor(torch.arange(3.0)[None], mesh, [Shard(1)]))
    average = Average(model, samples=1000)
    with mock.patch.object(Plan, "propagate_op_sharding_non_cached", side_effect=AssertionError):
        for _ in range(4):
            average.update(model, 1)
    return average.updates, average.tensors["weight"].to_local().flatten().tolist()


def test_a_share_that_changes_is_not_planned_anew(ranks):
    """Else each update would cost milliseconds for each shared tensor, and some memory for good."""
    assert ranks(2, moved) == [(4, [0.0, 1.0]), (4, [2.0])]
