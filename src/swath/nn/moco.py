"""Queries and keys: what a network predicts of a view, and what its teacher makes of one.

The teacher, a moving average of the network, changes slowly, so what is to be found changes slowly
too. The predictor, which the teacher has not, is on the network's side alone.

Source: Chen et al. 2021, arXiv:2104.02057 (MoCo v3), algorithm 1; query, key and momentum encoder
as there, which is the teacher here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from swath.config import ConfigError
from swath.nn.projector import head
from swath.nn.teacher import Teacher, through


class Momentum(nn.Module):
    """A network whose outputs a predictor reads, and its teacher.

    width: of the network's outputs. predictor: widths of the predictor's layers before its last
    one. memory: of the teacher, total: of the whole run, in samples.
    compares: that it takes all views of a sample at once.
    """

    compares: ClassVar = True

    def __init__(
        self, network: nn.Module, width: int, predictor: Sequence[int], memory: float, total: int
    ) -> None:
        super().__init__()
        self.network = network
        self.predictor = head(width, width, predictor)
        self.teacher = Teacher(network, memory, total)

    @property
    def asks(self) -> Any:
        """What the network wants to know of images beside their pixels."""
        return getattr(self.network, "asks", ())

    def forward(
        self, views: Sequence[Tensor], known: Any = None, keys: bool = True
    ) -> Float[Tensor, "twice b k"]:
        """Return the queries of all views (b, c, h, w), then their keys, which carry no gradient.

        keys: False leaves the teacher out; zeros are in the place of its keys.
        """
        queries = self.predictor(through(self.network, views, known))
        # After the network: of shards the last ones gathered are the first ones needed again.
        wanted = through(self.teacher, views, known) if keys else torch.zeros_like(queries)
        return torch.cat([queries, wanted])

    def usual(self, *views: Tensor) -> tuple[tuple[Tensor, ...]]:
        """Return the arguments of a forward pass in training."""
        return (views,)


def freeze_patches(network: nn.Module) -> None:
    """Let what makes tokens of patches stay as it was drawn; ConfigError if there is none.

    The paper found that its gradients are where training at large batches breaks down first
    (section 4.2), and that random ones do as well.
    """
    patches = getattr(network, "patch_embed", None)
    if not isinstance(patches, nn.Module):
        raise ConfigError(
            f"task.freeze_patches=true: a {type(network).__name__} has no projection of patches; "
            "leave it out, or set model.kind=vit"
        )
    # Of channels the projection alone: how they are aggregated is learned.
    own = getattr(patches, "proj", None)
    (own if isinstance(own, nn.Module) else patches).requires_grad_(False)
