"""How much each class counts in a loss, from how often it occurs in training."""

from __future__ import annotations

import numpy as np

from swath.config import ConfigError


def class_weights(
    exponent: float, counts: np.ndarray | None, classes: tuple[str, ...]
) -> np.ndarray | None:
    """Return the weight of each class, float64 (k,), or None where all weigh 1.

    The weight is (mean count / count) ** exponent: 1 gives every class the same total weight,
    0.5 its square root's share.
    """
    if exponent == 0:
        return None
    if counts is None:
        raise ConfigError(
            f"task.class_weights={exponent} needs the class counts of the training part, and "
            "there are none; set it to 0"
        )
    assert len(counts) == len(classes), f"{len(counts)} counts for {len(classes)} classes"
    absent = [name for name, count in zip(classes, counts, strict=True) if not count]
    if absent:
        raise ConfigError(
            f"task.class_weights={exponent}: no training sample of {', '.join(absent)}; leave the "
            "class out of the dataset, split otherwise, or set task.class_weights to 0"
        )
    return (counts.sum() / len(classes) / counts) ** exponent


def check_exponent(exponent: float) -> None:
    """Raise ConfigError unless 0 <= ``exponent`` <= 1."""
    if not 0 <= exponent <= 1:
        raise ConfigError(
            f"task.class_weights={exponent} is not within 0..1: 0 weighs every sample alike, "
            "1 every class"
        )
