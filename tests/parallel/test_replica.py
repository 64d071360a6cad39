"""The gradient of an update does not depend on how its microbatches were dealt out."""

import copy
import dataclasses

import numpy as np
import pytest
import torch
from torch import Tensor

from swath.config import ConfigError
from swath.parallel.apply import spread
from swath.parallel.flat import square
from swath.parallel.mesh import Mesh
from swath.parallel.replica import Replica
from swath.parallel.settings import Parallel
from swath.parallel.world import World
from tests.layouts.following import dealt
from tests.layouts.subjects import BATCH, SUBJECTS
from tests.train.small import Keyed, Squares, network


def gradient(passes: int) -> tuple[Tensor, float, float]:
    world, model, data = World.start("cpu"), network(), Keyed()
    replica = Replica(model, world)
    mine = [data.microbatch(2 * i) for i in range(world.rank, passes, world.ranks)]
    loss, weight = replica.gradients(mine, Squares().loss)
    flat = torch.cat([p.grad.flatten() for p in model.parameters()])
    return flat, loss.item(), weight.item()


def mean_of_means(passes: int) -> Tensor:
    """What averaging over ranks would give."""
    world, model, data = World.start("cpu"), network(), Keyed()
    mine = [data.microbatch(2 * i) for i in range(world.rank, passes, world.ranks)]
    Replica(model, World.alone()).gradients(mine, Squares().loss)
    flat = torch.cat([p.grad.flatten() for p in model.parameters()])
    return world.sum(flat) / world.ranks


@pytest.mark.parametrize("number", [2, 3, 4])
def test_any_number_of_ranks_gives_the_same_gradient(ranks, number):
    """Five microbatches of unequal weight and with drop-out; 4 ranks leave one with two of them."""
    ((alone, loss, weight),) = ranks(1, gradient, 5)
    for shared, shared_loss, shared_weight in ranks(number, gradient, 5):
        torch.testing.assert_close(shared, alone, rtol=1e-12, atol=1e-14)
        assert shared_loss == pytest.approx(loss, rel=1e-12) and shared_weight == weight


def test_a_rank_without_microbatches_takes_part(ranks):
    ((alone, _, _),) = ranks(1, gradient, 2)
    for shared, _, _ in ranks(3, gradient, 2):
        torch.testing.assert_close(shared, alone, rtol=1e-12, atol=1e-14)


def test_a_mean_of_means_is_not_the_gradient(ranks):
    """The negative control: the claims above can fail."""
    ((alone, _, _),) = ranks(1, gradient, 5)
    (wrong, _) = ranks(2, mean_of_means, 5)
    assert (wrong - alone).abs().max() > 1e-3 * alone.abs().max()


def moved(name: str, parallel: dict[str, int]) -> tuple[float, float, str]:
    """Return the gradient's norm before and after a move to the mesh the replica is on, and what a
    move to replicas on the same ranks says."""
    subject, world = SUBJECTS[name], World.start("cpu")
    layout = Parallel(**parallel)
    mesh = Mesh.of(world, layout)
    replica = Replica(spread(subject.network(torch.float64), mesh, layout), mesh)

    def norm() -> float:
        replica.gradients(dealt(subject, 0, mesh, replica.in_step), subject.objective().loss)
        return replica.norm().item()

    before = norm()
    replica.move(Mesh.of(world, layout))
    after, said = norm(), ""
    try:
        replica.move(world)
    except ConfigError as error:
        said = str(error)
    assert bool(said) == (replica.mesh.degrees == mesh.degrees)  # refused, nothing has changed
    return before, after, said


@pytest.mark.parametrize(
    ("name", "axis"),
    [
        ("resnet", "shard"),
        ("vit of 2", "tensor"),
        ("vit of 2", "context"),
        ("vit of 2", "pipeline"),
        ("unet", "spatial"),
    ],
)
def test_a_model_that_is_shared_does_not_move_to_other_ranks(ranks, name, axis):
    """It would go on over the old groups, and its gradient be silently another."""
    for before, after, said in ranks(2, moved, name, {axis: 2}):
        assert after == pytest.approx(before, rel=1e-12)
        assert said.startswith(
            f"parallel: 2 ranks laid out as {axis}=2 cannot go on as 2 laid out as replicate=2: "
            f"{axis}=2 shares the model among ranks"
        )


def astray() -> tuple[str, int]:
    """Return what a move of replicas to a layout that shares says, and the ranks after one to this
    rank alone."""
    world = World.start("cpu")
    replica = Replica(network(), world)
    with pytest.raises(ConfigError) as refused:
        replica.move(Mesh.of(world, Parallel(context=2)))
    replica.move(World.alone())
    return str(refused.value), replica.world.ranks


def test_replicas_move_to_replicas_only(ranks):
    for said, left in ranks(2, astray):
        assert "laid out as replicate=2 cannot go on as 2 laid out as context=2" in said
        assert left == 1


