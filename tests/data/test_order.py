"""The order of samples: a permutation an epoch, random access, no trace of how it is asked."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swath.config import ConfigError
from swath.data.order import Order


@given(samples=st.integers(1, 3000), seed=st.integers(0, 2**63 - 1), epoch=st.integers(0, 10**6))
@settings(max_examples=60, deadline=None)
def test_every_epoch_shows_every_sample_once(samples, seed, epoch):
    order = Order(samples, seed)
    shown = order.index(np.arange(epoch * samples, (epoch + 1) * samples))
    assert sorted(shown) == list(range(samples))


@given(repeats=st.lists(st.integers(0, 5), min_size=1, max_size=200), seed=st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_samples_are_repeated_as_asked(repeats, seed):
    if not sum(repeats):
        return
    order = Order(len(repeats), seed, np.array(repeats))
    assert order.length == sum(repeats)
    shown = order.index(np.arange(order.length, 2 * order.length))
    assert np.bincount(shown, minlength=len(repeats)).tolist() == repeats


GOLDEN = [1, 5, 2, 6, 7, 0, 8, 4, 3, 9, 2, 0, 9, 1, 4, 3, 8, 6, 7, 5]
GOLDEN_LARGE = [959700408063, 426386834491, 48421290519]


def test_any_position_alone_equals_the_whole():
    """No state: one position, a slice across epochs, or all at once give the same samples."""
    order = Order(101, 5)
    whole = order.index(np.arange(1000))
    assert [int(order.index(p)[0]) for p in range(1000)] == whole.tolist()
    assert (order.index(np.arange(95, 310)) == whole[95:310]).all()
    assert order.epoch(100) == 0 and order.epoch(101) == 1


def test_order_never_changes():
    """A run of today must see the same samples after any update of Swath or NumPy."""
    assert Order(10, 0).index(np.arange(20)).tolist() == GOLDEN
    assert Order(10**12, 3).index(np.array([0, 10**12 - 1, 10**15])).tolist() == GOLDEN_LARGE


@pytest.mark.parametrize("samples", [2, 3, 7, 64, 100])
def test_every_sample_is_as_likely_in_every_place(samples):
    """Over 4,000 epochs, the counts of (place, sample) fit the uniform law (chi-squared)."""
    epochs = 4000
    shown = Order(samples, 11).index(np.arange(epochs * samples)).reshape(epochs, samples)
    counts = np.stack([np.bincount(shown[:, i], minlength=samples) for i in range(samples)])
    chi = ((counts - epochs / samples) ** 2 / (epochs / samples)).sum()
    free = (samples - 1) ** 2
    assert abs(chi - free) < 5 * np.sqrt(2 * free)


def test_all_orders_of_four_occur():
    """Small sets are the hard case of such networks: all 24 orders, about as often."""
    shown = Order(4, 2).index(np.arange(4 * 24_000)).reshape(-1, 4)
    counts = [(shown == np.array(p)).all(1).sum() for p in itertools.permutations(range(4))]
    assert np.abs(np.array(counts) - 1000).max() < 5 * np.sqrt(1000)


def test_neighbours_are_not_neighbours_on_disk():
    """Differences of consecutive samples are those of a random permutation, in mean n / 3."""
    shown = Order(100_000, 4).index(np.arange(100_000))
    assert abs(np.abs(np.diff(shown)).mean() / (100_000 / 3) - 1) < 0.02
    assert abs(np.corrcoef(shown[:-1], shown[1:])[0, 1]) < 5 / np.sqrt(100_000)


def test_seeds_and_epochs_have_orders_of_their_own():
    one = Order(50_000, 1).index(np.arange(100_000))
    two = Order(50_000, 2).index(np.arange(50_000))
    for other in (two, one[50_000:]):
        assert (one[:50_000] == other).sum() < 12  # 1 expected by chance


def test_empty_part_is_a_clear_error():
    with pytest.raises(ConfigError, match=r"no samples to put in order"):
        Order(0, 1)
    with pytest.raises(ConfigError, match=r"repeats must be 3 counts"):
        Order(3, 1, np.array([1, 2]))
