"""Pipeline parallelism: each rank holds a piece of the network, and microbatches pass through all.

A network is cut (:mod:`swath.parallel.cut`) into as many pieces as there are ranks in the pipeline,
or ``stages`` times as many, dealt out in turn. Only the tensor between two pieces travels: once
forward and, as a gradient, once back. Every rank of the pipeline reads the same microbatches; the
first looks at the images, the last at the labels. What else the loss hands to the network (which
patches are shown, say) each rank makes from the microbatch. While the pipeline fills and empties
ranks wait: (p - 1) / (v m + p - 1) of the time, with p ranks, m microbatches and v stages.

The order of forward and backward passes and the exchange are torch.distributed.pipelining's.

Sources: GPipe, Huang et al. 2019, arXiv:1811.06965; one forward, one backward, Narayanan et al.
2019, doi:10.1145/3341301.3359646; interleaved, Narayanan et al. 2021, arXiv:2104.04473.
"""

from __future__ import annotations

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
from swath.nn.settle import unrecorded
from swath.parallel.arguments import Loss, StandIn, arguments_of
from swath.parallel.mesh import Mesh
from swath.parallel.settings import Parallel
from swath.span import span

Border = tuple[tuple[int, ...], torch.dtype]
"""Shape and type of what one piece hands to the next, or of the output."""
Call = Callable[[Callable[[nn.Module, Batch], Tensor], Batch], Tensor]


class Pipeline(nn.Module):
    """One rank's pieces of a network; names of parameters are those of the whole network.

    Called as the network is, under no_grad, by all ranks of the pipeline alike, it returns the
    whole network's output on each of them. An update's gradients come by :meth:`learn`.

    names: of all parameters of the whole network, in order.
    """

    def __init__(
        self, pieces: Mapping[int, nn.Module], names: Sequence[str], mesh: Mesh, parallel: Parallel
    ) -> None:
        super().__init__()
        self.names = tuple(names)
        self.parallel = parallel
        self.ranks = mesh.along("pipeline")
        self.held = list(pieces)
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

    def __getattr__(self, name: str) -> Any:
        # What a task asks of the network beside its output: how it cuts an image, say.
        try:
            return super().__getattr__(name)
        except AttributeError:
            pieces: Any = super().__getattr__("pieces")
            return getattr(pieces[0], name)

    # Through all ranks

    def forward(self, *inputs: Tensor, **told: Any) -> Tensor:
        """Return the whole network's output for ``inputs``, the image first, on every rank."""
        assert not torch.is_grad_enabled(), "a pipeline learns by learn()"
        key = self._kind(inputs, told)
        known = self._borders.get(key)
        borders: list[Border] = known or []
        x = inputs[0]
        for number in range(self.total):
            problem = ""
            if self._rank_of(number) == self.ranks.rank:
                try:
                    x = self._own(number)(x, *inputs, **told).contiguous()
                except ConfigError as error:
                    if known is not None:
                        raise
                    problem = str(error)
            if known is None:
                borders.append(self._told(x, problem, self._rank_of(number)))
            x = self._handed_on(x, number, *borders[number])
        self._borders[key] = borders
        return x

    def know(self, loss_of: Loss, batch: Batch, borders: Sequence[Border]) -> None:
        """Take it from here what each piece makes of microbatches like ``batch``, without asking
        ranks that are not there; called as the replica calls functions."""
        self._borders[self._kind(*arguments_of(loss_of, self, batch))] = list(borders)

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

    def _told(self, x: Tensor, problem: str, rank: int) -> Border:
        """Return on every rank what ``rank``'s ``x`` is like; ConfigError if it had a problem."""
        told = [(tuple(x.shape), x.dtype, problem)]
        dist.broadcast_object_list(
            told, group=self.ranks.group, group_src=rank, device=self.ranks.device
        )
        shape, dtype, problem = told[0]
        if problem:
            raise ConfigError(problem)
        return shape, dtype

    def _rank_of(self, number: int) -> int:
        return number % self.ranks.ranks

    def _own(self, number: int) -> nn.Module:
        return self.pieces[self.held.index(number)]

    def _kind(self, inputs: Sequence[Tensor], told: Mapping[str, Any]) -> Any:
        """Return all that decides over the borders."""
        kind = inputs[0].device.type
        cast = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
        shapes = tuple((tuple(x.shape), x.dtype) for x in inputs)
        flags = tuple((name, value is True) for name, value in told.items())
        return shapes, flags, cast, self.training

    # Learning

    def check(self, number: int) -> None:
        """Raise ConfigError if an update of ``number`` microbatches cannot go through as set."""
        ranks, schedule = self.ranks.ranks, self.parallel.schedule
        told = (
            f"parallel.pipeline={ranks}, schedule={schedule}: each replica has {number}"
            " microbatches in an update"
        )
        if schedule == "gpipe":
            return
        if number < ranks:
            raise ConfigError(
                f"{told} and needs at least {ranks}, to keep all ranks at work; make batch.micro,"
                " replicate or pipeline smaller"
            )
        rounds = number // ranks
        if schedule == "interleaved" and number % rounds:
            fit = number - number % ranks
            raise ConfigError(
                f"{told}, which do not divide into {rounds} rounds; make them {fit} or"
                f" {fit + ranks} by batch.samples, or set schedule=1f1b and stages=1"
            )

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
        self.check(len(batches))
        passes = len(batches) * len(self.pieces)
        self._update = _Update(batches, loss_of, call, share, before_last, totals, passes)
        schedule = self._schedule_for(len(batches))
        # What torch deals out to the microbatches is their numbers.
        numbers = torch.arange(len(batches))
        first = [numbers] if 0 in self.held else []
        last = {"target": numbers} if self.total - 1 in self.held else {}
        schedule.step(*first, **last)
        self._update = None
        return totals

    def run(self, number: int, batch_number: int, x: Tensor) -> Tensor:
        """Return what piece ``number`` makes of a microbatch; the last piece, its loss (1,)."""
        update = self._update
        assert update is not None, "no update is under way"
        batch = update.batches[batch_number]

        def through(_: nn.Module, batch: Batch) -> Tensor:
            piece = self._own(number)
            if number + 1 < self.total:
                inputs, told = arguments_of(update.loss_of, piece, batch)
                return piece(x if number else inputs[0], *inputs, **told).contiguous()
            whole = StandIn(piece, lambda *inputs, **told: piece(x, *inputs, **told))
            loss, weight = update.loss_of(whole, batch)
            counted = update.share * batch.counts
            update.totals += counted * torch.stack([loss.detach().double(), weight.double()])
            return torch.stack([loss.double() * counted])

        with span("forward"):
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
        batch, call, loss_of = self._update.batches[0], self._update.call, self._update.loss_of
        borders: list[Border] = []

        def look(_: nn.Module, batch: Batch) -> Tensor:
            inputs, told = arguments_of(loss_of, self, batch)
            key = self._kind(inputs, told)
            if key not in self._borders:
                with torch.no_grad(), unrecorded(self):
                    self(*inputs, **told)
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
            _Stage(self, number, at[number], at[number + 1]) for number in self.held
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
        with span("backward"):
            super().backward_one_chunk(bwd_chunk_id, loss, full_backward, last_backward)


class _Numbered(nn.Module):
    """A piece that is handed numbers of microbatches, and no parameters to look after."""

    def __init__(self, pipeline: Pipeline, number: int) -> None:
        super().__init__()
        self.batch_number = 0
        self.run = lambda x: pipeline.run(number, self.batch_number, x)

    def forward(self, x: Tensor) -> Tensor:
        return self.run(x)
