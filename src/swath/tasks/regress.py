"""Numbers instead of classes: biomass, height, yield; for each sample or for each pixel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from swath.config import ConfigError
from swath.data.chip import Batch, Label
from swath.models import Inputs, Outputs
from swath.tasks import Task, check_label
from swath.tasks._classes import full
from swath.tasks._figures import larger_is_better
from swath.tasks._tally import Moments

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class Regress(Task):
    """Predict quantities, of samples or of pixels. Unknown values (NaN) count nowhere."""

    labels: ClassVar[tuple[str, ...]] = ("value", "raster")
    learns: ClassVar[str] = "Values of each sample or pixel"

    loss: Literal["squared", "absolute", "huber"] = "squared"
    """Of the error divided by ``scale``. squared learns the mean, absolute the median; huber is
    squared below ``delta`` and absolute above, so that outliers count less."""

    delta: float | None = None
    """Only for huber: the error, in units of ``scale``, where squared turns into absolute;
    None means 1."""

    offset: float | tuple[float, ...] = 0.0
    """A value near the mean of the quantity (or of each quantity), in its unit. The network learns
    (value - offset) / scale; predictions and scores are in the quantity's unit."""

    scale: float | tuple[float, ...] = 1.0
    """A value near the standard deviation of the quantity (or of each quantity), in its unit."""

    best: Literal["rmse", "mae", "r2", "loss"] = "rmse"
    """Figure on the validation part that chooses the best checkpoint."""

    def __post_init__(self) -> None:
        if self.delta is not None and self.loss != "huber":
            raise ConfigError(
                f"task.delta={self.delta} has no effect with task.loss={self.loss}; leave it out "
                "or set task.loss=huber"
            )
        if self.delta is not None and self.delta <= 0:
            raise ConfigError(f"task.delta={self.delta} must be above 0")
        if np.min(self.scale) <= 0:
            raise ConfigError(f"task.scale={self.scale} must be above 0")

    def bind(
        self, label: Label, counts: np.ndarray | None, inputs: Inputs | None = None
    ) -> ValueObjective:
        check_label(self, label.kind)
        return ValueObjective(
            outputs=Outputs(channels=len(label.classes) or 1, dense=label.kind == "raster"),
            names=label.classes or ("value",),
            loss_kind=self.loss,
            delta=1.0 if self.delta is None else self.delta,
            offset=_each("offset", self.offset, label),
            scale=_each("scale", self.scale, label),
            best=self.best,
            larger_is_better=larger_is_better(self.best),
        )


def _each(field: str, values: float | tuple[float, ...], label: Label) -> np.ndarray:
    quantities = len(label.classes) or 1
    if isinstance(values, tuple) and len(values) != quantities:
        raise ConfigError(
            f"task.{field} has {len(values)} values; the store has {quantities} quantities: "
            f"{', '.join(label.classes)}"
        )
    return np.broadcast_to(np.asarray(values, np.float64), (quantities,)).copy()


@dataclass(frozen=True, kw_only=True)
class ValueObjective:
    """Learn quantities (b, t) or (b, t, h, w); see :class:`swath.tasks.Objective`."""

    outputs: Outputs
    names: tuple[str, ...]
    loss_kind: str
    delta: float
    offset: np.ndarray  # (t,) in the quantities' units
    scale: np.ndarray  # (t,)
    best: str
    larger_is_better: bool

    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        return self._loss(model(batch.image, **batch.told(model)), batch)

    def score(self, model: nn.Module, batch: Batch) -> Moments:
        assert batch.target is not None, "the batch has no target"
        output = model(batch.image, **batch.told(model))
        loss, weight = self._loss(output, batch)
        found = self._in_units(output).double().movedim(1, -1).flatten(0, -2)
        target = batch.target.double().movedim(1, -1).flatten(0, -2)
        return Moments.of(
            target.cpu().numpy(),
            found.cpu().numpy(),
            self.names,
            shift=self.offset,
            loss=loss.item(),
            weight=weight.item(),
        )

    def empty(self) -> Moments:
        nothing = np.zeros((0, len(self.names)))
        return Moments.of(nothing, nothing, self.names)

    def predict(self, model: nn.Module, image: Tensor) -> Tensor:
        return self._in_units(model(image))

    def _loss(self, output: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        from torch.nn import functional

        assert batch.target is not None, "the batch has no target"
        output = full(output)
        offset, scale = self._like(output)
        known = ~batch.target.isnan()
        # The offset is taken off before rounding to the network's precision.
        target = ((batch.target.double() - offset.double()) / scale.double()).to(output)
        target = target.where(known, output.detach())  # an unknown value has no error
        if self.loss_kind == "huber":
            losses = functional.huber_loss(output, target, reduction="none", delta=self.delta)
        elif self.loss_kind == "absolute":
            losses = (output - target).abs()
        else:
            losses = (output - target) ** 2
        return (losses * known).sum(), known.double().sum()

    def _in_units(self, output: Tensor) -> Tensor:
        output = full(output)
        offset, scale = self._like(output)
        return output * scale + offset

    def _like(self, output: Tensor) -> tuple[Tensor, Tensor]:
        import torch

        shape = (-1, *[1] * (output.ndim - 2))
        offset, scale = (
            torch.from_numpy(v).to(output).reshape(shape) for v in (self.offset, self.scale)
        )
        return offset, scale
