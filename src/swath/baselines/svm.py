"""Support vector machine with a Gaussian kernel: strong with few samples and many bands.

Features are brought to mean 0 and deviation 1. Time grows with the square of the samples.
Source: Melgani & Bruzzone 2004, doi:10.1109/TGRS.2004.831865, for hyperspectral pixels; fitted by
scikit-learn.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from swath.baselines import Learner, Predictor, Problem
from swath.baselines._learn import learn
from swath.config import ConfigError


@dataclass(frozen=True, kw_only=True)
class SVM(Learner):
    """RBF support vector machine on features of pixels or samples."""

    cost: float = 100.0
    """C: what a training sample on the wrong side costs; larger fits more closely."""

    gamma: float | None = None
    """1 / (2 width^2) of the kernel, in scaled features; None: 1 / (features * variance)."""

    samples: int = 10_000
    """Training samples (pixels) to fit on, at most; drawn evenly, keyed by their place and the
    seed."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.cost <= 0 or (self.gamma is not None and self.gamma <= 0):
            raise ConfigError(f"cost={self.cost} and gamma={self.gamma} must be above 0")

    def fit(
        self, x: np.ndarray, y: np.ndarray, problem: Problem, seed: int, threads: int
    ) -> Predictor:
        from sklearn.multiclass import OneVsRestClassifier
        from sklearn.multioutput import MultiOutputRegressor
        from sklearn.svm import SVC, SVR

        weighting = self.weighting(problem)
        common = {"C": self.cost, "gamma": "scale" if self.gamma is None else self.gamma}
        if problem.kind == "value":
            machine = SVR(**common)
            return learn(
                machine if y.shape[1] == 1 else MultiOutputRegressor(machine), x, y, problem
            )
        svc = SVC(class_weight=weighting, **common)
        if problem.kind == "flags":
            return learn(OneVsRestClassifier(svc, n_jobs=threads), x, y, problem)
        return learn(svc, x, y, problem)
