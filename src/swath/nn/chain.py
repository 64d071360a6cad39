"""A network as a chain of links, each of which needs only what the one before it gave.

Such a network can be cut between any two links, and its pieces put on different ranks. A model
says so by a method ``chain()`` that returns its links; its ``forward`` is these links in a row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

Run = Callable[..., Tensor]
"""(what the link before gave, all that the network is called with, also by name) -> a tensor."""


@dataclass(frozen=True)
class Link:
    """One step from the image to the output.

    run: takes what the link before returned (the first one the image), one tensor, and then all
    that the network is called with, the image first: any link may want their shape or content.
    parts: names, in the network, of all parameters and modules that it uses, and no other link.
    unit: whether work is counted in it: pieces get as equal numbers of units as can be, and begin
    with one.
    """

    run: Run
    parts: tuple[str, ...]
    unit: bool = False


def row(network: nn.Module, name: str) -> list[Link]:
    """Return a link for each layer in the list ``name`` of ``network``; a layer takes a tensor."""
    layers: nn.ModuleList | nn.Sequential = getattr(network, name)
    return [Link(_alone(layer), (f"{name}.{i}",), unit=True) for i, layer in enumerate(layers)]


def _alone(layer: nn.Module) -> Run:
    return lambda x, *_, **__: layer(x)
