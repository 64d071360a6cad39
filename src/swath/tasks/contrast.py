"""Learning from images without labels: two views of a sample are to be found among all others.

The network makes a vector of each view; those of one sample are pulled together, those of different
ones pushed apart (NT-Xent): each view looks for the other one among all views but itself. What is
shared with other tasks that do so: :mod:`swath.tasks._pairs`.

Source: Chen et al. 2020, arXiv:2002.05709 (SimCLR).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from swath.data.chip import Batch, Known
from swath.tasks._classes import full
from swath.tasks._pairs import PairsObjective, PairsTask, Sides

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class ContrastObjective(PairsObjective):
    """Tell views of one sample from those of others; see :class:`swath.tasks.Objective`."""

    vectors: ClassVar[int] = 2
    sides: ClassVar[Sides] = ((0, (1, 0)), (1, (0, 1)))

    def embed(self, model: nn.Module, batch: Batch, again: bool = False) -> Tensor:
        """Return the vectors (b, 2, k), of length 1, of two views of each sample."""
        import torch
        from torch.nn.functional import normalize

        assert len(batch.views) == 2, f"the batch has {len(batch.views)} views"
        # Both at once: so each has draws of its own (dropout), and batch statistics are of both.
        told = {name: Known.joined(each) for name, each in batch.told_views(model).items()}
        found = model(torch.cat(batch.views), **told)
        return normalize(full(found), dim=1).unflatten(0, (2, -1)).transpose(0, 1)


@dataclass(frozen=True, kw_only=True)
class Contrast(PairsTask):
    """SimCLR: one view of a sample is to find the other one among those of all samples. No labels
    are read. How views differ beside their pieces, ``augment`` says: without it they differ by
    their pieces alone."""

    objective: ClassVar[type[PairsObjective]] = ContrastObjective
    learns: ClassVar[str] = "Views of one sample told from those of others"
