"""Everything of a run that must survive, and nothing else.

Not here, because they follow from the settings and the number of samples seen: the learning rate,
the order of the samples, every random draw. Not here either: how it is saved, or by how many ranks.
"""

from __future__ import annotations

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
        """Return all tensors of the state, by file and name; they share the state's memory."""
        parts = {"model": dict(self.model.state_dict()), "optimizer": self._moments()}
        if self.average is not None:
            parts["average"] = dict(self.average.tensors)
        return parts

    def numbers(self) -> dict[str, Any]:
        """Return the rest of the state, as JSON can hold it."""
        averaged = self.average.updates if self.average is not None else None
        return {**vars(self.progress), "averaged": averaged}

    @torch.no_grad()
    def restore(self, tensors: dict[str, dict[str, Tensor]], numbers: dict[str, Any]) -> None:
        """Become the state that ``tensors`` and ``numbers`` were taken from."""
        self.model.load_state_dict(tensors["model"])
        named = dict(self.model.named_parameters())
        fused = {p for g in self.optimizer.param_groups if g.get("fused") for p in g["params"]}
        self.optimizer.state.clear()
        for key, value in tensors["optimizer"].items():
            name, _, moment = key.rpartition("/")
            parameter = named[name]
            # Copied to where the optimiser itself would have made it: step counts stay on the CPU
            # unless one kernel does all the arithmetic.
            device = parameter.device if value.ndim or parameter in fused else value.device
            self.optimizer.state[parameter][moment] = value.to(device)
        if self.average is not None:
            for name, mine in self.average.tensors.items():
                mine.copy_(tensors["average"][name])
            self.average.updates = numbers["averaged"]
        self.progress = Progress(**{name: numbers[name] for name in vars(Progress())})

    def _moments(self) -> dict[str, Tensor]:
        return {
            f"{name}/{moment}": value
            for name, parameter in self.model.named_parameters()
            for moment, value in self.optimizer.state.get(parameter, {}).items()
            if isinstance(value, Tensor)
        }
