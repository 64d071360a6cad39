"""Learning from images without labels: by one view of a sample what a teacher makes of the other
is to be found, among what it makes of all other samples.

The network, its projector and a predictor make a query of each view; the teacher, a moving average
of network and projector, makes a key of it. Each query looks for the key of the sample's other
view among the keys of that view of all samples (InfoNCE): 2 t (ctr(q1, k2) + ctr(q2, k1)). As in
the paper, no queue of older keys is kept, and it is the network that is of use afterwards, not the
teacher. Unlike there, layers normalise each sample for itself in place of batch norm.

Source: Chen et al. 2021, arXiv:2104.02057 (MoCo v3); :mod:`swath.nn.moco`. What is shared with
other tasks that compare so: :mod:`swath.tasks._pairs`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from swath.config import ConfigError
from swath.data.chip import Batch
from swath.tasks._classes import full
from swath.tasks._pairs import PairsObjective, PairsTask, Sides

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class MocoObjective(PairsObjective):
    """Find keys by queries; see :class:`swath.tasks.Objective`. The network is a
    :class:`swath.nn.moco.Momentum`."""

    vectors: ClassVar[int] = 4  # q1, q2, k1, k2
    sides: ClassVar[Sides] = ((0, (3,)), (1, (2,)))

    @property
    def scale(self) -> float:
        """The two mean cross entropies are added, each times 2 t."""
        return 4 * self.temperature

    def embed(self, model: nn.Module, batch: Batch, again: bool = False) -> Tensor:
        """Return queries and keys (b, 4, k), of length 1, of two views of each sample."""
        from torch.nn.functional import normalize

        if not hasattr(model, "teacher"):
            raise ConfigError(
                "task moco compares a network with its teacher, and a trained model is the network"
                " alone: the figures of the run, val/top1 and others, are in its metrics.jsonl;"
                " swath probe says what its features are worth"
            )
        found = model(batch.views, keys=not again, **batch.told_views(model))
        return normalize(full(found), dim=2).transpose(0, 1)


@dataclass(frozen=True, kw_only=True)
class Moco(PairsTask):
    """MoCo v3: the query of one view of a sample is to find the key that a teacher, the network's
    moving average, makes of the other view. No labels are read. The network is what is exported.
    How views differ beside their pieces, ``augment`` says."""

    inside: ClassVar[str] = "network."
    taught: ClassVar[bool] = True
    learns: ClassVar[str] = "What a teacher makes of a sample's other view found"
    objective: ClassVar[type[PairsObjective]] = MocoObjective

    hidden: tuple[int, ...] = (1024, 1024)
    """Widths of the projector's layers between features and ``width``; it is left behind
    afterwards. The paper has 4096, 4096."""
    width: int = 256
    """Numbers that are compared for each view."""
    predictor: tuple[int, ...] = (1024,)
    """Widths of the layers between what the network's projector says and what is compared with the
    teacher's. The paper has 4096."""
    memory: int | None = None
    """Samples over which the teacher forgets, at the start; later more, at the end it stands still.
    None: a 25th of the run. The paper's 0.99 an update of 4,096 is 407,500."""
    freeze_patches: bool = False
    """Whether the projection of patches stays as it was drawn, or as ``init`` gave it, which keeps
    large transformers from breaking down in training; for models of patches."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if min((1, *self.predictor)) < 1:
            raise ConfigError(f"predictor={list(self.predictor)} must be positive")
        if self.memory is not None and self.memory < 1:
            raise ConfigError(f"memory={self.memory} samples must be at least 1")

    def fitted(self, network: nn.Module, samples: int) -> nn.Module:
        from swath.nn.moco import Momentum, freeze_patches
        from swath.nn.teacher import memory_of

        if self.freeze_patches:
            freeze_patches(network)
        memory = memory_of(samples, self.memory)
        return Momentum(network, self.width, self.predictor, memory, samples)

    def merged(self, weights: Mapping[str, Any]) -> dict[str, Any]:
        """Return the network's weights, without predictor and teacher."""
        own = self.inside
        return {n.removeprefix(own): w for n, w in weights.items() if n.startswith(own)}
