"""Random forest: hundreds of trees on bootstrap samples; hard to beat on single pixels.

Source: Breiman 2001, doi:10.1023/A:1010933404324; fitted by scikit-learn.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from swath.baselines import Learner, Predictor, Problem
from swath.baselines._learn import learn
from swath.config import ConfigError


@dataclass(frozen=True, kw_only=True)
class Forest(Learner):
    """Random forest on features of pixels or samples."""

    trees: int = 200
    """How many; more only cost time."""

    min_leaf: int = 1
    """Training samples in a leaf, at least; more than 1 smooths where classes overlap."""

    per_tree: int | None = 20_000
    """Samples drawn for each tree, with replacement; None: as many as there are. Neighbouring
    pixels are alike, so few make more diverse trees, and time grows with them."""

    samples: int = 1_000_000
    """Training samples (pixels) to fit on, at most; drawn evenly, keyed by their place and the
    seed."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("trees", "min_leaf", "per_tree"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name}={value} must be at least 1")

    def fit(
        self, x: np.ndarray, y: np.ndarray, problem: Problem, seed: int, threads: int
    ) -> Predictor:
        from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

        weighting = self.weighting(problem, "balanced_subsample")
        fewer = self.per_tree is not None and self.per_tree < len(x)
        common = {
            "n_estimators": self.trees,
            "min_samples_leaf": self.min_leaf,
            "max_samples": self.per_tree if fewer else None,
            "random_state": seed,
            "n_jobs": threads,
        }
        if problem.kind == "value":
            return learn(RandomForestRegressor(**common), x, y, problem, scaled=False)
        forest = RandomForestClassifier(class_weight=weighting, **common)
        return learn(forest, x, y, problem, scaled=False)
