"""Every file of optimizers/ goes through the same claims; the two that ship, through torch's."""

import copy

import pytest
import torch
from torch import nn

from swath.config import ConfigError, find, kinds
from swath.optimizers import Optimizer
from swath.optimizers.adamw import AdamW
from swath.optimizers.sgd import SGD


class Small(nn.Module):
    """A linear layer, a norm, and a position embedding stored as (places, width)."""

    def __init__(self):
        super().__init__()
        self.pos_embed = nn.Parameter(torch.randn(3, 4))
        self.first = nn.Linear(4, 4)
        self.norm = nn.LayerNorm(4)
        self.last = nn.Linear(4, 1)

    def forward(self, x):
        return self.last(self.norm(self.first(x)) + self.pos_embed.mean(0))


def small() -> Small:
    torch.manual_seed(0)
    return Small().double()


def advance(model, optimizer, updates=5):
    generator = torch.Generator().manual_seed(1)
    for _ in range(updates):
        x = torch.randn(8, 4, generator=generator, dtype=torch.float64)
        optimizer.zero_grad()
        (model(x) - x.sum(1, keepdim=True)).square().mean().backward()
        optimizer.step()


@pytest.mark.parametrize("kind", kinds(Optimizer))
def test_every_optimiser_learns_and_carries_names(kind):
    """The loss must fall, each parameter must be in one group, and each must move."""
    model = small()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = find(Optimizer, kind)(lr=0.01).build(model)
    named = [name for group in optimizer.param_groups for name in group["param_names"]]
    assert sorted(named) == sorted(before)
    assert {group["name"] for group in optimizer.param_groups} == {"decayed", "free"}
    x = torch.randn(64, 4, dtype=torch.float64)

    def loss() -> float:
        return (model(x) - x.sum(1, keepdim=True)).square().mean().item()

    start = loss()
    advance(model, optimizer, updates=100)
    assert loss() < 0.5 * start
    assert all(not torch.equal(p, before[name]) for name, p in model.named_parameters())


@pytest.mark.parametrize("kind", kinds(Optimizer))
def test_only_weights_are_decayed(kind):
    """With no gradient, only decay moves: weights of layers yes; norms, biases, positions no."""
    model = small()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = find(Optimizer, kind)(lr=0.1, weight_decay=0.1).build(model)
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {"first.weight", "last.weight"}


@pytest.mark.parametrize("kind", kinds(Optimizer))
def test_saved_and_loaded_it_goes_on_unbroken(kind):
    settings = find(Optimizer, kind)(lr=0.01)
    model = small()
    optimizer = settings.build(model)
    advance(model, optimizer)
    other = copy.deepcopy(model)
    resumed = settings.build(other)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    advance(model, optimizer)
    advance(other, resumed)
    for mine, theirs in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_frozen_parameters_are_left_out():
    model = small()
    model.first.requires_grad_(False)
    optimizer = AdamW().build(model)
    named = {name for group in optimizer.param_groups for name in group["param_names"]}
    assert named == {"pos_embed", "norm.weight", "norm.bias", "last.weight", "last.bias"}


def test_adamw_is_the_published_update():
    """Two steps by hand from Algorithm 2 of Loshchilov & Hutter, with the paper's symbols."""
    theta, m, v = torch.tensor([[0.5, -1.0]], dtype=torch.float64), 0.0, 0.0
    model = nn.Linear(2, 1, bias=False).double()
    model.weight.data.copy_(theta)
    optimizer = AdamW(lr=0.01, betas=(0.8, 0.9), eps=1e-6, weight_decay=0.1).build(model)
    for t, g in enumerate(torch.tensor([[[1.0, 2.0]], [[-3.0, 0.5]]], dtype=torch.float64), 1):
        model.weight.grad = g.clone()
        optimizer.step()
        m, v = 0.8 * m + 0.2 * g, 0.9 * v + 0.1 * g**2
        step = (m / (1 - 0.8**t)) / ((v / (1 - 0.9**t)).sqrt() + 1e-6)
        theta = theta - 0.01 * (step + 0.1 * theta)
        torch.testing.assert_close(model.weight.data, theta, rtol=1e-12, atol=0)


def test_fused_adamw_differs_by_rounding_only():
    plain, fused = small(), small()
    advance(plain, AdamW(lr=0.01).build(plain))
    advance(fused, AdamW(lr=0.01, fused=True).build(fused))
    for mine, theirs in zip(plain.parameters(), fused.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("kind", kinds(Optimizer))
def test_all_parameters_together_differ_by_rounding_only(kind):
    """What torch chooses on a GPU; on a CPU it goes through them one by one."""
    one_by_one, together = small(), small()
    plain, foreach = (find(Optimizer, kind)(lr=0.01).build(m) for m in (one_by_one, together))
    assert all(group["foreach"] is None for group in plain.param_groups)
    for group in foreach.param_groups:
        group["foreach"] = True
    advance(one_by_one, plain)
    advance(together, foreach)
    for mine, theirs in zip(one_by_one.parameters(), together.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-13)


def test_momentum_is_a_running_sum_of_gradients():
    """A constant gradient g moves by lr * g * (1 + (1 + mu) + ...)."""
    model = nn.Linear(1, 1, bias=False).double()
    model.weight.data.fill_(0.0)
    optimizer = SGD(lr=0.1, momentum=0.5).build(model)
    for _ in range(3):
        model.weight.grad = torch.ones(1, 1, dtype=torch.float64)
        optimizer.step()
    assert model.weight.item() == pytest.approx(-0.1 * (1 + 1.5 + 1.75), rel=1e-12)


@pytest.mark.parametrize(
    "cls, settings, message",
    [
        (AdamW, {"lr": 0}, "lr=0 .* must be positive"),
        (AdamW, {"betas": (0.9, 1.0)}, r"betas=\[0.9, 1.0\]: each must be"),
        (SGD, {"lr": -1}, "lr=-1 must be positive"),
        (SGD, {"momentum": 1.0}, "momentum=1.0 must be"),
        (SGD, {"momentum": 0.0, "nesterov": True}, "nesterov=true has no effect with momentum=0"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(cls, settings, message):
    with pytest.raises(ConfigError, match=message):
        cls(**settings)
