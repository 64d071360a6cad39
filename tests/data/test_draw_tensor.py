"""Draws that a key determines: even, unrelated to those of other keys, and always the same."""

import numpy as np
import pytest
import torch

from swath.data.draw_tensor import normal, uniform

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


def test_normal_draws_have_the_moments_of_a_normal():
    draws = normal(torch.tensor(7), (MANY,)).double()
    close = 5 / MANY**0.5
    for power, moment, spread in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs((draws**power).mean() - moment) < close * spread**0.5
    assert torch.isfinite(draws).all()
