"""Under bf16 shards travel in bfloat16, and the gradient is that of replicas under bf16."""

from typing import Any

import numpy as np
import pytest
import torch

from swath.parallel.apply import spread
from swath.parallel.count import counted
from swath.parallel.mesh import Mesh
from swath.parallel.replica import Replica
from swath.parallel.settings import Parallel
from swath.parallel.world import World
from swath.train.settings import TrainSettings
from swath.train.state import TrainState
from swath.train.step import train_step
from tests.layouts.following import AdamW, dealt, whole
from tests.layouts.subjects import BATCH, SUBJECTS

NARROW = torch.bfloat16


def update(name: str, parallel: Parallel, narrow: torch.dtype | None = NARROW) -> dict[str, Any]:
    """Return the gradient of an update, its norm, what it exchanged, and the weights after it."""
    mesh, subject = Mesh.of(World.start("cpu"), parallel), SUBJECTS[name]
    model = spread(subject.network(torch.float32), mesh, parallel, narrow=narrow)
    replica = Replica(model, mesh, autocast=NARROW)
    state = TrainState(model, AdamW(lr=1e-2, eps=1e-3).build(model))
    batches = dealt(subject, 0, mesh, replica.in_step)
    settings = TrainSettings(samples=BATCH.samples)
    loss = subject.objective().loss
    with counted() as volume:
        figures = train_step(state, batches, loss, replica, settings, BATCH.samples, 1.0)
    return {
        "loss": figures["loss"],
        "norm": figures["grad_norm"],
        "grads": whole({n: p.grad for n, p in model.named_parameters() if p.requires_grad}),
        "weights": whole(model.state_dict()),
        "gathered": volume.bytes["all_gather"],
    }


@pytest.mark.parametrize(
    ("number", "name", "layout"),
    [
        (2, "vit", {"shard": 2}),
        (2, "unet", {"shard": 2, "recompute": "full"}),
        (2, "resnet", {"shard": 2}),
        (2, "vit", {"shard": 2, "wrap": "matrix", "reshard": False}),
        (2, "vit", {"tensor": 2, "sequence": True}),
        (4, "vit", {"pipeline": 2, "shard": 2}),
        (4, "vit", {"replicate": 2, "shard": 2}),
        (4, "vit", {"shard": 2, "tensor": 2, "sequence": True}),
    ],
)
def test_the_gradient_is_that_of_one_process(ranks, number, name, layout):
    """To the rounding of sums; where tensor ranks add, of sums of bfloat16 numbers."""
    (alone,) = ranks(1, update, name, Parallel())
    close = 2e-2 if "tensor" in layout else 1e-5
    for found in ranks(number, update, name, Parallel(**layout)):
        assert found["loss"] == pytest.approx(alone["loss"], rel=close)
        assert found["norm"] == pytest.approx(alone["norm"], rel=max(close, 1e-4))
        for kind in ("grads", "weights"):
            for key, value in found[kind].items():
                expected = alone[kind][key]
                apart = np.linalg.norm(value - expected)
                assert apart <= close * max(np.linalg.norm(expected), 1e-3), (kind, key)


def test_matrices_travel_at_half_the_size_and_norms_not_at_all(ranks):
    network = SUBJECTS["vit"].network(torch.float32)
    products = norms = other = 0
    for name, p in network.named_parameters():
        if ".norm" in name:
            norms += p.nbytes
        elif "blocks." in name:
            products += p.nbytes
        else:
            other += p.nbytes
    assert 0 < norms < products / 20 and other
    wide = ranks(2, update, "vit", Parallel(shard=2), None)[0]["gathered"]
    half = ranks(2, update, "vit", Parallel(shard=2))[0]["gathered"]
    saved = (wide - half) / (products / 2 + norms)
    passes = BATCH.passes // 2
    assert saved == pytest.approx(2 * passes, rel=0.02)  # forward and backward of each
