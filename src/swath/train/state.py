"""Everything of a run that must survive, and nothing else.

Not here, because they follow from the settings and the number of samples seen: the learning rate,
the order of the samples, every random draw. Not here either: how it is saved, or by how many ranks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from swath.train.ema import Average


@dataclass
class Progress:
    """The numbers of a run so far."""

    update: int = 0
    """Updates begun, those left out included."""
    samples: int = 0
    """Samples consumed: also the position in the endless run of the next one."""
    skipped: int = 0
    """Updates left out because their gradient was not finite."""
    evaluated: int = 0
    """Samples seen at the last evaluation."""
    stale: int = 0
    """Evaluations since the best one."""
    best: float | None = None
    """Figure of the best evaluation; None before the first."""
    best_update: int | None = None
    """Update after which it was made."""
    lost: int | None = None
    """Update of a better one, whose weights were damaged on disk; None: none was lost."""
    seconds: float = 0.0
    """Seconds spent training, interruptions left out."""


@dataclass
class TrainState:
    """A run between two updates: model, optimiser, average, and the numbers so far."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    average: Average | None = None
    progress: Progress = field(default_factory=Progress)

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """Return all tensors of the state, by part and full name; they share the state's memory.

        Of a tensor spread over ranks this one has its piece."""
        parts = {"model": dict(self.model.state_dict()), "optimizer": self._moments()}
        if self.average is not None:
            parts["average"] = dict(self.average.tensors)
        return parts

    def numbers(self) -> dict[str, Any]:
        """Return the rest of the state, as JSON can hold it."""
        averaged = self.average.updates if self.average is not None else None
        return {**vars(self.progress), "averaged": averaged}

    def make_room(self, moments: Mapping[str, tuple[torch.dtype, tuple[int, ...]]]) -> None:
        """Let the optimiser remember as much as after an update, of whatever values.

        moments: type and whole shape of what it remembers, by parameter/moment; those of
        parameters that are not held here are left out.
        """
        named = dict(self.model.named_parameters())
        fused = {p for g in self.optimizer.param_groups if g.get("fused") for p in g["params"]}
        self.optimizer.state.clear()
        for key, (dtype, shape) in moments.items():
            name, _, moment = key.rpartition("/")
            parameter = named.get(name)
            if parameter is None:
                continue
            if moment != "step" and shape == tuple(parameter.shape):
                # Spread over ranks as the parameter is.
                room = torch.zeros_like(parameter, dtype=dtype, requires_grad=False)
            else:
                # Where the optimiser itself would have made it: step counts stay on the CPU unless
                # one kernel does all the arithmetic.
                device = parameter.device if shape or parameter in fused else "cpu"
                room = torch.zeros(shape, dtype=dtype, device=device)
            self.optimizer.state[parameter][moment] = room

    def take(self, numbers: dict[str, Any]) -> None:
        """Go on from ``numbers``, now that the tensors have their values."""
        if self.average is not None:
            self.average.updates = numbers["averaged"]
        self.progress = Progress(**{n: numbers[n] for n in vars(Progress()) if n in numbers})

    def _moments(self) -> dict[str, Tensor]:
        return {
            f"{name}/{moment}": value
            for name, parameter in self.model.named_parameters()
            for moment, value in self.optimizer.state.get(parameter, {}).items()
            if isinstance(value, Tensor)
        }
