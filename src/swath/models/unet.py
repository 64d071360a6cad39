"""U-Net: a value or a class for every pixel, for images of any size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from swath.config import ConfigError
from swath.models import Inputs, Model, Outputs

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class UNet(Model):
    """Encoder and decoder with connections across; dense outputs only."""

    width: int = 32
    """Channels at full size; 2 and 4 times as many at half and at quarter size. Time and memory
    grow with its square."""
    depth: int = 3
    """Halvings of the image: a pixel sees about 2 ** depth * 10 pixels around it."""
    dropout: float = 0.2
    """Share of the last features (whole channels) silenced in training, 0..1."""

    def __post_init__(self) -> None:
        if self.width < 1 or not 1 <= self.depth <= 8:
            raise ConfigError(f"width={self.width} must be positive, depth={self.depth} in 1..8")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"dropout={self.dropout} must be at least 0 and below 1")

    def build(self, inputs: Inputs, outputs: Outputs) -> nn.Module:
        from swath.nn.unet import PlainEncoder, UNet

        if not outputs.dense:
            raise ConfigError(
                "unet gives an output for every pixel, and the task wants one for each image;"
                " choose model.kind resnet or vit"
            )
        bands = tuple(band.name for band in inputs.bands)
        encoder = PlainEncoder(len(bands), self.width, self.depth)
        return UNet(encoder, bands, outputs.channels, width=self.width, dropout=self.dropout)
