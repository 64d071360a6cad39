"""Layers shared among ranks: each holds a piece of the network, and microbatches pass through all.

A network that is a chain of links (:mod:`swath.nn.chain`) is cut into as many pieces as there are
ranks in the pipeline, or ``stages`` times as many, dealt out in turn. Only the tensor between two
pieces travels: once forward and, as a gradient, once back. Every rank of the pipeline reads the
same microbatches; the first looks at the images, the last at the labels. While the pipeline fills
and empties ranks wait: (p - 1) / (m + p - 1) of the time with p ranks and m microbatches, and
``stages`` times less when interleaved.

The order of forward and backward passes and the exchange are torch.distributed.pipelining's.

Sources: GPipe, Huang et al. 2019, arXiv:1811.06965; one forward, one backward, Narayanan et al.
2019, doi:10.1145/3341301.3359646; interleaved, Narayanan et al. 2021, arXiv:2104.04473.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.pipelining import (
    PipelineStage,
    Schedule1F1B,
    ScheduleGPipe,
    ScheduleInterleaved1F1B,
)

from swath.config import ConfigError
from swath.data.chip import Batch
from swath.nn.chain import Link
from swath.nn.norm import unrecorded
from swath.nn.random import name_draws
from swath.parallel.mesh import Mesh
from swath.parallel.settings import Parallel

Border = tuple[tuple[int, ...], torch.dtype]
"""Shape and type of what one piece hands to the next, or of the output."""
Call = Callable[[Callable[[nn.Module, Batch], Tensor], Batch], Tensor]
Loss = Callable[[nn.Module, Batch], tuple[Tensor, Tensor]]


def cut(model: nn.Module, mesh: Mesh, parallel: Parallel) -> dict[int, nn.Module]:
    """Return this rank's pieces of ``model`` (whole, the same on all ranks), by their numbers.

    A piece is ``model`` without the parameters and layers of other pieces, which keep their names;
    it takes what the piece before returned, and the image. ConfigError if there is no way to cut.
    """
    total = mesh.degrees.pipeline * parallel.stages
    asked = f"parallel.pipeline={mesh.degrees.pipeline}"
    if parallel.stages > 1:
        asked += f" x stages={parallel.stages}"
    chain: Any = getattr(model, "chain", None)
    if chain is None:
        raise ConfigError(
            f"{asked}: {type(model).__name__} is no chain of layers that could be cut into pieces"
            " (model.kind=vit is); set pipeline=1, and shard or replicate in its place"
        )
    links: list[Link] = chain()
    units = [number for number, link in enumerate(links) if link.unit]
    if total > len(units):
        raise ConfigError(
            f"{asked} makes {total} pieces and the model has {len(units)} layers to cut between;"
            f" set pipeline={max(1, len(units) // parallel.stages)} or less, or build it deeper"
        )
    _check(model, links)
    name_draws(model)
    starts = [units[len(units) * piece // total] for piece in range(1, total)]
    bounds = [0, *starts, len(links)]
    mine = range(mesh.at("pipeline"), total, mesh.degrees.pipeline)
    return {piece: _piece(model, bounds[piece], bounds[piece + 1]) for piece in mine}


def _check(model: nn.Module, links: Sequence[Link]) -> None:
    """Fail if the links do not tell exactly which parameters are whose."""
    for name, _ in [*model.named_parameters(), *model.named_buffers()]:
        users = [link for link in links if any(_within(name, part) for part in link.parts)]
        assert len(users) == 1, f"{len(users)} links of {type(model).__name__} claim {name}"


def _within(name: str, part: str) -> bool:
    return f"{name}.".startswith(f"{part}.")


def _piece(model: nn.Module, first: int, end: int) -> nn.Module:
    """Return a copy of ``model`` that does only the links from ``first`` on, up to ``end``."""
    tensors = [*model.parameters(), *model.buffers()]
    piece: Any = copy.deepcopy(model, {id(t): t for t in tensors})  # which the copy shares
    links: list[Link] = piece.chain()
    for link in [*links[:first], *links[end:]]:
        for part in link.parts:
            _remove(piece, part)
    runs = [link.run for link in links[first:end]]

    def forward(x: Tensor, image: Tensor) -> Tensor:
        for run in runs:
            x = run(x, image)
        return x

    piece.forward = forward
    return piece


def _remove(model: nn.Module, name: str) -> None:
    parent, _, leaf = name.rpartition(".")
    owner = model.get_submodule(parent)
    if not isinstance(owner, nn.ModuleList):
        setattr(owner, leaf, None)
        return
    left = Some({number: layer for number, layer in owner._modules.items() if number != leaf})
    above, _, own = parent.rpartition(".")
    setattr(model.get_submodule(above), own, left)


class Some(nn.ModuleList):
    """Some layers of a list, under the numbers that they have in the whole one."""

    def __init__(self, layers: Mapping[str, nn.Module | None]) -> None:
        super().__init__()
        for number, layer in layers.items():
            self.add_module(number, layer)

    def __getitem__(self, at: Any) -> Any:
        return list(self._modules.values())[at]


def check_microbatches(number: int, parallel: Parallel, ranks: int) -> None:
    """Raise ConfigError if ``number`` microbatches cannot go through ``ranks`` ranks as set."""
    told = (
        f"parallel.pipeline={ranks}, schedule={parallel.schedule}: each replica has {number}"
        " microbatches in an update"
    )
    if parallel.schedule == "gpipe":
        return
    if number < ranks:
        raise ConfigError(
            f"{told} and needs at least {ranks}, to keep all ranks at work; make batch.micro"
            " smaller, or pipeline or replicate"
        )
    rounds = number // ranks
    if parallel.schedule == "interleaved" and number % rounds:
        fit = number - number % ranks
        raise ConfigError(
            f"{told}, which do not divide into {rounds} rounds; set batch.samples to {fit} or"
            f" {fit + ranks} of them, or schedule=1f1b with stages=1"
        )


class Pipeline(nn.Module):
    """One rank's pieces of a network; names of parameters are those of the whole network.

    Called with images, under no_grad, by all ranks of the pipeline alike, it returns the whole
    network's output on each of them. An update's gradients come by :meth:`learn`.

    names: of all parameters of the whole network, in order.
    """

    def __init__(
        self, pieces: Mapping[int, nn.Module], names: Sequence[str], mesh: Mesh, parallel: Parallel
    ) -> None:
        super().__init__()
        self.names = tuple(names)
        self.parallel = parallel
        self.ranks = mesh.along("pipeline")
        self.numbers = list(pieces)
        self.total = mesh.degrees.pipeline * parallel.stages
        self.pieces = nn.ModuleList(pieces.values())
        self._borders: dict[Any, list[Border]] = {}
        self._schedule: tuple[Any, Any] = (None, None)
        """What the newest schedule is for, and the schedule."""
        self._update: _Update | None = None

    # The pieces stand where the whole network stood.

    def named_modules(
        self, memo: set | None = None, prefix: str = "", remove_duplicate: bool = True
    ) -> Iterator[tuple[str, nn.Module]]:
        memo = set() if memo is None else memo
        yield prefix, self
        for piece in self.pieces:
            yield from piece.named_modules(memo, prefix, remove_duplicate)

    def state_dict(
        self, *, destination: Any = None, prefix: str = "", keep_vars: bool = False
    ) -> Any:
        for piece in self.pieces:
            destination = piece.state_dict(
                destination=destination, prefix=prefix, keep_vars=keep_vars
            )
        return destination

    def load_state_dict(
        self, state: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """Take what is this rank's from ``state``, which may be the whole network's."""
        found = [piece.load_state_dict(state, strict=False, assign=assign) for piece in self.pieces]
        missing = [name for keys in found for name in keys.missing_keys]
        unknown = set.intersection(*(set(keys.unexpected_keys) for keys in found)) - {*self.names}
        if strict and (missing or unknown):
            raise RuntimeError(f"state without {missing} and with unknown {sorted(unknown)}")
        return type(found[0])(missing, sorted(unknown))

    # Through all ranks

    def forward(self, image: Tensor) -> Tensor:
        """Return the whole network's output for ``image`` (b, c, h, w) on every rank."""
        assert not torch.is_grad_enabled(), "a pipeline learns by learn()"
        key = self._kind(image)
        known = self._borders.get(key)
        borders: list[Border] = known or []
        x = image
        for number in range(self.total):
            if self._rank_of(number) == self.ranks.rank:
                x = self._own(number)(x, image).contiguous()
            if known is None:
                borders.append(self._told((tuple(x.shape), x.dtype), self._rank_of(number)))
            x = self._handed_on(x, number, *borders[number])
        self._borders[key] = borders
        return x

    def _handed_on(
        self, x: Tensor, number: int, shape: tuple[int, ...], dtype: torch.dtype
    ) -> Tensor:
        """Return what piece ``number`` made: on the rank of the next piece; at the end, on all."""
        here, there = self._rank_of(number), self._rank_of(number + 1)
        me, group = self.ranks.rank, self.ranks.group
        end = number + 1 == self.total
        if me != here and (end or me == there):
            x = torch.empty(shape, dtype=dtype, device=self.ranks.device)
        if end:
            dist.broadcast(x, group=group, group_src=here)
        elif me == here:
            dist.send(x, group=group, group_dst=there)
        elif me == there:
            dist.recv(x, group=group, group_src=here)
        return x

    def _told(self, border: Border, rank: int) -> Border:
        """Return ``rank``'s ``border`` on every rank."""
        told = [border]
        dist.broadcast_object_list(
            told, group=self.ranks.group, group_src=rank, device=self.ranks.device
        )
        return told[0]

    def _rank_of(self, number: int) -> int:
        return number % self.ranks.ranks

    def _own(self, number: int) -> nn.Module:
        return self.pieces[self.numbers.index(number)]

    def _kind(self, image: Tensor) -> Any:
        """Return all that decides over the borders."""
        kind = image.device.type
        cast = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
        return tuple(image.shape), image.dtype, cast, self.training

    # Learning

    def learn(
        self,
        batches: Sequence[Batch],
        loss_of: Loss,
        call: Call,
        share: float,
        before_last: Callable[[], None],
    ) -> Tensor:
        """Add the gradient of the sum of losses over ``batches`` to this rank's parameters.

        call: runs a function of a module and a batch as the replica would. share: what part of a
        loss is this rank's to count. before_last: called before the last backward pass here.
        Returns (sum of losses, sum of weights), float64 (2,): zero but where the last piece is.
        """
        totals = torch.zeros(2, dtype=torch.float64, device=self.ranks.device)
        if not batches:
            return totals
        check_microbatches(len(batches), self.parallel, self.ranks.ranks)
        passes = len(batches) * len(self.pieces)
        self._update = _Update(batches, loss_of, call, share, before_last, totals, passes)
        schedule = self._schedule_for(len(batches))
        # What torch deals out to the microbatches is their numbers.
        numbers = torch.arange(len(batches))
        first = [numbers] if 0 in self.numbers else []
        last = {"target": numbers} if self.total - 1 in self.numbers else {}
        schedule.step(*first, **last)
        self._update = None
        return totals

    def run(self, number: int, batch_number: int, x: Tensor) -> Tensor:
        """Return what piece ``number`` makes of a microbatch; the last piece, its loss (1,)."""
        update = self._update
        assert update is not None, "no update is under way"
        batch = update.batches[batch_number]

        def through(_: nn.Module, batch: Batch) -> Tensor:
            piece = _Rest(self._own(number), x if number else None)
            if number + 1 < self.total:
                return piece(batch.image).contiguous()
            loss, weight = update.loss_of(piece, batch)
            counted = update.share * batch.counts
            update.totals += counted * torch.stack([loss.detach().double(), weight.double()])
            return torch.stack([loss.double() * counted])

        return update.call(through, batch)

    def before_backward(self, number: int, last: bool) -> None:
        """Prepare the backward pass of piece ``number``; ``last`` in this update."""
        update = self._update
        assert update is not None, "no update is under way"
        for module in self._own(number).modules():
            if isinstance(module, FSDPModule):
                module.set_requires_gradient_sync(last, recurse=False)
                module.set_is_last_backward(last)
        update.passes -= 1
        if not update.passes:
            update.before_last()

    def _schedule_for(self, microbatches: int) -> Any:
        assert self._update is not None, "no update is under way"
        batch, call = self._update.batches[0], self._update.call
        borders: list[Border] = []

        def look(_: nn.Module, batch: Batch) -> Tensor:
            key = self._kind(batch.image)
            if key not in self._borders:
                with torch.no_grad(), unrecorded(self):
                    self(batch.image)
            borders.extend(self._borders[key])
            return batch.image

        call(look, batch)
        wanted = (microbatches, *borders)
        if self._schedule[0] != wanted:
            self._schedule = wanted, self._new_schedule(microbatches, borders)
        return self._schedule[1]

    def _new_schedule(self, microbatches: int, borders: list[Border]) -> Any:
        between = [
            torch.empty(shape, dtype=dtype, device="meta", requires_grad=True)
            for shape, dtype in borders[:-1]
        ]
        index = torch.empty(1, dtype=torch.int64, device="meta")
        loss = torch.empty(1, dtype=torch.float64, device="meta", requires_grad=True)
        at = [index, *between, loss]
        stages: list[Any] = [
            _Stage(self, number, at[number], at[number + 1]) for number in self.numbers
        ]
        options: dict[str, Any] = {
            "n_microbatches": microbatches,
            "loss_fn": lambda loss, _: loss.sum(),
            "scale_grads": False,
        }
        if self.parallel.schedule == "interleaved":
            return ScheduleInterleaved1F1B(stages, **options)
        if self.parallel.schedule == "gpipe":
            return ScheduleGPipe(stages[0], **options)
        return Schedule1F1B(stages[0], **options)


