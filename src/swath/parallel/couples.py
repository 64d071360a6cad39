"""Losses that couple all samples of an update, whichever microbatches and ranks they are in.

Such a loss compares what the network makes of one sample with what it makes of all others, so no
microbatch has a loss of its own. Two passes give its exact gradient with the memory of one
microbatch: first all microbatches are embedded, keeping no graph, and the vectors are gathered from
all ranks; from these the loss and its gradient with respect to each vector are known; then each
microbatch is embedded again, with a graph, and hands that gradient on. Draws inside the network are
keyed by the microbatch, so both passes make the same ones.

The second pass is that of any other loss (:class:`swath.parallel.replica.Replica`): a microbatch's
share of the loss has the value of its share and the gradient of its vectors.

Source: Gao et al. 2021, arXiv:2101.06983 (GradCache).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from swath.data.chip import Batch
from swath.parallel.mesh import Mesh

Embed = Callable[[nn.Module, Batch], Tensor]


@runtime_checkable
class Couples(Protocol):
    """A loss over all samples of an update. Called with one microbatch, it is the loss of that
    alone."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of what is made of one sample."""

    def embed(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return what the network makes of each sample: (b, *shape). Called without gradients, and
        then with: by then, what carries no gradient may be anything finite."""

    def joined(self, embedded: Tensor, alike: Tensor) -> tuple[Tensor, Tensor]:
        """Return the sum of losses over all samples (n, *shape), with a graph, and of weights.

        alike: (n,) as ``Batch.alike``."""

    def __call__(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]: ...


def apart(
    couples: Couples,
    batches: Sequence[Batch],
    samples: int,
    call: Callable[[Embed, Batch], Tensor],
    mesh: Mesh,
    dtype: torch.dtype,
) -> Callable[[nn.Module, Batch], tuple[Tensor, Tensor]]:
    """Return a loss of single microbatches whose sum over an update is ``couples`` of all of it.

    batches: this rank's of the update, which has ``samples`` in all. call: runs a function of model
    and batch as in training. All ranks call it together.
    """
    device = mesh.world.device
    every = torch.zeros(samples, *couples.shape, dtype=dtype, device=device)
    alike = torch.zeros(samples, dtype=torch.int64, device=device)
    with torch.no_grad():
        for batch in batches:
            # It is seen again: statistics are gathered then.
            found = call(couples.embed, dataclasses.replace(batch, counts=False))
            if batch.counts:
                rows = _rows(batch, samples)
                every[rows] = found.to(dtype)
                alike[rows] = batch.alike
    copies = mesh.degrees.context  # ranks that share the tokens of a sample all have its vector
    mesh.learners.sum_all([every, alike])
    every, alike = every / copies, alike // copies
    with torch.enable_grad():
        loss, weight = couples.joined(every.requires_grad_(), alike)
    (pull,) = torch.autograd.grad(loss, every)
    loss, weight = loss.detach() / samples, weight / samples

    def of_one(model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        found = couples.embed(model, batch)
        pulled = (found * pull[_rows(batch, samples)].to(found.dtype)).sum()
        return pulled - pulled.detach() + loss * len(found), weight * len(found)

    return of_one


def _rows(batch: Batch, samples: int) -> Tensor:
    """Return the numbers of the batch's samples among those of the update: positions follow one
    another, so no two have the same."""
    return batch.positions % samples
