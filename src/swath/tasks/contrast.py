"""Learning from images without labels: two views of a sample are to be found among all others.

The network makes a vector of each view; those of one sample are pulled together, those of different
ones pushed apart (NT-Xent). What a view is compared with is part of the settings: all views of the
update, on whatever ranks and in whatever microbatches they were computed, or those of its own
microbatch. Samples that show the same, one sample drawn twice or one place at two dates, are no
negatives of each other.

Scores: the views of a held-out sample depend on its index alone, and samples are compared in groups
of up to 256 that are dealt by lot, by their indices too. So a score is the same on any ranks and in
any microbatches.

Sources: Chen et al. 2020, arXiv:2002.05709 (SimCLR); alignment and uniformity, Wang & Isola 2020,
arXiv:2005.10242.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from swath.config import ConfigError
from swath.data import draw
from swath.data.chip import Batch, Label
from swath.data.views import Views
from swath.models import Inputs, Outputs
from swath.tasks import Task
from swath.tasks._classes import full
from swath.tasks._figures import larger_is_better
from swath.tasks._tally import Tally

if TYPE_CHECKING:
    from torch import Tensor, nn

GROUP = 256
"""Samples among whose views a partner is looked for in scoring, at most."""
_ANCHORS = 1024  # views whose similarities to all others are in memory at a time


@dataclass(frozen=True, kw_only=True)
class Contrast(Task):
    """Find the other view of a sample among those of all samples; no labels are read. How views
    differ beside their pieces, ``augment`` says: without it they differ by their pieces alone."""

    labels: ClassVar[tuple[str, ...] | None] = None

    views: Views = field(default_factory=Views)
    """The two views of each sample."""

    temperature: float = 0.2
    """What similarities (cosines, -1..1) are divided by; smaller heeds the most alike samples
    more."""

    negatives: Literal["batch", "microbatch"] = "batch"
    """What a view is told apart from: all other views of the update, or those of its microbatch.
    batch: the result does not depend on batch.micro, unless the network has batch norm or dropout;
    costs a forward pass more, not more memory."""

    hidden: tuple[int, ...] = (512,)
    """Widths of the projector's layers between the features and what is compared; the features are
    what is of use afterwards."""

    width: int = 128
    """Numbers that are compared for each view."""

    best: Literal["loss", "top1"] = "loss"
    """Figure on the validation part that chooses the best checkpoint."""

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ConfigError(f"temperature={self.temperature:g} must be above 0")
        if self.width < 1 or min((1, *self.hidden)) < 1:
            raise ConfigError(f"width={self.width} and hidden={list(self.hidden)} must be positive")
        large, small = self.views.global_.number, self.views.local.number
        if (large, small) != (2, 0):
            raise ConfigError(
                f"views.global.number={large}, views.local.number={small}: contrast compares two "
                "views of a sample; leave both out (task.kind=dino compares more)"
            )

    @property
    def wants(self) -> Views:
        return self.views

    def bind(
        self, label: Label, counts: np.ndarray | None, inputs: Inputs | None = None
    ) -> ContrastObjective:
        return ContrastObjective(
            outputs=Outputs(channels=self.width, dense=False, hidden=self.hidden),
            temperature=self.temperature,
            negatives=self.negatives,
            best=self.best,
            larger_is_better=larger_is_better(self.best),
        )


@dataclass(frozen=True, kw_only=True)
class ContrastObjective:
    """Tell views of one sample from those of others; see :class:`swath.tasks.Objective`."""

    outputs: Outputs
    temperature: float
    negatives: Literal["batch", "microbatch"]
    best: str
    larger_is_better: bool

    @property
    def loss(self) -> Callable[[nn.Module, Batch], tuple[Tensor, Tensor]]:
        """The loss; with negatives of the whole update, one that says so."""
        whole = Whole(self)
        return whole if self.negatives == "batch" else whole.__call__

    def score(self, model: nn.Module, batch: Batch) -> Pairs:
        found = embedded(model, batch).detach().cpu().numpy()
        rows = {"index": batch.indices, "alike": batch.alike}
        listed = {name: row.cpu().numpy().astype(np.float64) for name, row in rows.items()}
        return Pairs({**listed, "views": found}, self.temperature).in_order()

    def empty(self) -> Pairs:
        views = np.zeros((0, 2, self.outputs.channels), np.float32)
        return Pairs({"index": np.zeros(0), "alike": np.zeros(0), "views": views}, self.temperature)

    def predict(self, model: nn.Module, image: Tensor) -> Tensor:
        """Return what the projector makes of images (b, c, h, w)."""
        return full(model(image))


@dataclass(frozen=True)
class Whole:
    """NT-Xent over all samples of an update; see :class:`swath.parallel.couples.Couples`."""

    task: ContrastObjective

    @property
    def shape(self) -> tuple[int, int]:
        """Of what :meth:`embed` makes of one sample: two views, their numbers."""
        return 2, self.task.outputs.channels

    def embed(self, model: nn.Module, batch: Batch) -> Tensor:
        return embedded(model, batch)

    def joined(self, embedded: Tensor, alike: Tensor) -> tuple[Tensor, Tensor]:
        loss = nt_xent(embedded, alike, self.task.temperature)
        return loss, loss.detach().new_tensor(2 * len(embedded)).double()

    def __call__(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the loss as if the microbatch were all there is."""
        return self.joined(self.embed(model, batch), batch.alike)


