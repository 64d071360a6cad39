"""One class per sample: land use of a chip, or the centre pixel of a hyperspectral window."""

from dataclasses import dataclass
from typing import ClassVar

from swath.tasks._classes import ClassTask


@dataclass(frozen=True, kw_only=True)
class Classify(ClassTask):
    """Predict the class of each sample."""

    labels: ClassVar[tuple[str, ...]] = ("class",)
    dense: ClassVar[bool] = False
