"""What tasks share that find a sample's partner among others: settings, loss and scores.

A network makes several vectors of each sample, all of length 1. Some are anchors; each is to be
found together with its partner, another vector of the sample, among vectors of other samples
(InfoNCE). What an anchor is compared with is part of the settings: vectors of the whole update, on
whatever ranks and in whatever microbatches they were computed, or of its own microbatch. Samples
that show the same, one sample drawn twice or, with ``views.seasons``, one place of a store at two
dates, are no negatives of each other. A sample of which a view was observed to less than half is
neither anchor nor partner, nor is it compared with others.

Scores: the views of a held-out sample depend on its index alone, and samples are compared in groups
of up to 256 that are dealt by lot, by their indices too. So a score is the same on any ranks and in
any microbatches.

Sources: van den Oord et al. 2018, arXiv:1807.03748 (InfoNCE); alignment and uniformity, Wang &
Isola 2020, arXiv:2005.10242.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from swath.config import ConfigError, kind_of
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
"""Samples among whose vectors a partner is looked for in scoring, at most."""
_ANCHORS = 1024  # whose similarities to all others are in memory at a time

Sides = tuple[tuple[int, tuple[int, ...]], ...]
"""Which of a sample's vectors are anchors, and among which vectors of all samples each looks for
its partner; the first of these is the partner."""


@dataclass(frozen=True, kw_only=True)
class PairsObjective:
    """Tell views of one sample from those of others; see :class:`swath.tasks.Objective`.

    vectors: made of each sample. sides: who is compared with whom. scale: of the loss, which is
    that times the mean cross entropy.
    """

    vectors: ClassVar[int]
    sides: ClassVar[Sides]

    outputs: Outputs
    temperature: float
    negatives: Literal["batch", "microbatch"]
    best: str
    larger_is_better: bool

    @property
    def scale(self) -> float:
        return 1.0

    def embed(self, model: nn.Module, batch: Batch, again: bool = False) -> Tensor:
        """Return the vectors (b, v, k), of length 1, that ``model`` makes of each sample.

        again: only gradients are wanted; what carries none may be anything finite.
        """
        raise TypeError(f"{type(self).__name__} has no embed()")

    @property
    def loss(self) -> Callable[[nn.Module, Batch], tuple[Tensor, Tensor]]:
        """The loss; with negatives of the whole update, one that says so."""
        whole = Whole(self)
        return whole if self.negatives == "batch" else whole.__call__

    def score(self, model: nn.Module, batch: Batch) -> Pairs:
        found = self.embed(model, batch).detach().cpu().numpy()
        rows = {"index": batch.indices, "alike": batch.alike}
        listed = {name: row.cpu().numpy().astype(np.float64) for name, row in rows.items()}
        return self._tally({**listed, "vectors": found})

    def empty(self) -> Pairs:
        vectors = np.zeros((0, self.vectors, self.outputs.channels), np.float32)
        return self._tally({"index": np.zeros(0), "alike": np.zeros(0), "vectors": vectors})

    def _tally(self, sums: dict[str, np.ndarray]) -> Pairs:
        return Pairs(sums, self.temperature, self.sides, self.scale)

    def predict(self, model: nn.Module, image: Tensor) -> Tensor:
        """Return what the projector makes of images (b, c, h, w)."""
        return full(model(image))


@dataclass(frozen=True, kw_only=True)
class PairsTask(Task):
    """Settings of a task that finds one view of a sample by the other."""

    labels: ClassVar[tuple[str, ...] | None] = None
    objective: ClassVar[type[PairsObjective]]

    views: Views = field(default_factory=Views)
    """The two views of each sample."""

    temperature: float = 0.2
    """What similarities (cosines, -1..1) are divided by; smaller heeds the most alike samples
    more."""

    negatives: Literal["batch", "microbatch"] = "batch"
    """What a view is told apart from: the views of all samples of the update, or of its microbatch.
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
                f"views.global.number={large}, views.local.number={small}: "
                f"{kind_of(type(self))} compares two views of a sample; leave both out "
                "(task.kind=dino compares more)"
            )

    @property
    def wants(self) -> Views:
        return self.views

    def check(self, samples: int, micro: int) -> None:
        found, name = (samples, "samples") if self.negatives == "batch" else (micro, "micro")
        if found < 2:
            raise ConfigError(
                f"batch.{name}={found}: {kind_of(type(self))} tells a sample from others, and "
                f"task.negatives={self.negatives} has none here; set batch.{name} to hundreds, "
                "2 at the least"
            )

    def bind(
        self, label: Label, counts: np.ndarray | None, inputs: Inputs | None = None
    ) -> PairsObjective:
        return self.objective(
            outputs=Outputs(channels=self.width, dense=False, hidden=self.hidden),
            temperature=self.temperature,
            negatives=self.negatives,
            best=self.best,
            larger_is_better=larger_is_better(self.best),
        )


