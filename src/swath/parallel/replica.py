"""One model as all ranks hold it, and the gradient of an update over all of them.

An update is a fixed list of microbatches; each part of the ranks is handed some of them. What comes
out is the gradient of (sum of losses) / (sum of weights) over *all* of them: sums are added up
first, over microbatches and over ranks, and divided once. A mean of means would depend on how the
microbatches were dealt out wherever weights differ (ignored pixels, ragged samples).

Ranks that share one sample (its tokens, its rows) each count a piece of its loss, so that here too
the sum over ranks is the whole. Everything random inside the model is keyed by the microbatch.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from swath.config import ConfigError
from swath.data.chip import Batch
from swath.nn.random import Draws
from swath.nn.settle import Update, settle, unrecorded
from swath.parallel.arguments import Loss
from swath.parallel.couples import Couples, apart
from swath.parallel.flat import Flats, square
from swath.parallel.local import local
from swath.parallel.mesh import Mesh
from swath.parallel.pipeline import Pipeline
from swath.parallel.spatial import own_rows
from swath.parallel.tensor import complete, pieces
from swath.parallel.world import World
from swath.span import span

Result = TypeVar("Result")


class Replica:
    """A model spread over a mesh. Where every rank holds the whole model, a mesh of other ranks may
    take its place between updates.

    model: as :func:`swath.parallel.apply.spread` left it. autocast: dtype of the forward's matrix
    products; None leaves them in the parameters' dtype. bucket: bytes of gradients sent at a time.
    """

    def __init__(
        self,
        model: nn.Module,
        mesh: Mesh | World,
        *,
        autocast: torch.dtype | None = None,
        bucket: int = 25 << 20,
    ) -> None:
        self.model = model
        self.autocast = autocast
        self.dtype = next(model.parameters()).dtype
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        plain = [p for p in self.parameters if not isinstance(p, DTensor)]
        self._flats = Flats(plain, bucket)
        self._sharded = [p for p in self.parameters if isinstance(p, DTensor)]
        self._pieces = pieces(model)
        self._shards = [m for m in model.modules() if isinstance(m, FSDPModule)]
        self._draws = Draws(model)
        self.mesh = mesh if isinstance(mesh, Mesh) else Mesh.of(mesh)

    @property
    def world(self) -> World:
        return self.mesh.world

    def move(self, mesh: Mesh | World) -> None:
        """Go on with the ranks of ``mesh``; between two updates.

        ConfigError unless every rank holds the whole model, or ``mesh`` is the ranks and degrees
        that it is on: a model that is shared keeps the groups of the ranks it was spread over.
        """
        new = mesh if isinstance(mesh, Mesh) else Mesh.of(mesh)
        stays = (new.degrees, new.world.group) == (self.mesh.degrees, self.world.group)
        shared = self.mesh.degrees.sharing or new.degrees.sharing
        if shared and not stays:
            raise ConfigError(
                f"parallel: {self.world.ranks} ranks laid out as {self.mesh.degrees} cannot go on "
                f"as {new.world.ranks} laid out as {new.degrees}: {shared} shares the model among "
                "ranks, which hold their groups; save a checkpoint and build the replica anew, or "
                "use replicate alone"
            )
        self.mesh = new

    @property
    def in_step(self) -> bool:
        """Whether all parts must make equally many passes: they hold shares of one model."""
        return bool(self._sharded)

    def check(self, microbatches: int) -> None:
        """Raise ConfigError, on all ranks, if an update of so many cannot be worked through."""
        if isinstance(self.model, Pipeline):
            most = -(-microbatches // self.mesh.data_ranks)
            fewest = most if self.in_step else microbatches // self.mesh.data_ranks
            for number in {fewest, most}:
                self.model.check(number)

    def gradients(
        self, batches: Iterable[Batch], loss_of: Loss | Couples, samples: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """Leave the gradient of the update's mean loss in the parameters.

        batches: this part's microbatches of the update; may be none. samples: of the update, over
        all parts; needed for a loss that couples them, which sees each twice. Returns (sum of
        losses, sum of weights), float64 and 0-d, over all microbatches of all ranks and equal on
        each. The parameters' gradients are zero, not None, where nothing flowed. A total weight of
        0 (nothing labelled in the whole update) leaves zero gradients.
        """
        self._flats.clear()
        for p in self._sharded:
            p.grad = None
        totals = torch.zeros(2, dtype=torch.float64, device=self.world.device)
        share = 1 / self.mesh.degrees.context  # each of them computes the whole loss
        if isinstance(loss_of, Couples):
            assert samples is not None, "a loss that couples samples needs their number"
            batches = list(batches)
            with span("forward"):
                loss_of = apart(loss_of, batches, samples, self.call, self.mesh, self.dtype)
        if isinstance(self.model, Pipeline):
            totals += self.model.learn(list(batches), loss_of, self.call, share, self._send_next)
            batches = []
        for batch, last in _with_last(batches):
            for module in self._shards:
                module.set_requires_gradient_sync(last, recurse=False)
            if last:
                self._send_next()
            with span("forward"):
                loss, weight = self.call(loss_of, batch)
            with span("backward"):
                (loss * (share * batch.counts)).backward()
            pair = torch.stack([loss.detach().double(), weight.detach().double()])
            totals += pair * (share * batch.counts)
        for p in self._sharded:
            p.grad = torch.zeros_like(p) if p.grad is None else p.grad
        with span("exchange"):
            self._flats.sum(self.mesh.learners)
            if self._pieces:  # after the sum: until then plain gradients are under way
                complete(self._pieces, self.mesh)
            self.mesh.totals.sum_all([totals])
        self._scale(1 / torch.where(totals[1] > 0, totals[1], 1.0))
        return totals[0], totals[1]

    def _send_next(self) -> None:
        """Let gradients be exchanged as the next backward pass, the last one, finds them."""
        self._flats.send_when_ready(self.mesh.learners)

    def norm(self) -> Tensor:
        """Return the 2-norm of the gradient over all parameters, 0-d and equal on every rank."""
        total = self._flats.square()
        if not self._sharded and self.mesh.degrees.pipeline == 1:
            return total.sqrt().to(self.dtype)
        # Every number counts once, whatever the number of ranks that hold it.
        total = total.to(self.world.device) / self._copies(None)
        for p in self._sharded:
            total += square(_gradient(p).flatten()) / self._copies(p)
        return self.world.sum(total).sqrt().to(self.dtype)

    def clip(self, norm: Tensor, limit: float) -> None:
        """Scale the gradient, whose norm is ``norm``, to at most ``limit``."""
        self._scale((limit / norm).clamp(max=1.0))

    def _scale(self, factor: Tensor) -> None:
        for flat in self._flats.vectors:
            flat.mul_(factor.to(flat.dtype))
        for p in self._sharded:
            _gradient(p).mul_(factor.to(p.dtype))

    def _copies(self, parameter: DTensor | None) -> int:
        """Return how many ranks hold each number of ``parameter`` (None: of a plain one)."""
        copies = self.world.ranks // self.mesh.degrees.pipeline
        if parameter is not None:
            for size, placement in zip(
                parameter.device_mesh.shape, parameter.placements, strict=True
            ):
                copies //= 1 if placement.is_replicate() else size
        return copies

    def not_finite(self) -> list[str]:
        """Return the names of the parameters with a gradient that is infinite or not a number, on
        any rank; all ranks ask together."""
        named = dict(self.model.named_parameters())
        # Of a pipeline each rank has some; all must tell of the same ones.
        names = self.model.names if isinstance(self.model, Pipeline) else list(named)
        grads = [named[n].grad if n in named else None for n in names]
        bad = self.world.any_of([g is not None and not local(g).isfinite().all() for g in grads])
        return [name for name, is_bad in zip(names, bad, strict=True) if is_bad]

    def settle(self, update: Update) -> None:
        """Let what moves once an update (batch statistics, a teacher) take in what all learners
        gathered; after the optimiser's step."""
        for module in self._shards:  # what is still whole of a forward pass is of before the step
            module.reshard()
        settle(self.model, self.mesh.learners.sum, update)

    def call(self, function: Callable[[nn.Module, Batch], Result], batch: Batch) -> Result:
        """Return ``function(model, batch)``, in the replica's precision, its draws keyed."""
        cast = own_rows(_in_dtype(batch, self.dtype), self.model, self.mesh)
        torch.manual_seed(batch.seed)  # for modules that are not ours
        aside = contextlib.nullcontext() if batch.counts else unrecorded(self.model)
        with self._draws.keyed(batch.seed, self.world.device), self._autocast(), aside:
            return function(self.model, cast)

    def _autocast(self) -> contextlib.AbstractContextManager:
        if self.autocast is None:
            return contextlib.nullcontext()
        return torch.autocast(self.world.device.type, dtype=self.autocast)


def _with_last(batches: Iterable[Batch]) -> Iterator[tuple[Batch, bool]]:
    """Yield each of ``batches`` and whether it is the last."""
    source = iter(batches)
    batch = next(source, None)
    while batch is not None:
        after = next(source, None)
        yield batch, after is None
        batch = after


def _gradient(parameter: Tensor) -> Tensor:
    """Return this rank's part of the gradient of ``parameter``."""
    assert parameter.grad is not None, "gradients come first"
    return local(parameter.grad)


def _in_dtype(batch: Batch, dtype: torch.dtype) -> Batch:
    if batch.image.dtype == dtype:
        return batch
    target = batch.target
    if target is not None and target.is_floating_point():
        target = target.to(dtype)
    views = tuple(view.to(dtype) for view in batch.views)
    return dataclasses.replace(batch, image=batch.image.to(dtype), target=target, views=views)
