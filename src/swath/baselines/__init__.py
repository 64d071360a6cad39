"""What a network must beat: one file, one baseline. ``kind: forest`` is ``baselines/forest.py``.

A baseline is fitted without gradients on the training part of a store and scored on another part
with the same tally as the tasks, so that its figures stand beside a network's. It sees tables of
features (n, f), made from the store by ``_table.py``; it knows no store, no image, no split.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

import numpy as np

from swath.config import Choice, ConfigError

if TYPE_CHECKING:
    from swath.data.few import Few
    from swath.data.split import Part, Split
    from swath.data.store import Store

Features = Literal["pixel", "neighbourhood"]


@dataclass(frozen=True)
class Problem:
    """What is predicted from a row of features."""

    kind: Literal["class", "flags", "value"]
    names: tuple[str, ...]
    """The classes, flags or quantities."""
    columns: tuple[str, ...]
    """The features; those of a band at the pixel itself bear the band's name."""
    units: tuple[tuple[float, float], ...] = ()
    """Scale and offset of each feature, from counts to the sensor's unit."""


class Predictor(Protocol):
    """A fitted baseline."""

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Return of features (n, f): class ids (n,), logits of flags (n, k) or values (n, t)."""


@dataclass(frozen=True, kw_only=True)
class Baseline(Choice):
    """Settings of a baseline."""

    package: ClassVar[str] = "swath.baselines"

    def fit(
        self, x: np.ndarray, y: np.ndarray, problem: Problem, seed: int, threads: int
    ) -> Predictor:
        """Return the baseline fitted on features (n, f) and labels: class ids (n,), flags in
        {0, 1} (n, k), or values (n, t). ConfigError if it cannot learn such labels."""
        raise TypeError(f"{type(self).__name__} has no fit()")

    @property
    def sees(self) -> Features:
        """Which features it is given."""
        return "pixel"

    @property
    def at_most(self) -> int:
        """Samples (pixels) that it is fitted on, at most."""
        return 200_000

    @property
    def title(self) -> str:
        """Its name in tables."""
        return type(self).__name__.lower()


@dataclass(frozen=True, kw_only=True)
class Learner(Baseline):
    """Settings that all baselines share that learn from features."""

    features: Features = "pixel"
    """pixel: the bands at the labelled pixel, or their means where a label is that of a whole
    sample. neighbourhood: also the means and standard deviations of the 5x5 and the 15x15 pixels
    around it, or the standard deviations within the sample."""

    balanced: bool = False
    """Whether every class has the same total weight, however rare it is."""

    samples: int = 200_000
    """Training samples (pixels) to fit on, at most; drawn evenly, keyed by their place and the
    seed."""

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise ConfigError(f"samples={self.samples} must be at least 1")

    @property
    def sees(self) -> Features:
        return self.features

    @property
    def at_most(self) -> int:
        return self.samples

    @property
    def title(self) -> str:
        words = [super().title, self.features, *(["balanced"] if self.balanced else [])]
        return ", ".join(words)

    def weighting(self, problem: Problem, word: str = "balanced") -> str | None:
        """Return scikit-learn's name of the class weights; ConfigError if there are no classes."""
        if self.balanced and problem.kind == "value":
            raise ConfigError(
                f"balanced=true has no effect on quantities ({', '.join(problem.names)}); leave it"
                " out"
            )
        return word if self.balanced else None


def fit_and_score(
    baseline: Baseline,
    store: Store,
    split: Split | None = None,
    *,
    part: Part = "test",
    bands: tuple[str, ...] | None = None,
    labels: Few | None = None,
    seed: int = 0,
    threads: int = 1,
) -> dict[str, Any]:
    """Return the figures of ``baseline``, fitted on the training part and scored on ``part``.

    split: None is the store's own. bands, labels: None is all. threads: never changes the result.
    Beside the figures: name, kind, part, train and test (samples or pixels), fitted (how many of
    train it saw), share_touching and, where objects are known, share_same_object.
    """
    from swath.baselines._fit import fit_and_score as run

    how: dict[str, Any] = {"bands": bands, "labels": labels, "seed": seed, "threads": threads}
    return run(baseline, store, split, part=part, **how)
