"""One class per pixel: land cover. Pixels without a label count neither in loss nor in score."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from swath.config import ConfigError
from swath.data.chip import IGNORE, Label
from swath.models import Outputs
from swath.tasks import Task
from swath.tasks._classes import ClassFigure, ClassLoss, ClassObjective, check_class_settings
from swath.tasks._weights import check_exponent, check_label, class_weights


@dataclass(frozen=True, kw_only=True)
class Segment(Task):
    """Predict the class of each pixel."""

    labels: ClassVar[tuple[str, ...]] = ("mask",)

    loss: ClassLoss = "cross_entropy"
    """cross_entropy, or squared: the squared difference between probabilities and the one-hot
    class, averaged over classes; it forgives confident mistakes and wrong labels more."""

    class_weights: float = 0.0
    """How much rare classes count more in the loss, 0..1: each class weighs
    (mean count / its count) ** class_weights, counted in pixels. 0: all pixels alike; 1: all
    classes alike."""

    smoothing: float = 0.0
    """Share of each label that is spread over all classes, 0..1."""

    best: ClassFigure = "miou"
    """Figure on the validation part that chooses the best checkpoint."""

    def __post_init__(self) -> None:
        check_exponent(self.class_weights)

    def bind(self, label: Label, counts: np.ndarray | None) -> ClassObjective:
        check_label(self, label.kind)
        check_class_settings(label.classes, "segment", self.smoothing)
        if len(label.classes) > IGNORE:
            raise ConfigError(
                f"masks hold at most {IGNORE} classes ({IGNORE} itself means unlabelled); the "
                f"store has {len(label.classes)}"
            )
        return ClassObjective(
            outputs=Outputs(channels=len(label.classes), dense=True),
            classes=label.classes,
            loss_kind=self.loss,
            weights=class_weights(self.class_weights, counts, label.classes),
            smoothing=self.smoothing,
            best=self.best,
            larger_is_better=self.best != "loss",
        )
