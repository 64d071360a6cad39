"""A signal to one rank in the middle of an evaluation: all leave it together, in every layout."""

import pytest
import torch

from swath.parallel.apply import spread
from swath.parallel.mesh import Mesh
from swath.parallel.replica import Replica
from swath.parallel.settings import Parallel
from swath.parallel.world import World
from swath.train.evaluate import evaluate
from tests.layouts.following import dealt
from tests.layouts.subjects import SUBJECTS


def given_up(name: str, parallel: Parallel, rank: int) -> bool:
    """Return whether the evaluation is given up if ``rank`` hears a signal in its second pass."""
    subject, mesh = SUBJECTS[name], Mesh.of(World.start("cpu"), parallel)
    replica = Replica(spread(subject.network(torch.float64), mesh, parallel), mesh)
    asked = 0

    def stop() -> bool:
        nonlocal asked
        asked += 1
        return mesh.world.rank == rank and asked == 2

    batches = dealt(subject, 0, mesh, replica.in_step)
    return evaluate(replica, subject.objective(), batches, stop) is None


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize(
    ("number", "name", "layout"),
    [
        (2, "vit", {}),
        (2, "vit", {"shard": 2}),
        (2, "vit", {"tensor": 2}),
        (2, "vit", {"context": 2}),
        (2, "vit", {"pipeline": 2}),
        (2, "unet", {"spatial": 2}),
        (4, "vit", {"context": 2, "replicate": 2}),
    ],
)
def test_all_ranks_leave_an_evaluation_together(ranks, number, name, layout, rank):
    found = ranks(number, given_up, name, Parallel(**layout), rank)
    assert found == [True] * number
