"""Learning from images without labels: what a teacher says of one view of a sample, the network
learns to say of the others. The teacher is the network's own moving average.

A view of which less than half was observed counts nowhere. Source: Caron et al. 2021,
arXiv:2104.14294 (DINO); :mod:`swath.nn.dino`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from swath.config import ConfigError
from swath.data.chip import Batch, Label
from swath.data.views import Global, Local, Views
from swath.models import Inputs, Outputs
from swath.tasks import Task
from swath.tasks._classes import full
from swath.tasks._figures import larger_is_better
from swath.tasks._tally import Tally, loss_sums

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class Dino(Task):
    """DINO, self-distillation: of each view the network says what a teacher, its moving average,
    says of another view of the sample. The teacher's network is what is exported. A sample costs a
    forward and backward pass for each view, and a forward pass of the teacher for each global one.
    """

    labels: ClassVar[tuple[str, ...] | None] = None
    learns: ClassVar[str] = "What a teacher says of a sample's other views said"
    inside: ClassVar[str] = "student.network."
    taught: ClassVar[bool] = True

    views: Views = field(
        default_factory=lambda: Views(
            global_=Global(scale=(0.25, 1.0)), local=Local(number=4, scale=(0.05, 0.25))
        )
    )
    """What is cut out of each sample. The teacher sees the global views, the network all of
    them."""
    hidden: tuple[int, ...] = (1024, 1024)
    """Widths of the layers between features and ``width``; they are left behind afterwards. The
    paper has 2048, 2048."""
    width: int = 256
    """Numbers in the vector that is compared with the prototypes."""
    prototypes: int = 4096
    """Directions that a view may be said to be like. The paper has 65,536 for 1.3 M images."""
    memory: int | None = None
    """Samples over which the teacher forgets, at the start; later more, at the end it stands still.
    None: a 25th of the run. The paper's 0.996 an update of 1,024 is 256,000."""
    centre_memory: int | None = None
    """Samples over which the mean of what the teacher says is taken; as it is shorter than the
    teacher's memory, it keeps up. None: a 25th of that, as the paper's 0.9 is of its 0.996."""
    temperature: float = 0.1
    """Of what the network says: smaller is sharper."""
    teacher_temperature: tuple[float, float] = (0.04, 0.07)
    """Of what the teacher says, at the start and after ``warmup``. Above ``temperature`` nothing
    is sharpened, and all comes to be said alike."""
    warmup: int | None = None
    """Samples over which the teacher's temperature rises, along a line. None: 3/10 of the run."""
    freeze: int | None = None
    """Samples for which the prototypes stay as they were drawn. None: a hundredth of the run."""
    best: Literal["groups", "loss"] = "groups"
    """Figure on the validation part that chooses the best checkpoint. The loss is least of all
    where the teacher says the same of all samples."""

    def __post_init__(self) -> None:
        large, low, high = self.views.global_.number, *self.teacher_temperature
        if large + self.views.local.number < 2:
            raise ConfigError(
                f"views: {large} global and {self.views.local.number} local: a view is compared"
                " with another one; set views.global.number=2, or views.local.number=1 or more"
            )
        if not 0 < low <= high <= self.temperature:
            raise ConfigError(
                f"teacher_temperature={[low, high]} must rise from above 0 to at most temperature="
                f"{self.temperature:g}: a teacher that is less sharp than its student makes all"
                " samples alike"
            )
        for name in ("memory", "centre_memory"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ConfigError(f"{name}={value} samples must be at least 1")
        for name in ("warmup", "freeze"):
            if (value := getattr(self, name)) is not None and value < 0:
                raise ConfigError(f"{name}={value} samples must not be negative")
        if min((self.width, self.prototypes - 1, *self.hidden)) < 1:
            raise ConfigError(
                f"width={self.width} and hidden={list(self.hidden)} must be at least 1, prototypes="
                f"{self.prototypes} at least 2"
            )

    @property
    def wants(self) -> Views:
        return self.views

    def bind(
        self, label: Label, counts: np.ndarray | None, inputs: Inputs | None = None
    ) -> DinoObjective:
        return DinoObjective(
            outputs=Outputs(channels=self.width, dense=False, hidden=self.hidden),
            temperature=self.temperature,
            prototypes=self.prototypes,
            best=self.best,
            larger_is_better=larger_is_better(self.best),
        )

    def fitted(self, network: nn.Module, samples: int) -> nn.Module:
        from swath.nn.dino import SelfDistilled
        from swath.nn.teacher import memory_of

        memory = memory_of(samples, self.memory)
        return SelfDistilled(
            network,
            self.width,
            prototypes=self.prototypes,
            shown=self.views.global_.number,
            memory=memory,
            centre_memory=memory / 25 if self.centre_memory is None else float(self.centre_memory),
            temperatures=self.teacher_temperature,
            warm=0.3 * samples if self.warmup is None else float(self.warmup),
            still=0.01 * samples if self.freeze is None else float(self.freeze),
            total=samples,
        )

    def merged(self, weights: Mapping[str, Any]) -> dict[str, Any]:
        """Return the teacher's network."""
        inside = "teacher.network.network."
        return {n.removeprefix(inside): w for n, w in weights.items() if n.startswith(inside)}


@dataclass(frozen=True, kw_only=True)
class DinoObjective:
    """Say of each view what the teacher says of another; see :class:`swath.tasks.Objective`.

    The network is a :class:`swath.nn.dino.SelfDistilled`.
    """

    outputs: Outputs
    temperature: float
    prototypes: int
    best: str
    larger_is_better: bool

    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        told, wanted, _, there = self._answers(model, batch)
        return self._loss(told, model.targets(wanted), there)  # type: ignore[operator]

    def score(self, model: nn.Module, batch: Batch) -> Distinct:
        told, wanted, found, there = self._answers(model, batch)
        loss, weight = self._loss(told, model.targets(wanted), there)  # type: ignore[operator]
        shares, counts = model.targets(wanted.double()), there[: len(wanted)].double()  # type: ignore[operator]
        entropy = -(shares * shares.clamp(min=1e-300).log()).sum(-1)
        sums = {
            "count": counts.sum(),
            "shares": (shares * counts[..., None]).sum((0, 1)),
            "entropy": (entropy * counts).sum(),
            "vectors": (found.double() * counts[..., None]).sum((0, 1)),
        }
        return Distinct.of(
            {name: value.cpu().numpy() for name, value in sums.items()},
            loss.item(),
            weight.item(),
        )

    def empty(self) -> Distinct:
        zero = np.zeros(())
        sums = {"count": zero, "shares": np.zeros(self.prototypes), "entropy": zero}
        return Distinct.of({**sums, "vectors": np.zeros(self.outputs.channels)}, 0.0, 0.0)

    def predict(self, model: nn.Module, image: Tensor) -> Tensor:
        """Return the vectors of images (b, c, h, w) that are compared with the prototypes."""
        return full(model(image))

    def _answers(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return likenesses by the student (v, b, k) and by the teacher (g, b, k), the teacher's
        vectors (g, b, d), and which views count (v, b)."""
        import torch

        if not hasattr(model, "teacher"):
            raise ConfigError(
                "task dino compares a network with its teacher, and a trained model is the teacher"
                " alone: the figures of the run, val/groups and others, are in its metrics.jsonl;"
                " swath probe says what its features are worth"
            )
        there = torch.stack([seen.flatten(1).double().mean(1) >= 0.5 for seen in batch.seen])
        told, wanted, found = model(batch.views, there, **batch.told_views(model))
        return full(told), full(wanted), full(found), there

    def _loss(self, told: Tensor, targets: Tensor, there: Tensor) -> tuple[Tensor, Tensor]:
        """Return the sum of the cross entropies of all pairs of two views, the first one shown to
        the teacher, and how many pairs there are of views that count."""
        import torch

        logs = (told / self.temperature).log_softmax(-1)
        each = -torch.einsum("gbk,vbk->gvb", targets, logs)
        pairs = there[: len(targets), None] & there[None]
        same = torch.eye(*pairs.shape[:2], dtype=torch.bool, device=pairs.device)
        pairs = pairs & ~same[..., None]
        return each.where(pairs, 0.0).sum(), pairs.sum().double()


@dataclass(frozen=True)
class Distinct(Tally):
    """Sums over the views shown to the teacher, of what it says of them."""

    @classmethod
    def of(cls, sums: dict[str, np.ndarray], loss: float, weight: float) -> Distinct:
        """Return the tally of ``count`` views: the shares of prototypes (k,), their entropies, and
        the ``vectors`` (d,) of length 1 that were compared with them."""
        return cls({**sums, **loss_sums(loss, weight)})

    def finish(self) -> dict[str, float]:
        """Return loss; groups, how many kinds of view the teacher tells apart (1: none): e to the
        power of the information, in nats, that what it says has about the view; prototypes, how
        many it uses in all; spread, the standard deviation of vectors, 0 (all alike) to 1."""
        sums, count = self.sums, self.sums["count"]
        with np.errstate(divide="ignore", invalid="ignore"):
            shares = sums["shares"] / count
            used = -np.sum(shares * np.log(np.maximum(shares, 1e-300)))
            told = used - sums["entropy"] / count
            spread = np.sqrt(np.maximum(1 - np.sum((sums["vectors"] / count) ** 2), 0))
        return {
            **self._loss(),
            "groups": float(np.exp(told)),
            "prototypes": float(np.exp(used)),
            "spread": float(spread),
        }

    def doubts(self) -> list[str]:
        """Return a warning if all views are alike to the teacher."""
        figures = self.finish()
        if not (figures["groups"] < 1.1 or figures["spread"] < 0.01):
            return []
        return [
            f"the teacher says nearly the same of all samples (groups {figures['groups']:.3f},"
            f" spread {figures['spread']:.3f}): if it stays so, training has collapsed. Lower"
            " task.teacher_temperature or optim.lr, or set task.freeze and schedule.warmup longer"
        ]
