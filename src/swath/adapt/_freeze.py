"""Parameters that stay as they were begun, and the modules that they make up."""

from __future__ import annotations

import types
from collections.abc import Collection
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


def freeze(network: nn.Module, learning: Collection[str]) -> None:
    """Let only the parameters called ``learning`` learn. Modules that have parameters of which none
    does stay in eval mode."""
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name in learning and parameter.requires_grad)
    for module in network.modules():
        own = list(module.parameters())
        if own and not any(p.requires_grad for p in own):
            module.eval()
            module.train = types.MethodType(_stay, module)  # type: ignore[method-assign]


def _stay(module: nn.Module, mode: bool = True) -> nn.Module:
    return type(module).train(module, False)
