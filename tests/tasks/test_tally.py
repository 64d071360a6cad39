"""Figures against scikit-learn and torchmetrics, and against sums done by hand."""

import math

import numpy as np
import pytest
import torch
import torchmetrics.functional as tm
import torchmetrics.functional.classification as tmc
from sklearn import metrics

from swath.tasks._tally import Confusion, Flags, Moments, edges

CLASSES = ("water", "forest", "field", "town", "rock")


def drawn(seed=0, samples=400, absent=None):
    rng = np.random.default_rng(seed)
    true = rng.choice(5, samples, p=[0.4, 0.3, 0.15, 0.1, 0.05])
    guess = np.where(rng.random(samples) < 0.6, true, rng.integers(0, 5, samples))
    if absent is not None:
        keep = (true != absent) & (guess != absent)
        true, guess = true[keep], guess[keep]
    return true, guess


@pytest.mark.parametrize("absent", [None, 4])
def test_confusion_figures_equal_scikit_learn(absent):
    """Also where one class does not occur at all."""
    true, guess = drawn(absent=absent)
    found = Confusion.count(true, guess, CLASSES).finish()
    expected = {
        "oa": metrics.accuracy_score(true, guess),
        "balanced": metrics.balanced_accuracy_score(true, guess),
        "kappa": metrics.cohen_kappa_score(true, guess),
        "f1_macro": metrics.f1_score(true, guess, average="macro"),
        "f1_micro": metrics.f1_score(true, guess, average="micro"),
        "miou": metrics.jaccard_score(true, guess, average="macro"),
    }
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-12), name
    ious = metrics.jaccard_score(true, guess, average=None)
    shown = [found[f"iou/{CLASSES[c]}"] for c in np.union1d(true, guess)]
    assert shown == pytest.approx(ious.tolist(), rel=1e-12)
    assert (f"iou/{CLASSES[4]}" in found) == (absent is None)


def test_confusion_figures_equal_torchmetrics():
    """On pixels: a batch of masks."""
    true, guess = (torch.from_numpy(a).reshape(4, 10, 10) for a in drawn(3))
    found = Confusion.count(true.numpy(), guess.numpy(), CLASSES).finish()
    kwargs = {"num_classes": 5}
    assert found["oa"] == pytest.approx(
        tmc.multiclass_accuracy(guess, true, average="micro", **kwargs).item(), abs=1e-6
    )
    assert found["balanced"] == pytest.approx(
        tmc.multiclass_accuracy(guess, true, average="macro", **kwargs).item(), abs=1e-6
    )
    assert found["kappa"] == pytest.approx(
        tmc.multiclass_cohen_kappa(guess, true, **kwargs).item(), abs=1e-6
    )
    assert found["f1_macro"] == pytest.approx(
        tmc.multiclass_f1_score(guess, true, average="macro", **kwargs).item(), abs=1e-6
    )
    assert found["miou"] == pytest.approx(
        tmc.multiclass_jaccard_index(guess, true, **kwargs).item(), abs=1e-6
    )


def test_balanced_leaves_out_classes_without_a_true_sample():
    """A class that is only ever a false alarm has no recall; it still pulls the IoU down."""
    found = Confusion.count(np.array([0, 0, 1]), np.array([0, 2, 1]), CLASSES).finish()
    assert found["balanced"] == pytest.approx((0.5 + 1) / 2)
    assert found["miou"] == pytest.approx((0.5 + 1 + 0) / 3)


def test_no_iou_is_told_of_samples():
    """It is the overlap of areas; of classes of whole samples F1 says the same and is usual."""
    found = Confusion.count(np.array([0, 0, 1]), np.array([0, 2, 1]), CLASSES, dense=False)
    figures = (found + found).finish()
    assert not [name for name in figures if "iou" in name] and figures["oa"] == pytest.approx(2 / 3)


def test_no_samples_give_nan_not_an_error():
    """An empty part of a split is a fact, not a crash."""
    found = Confusion.of(np.zeros((5, 5)), CLASSES).finish()
    assert math.isnan(found["oa"]) and math.isnan(found["miou"]) and "loss" not in found


def flags(seed=0, samples=300, classes=5):
    rng = np.random.default_rng(seed)
    true = (rng.random((samples, classes)) < [0.5, 0.3, 0.2, 0.1, 0.05][:classes]).astype(int)
    logits = rng.normal(size=true.shape) * 3 + 2 * true - 1
    return true, logits.astype(np.float32)


