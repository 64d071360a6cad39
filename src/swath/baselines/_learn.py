"""From scikit-learn's estimators to predictors: missing features, scaling, kinds of answers."""

from __future__ import annotations

from typing import Any

import numpy as np

from swath.baselines import Predictor, Problem

_CHUNK = 100_000  # rows predicted at a time: a forest needs memory for each


def learn(
    estimator: Any, x: np.ndarray, y: np.ndarray, problem: Problem, scaled: bool = True
) -> Predictor:
    """Return ``estimator`` fitted on features (n, f), NaN where not observed, and labels.

    scaled: features are brought to mean 0 and deviation 1 by those of the training samples.
    """
    mean = np.nan_to_num(_nan(np.nanmean, x))
    deviation = _nan(np.nanstd, x) if scaled else np.ones(x.shape[1])
    deviation = np.where(np.nan_to_num(deviation) > 0, deviation, 1.0)
    shift = mean if scaled else np.zeros_like(mean)

    def prepared(x: np.ndarray) -> np.ndarray:
        return ((np.where(np.isnan(x), mean, x) - shift) / deviation).astype(np.float32)

    single = problem.kind == "value" and y.shape[1] == 1
    fitted = estimator.fit(prepared(x), y[:, 0] if single else y)

    def answer(x: np.ndarray) -> np.ndarray:
        if problem.kind == "flags":
            return _logits(fitted, prepared(x))
        found = fitted.predict(prepared(x))
        return found[:, None] if single else found

    def predict(x: np.ndarray) -> np.ndarray:
        parts = [answer(x[i : i + _CHUNK]) for i in range(0, len(x), _CHUNK)]
        return np.concatenate(parts) if parts else np.zeros((0, *y.shape[1:]), y.dtype)

    return predict


def _nan(function: Any, x: np.ndarray) -> np.ndarray:
    """Return ``function`` over samples, NaN and no warning for features that are nowhere known."""
    known = np.isfinite(x).any(0)
    found = np.full(x.shape[1], np.nan)
    found[known] = function(x[:, known], axis=0, dtype=np.float64)
    return found


def _logits(fitted: Any, x: np.ndarray) -> np.ndarray:
    """Return logits (n, k) of flags: decision values, or the logits of probabilities."""
    if hasattr(fitted, "decision_function"):
        return fitted.decision_function(x).reshape(len(x), -1)
    present = [
        # A flag that is the same in all training samples has one column instead of two.
        p[:, list(c).index(1)] if 1 in c else np.zeros(len(x))
        for p, c in zip(fitted.predict_proba(x), fitted.classes_, strict=True)
    ]
    share = np.stack(present, 1).clip(1e-6, 1 - 1e-6)
    return np.log(share / (1 - share))
