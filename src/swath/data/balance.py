"""How often each sample is shown, so that rare classes are not drowned by common ones."""

from __future__ import annotations

import numpy as np

from swath.config import ConfigError

_LEAST = 4  # times the least shown sample occurs in an epoch; ratios are right to 1 in 8 or better


def repeats(counts: np.ndarray, balance: float) -> np.ndarray:
    """Return how often each sample occurs in an epoch, int64 (m,).

    counts: labelled things of each class in each sample, (m, k).
    balance: 0 shows every sample as often; 1 shows every class as often; between them, class c
        weighs n_c ** -balance, with n_c its number of samples. A sample with several classes
        counts for each by its share of the sample's labelled things.
    """
    if not 0 < balance <= 1:
        raise ConfigError(f"balance={balance} must be in 0..1 (0: every sample as often)")
    labelled = counts.sum(1, keepdims=True)
    shares = counts / np.maximum(labelled, 1)
    sizes = shares.sum(0)
    weights = shares @ np.where(sizes > 0, np.maximum(sizes, 1e-9) ** -balance, 0.0)
    weights[labelled[:, 0] == 0] = weights[labelled[:, 0] > 0].min(initial=np.inf)
    if not np.isfinite(weights).all():
        raise ConfigError(f"balance={balance}: no sample has a label to balance by; leave it out")
    return np.rint(_LEAST * weights / weights.min()).astype(np.int64)