def test_flags_figures_equal_scikit_learn():
    """F1 is exact; average precision is that of rounded logits, and near the unrounded."""
    true, logits = flags()
    found = Flags.count(true, logits, CLASSES).finish()
    said = logits > 0
    assert found["f1_macro"] == pytest.approx(metrics.f1_score(true, said, average="macro"))
    assert found["f1_micro"] == pytest.approx(metrics.f1_score(true, said, average="micro"))
    assert found["exact"] == pytest.approx(metrics.accuracy_score(true, said))
    rounded = np.searchsorted(edges(), logits)
    exact = metrics.average_precision_score(true, rounded, average="macro")
    assert found["map"] == pytest.approx(exact, rel=1e-12)
    assert found["map"] == pytest.approx(
        metrics.average_precision_score(true, logits, average="macro"), abs=2e-3
    )


@pytest.mark.parametrize(
    ("spread", "shift"), [(0.01, 0), (1, 0), (10, 0), (1, 15), (1, -15), (100, 0)]
)
def test_average_precision_does_not_depend_on_the_scale_of_logits(spread, shift):
    """Of a network that is hardly trained, or sure of everything, as scikit-learn has it."""
    true, logits = flags()
    logits = (logits * spread / logits.std() + shift).astype(np.float32)
    found = Flags.count(true, logits, CLASSES).finish()
    exact = metrics.average_precision_score(true, logits, average="macro")
    assert found["map"] == pytest.approx(exact, abs=3e-3)


def test_bounds_of_bins_ascend_evenly_and_are_exact_in_float32():
    bounds = edges()
    assert np.array_equal(bounds, bounds.astype(np.float32)) and 0 in bounds
    steps = np.diff(bounds[bounds > 0])
    assert steps.min() > 0 and (steps <= np.maximum(bounds[bounds > 0][:-1], 1) / 60).all()


def test_flags_figures_equal_torchmetrics():
    """With torchmetrics' thresholds at the same logits."""
    true, logits = flags(1)
    found = Flags.count(true, logits, CLASSES).finish()
    ours = torch.from_numpy(logits), torch.from_numpy(true)
    thresholds = torch.from_numpy(edges()).sigmoid()
    expected = tmc.multilabel_average_precision(
        ours[0].double().sigmoid(), ours[1], num_labels=5, thresholds=thresholds
    )
    assert found["map"] == pytest.approx(expected.item(), abs=2e-6)
    for average in ("macro", "micro"):
        expected = tmc.multilabel_f1_score(*ours, num_labels=5, average=average)
        assert found[f"f1_{average}"] == pytest.approx(expected.item(), abs=1e-6)


def test_flags_without_a_present_sample_have_no_average_precision():
    """scikit-learn calls it 0, which would punish a test part for lacking a class."""
    true, logits = flags()
    true[:, 4] = 0
    found = Flags.count(true, logits, CLASSES).finish()
    aps = [metrics.average_precision_score(true[:, c], logits[:, c]) for c in range(4)]
    assert found["map"] == pytest.approx(np.mean(aps), abs=2e-3)
    assert "ap/rock" not in found and "ap/town" in found


def test_moments_equal_scikit_learn_and_torchmetrics():
    """With two quantities, one far from zero."""
    rng = np.random.default_rng(0)
    true = rng.normal(size=(200, 2)) * [3, 10] + [5, 1e5]
    guess = true + rng.normal(size=true.shape) * [1, 4] + 0.3
    found = Moments.of(true, guess, ("height", "mass"), shift=np.array([5.0, 1e5])).finish()
    assert found["rmse"] == pytest.approx(
        metrics.root_mean_squared_error(true.ravel(), guess.ravel())
    )
    assert found["mae"] == pytest.approx(metrics.mean_absolute_error(true, guess))
    assert found["bias"] == pytest.approx((guess - true).mean())
    assert found["r2"] == pytest.approx(metrics.r2_score(true, guess), rel=1e-9)
    assert found["r2"] == pytest.approx(
        tm.r2_score(torch.from_numpy(guess), torch.from_numpy(true)).item(), rel=1e-6
    )
    assert found["rmse/mass"] == pytest.approx(
        metrics.root_mean_squared_error(true[:, 1], guess[:, 1])
    )


def test_unknown_values_count_nowhere():
    """NaN in the target leaves the other quantity of the same sample in."""
    true = np.array([[1.0, np.nan], [2.0, 4.0], [np.nan, 6.0]])
    found = Moments.of(true, np.array([[1.0, 9.0], [4.0, 4.0], [9.0, 6.0]]), ("a", "b")).finish()
    assert found["rmse"] == pytest.approx(1.0)  # one error of 2 among four known values
    assert found["rmse/a"] == pytest.approx(math.sqrt(2)) and found["rmse/b"] == 0


def test_tallies_of_parts_add_up_to_the_whole():
    """In any order: that is what makes a score independent of shards."""
    true, guess = drawn()
    parts = [Confusion.count(true[i::7], guess[i::7], CLASSES) for i in range(7)]
    whole = Confusion.count(true, guess, CLASSES).finish()
    for order in (parts, parts[::-1]):
        assert sum(order[1:], order[0]).finish() == whole