def embedded(model: nn.Module, batch: Batch) -> Tensor:
    """Return the vectors (b, 2, k), of length 1, that ``model`` makes of two views of each
    sample."""
    import torch
    from torch.nn.functional import normalize

    assert len(batch.views) == 2, f"the batch has {len(batch.views)} views"
    # Both at once: so each has draws of its own (dropout), and batch statistics are of both.
    found = model(torch.cat(batch.views), **batch.told(model, 2))
    return normalize(full(found), dim=1).unflatten(0, (2, -1)).transpose(0, 1)


def nt_xent(views: Tensor, alike: Tensor, temperature: float) -> Tensor:
    """Return the sum over all 2 n views (n, 2, k), of length 1, of the cross entropy of finding the
    sample's other view.

    alike: (n,) int64; samples with the same number are left out of each other's choice.
    """
    import torch
    from torch.utils.checkpoint import checkpoint

    every = views.transpose(0, 1).flatten(0, 1)
    marks = alike.repeat(2)
    samples = len(views)
    own = torch.arange(2 * samples, device=views.device)

    def part(anchors: Tensor) -> Tensor:
        logits = every[anchors] @ every.T / temperature
        partner = (anchors + samples) % (2 * samples)
        left_out = (marks[anchors, None] == marks) & (own != partner[:, None])
        logits = logits.masked_fill(left_out, -torch.inf)
        return (logits.logsumexp(1) - logits.gather(1, partner[:, None])[:, 0]).sum()

    if len(own) <= _ANCHORS:
        return part(own)
    parts = [checkpoint(part, some, use_reentrant=False) for some in own.split(_ANCHORS)]
    return torch.stack(parts).sum()


@dataclass(frozen=True)
class Pairs(Tally):
    """The views' vectors of each sample (n, 2, k), its index, and the number of what it shows."""

    temperature: float

    lists: ClassVar[bool] = True

    def __add__(self, other: Pairs) -> Pairs:
        joined = {n: np.concatenate([v, other.sums[n]]) for n, v in self.sums.items()}
        return Pairs(joined, self.temperature).in_order()

    def in_order(self) -> Pairs:
        """Return the same samples in an order drawn by their indices."""
        index = self.sums["index"].astype(np.int64)
        order = np.lexsort((index, draw.bits(0, index, "groups", 1)[:, 0]))
        return Pairs({name: v[order] for name, v in self.sums.items()}, self.temperature)

    def finish(self) -> dict[str, float]:
        """Return loss; top1, the share of views to which no other view of the group is as near as
        the sample's own; alignment, the mean squared distance of the two views of a sample; and
        uniformity, the logarithm of the mean of exp(-2 d²) over pairs of samples."""
        sums = self.in_order().sums
        samples = len(sums["index"])
        if not samples:
            return dict.fromkeys(("loss", "top1", "alignment", "uniformity"), float("nan"))
        groups = np.array_split(np.arange(samples), -(-samples // GROUP))
        found = np.sum([self._group(sums["views"][g], sums["alike"][g]) for g in groups], axis=0)
        loss, right, near, apart, pairs = found
        return {
            "loss": loss / (2 * samples),
            "top1": right / (2 * samples),
            "alignment": near / samples,
            "uniformity": float(np.log(apart / pairs)) if pairs else float("nan"),
        }

    def _group(self, views: np.ndarray, alike: np.ndarray) -> tuple[float, ...]:
        samples = len(views)
        every = views.transpose(1, 0, 2).reshape(2 * samples, -1).astype(np.float64)
        marks, own = np.tile(alike, 2), np.arange(2 * samples)
        partner = (own + samples) % (2 * samples)
        cosines = every @ every.T
        others = marks[:, None] != marks
        near = cosines[own, partner]
        rival = np.where(others, cosines, -np.inf)
        both = np.exp(np.where(others, cosines - 1, -np.inf) / self.temperature).sum(1)
        loss = np.log(both + np.exp((near - 1) / self.temperature)) - (near - 1) / self.temperature
        apart = np.exp(-2 * (2 - 2 * cosines[others])).sum()
        right = (near > rival.max(1)).sum()
        return loss.sum(), right, (2 - 2 * near[:samples]).sum(), apart, others.sum()
