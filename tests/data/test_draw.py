"""Draws by place: known values, independence of order and company, and the right distributions."""

import numpy as np
import pytest

from swath.config import ConfigError
from swath.data import draw

GOLDEN_BITS = [
    [3053860269586586384, 4973068576080378143],
    [8392253822934296666, 2058573957640049150],
]
GOLDEN_KEY = 6551253006147266160
GOLDEN_NORMAL = [0.5414431679733445, 0.21112000814246676, -0.49665151988510464]


def test_mix_is_splitmix64():
    """The published generator's first outputs for seed 1234567 must come out."""
    counters = np.uint64(1234567) + np.arange(3, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    assert draw.mix(counters).tolist() == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
    ]


def test_draws_never_change():
    """A recipe of today must draw the same numbers after any update of Swath or NumPy."""
    assert draw.bits(7, np.array([0, 123456789]), "flip", 2).tolist() == GOLDEN_BITS
    assert draw.key(7, 5, "dropout") == GOLDEN_KEY
    normal = draw.normal(7, np.array([3]), "noise", 3)[0]
    np.testing.assert_allclose(normal, GOLDEN_NORMAL, rtol=1e-12)


def test_draw_depends_on_its_place_only():
    """Asked alone, in company or with more draws, a place gives the same numbers."""
    places = np.arange(1000)
    together = draw.uniform(1, places, "s", 4)
    backwards = draw.uniform(1, places[::-1], "s", 4)[::-1]
    alone = np.concatenate([draw.uniform(1, places[i : i + 1], "s", 9)[:, :4] for i in places])
    assert (together == backwards).all() and (together == alone).all()


@pytest.mark.parametrize("seed", [0, 1, 2**63 - 1])
def test_uniform_is_uniform_and_uncorrelated(seed):
    """Chi-squared over 100 bins, and no correlation with neighbours in any direction."""
    found = draw.uniform(seed, np.arange(50_000), "s", 4)
    counts = np.histogram(found, 100, (0, 1))[0]
    expected = found.size / 100
    chi = ((counts - expected) ** 2 / expected).sum()
    assert abs(chi - 99) < 5 * np.sqrt(2 * 99)
    others = {
        "next place": found[1:, 0],
        "next draw": found[:-1, 1],
        "next seed": draw.uniform((seed + 1) % 2**63, np.arange(49_999), "s", 1)[:, 0],
        "other stream": draw.uniform(seed, np.arange(49_999), "t", 1)[:, 0],
    }
    for name, other in others.items():
        assert abs(np.corrcoef(found[:-1, 0], other)[0, 1]) < 5 / np.sqrt(49_999), name


def test_every_bit_is_a_fair_coin():
    words = draw.bits(3, np.arange(20_000), "s", 1)[:, 0]
    ones = ((words[:, None] >> np.arange(64, dtype=np.uint64)) & np.uint64(1)).mean(0)
    assert np.abs(ones - 0.5).max() < 5 * 0.5 / np.sqrt(20_000)


def test_normal_is_normal():
    """Moments of the normal distribution: 0, 1, 0, 3; odd counts work."""
    found = draw.normal(5, np.arange(40_000), "noise", 5)
    assert found.shape == (40_000, 5) and np.isfinite(found).all()
    errors = [found.mean(), found.var() - 1, (found**3).mean(), (found**4).mean() - 3]
    assert np.abs(errors).max() < 5 * np.sqrt(96 / found.size)  # sd of the fourth moment


def test_key_fits_torch():
    keys = {draw.key(0, p, "dropout") for p in range(1000)}
    assert len(keys) == 1000 and max(keys) < 2**63


def test_negative_seed_is_refused():
    with pytest.raises(ConfigError, match=r"seed=-1: a seed is a whole number from 0"):
        draw.uniform(-1, np.arange(2), "s")
