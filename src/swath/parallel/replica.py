"""One model as all ranks hold it, and the gradient of an update over all of them.

An update is a fixed list of microbatches; each rank is handed some of them. What comes out is the
gradient of (sum of losses) / (sum of weights) over *all* of them: sums are added up first, over
microbatches and over ranks, and divided once. A mean of means would depend on how the microbatches
were dealt out wherever weights differ (ignored pixels, ragged samples).

Everything random inside the model (drop-out, drop path) draws from torch's generator, which is set
from each microbatch's own seed, so that it does not matter who computes it or when.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import TypeVar

import torch
from torch import Tensor, nn

from swath.data.chip import Batch
from swath.parallel.world import World

Result = TypeVar("Result")
Loss = Callable[[nn.Module, Batch], tuple[Tensor, Tensor]]
"""(model, microbatch) -> (sum of losses with a graph, sum of their weights)."""


class Replica:
    """A model whose gradients are summed over ``world``; the world may be replaced between updates.

    autocast: dtype of the forward's matrix products; None leaves them in the parameters' dtype.
    """

    def __init__(
        self,
        model: nn.Module,
        world: World,
        *,
        autocast: torch.dtype | None = None,
    ) -> None:
        self.model = model
        self.world = world
        self.autocast = autocast
        self.dtype = next(model.parameters()).dtype
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self._flats, self._views = _flat_gradients(self.parameters)

    def move(self, world: World) -> None:
        """Go on with the ranks of ``world``; between two updates."""
        self.world = world

    def agree(self) -> None:
        """Give every rank rank 0's parameters and buffers, so that all start from equal ones."""
        with torch.no_grad():
            self.world.share([*self.model.parameters(), *self.model.buffers()])

    def gradients(self, batches: Iterable[Batch], loss_of: Loss) -> tuple[Tensor, Tensor]:
        """Leave the gradient of the update's mean loss in the parameters.

        batches: this rank's microbatches of the update; may be none. Returns (sum of losses, sum of
        weights), float64 and 0-d, over all microbatches of all ranks and equal on each. The
        parameters' gradients are zero, not None, where nothing flowed. A total weight of 0 (nothing
        labelled in the whole update) leaves zero gradients.
        """
        for flat in self._flats:
            flat.zero_()
        for parameter, view in zip(self.parameters, self._views, strict=True):
            parameter.grad = view
        totals = torch.zeros(2, dtype=torch.float64, device=self.world.device)
        for batch in batches:
            torch.manual_seed(batch.seed)
            loss, weight = self.call(loss_of, batch)
            loss.backward()
            totals += torch.stack([loss.detach().double(), weight.detach().double()])
        self.world.sum_all([*self._flats, totals])
        scale = torch.where(totals[1] > 0, totals[1], 1.0)
        for flat in self._flats:
            flat.div_(scale.to(flat.dtype))
        return totals[0], totals[1]

    def norm(self) -> Tensor:
        """Return the 2-norm of the gradient over all parameters, 0-d on the device."""
        return torch.linalg.vector_norm(
            torch.stack([torch.linalg.vector_norm(flat) for flat in self._flats])
        )

    def not_finite(self) -> list[str]:
        """Return the names of the parameters with a gradient that is infinite or not a number."""
        named = self.model.named_parameters()
        return [n for n, p in named if p.grad is not None and not p.grad.isfinite().all()]

    def clip(self, norm: Tensor, limit: float) -> None:
        """Scale the gradient, whose norm is ``norm``, to at most ``limit``."""
        factor = (limit / norm).clamp(max=1.0)
        for flat in self._flats:
            flat.mul_(factor)

    def call(self, function: Callable[[nn.Module, Batch], Result], batch: Batch) -> Result:
        """Return ``function(model, batch)``, computed in the replica's precision."""
        cast = _in_dtype(batch, self.dtype)
        if self.autocast is None:
            return function(self.model, cast)
        with torch.autocast(self.world.device.type, dtype=self.autocast):
            return function(self.model, cast)


def _in_dtype(batch: Batch, dtype: torch.dtype) -> Batch:
    if batch.image.dtype == dtype:
        return batch
    target = batch.target
    if target is not None and target.is_floating_point():
        target = target.to(dtype)
    return dataclasses.replace(batch, image=batch.image.to(dtype), target=target)


def _flat_gradients(parameters: list[nn.Parameter]) -> tuple[list[Tensor], list[Tensor]]:
    """Return one zero vector for each dtype, and each parameter's gradient as a view into one.

    So clearing, summing over ranks, dividing and clipping are one operation each, with no copy.
    """
    flats: dict[torch.dtype, Tensor] = {}
    used: dict[torch.dtype, int] = {}
    for p in parameters:
        used[p.dtype] = used.get(p.dtype, 0) + p.numel()
    for kind, size in used.items():
        flats[kind] = torch.zeros(size, dtype=kind, device=parameters[0].device)
    views, used = [], dict.fromkeys(used, 0)
    for p in parameters:
        start = used[p.dtype]
        used[p.dtype] = start + p.numel()
        views.append(flats[p.dtype][start : start + p.numel()].view(p.shape))
    return list(flats.values()), views