@dataclass(frozen=True)
class Whole:
    """The loss over all samples of an update; see :class:`swath.parallel.couples.Couples`."""

    task: PairsObjective

    @property
    def shape(self) -> tuple[int, int]:
        """Of what :meth:`embed` makes of one sample: vectors, their numbers."""
        return self.task.vectors, self.task.outputs.channels

    def embed(self, model: nn.Module, batch: Batch) -> Tensor:
        import torch

        # The pass with a graph comes second: the values are known.
        return self.task.embed(model, batch, again=torch.is_grad_enabled())

    def joined(self, embedded: Tensor, alike: Tensor) -> tuple[Tensor, Tensor]:
        task = self.task
        loss = task.scale * told_apart(embedded, alike, task.temperature, task.sides)
        return loss, len(task.sides) * (alike >= 0).sum().double()

    def __call__(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the loss as if the microbatch were all there is."""
        return self.joined(self.task.embed(model, batch), batch.alike)


def told_apart(vectors: Tensor, alike: Tensor, temperature: float, sides: Sides) -> Tensor:
    """Return the sum over the anchors of all samples of the cross entropy of finding the partner.

    vectors: (n, v, k), of length 1. alike: (n,) int64; samples with the same number are left out of
    each other's choice, and those of a negative one altogether.
    """
    import torch
    from torch.utils.checkpoint import checkpoint

    def part(rows: Tensor, anchors: Tensor, others: Tensor) -> Tensor:
        logits = anchors[rows] @ others.T / temperature
        number = torch.arange(len(others), device=rows.device)
        every = alike.repeat(len(others) // len(alike))
        left_out = (alike[rows, None] == every) | (every < 0)
        logits = logits.masked_fill(left_out & (number != rows[:, None]), -torch.inf)
        found = logits.logsumexp(1) - logits.gather(1, rows[:, None])[:, 0]
        return found.where(alike[rows] >= 0, 0.0).sum()

    own, found = torch.arange(len(vectors), device=vectors.device), []
    for anchor, among in sides:
        of = vectors[:, anchor], torch.cat([vectors[:, other] for other in among])
        if len(own) <= _ANCHORS:
            found.append(part(own, *of))
        else:
            found += [checkpoint(part, r, *of, use_reentrant=False) for r in own.split(_ANCHORS)]
    return torch.stack(found).sum()


@dataclass(frozen=True)
class Pairs(Tally):
    """The vectors of each sample (n, v, k), its index, and the number of what it shows."""

    temperature: float
    sides: Sides
    scale: float = 1.0

    lists: ClassVar[bool] = True

    def __add__(self, other: Pairs) -> Pairs:
        joined = {n: np.concatenate([v, other.sums[n]]) for n, v in self.sums.items()}
        return dataclasses.replace(self, sums=joined)

    def _in_order(self) -> dict[str, np.ndarray]:
        """Return what is known of the samples that count, in an order drawn by their indices."""
        sums = {name: v[self.sums["alike"] >= 0] for name, v in self.sums.items()}
        index = sums["index"].astype(np.int64)
        order = np.lexsort((index, draw.bits(0, index, "groups", 1)[:, 0]))
        return {name: v[order] for name, v in sums.items()}

    def finish(self) -> dict[str, float]:
        """Return loss; top1, the share of anchors to which no vector of another sample in the group
        is as near as the partner; alignment, the mean squared distance of an anchor and its
        partner; and uniformity, the logarithm of the mean of exp(-2 d²) over pairs of samples."""
        sums = self._in_order()
        samples = len(sums["index"])
        if not samples:
            return dict.fromkeys(("loss", "top1", "alignment", "uniformity"), float("nan"))
        groups = np.array_split(np.arange(samples), -(-samples // GROUP))
        found = np.sum(
            [
                self._group(sums["vectors"][g], sums["alike"][g], *side)
                for g in groups
                for side in self.sides
            ],
            axis=0,
        )
        loss, right, near, apart, pairs = found
        anchors = len(self.sides) * samples
        return {
            "loss": self.scale * loss / anchors,
            "top1": right / anchors,
            "alignment": near / anchors,
            "uniformity": float(np.log(apart / pairs)) if pairs else float("nan"),
        }

    def _group(
        self, vectors: np.ndarray, alike: np.ndarray, anchor: int, among: tuple[int, ...]
    ) -> tuple[float, ...]:
        vectors = vectors.astype(np.float64)
        cosines = vectors[:, anchor] @ np.concatenate([vectors[:, n] for n in among]).T
        others = alike[:, None] != np.tile(alike, len(among))
        near = cosines.diagonal()[:, None]
        rival = np.where(others, cosines, -np.inf)
        logs = np.where(others, cosines - near, -np.inf) / self.temperature
        top = np.maximum(logs.max(1), 0)  # the partner's own is 0
        loss = top + np.log(np.exp(logs - top[:, None]).sum(1) + np.exp(-top))
        apart = np.exp(-2 * (2 - 2 * cosines[others])).sum()
        right = (near[:, 0] > rival.max(1)).sum()
        return loss.sum(), right, (2 - 2 * near).sum(), apart, others.sum()
