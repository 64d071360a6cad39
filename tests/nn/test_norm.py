"""Batch statistics: per microbatch in the forward pass, once an update in the running ones."""

import pytest
import torch
from torch import nn

from swath.config import ConfigError
from swath.nn.norm import BatchNorm2d, group_norm
from swath.nn.settle import Update, forget, settle

UPDATE = Update(samples=4, seen=4)


def alone(tensor: torch.Tensor) -> torch.Tensor:
    return tensor


def pair() -> tuple[BatchNorm2d, nn.BatchNorm2d]:
    """Ours and torch's, with the same parameters."""
    mine, theirs = BatchNorm2d(3).double(), nn.BatchNorm2d(3).double()
    torch.manual_seed(0)
    for norm in (mine, theirs):
        nn.init.constant_(norm.weight, 1.5)
        nn.init.constant_(norm.bias, -0.2)
    return mine, theirs


def images(count: int, samples: int = 4) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    shape = (samples, 3, 5, 6)
    return [2 + torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(count)]


def test_one_microbatch_an_update_is_torchs_batch_norm():
    """Outputs, gradients, running statistics and evaluation, over five updates."""
    mine, theirs = pair()
    for image in images(5):
        a, b = image.clone().requires_grad_(), image.clone().requires_grad_()
        torch.testing.assert_close(mine(a), theirs(b), rtol=1e-12, atol=1e-12)
        mine(a).pow(3).sum().backward()
        theirs(b).pow(3).sum().backward()
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-9, atol=1e-9)
        forget(mine)
        theirs.load_state_dict(mine.state_dict())
        mine(image), theirs(image)
        settle(mine, alone, UPDATE)
    torch.testing.assert_close(mine.state_dict(), theirs.state_dict(), rtol=1e-12, atol=1e-12)
    (image,) = images(1)
    torch.testing.assert_close(mine.eval()(image), theirs.eval()(image), rtol=1e-12, atol=1e-12)


def test_running_statistics_move_once_an_update():
    """By momentum times the mean over microbatches of their mean and unbiased variance."""
    mine, _ = pair()
    before = mine.running_mean.clone(), mine.running_var.clone()
    chunks = images(4)
    for chunk in chunks:
        mine(chunk)
    assert torch.equal(mine.running_mean, before[0])  # nothing moves before the update ends
    settle(mine, alone, UPDATE)
    mean = torch.stack([c.mean((0, 2, 3)) for c in chunks]).mean(0)
    var = torch.stack([c.var((0, 2, 3), unbiased=True) for c in chunks]).mean(0)
    torch.testing.assert_close(mine.running_mean, 0.1 * mean, rtol=1e-12, atol=0)
    torch.testing.assert_close(mine.running_var, 0.9 + 0.1 * var, rtol=1e-12, atol=0)
    assert mine.num_batches_tracked == 4


@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
def test_any_number_of_ranks_leaves_the_same_running_statistics(ranks):
    """Five microbatches dealt out; each rank's copy must end where one rank alone ends."""
    chunks = images(5)
    whole, _ = pair()
    for chunk in chunks:
        whole(chunk)
    settle(whole, alone, UPDATE)
    copies = [pair()[0] for _ in range(ranks)]
    gathered = []
    for rank, copy in enumerate(copies):
        for i in range(rank, len(chunks), ranks):
            copy(chunks[i])
        gathered.append(torch.cat([copy.sum_mean, copy.sum_var, copy.passes]))
    for copy in copies:
        settle(copy, lambda _: torch.stack(gathered).sum(0), UPDATE)
        torch.testing.assert_close(copy.state_dict(), whole.state_dict(), rtol=1e-13, atol=1e-13)


def test_folding_at_every_pass_would_depend_on_the_ranks():
    """The negative control: torch's own norm, two ranks of it, disagrees with one."""
    chunks = images(4)
    _, whole = pair()
    _, second = pair()
    for chunk in chunks:
        whole(chunk)
    for chunk in chunks[1::2]:
        second(chunk)
    assert (whole.running_mean - second.running_mean).abs().max() > 0.05


def test_a_skipped_update_leaves_no_trace():
    mine, _ = pair()
    before = {name: value.clone() for name, value in mine.state_dict().items()}
    mine(torch.full((2, 3, 4, 4), float("nan"), dtype=torch.float64))
    forget(mine)
    settle(mine, alone, UPDATE)
    torch.testing.assert_close(mine.state_dict(), before, rtol=0, atol=0)


def test_evaluation_gathers_nothing():
    mine, _ = pair()
    mine.eval()(images(1)[0])
    assert mine.passes == 0 and not mine.sum_mean.any()


def test_sums_are_not_saved():
    """A checkpoint has torchvision's names and nothing else."""
    assert set(BatchNorm2d(2).state_dict()) == set(nn.BatchNorm2d(2).state_dict())


def test_a_model_without_batch_norm_exchanges_nothing():
    def fail(_: torch.Tensor) -> torch.Tensor:
        raise AssertionError("nothing should be summed")

    settle(nn.Sequential(nn.Conv2d(1, 4, 1), group_norm(4)), fail, UPDATE)


def test_statistics_of_one_value_are_refused():
    with pytest.raises(
        ConfigError, match=r"one sample and the feature one pixel; make batch.micro"
    ):
        BatchNorm2d(2)(torch.zeros(1, 2, 1, 1))


@pytest.mark.parametrize("channels, groups", [(32, 8), (12, 4), (6, 2), (7, 1)])
def test_groups_divide_the_channels(channels, groups):
    assert group_norm(channels).num_groups == groups