@dataclass
class _Update:
    """What the passes of one update share."""

    batches: Sequence[Batch]
    loss_of: Loss
    call: Call
    share: float
    before_last: Callable[[], None]
    totals: Tensor
    passes: int
    """Backward passes to come on this rank."""


class _Rest(nn.Module):
    """A network whose first pieces have done their work: ``x`` is what they made of the image."""

    def __init__(self, piece: nn.Module, x: Tensor | None) -> None:
        super().__init__()
        self.piece, self.x = piece, x

    def forward(self, image: Tensor) -> Tensor:
        return self.piece(image if self.x is None else self.x, image)


class _Stage(PipelineStage):
    """A piece as torch's schedules see it: it is told which microbatch is in work."""

    def __init__(self, pipeline: Pipeline, number: int, takes: Tensor, gives: Tensor) -> None:
        # torch would treat a sharded module in ways of its own; a plain one it leaves alone.
        super().__init__(
            _Numbered(pipeline, number),
            number,
            pipeline.total,
            pipeline.ranks.device,
            input_args=(takes,),
            output_args=(gives,),
            group=pipeline.ranks.group,
        )
        self.pipeline = pipeline

    def forward_one_chunk(self, fwd_chunk_id: int, *args: Any, **options: Any) -> Any:
        self.submod.batch_number = fwd_chunk_id  # type: ignore[assignment]
        return super().forward_one_chunk(fwd_chunk_id, *args, **options)

    def backward_one_chunk(
        self,
        bwd_chunk_id: int,
        loss: Tensor | None = None,
        full_backward: bool = True,
        last_backward: bool = False,
    ) -> None:
        self.pipeline.before_backward(self.stage_index, last_backward)
        super().backward_one_chunk(bwd_chunk_id, loss, full_backward, last_backward)


class _Numbered(nn.Module):
    """A piece that is handed numbers of microbatches, and no parameters to look after."""

    def __init__(self, pipeline: Pipeline, number: int) -> None:
        super().__init__()
        self.batch_number = 0
        self.run = lambda x: pipeline.run(number, self.batch_number, x)

    def forward(self, x: Tensor) -> Tensor:
        return self.run(x)
