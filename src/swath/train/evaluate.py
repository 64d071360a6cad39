"""Figures of a model on held-out samples, the same on any number of ranks."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch import nn

from swath.data.chip import Batch
from swath.parallel.replica import Replica
from swath.parallel.world import World
from swath.tasks import Objective, Tally

log = logging.getLogger(__name__)


@torch.no_grad()
def evaluate(
    replica: Replica,
    objective: Objective,
    batches: Iterable[Batch],
    stop: Callable[[], bool] = lambda: False,
) -> dict[str, float] | None:
    """Return the objective's figures over the ``batches`` of all ranks, equal on each; warns of
    what is doubtful in them.

    stop: asked before each microbatch; if it says yes on any rank, the evaluation is given up on
    all of them and None comes back.
    """
    tally, stopped = objective.empty(), False
    # Ranks that exchange in a forward pass must leave before the same one.
    team = replica.world if replica.in_step else replica.mesh.team
    with evaluating(replica.model):
        for batch in batches:
            if stopped := team.any(stop()):
                break
            found = replica.call(objective.score, batch)
            if batch.counts:
                tally = tally + found
    if replica.world.any(stopped):
        return None
    whole = over_ranks(tally if replica.mesh.speaks else objective.empty(), replica.mesh.totals)
    if replica.world.first:
        for doubt in whole.doubts():
            log.warning("%s", doubt)
    return whole.finish()


def over_ranks(tally: Tally, world: World) -> Tally:
    """Return the sum of every rank's ``tally``."""
    if tally.lists:
        return _joined(tally, world)
    sums = {
        name: torch.from_numpy(np.array(value, dtype=np.float64)).to(world.device)
        for name, value in tally.sums.items()
    }
    world.sum_all(list(sums.values()))
    return dataclasses.replace(
        tally, sums={name: value.cpu().numpy() for name, value in sums.items()}
    )


def _joined(tally: Tally, world: World) -> Tally:
    """Return the lists of all ranks, one after the other."""
    lengths = np.zeros(world.ranks, np.int64)
    lengths[world.rank] = max(map(len, tally.sums.values()))
    lengths = world.sum(torch.from_numpy(lengths).to(world.device)).cpu().numpy()
    mine = slice(*np.cumsum([lengths[: world.rank].sum(), lengths[world.rank]]))
    sums = {}
    for name, value in tally.sums.items():
        whole = np.zeros((lengths.sum(), *value.shape[1:]), value.dtype)
        whole[mine] = value
        sums[name] = torch.from_numpy(whole).to(world.device)
    world.sum_all(list(sums.values()))
    return dataclasses.replace(tally, sums={name: v.cpu().numpy() for name, v in sums.items()})


class evaluating:
    """Put a model into eval mode inside the block, and back into its own mode after it."""

    def __init__(self, model: nn.Module) -> None:
        self.model, self.training = model, model.training

    def __enter__(self) -> None:
        self.model.eval()

    def __exit__(self, *_: object) -> None:
        self.model.train(self.training)
