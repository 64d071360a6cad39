"""Networks by name: one file, one family. ``kind: unet`` is ``models/unet.py``.

A file here holds the settings of a network and how it meets its inputs and outputs; the layers
are in ``swath.nn``, imported when a network is built, so that reading settings needs no torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from swath.config import Choice
from swath.data.sensor import Band

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What goes into a network: images (b, c, h, w) with c = len(bands)."""

    bands: tuple[Band, ...]
    size: int  # height and width in pixels of a training sample


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """What comes out: (b, channels), or (b, channels, h, w) if ``dense``."""

    channels: int
    dense: bool


@dataclass(frozen=True, kw_only=True)
class Model(Choice):
    """Settings of a network."""

    package: ClassVar[str] = "swath.models"

    def build(self, inputs: Inputs, outputs: Outputs) -> nn.Module:
        """Return the network, randomly initialised from torch's generator; ConfigError if the
        settings do not fit the inputs or outputs. Its forward takes (b, c, h, w) float."""
        raise TypeError(f"{type(self).__name__} has no build()")
