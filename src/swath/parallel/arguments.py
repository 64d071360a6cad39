"""What a loss calls a network with, asked of the loss itself: it alone knows.

A rank that holds a piece of a network needs it, and so does who only counts what one would do.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from swath.data.chip import Batch

Arguments = tuple[tuple[Tensor, ...], dict[str, Any]]
"""What a network is called with: the image and more in a row, and more by name."""
Loss = Callable[[nn.Module, Batch], tuple[Tensor, Tensor]]
"""(model, microbatch) -> (sum of losses with a graph, sum of their weights)."""


class StandIn(nn.Module):
    """Stands for the whole network where ``piece`` is a part of it: calling it calls ``answer``,
    and what it is asked beside that, the piece tells."""

    def __init__(self, piece: nn.Module, answer: Callable[..., Tensor]) -> None:
        super().__init__()
        self.piece, self.answer = piece, answer

    def forward(self, *inputs: Tensor, **told: Any) -> Tensor:
        return self.answer(*inputs, **told)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("piece"), name)


class _Called(Exception):
    """Ends a loss at the moment at which it calls the network: what it makes of the output is of no
    use yet."""

    def __init__(self, given: Arguments) -> None:
        super().__init__()
        self.given = given


def arguments_of(loss_of: Loss, network: nn.Module, batch: Batch) -> Arguments:
    """Return what ``loss_of`` calls ``network`` with for ``batch``."""

    def called(*inputs: Tensor, **told: Any) -> Tensor:
        raise _Called((inputs, told))

    try:
        loss_of(StandIn(network, called), batch)
    except _Called as call:
        return call.given
    raise AssertionError("a loss that does not call the network")
