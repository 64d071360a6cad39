"""Networks by name: one file, one family. ``kind: unet`` is ``models/unet.py``.

A file here holds the settings of a network and how it meets its inputs and outputs; the layers
are in ``swath.nn``, imported when a network is built, so that reading settings needs no torch. A
family says by ``dense`` and ``masked`` which sort of outputs it has, and begins ``build``
with :func:`check_outputs`; every network refuses images of other bands (:mod:`swath.nn.bands`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from swath.config import Choice, ConfigError, kind_of, members
from swath.data.sensor import Band

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What goes into a network: images (b, c, h, w) with c = len(bands)."""

    bands: tuple[Band, ...]
    size: int
    """Height and width in pixels of a training sample."""
    gsd_m: float | None = field(default=None, repr=False)
    """Metres a pixel of a training sample; None: not known, or nothing depends on it."""


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """What comes out: (b, channels), or (b, channels, h, w) if ``dense``."""

    channels: int
    dense: bool
    masked: bool = field(default=False, repr=False)
    """Whether the network is shown some of the patches and asked for others, as
    :class:`swath.nn.mae.MaskedAutoencoder` is."""
    hidden: tuple[int, ...] = field(default=(), repr=False)
    """Widths of the layers between an image's features and the outputs, which a task that compares
    samples wants: the head is then a :class:`swath.nn.projector.Projector`."""


@dataclass(frozen=True, kw_only=True)
class Model(Choice):
    """Settings of a network."""

    package: ClassVar[str] = "swath.models"
    dense: ClassVar[bool | None] = None
    """Whether it gives an output for every pixel, or one for each image; None: as is wanted."""
    masked: ClassVar[bool] = False
    """Whether it fills in patches that it was not shown."""

    @property
    def asks(self) -> frozenset[str]:
        """What the network heeds beside images, of ``swath.data.chip.ASKS``; its forward then takes
        it as ``known``, and has the same ``asks``."""
        return frozenset()

    def build(self, inputs: Inputs, outputs: Outputs) -> nn.Module:
        """Return the network, randomly initialised from torch's generator; ConfigError if the
        settings do not fit the inputs or outputs. Its forward takes (b, c, h, w) float, and raises
        ConfigError unless c is as many as ``inputs.bands`` (``check_bands``)."""
        raise TypeError(f"{type(self).__name__} has no build()")


def check_outputs(model: Model, outputs: Outputs) -> None:
    """Raise ConfigError, naming the families that fit, unless ``model`` has such outputs."""

    def fits(family: type[Model]) -> bool:
        return family.masked == outputs.masked and family.dense in (None, outputs.dense)

    if fits(type(model)):
        return
    fitting = [kind for kind, cls in members(Model).items() if fits(cls)]
    each = {True: "an output for every pixel", False: "one output for each image"}
    dense = not outputs.dense if model.dense is None else model.dense
    gives, wants = each[dense], each[outputs.dense]
    if model.masked != outputs.masked:
        gives = "patches that it was not shown" if model.masked else "outputs of whole images"
        wants = "hidden patches filled in" if outputs.masked else wants
    raise ConfigError(
        f"{kind_of(type(model))} gives {gives}, and the task wants {wants}; choose model.kind "
        f"{' or '.join(fitting)}"
    )
