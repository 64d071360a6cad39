"""ResNet: one output for each image, from any number of bands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from swath.config import ConfigError
from swath.models import Inputs, Model, Outputs, check_outputs

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class ResNet(Model):
    """Residual network with batch norm, whose statistics are those of a microbatch."""

    dense: ClassVar[bool | None] = False

    depth: Literal[18, 34, 50] = 18
    """Layers with weights. At 3 bands and 1,000 classes: 11.7, 21.8 or 25.6 M parameters."""
    width: int = 64
    """Channels of the first of the four layers; each next one has twice as many. Time, memory and
    parameters grow with its square."""
    dropout: float = 0.0
    """Share of the last features silenced in training, 0..1."""

    def __post_init__(self) -> None:
        if self.width < 1:
            raise ConfigError(f"width={self.width} must be positive; published networks have 64")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"dropout={self.dropout} must be at least 0 and below 1")

    def build(self, inputs: Inputs, outputs: Outputs) -> nn.Module:
        from swath.nn.residual import ResNet

        check_outputs(self, outputs)
        bands = tuple(band.name for band in inputs.bands)
        return ResNet(bands, self.depth, outputs.channels, self.dropout, self.width, outputs.hidden)
