"""Gradient buckets: gradients of plain parameters as views into one vector, exchanged in pieces.

So dividing and clipping are one operation each, and buckets are pieces of the vector. The first
gradient of an update is copied into its place, which costs less than clearing and adding. In the
last backward pass of an update each bucket is sent off as soon as its gradients are there,
while the pass goes on; buckets leave in one order on all ranks, whoever had which microbatches.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn

from swath.parallel.world import World


class Flats:
    """The gradients of ``parameters``, one vector for each dtype, and their sum over ranks.

    bucket: bytes sent at a time.
    """

    def __init__(self, parameters: list[nn.Parameter], bucket: int) -> None:
        self.parameters = parameters
        self.vectors: list[Tensor] = []
        self._views: dict[nn.Parameter, Tensor] = {}
        self._buckets: list[Tensor] = []
        self._of: dict[nn.Parameter, list[int]] = {}
        """By parameter: the buckets that its gradient reaches into."""
        for kind in dict.fromkeys(p.dtype for p in parameters):
            self._lay_out([p for p in parameters if p.dtype == kind], kind, bucket)
        self._sent = 0
        self._works: list[dist.Work] = []
        self._missing: list[int] = []
        for p in parameters:
            p.register_post_accumulate_grad_hook(self._ready)
        self._world: World | None = None

    def _lay_out(self, members: list[nn.Parameter], kind: torch.dtype, bucket: int) -> None:
        # The backward pass reaches the last parameters first.
        members = members[::-1]
        flat = torch.zeros(sum(p.numel() for p in members), dtype=kind, device=members[0].device)
        first = len(self._buckets)
        pieces = flat.split(max(1, bucket // flat.itemsize))
        self._buckets += pieces
        self.vectors.append(flat)
        side = pieces[0].numel() if pieces else 1
        start = 0
        for p in members:
            end = start + p.numel()
            self._views[p] = flat[start:end].view(p.shape)
            self._of[p] = list(
                range(first + start // side, first + max(start, end - 1) // side + 1)
            )
            start = end

    def clear(self) -> None:
        """Let the update that comes begin without gradients."""
        for p in self.parameters:
            p.grad = None

    def square(self) -> Tensor:
        """Return the sum of the squares, float64 and 0-d."""
        return sum(map(square, self.vectors), torch.zeros((), dtype=torch.float64))

    def send_when_ready(self, world: World) -> None:
        """Let the backward pass that comes be the last: its gradients leave as they come."""
        self._begin(world)

    def sum(self, world: World) -> None:
        """Finish the sum over the ranks of ``world``; whatever has not left yet leaves now.

        Where nothing flowed gradients are zero, not None.
        """
        for p in self.parameters:
            if p.grad is None:
                p.grad = self._views[p].zero_()
        if world.group is None:
            self._world = None
            return
        if self._world is None:
            self._begin(world)
        self._missing = [0] * len(self._buckets)
        self._send()
        for work in self._works:
            work.wait()
        self._world, self._works = None, []

    def _begin(self, world: World) -> None:
        if world.group is None:
            return
        self._world, self._sent, self._works = world, 0, []
        self._missing = [0] * len(self._buckets)
        for buckets in self._of.values():
            for number in buckets:
                self._missing[number] += 1

    def _ready(self, parameter: nn.Parameter) -> None:
        view, grad = self._views[parameter], parameter.grad
        if grad is not None and grad is not view:  # the first of this update
            parameter.grad = view.copy_(grad)
        if self._world is None:
            return
        for number in self._of[parameter]:
            self._missing[number] -= 1
        self._send()

    def _send(self) -> None:
        assert self._world is not None, "nobody to send to"
        while self._sent < len(self._buckets) and self._missing[self._sent] <= 0:
            bucket = self._buckets[self._sent]
            work = dist.all_reduce(bucket, group=self._world.group, async_op=True)
            self._works.append(work)
            self._sent += 1


def square(vector: Tensor) -> Tensor:
    """Return the sum of the squares of ``vector``, float64 and 0-d, to about 1e-7 of it."""
    # Over a long vector a kernel keeps a few running sums, to which the next number adds less and
    # less: in float32 on a CPU 0.1 % are missing at 20 million numbers.
    side = 1024
    rows = vector[: len(vector) // side * side].view(-1, side)
    rest = vector[len(rows) * side :]
    norms = torch.cat([torch.linalg.vector_norm(rows, dim=1), torch.linalg.vector_norm(rest)[None]])
    return norms.double().square().sum()