def test_gradient_equals_one_plain_backward_of_the_mean():
    """Without drop-out, against torch over all samples at once."""
    model, data = network(dropout=0.0), Keyed()
    batches = [data.microbatch(2 * i) for i in range(4)]
    plain = copy.deepcopy(model)
    image = torch.cat([b.image for b in batches])
    target = torch.cat([b.target for b in batches])
    known = target.isfinite()
    off = plain(image)[known] - target[known]
    off.square().mean().backward()
    replica = Replica(model, World.alone())
    loss, weight = replica.gradients(batches, Squares().loss)
    assert (loss / weight).item() == pytest.approx(off.square().mean().item(), rel=1e-12)
    for mine, theirs in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-11, atol=1e-14)


def test_modules_of_others_draw_by_the_seed_of_the_microbatch():
    """torch's own drop-out knows no keys; its generator is set for each microbatch."""
    replica, batch = Replica(network(dropout=0.5), World.alone()), Keyed().microbatch(0)
    one, other, again = (
        replica.call(lambda model, b: model(b.image), dataclasses.replace(batch, seed=seed))
        for seed in (3, 4, 3)
    )
    assert torch.equal(one, again) and not torch.equal(one, other)


def test_clipping_equals_torch():
    model, data = network(), Keyed()
    replica = Replica(model, World.alone())
    replica.gradients([data.microbatch(0)], Squares().loss)
    plain = copy.deepcopy(model)
    for mine, theirs in zip(model.parameters(), plain.parameters(), strict=True):
        theirs.grad = mine.grad.clone()
    norm = replica.norm()
    replica.clip(norm, 0.01)
    expected = torch.nn.utils.clip_grad_norm_(plain.parameters(), 0.01)
    torch.testing.assert_close(norm, expected)
    for mine, theirs in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-5, atol=0)


def test_the_norm_of_many_float32_numbers_is_exact():
    """One call of a kernel over all of them loses a thousandth: the second line is the control."""
    vector = torch.from_numpy(np.random.default_rng(0).normal(size=24_000_001).astype(np.float32))
    exact = np.square(vector.double().numpy()).sum()
    assert square(vector).item() == pytest.approx(exact, rel=1e-7)
    assert torch.linalg.vector_norm(vector).item() ** 2 != pytest.approx(exact, rel=1e-4)
    assert square(vector[:5]).item() == pytest.approx(float(vector[:5].double().square().sum()))
    assert square(vector[:0]).item() == 0


def left_behind(name: str) -> tuple[int, int]:
    """Return how many buckets an update has, and how many of them had not left at the end of its
    last backward pass."""
    subject, mesh = SUBJECTS[name], Mesh.of(World.start("cpu"))
    replica = Replica(subject.network(torch.float32), mesh, bucket=10_000)
    flats, left = replica._flats, []
    total = flats.sum
    flats.sum = lambda world: (left.append(len(flats._buckets) - flats._sent), total(world))
    replica.gradients(dealt(subject, 0, mesh, False), subject.objective().loss, BATCH.samples)
    return len(flats._buckets), left[0]


@pytest.mark.parametrize("name", SUBJECTS)
def test_gradients_leave_while_the_backward_pass_goes_on(ranks, name):
    """One parameter without a gradient would hold up its bucket, and all that come after it."""
    for buckets, left in ranks(2, left_behind, name):
        assert buckets > 5 and left == 0


def test_an_update_without_any_label_has_zero_gradient():
    model, data = network(), Keyed()
    batch = data.microbatch(0)
    batch.target.fill_(torch.nan)
    loss, weight = Replica(model, World.alone()).gradients([batch], Squares().loss)
    assert loss.item() == weight.item() == 0
    assert all(torch.equal(p.grad, torch.zeros_like(p)) for p in model.parameters())


@pytest.mark.parametrize("number", [1, 2])
def test_what_an_update_does_not_use_keeps_no_gradient_of_the_one_before(ranks, number):
    """A branch may be taken in some updates only; in the others its gradient is 0."""
    for before, used, unused in ranks(number, by_the_last_bias_alone):
        assert before > 0 and used == number and unused == 0


def by_the_last_bias_alone() -> tuple[float, float, float]:
    """Return a gradient's size in a usual update; then, in one that uses the last layer's bias
    only, the gradient of that and the largest of all others."""
    model, world = network(), World.start("cpu")
    replica, batch = Replica(model, world), Keyed().microbatch(0)
    replica.gradients([batch], Squares().loss)
    before = model[0].weight.grad.abs().max().item()
    replica.gradients([batch], lambda model, _: (model[3].bias[0], torch.tensor(1 / world.ranks)))
    bias, others = model[3].bias, [p for p in model.parameters() if p is not model[3].bias]
    return before, bias.grad[0].item(), max(p.grad.abs().max().item() for p in others)


def test_a_gradient_that_is_not_finite_is_named():
    model, data = network(), Keyed(spoiled=(1,))
    replica = Replica(model, World.alone())
    replica.gradients([data.microbatch(2)], Squares().loss)
    assert replica.not_finite() == []
    model[3].bias.grad[0] = torch.inf
    assert replica.not_finite() == ["3.bias"]
    replica.gradients([data.microbatch(0)], Squares().loss)
    assert "0.weight" in replica.not_finite()
