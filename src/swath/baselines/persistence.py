"""The quantity as it was: a band that already holds it, such as last year's or a coarse one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from swath.baselines import Baseline, Predictor, Problem
from swath.config import ConfigError


@dataclass(frozen=True, kw_only=True)
class Persistence(Baseline):
    """Predict each quantity by the value of a band, in the sensor's unit; nothing is fitted."""

    bands: tuple[str, ...]
    """The band that stands for each quantity, in the order of the quantities."""

    def fit(
        self, x: np.ndarray, y: np.ndarray, problem: Problem, seed: int, threads: int
    ) -> Predictor:
        if problem.kind != "value":
            raise ConfigError(
                "baseline persistence predicts quantities; the labels are classes: use majority"
            )
        if len(self.bands) != len(problem.names):
            raise ConfigError(
                f"baseline persistence: bands={list(self.bands)} for {len(problem.names)}"
                f" quantities ({', '.join(problem.names)}); name one band for each"
            )
        unknown = [band for band in self.bands if band not in problem.columns]
        if unknown:
            raise ConfigError(
                f"baseline persistence: no band {', '.join(unknown)}; there are"
                f" {', '.join(problem.columns)}"
            )
        places = [problem.columns.index(band) for band in self.bands]
        scale, offset = np.array([problem.units[i] for i in places]).T
        mean = y.mean(0)  # the answer where the band was not observed

        def predict(x: np.ndarray) -> np.ndarray:
            value = x[:, places] * scale + offset
            return np.where(np.isfinite(value), value, mean)

        return predict
