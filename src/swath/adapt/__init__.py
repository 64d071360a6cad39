"""Ways to go on from given weights: one file each. ``kind: lora`` is ``adapt/lora.py``.

A way says which parameters learn, what is put beside them, and how fast each learns compared with
``optim.lr``. Frozen parameters get no gradient and no memory in the optimiser; modules that are
frozen as a whole stay in eval mode, so that statistics of batch norm stay as they are and nothing
is dropped in them. What was put beside is gone again in the exported model (:meth:`Adapt.merged`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from swath.config import Choice

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class Adapt(Choice):
    """How a network goes on from the weights that it begins with."""

    package: ClassVar[str] = "swath.adapt"
    freezes: ClassVar[bool] = False
    """Whether most of the network stays as it was begun, which is of no use if that is random."""
    cuts: ClassVar[bool] = True
    """Whether every piece of a pipeline has something to learn."""
    passes: ClassVar[int] = 3
    """Forward passes that a sample costs, forward and backward."""

    def fit(self, network: nn.Module, heads: Collection[str]) -> None:
        """Make ``network``, as it was built, ready to learn so, in place.

        heads: names of tensors whose shape follows from the outputs. ConfigError if it cannot be.
        """

    def factors(self, network: nn.Module) -> dict[str, float]:
        """Return what the learning rate of a parameter is multiplied by, by name, where not 1."""
        return {}

    def merged(self, weights: Mapping[str, Any]) -> dict[str, Any]:
        """Return ``weights``, which lie on disk, by the names of the network as it is built."""
        return dict(weights)
