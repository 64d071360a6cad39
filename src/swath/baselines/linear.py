"""Linear probe: what can be had without any depth. Logistic regression, or ridge for quantities.

Features are brought to mean 0 and deviation 1. Fitted by scikit-learn.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from swath.baselines import Learner, Predictor, Problem
from swath.baselines._learn import learn
from swath.config import ConfigError


@dataclass(frozen=True, kw_only=True)
class Linear(Learner):
    """Logistic or ridge regression on features of pixels or samples."""

    penalty: float = 1.0
    """Weight of the squared coefficients against the sum of the samples' losses."""

    steps: int = 1000
    """Iterations, at most (classes and flags only)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.penalty <= 0 or self.steps < 1:
            raise ConfigError(
                f"penalty={self.penalty} must be above 0 and steps={self.steps} at least 1"
            )

    def fit(
        self, x: np.ndarray, y: np.ndarray, problem: Problem, seed: int, threads: int
    ) -> Predictor:
        from sklearn.linear_model import LogisticRegression, Ridge
        from sklearn.multiclass import OneVsRestClassifier

        weighting = self.weighting(problem)
        if problem.kind == "value":
            return learn(Ridge(alpha=self.penalty), x, y, problem)
        logistic = LogisticRegression(
            C=1 / self.penalty, class_weight=weighting, max_iter=self.steps
        )
        if problem.kind == "flags":
            return learn(OneVsRestClassifier(logistic, n_jobs=threads), x, y, problem)
        if len(np.unique(y)) == 1:  # nothing to tell apart
            return lambda x: np.full(len(x), y[0])
        return learn(logistic, x, y, problem)
