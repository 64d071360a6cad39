"""Accuracy of maps, against the worked example of the paper and against scikit-learn."""

import numpy as np
import pytest

from swath.config import ConfigError
from swath.predict.accuracy import area_adjusted, confusion, users_and_producers

# Olofsson et al. 2014, table 8: rows are the map (deforestation, forest gain, stable forest,
# stable non-forest), columns the reference; mapped area in Landsat pixels of 0.09 ha.
COUNTS = np.array([[66, 0, 5, 4], [0, 55, 8, 12], [1, 0, 153, 11], [2, 1, 9, 313]])
MAPPED = np.array([200_000, 150_000, 3_200_000, 6_450_000])

Z95 = 1.96  # half a 95 % confidence interval in standard errors


def test_the_worked_example_of_olofsson_2014():
    """The printed figures, with their 95 % intervals.

    Left out are the intervals of two producer's accuracies, forest gain (0.23) and stable
    non-forest (0.01): the paper's own formula gives 0.25 and 0.018, and the tests of another
    implementation (acc_assessment) leave the same two out. The formula itself is checked by
    repeated sampling below."""
    found = area_adjusted(COUNTS.T, MAPPED)
    assert found.overall == pytest.approx(0.947, abs=5e-4)
    assert Z95 * found.overall_se == pytest.approx(0.018, abs=5e-4)
    np.testing.assert_allclose(found.users, [0.88, 0.73, 0.93, 0.96], atol=5e-3)
    np.testing.assert_allclose(Z95 * found.users_se, [0.07, 0.10, 0.04, 0.02], atol=5e-3)
    np.testing.assert_allclose(found.producers, [0.75, 0.85, 0.93, 0.96], atol=5e-3)
    np.testing.assert_allclose(Z95 * found.producers_se[[0, 2]], [0.21, 0.03], atol=5e-3)
    hectares = MAPPED.sum() * 0.09
    np.testing.assert_allclose(found.share * hectares, [21_158, 11_686, 285_770, 581_386], atol=2)
    errors = Z95 * found.share_se * hectares
    np.testing.assert_allclose(errors, [6_158, 3_756, 15_510, 16_282], atol=10)


def test_standard_errors_match_repeated_sampling():
    """Draw many samples from a known map: the spread of the estimates must be their own error."""
    rng = np.random.default_rng(0)
    truth_in_map = np.array([[0.8, 0.2, 0.0], [0.1, 0.85, 0.05], [0.02, 0.08, 0.9]])
    mapped = np.array([0.1, 0.3, 0.6])
    drawn = np.stack([rng.multinomial(200, row, 2000) for row in truth_in_map], axis=1)
    all_found = [area_adjusted(counts.T, mapped) for counts in drawn]
    p = mapped[:, None] * truth_in_map
    for name, truth in (
        ("share", p.sum(axis=0)),
        ("producers", np.diag(p) / p.sum(axis=0)),
        ("overall", np.trace(p)),
    ):
        estimates = np.array([getattr(f, name) for f in all_found])
        errors = np.array([getattr(f, f"{name}_se") for f in all_found])
        np.testing.assert_allclose(estimates.mean(axis=0), truth, rtol=0.01)
        np.testing.assert_allclose(errors.mean(axis=0), estimates.std(axis=0), rtol=0.06)


def test_users_and_producers_are_precision_and_recall_of_scikit_learn():
    from sklearn import metrics

    rng = np.random.default_rng(1)
    truth = rng.integers(0, 4, 5000)
    found = np.where(rng.random(5000) < 0.6, truth, rng.integers(0, 5, 5000))
    counts = confusion(found, truth, tuple("abcde")).sums["confusion"]
    np.testing.assert_array_equal(counts, metrics.confusion_matrix(truth, found))
    users, producers = users_and_producers(counts)
    scores = {"average": None, "zero_division": 0}
    np.testing.assert_allclose(users, metrics.precision_score(truth, found, **scores))
    np.testing.assert_allclose(producers[:4], metrics.recall_score(truth, found, **scores)[:4])
    assert np.isnan(producers[4])  # class 4 is not in the reference


def test_unlabelled_and_no_data_pixels_do_not_count():
    found = np.array([[0, 1, 255], [1, 1, 0]], np.uint8)
    truth = np.array([[0, 255, 1], [1, 0, 255]], np.uint8)
    np.testing.assert_array_equal(
        confusion(found, truth, ("a", "b")).sums["confusion"], [[1, 1], [0, 1]]
    )


def test_a_class_without_reference_pixels_does_not_spoil_the_rest():
    found = area_adjusted(np.array([[9, 0, 0], [1, 10, 0], [0, 0, 0]]), np.array([10, 30, 60]))
    assert found.overall == pytest.approx(0.25 * 0.9 + 0.75)
    assert np.isnan(found.users[2]) and np.isfinite(found.overall_se)
    assert np.isnan([found.share[2], found.share_se[2]]).all()  # unknown, and not surely none
    assert found.share[:2].sum() == pytest.approx(1)


def test_one_reference_pixel_in_a_small_class_does_not_take_the_errors_of_the_others():
    """Nobody can say how far that class is right; of a hundredth of the map it matters little."""
    counts, mapped = np.array([[40, 9], [10, 41]]), np.array([500.0, 490.0])
    without = area_adjusted(counts, mapped)
    more = np.pad(counts, (0, 1)) + np.diag([0, 0, 1])
    found = area_adjusted(more, np.array([500.0, 490.0, 10.0]))
    assert np.isnan(found.users_se[2]) and np.isfinite(found.users_se[:2]).all()
    assert np.isfinite([*found.producers_se, *found.share_se, found.overall_se]).all()
    assert found.overall_se == pytest.approx(np.hypot(0.99 * without.overall_se, 0.01 * 0.5))
    assert found.share_se[2] == pytest.approx(0.01 * 0.5)


def test_a_reference_that_misses_the_map_is_said():
    with pytest.raises(ConfigError, match="no reference pixel lies on the map"):
        area_adjusted(np.zeros((3, 3)), np.ones(3))
    with pytest.raises(ConfigError, match="bring the reference onto the map's grid"):
        confusion(np.zeros((2, 3), np.uint8), np.zeros((3, 2), np.uint8), ("a", "b"))
