"""One class per sample: land use of a chip, or the centre pixel of a hyperspectral window."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from swath.tasks._classes import ClassTask


@dataclass(frozen=True, kw_only=True)
class Classify(ClassTask):
    """Predict the class of each sample."""

    labels: ClassVar[tuple[str, ...]] = ("class",)
    learns: ClassVar[str] = "A class for each sample"
    dense: ClassVar[bool] = False

    best: Literal["oa", "balanced", "kappa", "f1_macro", "f1_micro", "loss"] = "oa"
    """Figure on the validation part that chooses the best checkpoint."""
