"""The objective of every task with one class per sample or pixel.

``classify`` and ``segment`` are this, over samples and over pixels: logits (b, k, ...) against
class ids (b, ...), where an id of IGNORE or below 0 is unknown and counts nowhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from swath.config import ConfigError, kind_of
from swath.data.chip import IGNORE, Batch, Label
from swath.models import Inputs, Outputs
from swath.tasks import Task, check_label
from swath.tasks._figures import larger_is_better
from swath.tasks._tally import Confusion
from swath.tasks._weights import check_exponent, class_weights

if TYPE_CHECKING:
    from torch import Tensor, nn

ClassLoss = Literal["cross_entropy", "squared"]
ClassFigure = Literal["oa", "balanced", "kappa", "f1_macro", "f1_micro", "miou", "loss"]


@dataclass(frozen=True, kw_only=True)
class ClassTask(Task):
    """Settings of a task with one class per sample or pixel."""

    dense: ClassVar[bool]
    """Whether each pixel has a class, rather than each sample."""

    loss: ClassLoss = "cross_entropy"
    """cross_entropy, or squared: the squared difference between probabilities and the one-hot
    class, averaged over classes; it forgives confident mistakes and wrong labels more."""

    class_weights: float = 0.0
    """How much rare classes count more in the loss, 0..1: each class weighs
    (mean count / its count) ** class_weights, counted in samples, or in pixels where these are
    labelled. 0: all alike; 1: all classes alike."""

    smoothing: float = 0.0
    """Share of each label that is spread over all classes, 0..1."""

    best: ClassFigure = "oa"
    """Figure on the validation part that chooses the best checkpoint."""

    def __post_init__(self) -> None:
        check_exponent(self.class_weights)

    def bind(
        self, label: Label, counts: np.ndarray | None, inputs: Inputs | None = None
    ) -> ClassObjective:
        check_label(self, label.kind)
        check_class_settings(label.classes, kind_of(type(self)), self.smoothing)
        return ClassObjective(
            outputs=Outputs(channels=len(label.classes), dense=self.dense),
            classes=label.classes,
            loss_kind=self.loss,
            weights=class_weights(self.class_weights, counts, label.classes),
            smoothing=self.smoothing,
            best=self.best,
            larger_is_better=larger_is_better(self.best),
        )


@dataclass(frozen=True, kw_only=True)
class ClassObjective:
    """Learn the class of each sample or pixel; see :class:`swath.tasks.Objective`."""

    outputs: Outputs
    classes: tuple[str, ...]
    loss_kind: ClassLoss
    weights: np.ndarray | None  # (k,) of each class in the loss; None: 1
    smoothing: float
    best: str
    larger_is_better: bool

    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        return self._loss(model(batch.image, **batch.told(model)), batch)

    def score(self, model: nn.Module, batch: Batch) -> Confusion:
        import torch

        logits = model(batch.image, **batch.told(model))
        loss, weight = self._loss(logits, batch)
        target, known = _known(batch.target, len(self.classes))
        k = len(self.classes)
        pairs = (target * k + logits.argmax(1))[known]
        matrix = torch.bincount(pairs, minlength=k * k).reshape(k, k).cpu().numpy()
        return Confusion.of(
            matrix, self.classes, loss.item(), weight.item(), dense=self.outputs.dense
        )

    def empty(self) -> Confusion:
        k = len(self.classes)
        return Confusion.of(np.zeros((k, k)), self.classes, dense=self.outputs.dense)

    def predict(self, model: nn.Module, image: Tensor) -> Tensor:
        return full(model(image)).softmax(1)

    def _loss(self, logits: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        import torch

        target, known = _known(batch.target, len(self.classes))
        logits = full(logits)
        weights = (
            logits.new_ones(len(self.classes))
            if self.weights is None
            else torch.from_numpy(self.weights).to(logits)
        )
        own = weights[target] * known
        of = cross_entropy if self.loss_kind == "cross_entropy" else squared
        losses = of(logits, target, weights, self.smoothing)
        return (losses * known).sum(), own.double().sum()


def cross_entropy(logits: Tensor, target: Tensor, weights: Tensor, smoothing: float) -> Tensor:
    """Return -sum_c q_c w_c log p_c, (b, ...), of logits (b, k, ...) and class ids (b, ...).

    q is the one-hot target with ``smoothing`` of it spread evenly over all classes. It equals
    torch's, but gathers instead of NLLLoss, whose sum over pixels is not deterministic on CUDA.
    """
    logp = logits.log_softmax(1)
    own = -weights[target] * logp.gather(1, target[:, None]).squeeze(1)
    if not smoothing:
        return own
    spread = -(logp * weights.reshape(-1, *[1] * (logp.ndim - 2))).mean(1)
    return (1 - smoothing) * own + smoothing * spread


def squared(logits: Tensor, target: Tensor, weights: Tensor, smoothing: float) -> Tensor:
    """Return the mean over classes of (p_c - q_c)^2, (b, ...), times the weight of the true class.

    p is the softmax of the logits, q as in :func:`cross_entropy`. Source: Brier 1950, divided by k.
    """
    p = logits.softmax(1)
    k = p.shape[1]
    hot = p.new_zeros(p.shape).scatter(1, target[:, None], 1.0)
    q = hot * (1 - smoothing) + smoothing / k
    return weights[target] * ((p - q) ** 2).mean(1)


def full(logits: Tensor) -> Tensor:
    """Return half-precision logits as float32: sums over many pixels need the digits."""
    return logits.float() if logits.element_size() < 4 else logits


def _known(target: Tensor | None, classes: int) -> tuple[Tensor, Tensor]:
    """Return int64 class ids with 0 where unknown, and where they are known."""
    assert target is not None, "the batch has no target"
    known = target >= 0
    if classes <= IGNORE:
        known = known & (target != IGNORE)
    return target.long() * known, known


def check_class_settings(classes: tuple[str, ...], task: str, smoothing: float) -> None:
    """Raise ConfigError if there is nothing to tell apart, or smoothing is not within 0..1."""
    if len(classes) < 2:
        raise ConfigError(
            f"task {task} needs at least two classes; the store has {len(classes)}: "
            f"{', '.join(classes) or 'none'}"
        )
    if not 0 <= smoothing < 1:
        raise ConfigError(f"task.smoothing={smoothing} is not within 0..1 (1 excluded)")
