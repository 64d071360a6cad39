"""What is learned: one file, one task. ``kind: segment`` is ``tasks/segment.py``.

Two rules make every task equal on any number of ranks: a loss is a (sum, weight), never a mean,
and everything random is keyed by a sample's position, never by a rank.

A task is a frozen dataclass with the kinds of ``labels`` that it learns (None: it needs none, and
reads none), a field ``best``, which is a ``Literal`` of the figures that may choose the best
checkpoint, and ``bind``. Its scores are a
:class:`Tally`, sums that merge, frozen as well: one of those below, or one of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

import numpy as np

from swath.config import Choice, ConfigError, kind_of, members
from swath.data.chip import Batch, Label
from swath.data.views import Views
from swath.models import Inputs, Outputs
from swath.tasks._figures import FIGURES as FIGURES
from swath.tasks._figures import Figure as Figure
from swath.tasks._figures import figure as figure
from swath.tasks._tally import Confusion as Confusion
from swath.tasks._tally import Flags as Flags
from swath.tasks._tally import Moments as Moments
from swath.tasks._tally import Tally as Tally
from swath.tasks._weights import class_weights as class_weights

if TYPE_CHECKING:
    from torch import Tensor, nn


class Objective(Protocol):
    """A task bound to the labels and bands of one store; knows no ranks, optimiser, trainer or
    files."""

    @property
    def outputs(self) -> Outputs:
        """What the network must give."""

    @property
    def best(self) -> str:
        """Name of the figure that chooses the best checkpoint, such as "miou"."""

    @property
    def larger_is_better(self) -> bool:
        """Whether that figure grows as the network gets better."""

    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the sum of the losses, which carries the gradient, and the sum of their weights
        (0-d, the weight float64 without gradient). Their ratio over all microbatches of an update
        is what is minimised. A microbatch without labels gives (a sum of 0 with a graph, 0).

        A loss that couples all samples of an update is an object that says so
        (:class:`swath.parallel.couples.Couples`)."""

    def score(self, model: nn.Module, batch: Batch) -> Tally:
        """Return the sums of figures over ``batch``; the caller has set eval and no_grad."""

    def empty(self) -> Tally:
        """Return the tally of no samples."""

    def predict(self, model: nn.Module, image: Tensor) -> Tensor:
        """Return probabilities (b, k) or (b, k, h, w), or values, of normalised images."""


@dataclass(frozen=True, kw_only=True)
class Task(Choice):
    """Settings of a task."""

    package: ClassVar[str] = "swath.tasks"
    labels: ClassVar[tuple[str, ...] | None] = ()
    """Kinds of labels that it learns; see Label. None: it learns from images alone, of any
    store."""
    learns: ClassVar[str] = ""
    """What it learns, in words that "by unet" can follow; "": the report says its kind."""
    inside: ClassVar[str] = ""
    """What names of the network's tensors begin with in what is trained (:meth:`fitted`)."""
    taught: ClassVar[bool] = False
    """Whether the network learns from a teacher that follows it. One of the two is exported, and
    cannot be scored without the other."""

    @property
    def wants(self) -> Views | None:
        """Views of each sample that it compares (``Batch.views``); None: samples as they are."""
        return None

    def check(self, samples: int, micro: int) -> None:
        """Raise ConfigError if updates of so many samples, in microbatches of ``micro``, teach
        nothing."""

    @property
    def shows(self) -> Literal["answers", "views", "filled"]:
        """What the report shows of samples: the model's answers beside labels, the views that it
        compares, or samples that its objective has ``filled`` in (as that of pretrain)."""
        return "answers" if self.wants is None else "views"

    def bind(
        self, label: Label, counts: np.ndarray | None, inputs: Inputs | None = None
    ) -> Objective:
        """Return the task on labels like ``label``; ConfigError if they cannot be learned so.

        counts: training samples (or pixels) of each class, for class weights; float64 (k,).
        inputs: what the network is given; a run always says, and a task that learns labels need
            not know.
        """
        raise TypeError(f"{type(self).__name__} has no bind()")

    def fitted(self, network: nn.Module, samples: int) -> nn.Module:
        """Return what is trained: ``network``, as it was built, or a module that has it inside.

        samples: of the whole run.
        """
        return network

    def merged(self, weights: Mapping[str, Any]) -> dict[str, Any]:
        """Return of ``weights``, which are those of what was trained, the network's own, by its
        names."""
        return dict(weights)


def check_label(task: Task, label_kind: str) -> None:
    """Raise ConfigError, naming the tasks that fit, unless ``task`` learns labels of that kind."""
    if task.labels is None or label_kind in task.labels:
        return
    every = members(Task).items()
    fitting = [kind for kind, cls in every if label_kind in (cls.labels or ())]
    without = [kind for kind, cls in every if cls.labels is None]
    hint = f"use task.kind={' or '.join(fitting or without)}"
    raise ConfigError(
        f"task {kind_of(type(task))} learns labels of kind {' or '.join(task.labels)}; the store's "
        f"are of kind {label_kind}: {hint if fitting else f'to learn without labels, {hint}'}"
    )
