"""A teacher: a copy of the network that learns nothing, and follows the one that does.

After each update its weights move towards the student's by a small share. The share follows from
samples, not updates: of a student seen ``memory`` samples ago 1/e is left, so half the batch twice
moves the teacher as far as the whole batch once. (In the papers it is a number an update, and has
to be set anew for another batch size: 0.996 for batches of 1,024 is a memory of 256,000 samples.)
As in the papers the share falls to 0 along half a cosine to the end of the run.

Student and teacher are built alike and spread over ranks alike, so each number of the teacher lies
where the student's does: following needs no exchange and no second copy.

Sources: He et al. 2020, arXiv:1911.05722; the cosine, Grill et al. 2020, arXiv:2006.07733.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from swath.data.chip import Known
from swath.nn.random import Random
from swath.nn.settle import Settled, Update, follow


def following(samples: int, start: int, memory: float, total: int) -> float:
    """Return by which share a teacher moves towards its student after an update of ``samples``.

    start: samples seen before it, of ``total`` in the whole run.
    """
    falling = (1 + math.cos(math.pi * start / total)) / 2
    return -math.expm1(-samples / memory * falling)


def memory_of(samples: int, memory: int | None) -> float:
    """Return after how many samples 1/e of a student is left in its teacher, in a run of
    ``samples``: ``memory``, or a 25th of the run."""
    return samples / 25 if memory is None else float(memory)


class Teacher(Settled):
    """A copy of ``student`` that follows it; its batch statistics are its own.

    memory: samples after which 1/e of a student is left, at the start of the run. total: samples of
    the whole run.
    """

    seen: Tensor

    def __init__(self, student: nn.Module, memory: float, total: int) -> None:
        super().__init__()
        self.memory, self.total = memory, total
        self.network = copy.deepcopy(student).requires_grad_(False)
        self._student = (student,)  # in a tuple: no part of this module
        self.register_buffer("seen", torch.tensor(0))  # samples, before the update under way
        self.train(self.training)  # the copy drops as its student does

    def train(self, mode: bool = True) -> Teacher:
        """Nothing is dropped in a teacher, in training neither."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, Random | _DropoutNd):
                module.eval()
        return self

    @torch.no_grad()
    def forward(self, *inputs: Any, **known: Any) -> Any:
        """Return what the copy says, called as the student is."""
        return self.network(*inputs, **known)

    @torch.no_grad()
    def begin(self) -> None:
        """Become as the student is now."""
        for mine, own in self._pairs():
            mine.copy_(own)

    def move(self, update: Update) -> None:
        """Follow the student, which has just made ``update``."""
        start = update.seen - update.samples
        share = following(update.samples, start, self.memory, self.total)
        for mine, own in self._pairs():
            if own.requires_grad:
                follow(mine, own, share)
        self.seen.fill_(update.seen)

    def _pairs(self) -> list[tuple[Tensor, Tensor]]:
        own = dict(self._student[0].named_parameters())
        return [(mine, own[name]) for name, mine in self.network.named_parameters()]


class Mean(Settled):
    """The moving mean of vectors (n, k) over the samples of whole updates, of all ranks.

    memory: samples after which 1/e of what came before is left.
    """

    gathers = ("sum", "count")
    value: Tensor
    sum: Tensor
    count: Tensor

    def __init__(self, width: int, memory: float) -> None:
        super().__init__()
        self.memory = memory
        self.register_buffer("value", torch.zeros(width))
        self.register_buffer("sum", torch.zeros(width), persistent=False)
        self.register_buffer("count", torch.zeros(1), persistent=False)

    @torch.no_grad()
    def add(self, vectors: Tensor, weights: Tensor) -> None:
        """Gather ``vectors`` (..., k); weights (...): 1, or 0 for those that do not count."""
        weights = weights.to(self.sum)
        self.sum += torch.einsum("...k,...->k", vectors.to(self.sum), weights)
        self.count += weights.sum()

    def move(self, update: Update) -> None:
        """Move towards the mean over the samples of ``update``, by as many as they are."""
        # A number first: times a truth value a Python float becomes float32.
        share = (self.count > 0).to(self.value) * -math.expm1(-update.samples / self.memory)
        self.value.lerp_(self.sum / self.count.clamp(min=1), share)


def through(
    network: nn.Module, views: Sequence[Tensor], known: Sequence[Known] | None = None
) -> Tensor:
    """Return what ``network`` makes of ``views``, each (b, c, h_i, w_i): (v, b, k). Those of one
    size that follow each other go through it together. known: of each of the views."""
    found, done = [], 0
    for _, same in groupby(views, key=lambda view: view.shape):
        every = list(same)
        told = {}
        if known is not None:
            told = {"known": Known.joined(known[done : done + len(every)])}
        done += len(every)
        found.append(network(torch.cat(every), **told).unflatten(0, (len(every), -1)))
    return torch.cat(found)
