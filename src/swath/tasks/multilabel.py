"""Any number of classes per sample, as in BigEarthNet: a 0/1 for every class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from swath.config import ConfigError
from swath.data.chip import IGNORE, Batch, Label
from swath.models import Inputs, Outputs
from swath.tasks import Task, check_label
from swath.tasks._classes import full
from swath.tasks._figures import larger_is_better
from swath.tasks._tally import Flags, edges
from swath.tasks._weights import check_exponent, class_weights

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class Multilabel(Task):
    """Predict for each sample which classes are present, by binary cross-entropy of each."""

    labels: ClassVar[tuple[str, ...]] = ("flags",)
    learns: ClassVar[str] = "All classes of each sample"

    class_weights: float = 0.0
    """How much the flags of rare classes count more in the loss, 0..1: each class weighs
    (mean count / its count) ** class_weights. 0: all flags alike."""

    best: Literal["map", "f1_macro", "f1_micro", "exact", "loss"] = "map"
    """Figure on the validation part that chooses the best checkpoint."""

    def __post_init__(self) -> None:
        check_exponent(self.class_weights)

    def bind(
        self, label: Label, counts: np.ndarray | None, inputs: Inputs | None = None
    ) -> FlagsObjective:
        check_label(self, label.kind)
        if not label.classes:
            raise ConfigError("task multilabel needs at least one class; the store has none")
        return FlagsObjective(
            outputs=Outputs(channels=len(label.classes), dense=False),
            classes=label.classes,
            weights=class_weights(self.class_weights, counts, label.classes),
            best=self.best,
            larger_is_better=larger_is_better(self.best),
        )


@dataclass(frozen=True, kw_only=True)
class FlagsObjective:
    """Learn the flags of each sample; a flag of IGNORE is unknown and counts nowhere."""

    outputs: Outputs
    classes: tuple[str, ...]
    weights: np.ndarray | None  # (k,) of each class in the loss; None: 1
    best: str
    larger_is_better: bool

    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        return self._loss(model(batch.image, **batch.told(model)), batch)

    def score(self, model: nn.Module, batch: Batch) -> Flags:
        import torch

        assert batch.target is not None, "the batch has no target"
        logits = full(model(batch.image, **batch.told(model)))
        loss, weight = self._loss(logits, batch)
        known, present = batch.target != IGNORE, batch.target == 1
        k, bins = len(self.classes), len(edges()) + 1
        # The edges are exact in float32: numpy and torch bin alike.
        cells = torch.bucketize(logits.contiguous(), torch.from_numpy(edges()).to(logits))
        cells = cells + torch.arange(k, device=cells.device) * bins
        found, lacking = (
            torch.bincount(cells[flags & known], minlength=k * bins).reshape(k, bins).cpu().numpy()
            for flags in (present, ~present)
        )
        complete = known.all(1)
        exact = ((logits > 0) == present).all(1) & complete
        return Flags.of(
            found,
            lacking,
            exact.sum().item(),
            complete.sum().item(),
            self.classes,
            loss.item(),
            weight.item(),
        )

    def empty(self) -> Flags:
        zeros = np.zeros((len(self.classes), len(edges()) + 1))
        return Flags.of(zeros, zeros, 0, 0, self.classes)

    def predict(self, model: nn.Module, image: Tensor) -> Tensor:
        return full(model(image)).sigmoid()

    def _loss(self, logits: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        import torch
        from torch.nn import functional

        assert batch.target is not None, "the batch has no target"
        logits = full(logits)
        each = (batch.target != IGNORE).to(logits)
        if self.weights is not None:
            each = each * torch.from_numpy(self.weights).to(logits)
        losses = functional.binary_cross_entropy_with_logits(
            logits, (batch.target == 1).to(logits), reduction="none"
        )
        return (losses * each).sum(), each.double().sum()
