"""Low-rank adaptation: matrices stay as they were begun, and a product of two thin ones is learned
beside each.

Source: Hu et al. 2021, arXiv:2106.09685; rank r, alpha and the beginning (B = 0) as there.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from swath.adapt import Adapt
from swath.adapt._freeze import freeze
from swath.config import ConfigError

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class LoRA(Adapt):
    """Low-rank changes of linear layers learn, and the head, with a vit's decoder; the rest stays
    as it was begun."""

    freezes: ClassVar[bool] = True
    passes: ClassVar[int] = 2

    rank: int = 8
    """Of the change of a matrix; more of it can learn more. A matrix of n x m numbers gets
    rank * (n + m) that learn."""
    alpha: float = 16.0
    """The change is multiplied by alpha / rank."""
    layers: tuple[str, ...] = ("q", "v")
    """Linear layers that are changed, by the last part of their names: q, k, v and proj of the
    attention, fc1 and fc2 of what follows it."""

    def __post_init__(self) -> None:
        if self.rank < 1 or self.alpha <= 0 or not self.layers:
            raise ConfigError(
                f"rank={self.rank} must be at least 1, alpha={self.alpha:g} positive, and layers"
                f"={list(self.layers)} name one or more"
            )

    @property
    def scale(self) -> float:
        """What the product is multiplied by."""
        return self.alpha / self.rank

    def fit(self, network: nn.Module, heads: Collection[str]) -> None:
        from torch import nn

        from swath.nn.lora import Lora
        from swath.nn.transfer import readout

        linear = {n: m for n, m in network.named_modules() if isinstance(m, nn.Linear)}
        known = {n.rpartition(".")[2] for n in linear if f"{n}.weight" not in heads}
        for layer in self.layers:
            if layer not in known:
                there = f"has {', '.join(sorted(known))}" if known else "has none but its head"
                raise ConfigError(
                    f"adapt.layers: {layer} is no linear layer of {type(network).__name__}, which"
                    f" {there}; choose of those, or kind full or probe"
                )
        learning = {*heads, *readout(network)}
        for name, module in linear.items():
            if name.rpartition(".")[2] not in self.layers or f"{name}.weight" in heads:
                continue
            sides = module.out_features, module.in_features
            if self.rank > min(sides):
                raise ConfigError(
                    f"adapt.rank={self.rank}: {name} is {sides[0]} x {sides[1]}, so its rank is"
                    f" {min(sides)} at most; set rank to that or less"
                )
            parent, _, leaf = name.rpartition(".")
            setattr(network.get_submodule(parent), leaf, Lora(module, self.rank, self.scale))
            learning |= {f"{name}.lora_a", f"{name}.lora_b"}
        freeze(network, learning)

    def merged(self, weights: Mapping[str, Any]) -> dict[str, Any]:
        from swath.nn.lora import Merged

        found = dict(weights)
        for name in weights:
            if name.endswith(".lora_a"):
                layer = name.removesuffix(".lora_a")
                a, b = found.pop(name), found.pop(f"{layer}.lora_b")
                found[f"{layer}.weight"] = Merged(found[f"{layer}.weight"], a, b, self.scale)
        return found
