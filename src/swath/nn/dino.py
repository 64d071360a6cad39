"""Self-distillation: a network learns to say of every view of an image what its teacher says of
another one.

What they say is how much an image is like each of many prototypes. No two images are pushed apart.
That not all are said to be alike is prevented on the teacher's side: the mean of what it says is
taken off (else one prototype would win for all), and what is left is sharpened by a low temperature
(else all would win alike).

Source: Caron et al. 2021, arXiv:2104.14294 (DINO); symbols t and s for temperatures as there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from swath.nn.teacher import Mean, Teacher, through


class Prototypes(nn.Module):
    """How much a vector of length 1 is like each of many directions: their cosines."""

    def __init__(self, width: int, number: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(number, width))
        nn.init.trunc_normal_(self.weight, std=0.02)

    def forward(
        self, x: Float[Tensor, "... d"], learns: Tensor | bool = True
    ) -> Float[Tensor, "... k"]:
        """learns: 0 or False lets no gradient through to the directions."""
        weight = F.normalize(self.weight, dim=1)
        still = weight.detach()
        return F.linear(x, still + (weight - still) * learns)


class Branch(nn.Module):
    """A network and the prototypes that its outputs are compared with."""

    def __init__(self, network: nn.Module, width: int, prototypes: int) -> None:
        super().__init__()
        self.network = network
        self.prototypes = Prototypes(width, prototypes)

    def forward(
        self, views: Sequence[Tensor], learns: Tensor | bool = True, known: Any = None
    ) -> tuple[Float[Tensor, "v b d"], Float[Tensor, "v b k"]]:
        """Return outputs of length 1 of each view, and their likeness to the prototypes."""
        found = F.normalize(through(self.network, views, known), dim=-1)
        return found, self.prototypes(found, learns)


class SelfDistilled(nn.Module):
    """A student, which sees all views, and its teacher, which sees the first ones.

    width: of the network's outputs. shown: how many views the teacher sees. memory: of the teacher,
    centre_memory: of the centre, in samples. warm: samples over which the teacher's temperature
    goes from the first of ``temperatures`` to the second. still: samples for which the prototypes
    stay as they are. total: samples of the whole run.
    compares: that it takes all views of a sample at once.
    """

    compares: ClassVar = True

    def __init__(
        self,
        network: nn.Module,
        width: int,
        *,
        prototypes: int,
        shown: int,
        memory: float,
        centre_memory: float,
        temperatures: tuple[float, float],
        warm: float,
        still: float,
        total: int,
    ) -> None:
        super().__init__()
        self.shown, self.still = shown, still
        self.temperatures, self.warm = temperatures, warm
        self.student = Branch(network, width, prototypes)
        self.teacher = Teacher(self.student, memory, total)
        self.centre = Mean(prototypes, centre_memory)

    @property
    def asks(self) -> Any:
        """What the network wants to know of images beside their pixels."""
        return getattr(self.student.network, "asks", ())

    def forward(
        self,
        views: Sequence[Tensor],
        counts: Tensor | None = None,
        known: Any = None,
    ) -> tuple[Float[Tensor, "v b k"], Float[Tensor, "g b k"], Float[Tensor, "g b d"]]:
        """Return the student's likenesses of all views, and the teacher's likenesses and outputs of
        those shown to it.

        views: each (b, c, h_i, w_i). counts: (v, b) 1 or 0: which views of which samples the centre
        heeds; None: all.
        """
        learns = (self.teacher.seen >= self.still).to(views[0].dtype)
        _, told = self.student(views, learns, known)
        # After the student: of shards the last ones gathered are the first ones needed again.
        found, wanted = self.teacher(views[: self.shown], known=known)
        if self.training:
            weights = wanted.new_ones(wanted.shape[:2]) if counts is None else counts[: self.shown]
            self.centre.add(wanted, weights)
        return told, wanted, found

    def targets(self, wanted: Float[Tensor, "g b k"]) -> Float[Tensor, "g b k"]:
        """Return the teacher's likenesses as shares of the prototypes, which add up to 1."""
        t = torch.tensor(self.temperatures[1], dtype=wanted.dtype, device=wanted.device)
        if self.training and self.warm:
            low, high = self.temperatures
            t = low + (high - low) * (self.teacher.seen.to(t) / self.warm).clamp(max=1)
        return ((wanted - self.centre.value.to(wanted)) / t).softmax(-1)

    def usual(self, *views: Tensor) -> tuple[tuple[Tensor, ...]]:
        """Return the arguments of a forward pass in training."""
        return (views,)
