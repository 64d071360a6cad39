"""Networks by name: one file, one family. ``kind: unet`` is ``models/unet.py``.

A file here holds the settings of a network and how it meets its inputs and outputs; the layers
are in ``swath.nn``, imported when a network is built, so that reading settings needs no torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, cast

from swath.config import Choice, ConfigError, find, kind_of, kinds
from swath.data.sensor import Band

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What goes into a network: images (b, c, h, w) with c = len(bands)."""

    bands: tuple[Band, ...]
    size: int
    """Height and width in pixels of a training sample."""


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """What comes out: (b, channels), or (b, channels, h, w) if ``dense``."""

    channels: int
    dense: bool


@dataclass(frozen=True, kw_only=True)
class Model(Choice):
    """Settings of a network."""

    package: ClassVar[str] = "swath.models"
    dense: ClassVar[bool | None] = None
    """Whether it gives an output for every pixel, or one for each image; None: as is wanted."""

    def build(self, inputs: Inputs, outputs: Outputs) -> nn.Module:
        """Return the network, randomly initialised from torch's generator; ConfigError if the
        settings do not fit the inputs or outputs. Its forward takes (b, c, h, w) float."""
        raise TypeError(f"{type(self).__name__} has no build()")


def check_outputs(model: Model, outputs: Outputs) -> None:
    """Raise ConfigError, naming the families that fit, unless ``model`` has such outputs."""
    if model.dense in (None, outputs.dense):
        return
    families = {kind: cast(type[Model], find(Model, kind)) for kind in kinds(Model)}
    fitting = [kind for kind, cls in families.items() if cls.dense in (None, outputs.dense)]
    each = {True: "an output for every pixel", False: "one output for each image"}
    raise ConfigError(
        f"{kind_of(type(model))} gives {each[not outputs.dense]}, and the task wants "
        f"{each[outputs.dense]}; choose model.kind {' or '.join(fitting)}"
    )
