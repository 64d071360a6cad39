"""All parameters learn, those near the image slower than those near the output.

Source: Clark et al. 2020, arXiv:2003.10555 (ELECTRA), as used for vision transformers by Bao et al.
2021, arXiv:2106.08254 (BEiT), and He et al. 2022, arXiv:2111.06377 (MAE), section A.1.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

from swath.adapt import Adapt
from swath.config import ConfigError

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class Full(Adapt):
    """Full fine-tuning: all parameters learn, with layer-wise decay of the learning rate."""

    decay: float = 0.75
    """What the rate of a layer is multiplied by for each layer between it and the output, 0..1.
    What comes after the last layer has optim.lr itself, what comes before the first one power
    more than the first. 1: all alike."""

    def __post_init__(self) -> None:
        if not 0 < self.decay <= 1:
            raise ConfigError(f"decay={self.decay} must be above 0 and at most 1, as 0.75")

    def fit(self, network: nn.Module, heads: Collection[str]) -> None:
        if self.decay != 1 and not _units(network):
            raise ConfigError(
                f"adapt.decay={self.decay} has no effect: {type(network).__name__} does not say"
                " what its layers are; leave adapt out, and all parameters learn alike"
            )

    def factors(self, network: nn.Module) -> dict[str, float]:
        """Layers are the network's units (blocks), in order. A parameter outside of them belongs to
        those after the unit that it follows."""
        units = _units(network)
        last, at, found = len(units) + 1, 0, {}
        for name, _ in network.named_parameters():
            inside = [i for i, unit in enumerate(units, 1) if name.startswith(f"{unit}.")]
            if inside:
                at = inside[0]
            # What follows the last unit reads it out: no layer lies between it and the output.
            layer = at if inside or at < len(units) else last
            if layer < last:
                found[name] = self.decay ** (last - layer)
        return found


def _units(network: nn.Module) -> list[str]:
    """Return the names of the units of ``network``, in order; of one within another the outer."""
    units = [name for name, module in network.named_modules() if getattr(module, "unit", False)]
    return [name for name in units if not any(name.startswith(f"{outer}.") for outer in units)]
