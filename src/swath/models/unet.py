"""U-Net: a value or a class for every pixel, for images of any size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from swath.config import ConfigError
from swath.models import Inputs, Model, Outputs, check_outputs

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class UNet(Model):
    """Encoder and decoder with connections across; dense outputs only."""

    dense: ClassVar[bool | None] = True

    encoder: Literal["plain", "resnet18", "resnet34", "resnet50"] = "plain"
    """What finds the features. plain: 3x3 convolutions with group norm, from full size on; nothing
    depends on the microbatch. resnet: deeper and wider, from half size on, with batch norm."""
    width: int = 32
    """Channels of the decoder (and of the plain encoder) at full size; 2 and 4 times as many at
    half and at quarter size. Time and memory grow with its square."""
    depth: int | None = None
    """Halvings of the image in the plain encoder, None: 3. A resnet has 5."""
    dropout: float = 0.2
    """Share of the last features (whole channels) silenced in training, 0..1."""

    def __post_init__(self) -> None:
        if self.encoder != "plain" and self.depth is not None:
            raise ConfigError(
                f"depth={self.depth} has no effect with encoder={self.encoder}, which has 5"
                " halvings; leave it out"
            )
        if self.width < 1 or not 1 <= (3 if self.depth is None else self.depth) <= 8:
            raise ConfigError(f"width={self.width} must be positive, depth={self.depth} in 1..8")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"dropout={self.dropout} must be at least 0 and below 1")

    def build(self, inputs: Inputs, outputs: Outputs) -> nn.Module:
        from swath.nn.residual import ResNetEncoder
        from swath.nn.unet import PlainEncoder, UNet

        check_outputs(self, outputs)
        bands = tuple(band.name for band in inputs.bands)
        encoder: nn.Module
        if self.encoder == "plain":
            encoder = PlainEncoder(len(bands), self.width, 3 if self.depth is None else self.depth)
        else:
            encoder = ResNetEncoder(bands, int(self.encoder.removeprefix("resnet")))
        return UNet(encoder, bands, outputs.channels, width=self.width, dropout=self.dropout)
