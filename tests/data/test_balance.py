"""How often samples are shown: closed forms for one class a sample, and for several."""

import numpy as np
import pytest

from swath.config import ConfigError
from swath.data.balance import repeats


def one_class_each(sizes):
    return np.eye(len(sizes), dtype=int)[np.repeat(np.arange(len(sizes)), sizes)]


def test_balance_1_shows_every_class_as_often():
    counts = one_class_each([64, 32, 8])
    shown = (repeats(counts, 1.0)[:, None] * counts).sum(0)
    assert shown.tolist() == [256, 256, 256]


def test_balance_in_between_is_a_power():
    """Class sizes 64 and 4: shown 64 * 64^-.5 = 8 to 4 * 4^-.5 = 2, that is 4 to 1."""
    counts = one_class_each([64, 4])
    shown = (repeats(counts, 0.5)[:, None] * counts).sum(0)
    assert shown[0] / shown[1] == 4


def test_a_mixed_sample_counts_by_its_shares():
    """Half of each class: the mean of their weights; how many pixels it has does not matter."""
    counts = np.concatenate([one_class_each([8, 2]) * 50, [[10, 10]]])
    shown = repeats(counts, 1.0)
    sizes = np.array([8.5, 2.5])
    expected = np.array([1 / sizes[0], 1 / sizes[1], (1 / sizes).mean()])
    assert shown[[0, 8, 10]] / shown[0] == pytest.approx(expected / expected[0], rel=1 / 8)


def test_samples_without_labels_are_shown_least():
    shown = repeats(np.array([[5, 0], [5, 0], [0, 1], [0, 0]]), 1.0)
    assert shown[3] == shown.min() == shown[0] and shown[2] == 2 * shown[0]


def test_mistakes_are_clear():
    with pytest.raises(ConfigError, match=r"balance=1.5 must be in 0..1"):
        repeats(one_class_each([1, 1]), 1.5)
    with pytest.raises(ConfigError, match=r"balance=1.0: no sample has a label to balance by"):
        repeats(np.zeros((3, 2), int), 1.0)
