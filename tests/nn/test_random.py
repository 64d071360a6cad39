"""Draws inside networks belong to a seed and a name."""

import pytest
import torch
from torch import nn

from swath.nn.random import Draws, Dropout, DropPath


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = Dropout(0.3), Dropout(0.3)
        self.path = DropPath(0.5)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        return [self.first(x), self.second(x), self.path(x)]


def test_a_draw_belongs_to_the_seed_and_the_name():
    model, x = Two(), torch.ones(64, 100)
    draws = Draws(model)
    with draws.keyed(3):
        first, second, path = model(x)
    with draws.keyed(4):
        other = model(x)
    torch.manual_seed(99)  # nothing to do with it
    with Draws(Two()).keyed(3):
        pass
    with draws.keyed(3):
        for again, expected in zip(model(x), (first, second, path), strict=True):
            assert torch.equal(again, expected)
    assert not torch.equal(first, second) and not torch.equal(first, other[0])
    assert {0.0, 2.0} == set(path.unique().tolist()) and (path == path[:, :1]).all()
    assert (first == 0).double().mean().item() == pytest.approx(0.3, abs=0.03)
    assert first.mean().item() == pytest.approx(1.0, abs=0.05)


def test_without_a_key_torch_draws():
    model, x = Two(), torch.ones(8, 8)
    torch.manual_seed(1)
    first = model(x)
    torch.manual_seed(1)
    assert all(map(torch.equal, first, model(x)))
    assert not torch.equal(first[0], model(x)[0])


def compiled() -> int:
    """Compare draws with those of compiled code, traced as one; return how often it was traced."""
    model, x = Two(), torch.ones(8, 8)
    draws, count = Draws(model), torch._dynamo.utils.counters
    torch._dynamo.reset()
    count.clear()
    fast = torch.compile(model.forward, backend="aot_eager", fullgraph=True)
    for seed in range(5):
        with draws.keyed(seed):
            for found, expected in zip(fast(x), model(x), strict=True):
                assert torch.equal(found, expected)
    return count["stats"]["unique_graphs"]


def test_compiled_a_new_key_is_new_draws_and_the_code_the_same(ranks):
    """In a process of its own, whose types are not checked while it runs."""
    assert ranks(1, compiled) == [1]
