"""Draws that a key determines: even, unrelated to those of other keys, and always the same."""

import numpy as np
import pytest
import torch
from torch import nn

from swath.nn.random import Draws, Dropout, DropPath, uniform

MANY = 200_000


def words(key: int, count: int) -> np.ndarray:
    """The same draws written in Python's whole numbers."""
    found = []
    for word in range(count):
        for half in (key & 0xFFFFFFFF, key >> 32):
            word = (word ^ half) if half == key & 0xFFFFFFFF else (word + half) & 0xFFFFFFFF
            for shift, factor in ((16, 0x21F0AAAD), (15, 0x735A2D97)):
                word = ((word ^ word >> shift) * factor) & 0xFFFFFFFF
            word ^= word >> 15
        found.append((word >> 8) / 2**24)
    return np.array(found)


@pytest.mark.parametrize("key", [0, 1, 2**32 - 1, 2**63 - 1, 0x0123456789ABCDEF])
def test_draws_are_those_of_whole_numbers(key):
    found = uniform(torch.tensor(key), (7, 3))
    np.testing.assert_array_equal(found.flatten().numpy(), words(key, 21))


@pytest.mark.parametrize("key", [0, 1, 12345678901234567])
def test_draws_are_even_and_not_related(key):
    """To five standard deviations: mean, spread, twenty bins, neighbours, and the next key."""
    draws = uniform(torch.tensor(key), (MANY,)).double()
    close = 5 / MANY**0.5
    assert abs(draws.mean() - 0.5) < close * (1 / 12) ** 0.5
    assert abs(draws.var() - 1 / 12) < close * (1 / 180) ** 0.5
    bins = torch.histc(draws, 20, 0, 1) / MANY
    assert (bins - 0.05).abs().max() < close * (0.05 * 0.95) ** 0.5
    following = uniform(torch.tensor(key + 1), (MANY,)).double()
    above = uniform(torch.tensor(key + 2**32), (MANY,)).double()
    for other in (draws.roll(1), draws.roll(1024), following, above):
        assert abs(torch.corrcoef(torch.stack([draws, other]))[0, 1]) < close


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
