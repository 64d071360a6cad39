"""The encoder stays as it was begun; what reads its features out learns.

A linear probe (Alain & Bengio 2016, arXiv:1610.01644) tells how good features are; with a decoder
it is the cheapest way to a map.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from swath.adapt import Adapt
from swath.adapt._freeze import freeze
from swath.config import ConfigError

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class Probe(Adapt):
    """Frozen encoder: the head alone learns, or a decoder with it."""

    freezes: ClassVar[bool] = True
    cuts: ClassVar[bool] = False
    passes: ClassVar[int] = 1

    decoder: bool | None = None
    """Let the decoder between encoder and head learn, too. None: that of a vit does, for no
    pretrained encoder comes with one; that of a unet does not."""

    def fit(self, network: nn.Module, heads: Collection[str]) -> None:
        from swath.nn.transfer import readout

        names = [name for name, _ in network.named_parameters()]
        between = [n for n in names if any(part.startswith("decoder") for part in n.split("."))]
        if self.decoder and not between:
            raise ConfigError(
                f"adapt.decoder=true has no effect: {type(network).__name__} has no decoder, its"
                " head reads the encoder itself; leave it out"
            )
        own = readout(network) if self.decoder is None else between if self.decoder else ()
        learning = {*heads, *own}
        if not learning.intersection(names):
            raise ConfigError(
                f"adapt.kind=probe: {type(network).__name__} has no head that depends on what is to"
                " be told, so nothing would learn; choose kind full or lora"
            )
        freeze(network, learning)
