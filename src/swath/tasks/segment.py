"""One class per pixel: land cover. Pixels without a label count neither in loss nor in score."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from swath.config import ConfigError
from swath.data.chip import IGNORE, Label
from swath.models import Inputs
from swath.tasks._classes import ClassFigure, ClassObjective, ClassTask


@dataclass(frozen=True, kw_only=True)
class Segment(ClassTask):
    """Predict the class of each pixel."""

    labels: ClassVar[tuple[str, ...]] = ("mask",)
    learns: ClassVar[str] = "A class for each pixel"
    dense: ClassVar[bool] = True

    best: ClassFigure = "miou"
    """Figure on the validation part that chooses the best checkpoint."""

    def bind(
        self, label: Label, counts: np.ndarray | None, inputs: Inputs | None = None
    ) -> ClassObjective:
        objective = super().bind(label, counts, inputs)
        if len(label.classes) > IGNORE:
            raise ConfigError(
                f"masks hold at most {IGNORE} classes ({IGNORE} itself means unlabelled); the "
                f"store has {len(label.classes)}"
            )
        return objective
