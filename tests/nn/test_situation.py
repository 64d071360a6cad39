"""Which samples are not told their time and place: neither microbatch nor rank says so."""

import dataclasses
import itertools
from collections.abc import Callable

import pytest
import torch

from swath.data.chip import Known
from swath.data.settings import DataSettings
from swath.models import Inputs
from swath.models.mae import MAE
from swath.nn.situation import Situation
from swath.parallel.replica import Replica
from swath.parallel.world import World
from swath.tasks.pretrain import Pretrain
from tests.several import made

UPDATE = 12
SMALL = MAE(
    patch=4, width=8, depth=1, heads=2, decoder_width=8, decoder_depth=1, decoder_heads=2,
    time=True, place=True, withheld=0.4,
)  # fmt: skip


def gradients(path: str, micro: int) -> torch.Tensor:
    """Return the gradient of the second update of a run."""
    world = World.start("cpu")
    data = DataSettings(store=path).open(labels=False, asks=SMALL.asks)
    inputs = Inputs(bands=data.bands, size=16)
    objective = Pretrain().bind(data.store.contents.label, None, inputs)
    torch.manual_seed(0)
    model = SMALL.build(inputs, objective.outputs).double()
    with torch.no_grad():
        for parameter in model.situation.parameters():  # which begin at 0
            parameter.normal_()
    stream = data.training(micro=micro, seed=3).stream(UPDATE, UPDATE, world.rank, world.ranks)
    own = len(range(world.rank, UPDATE // micro, world.ranks))
    batches = [
        dataclasses.replace(b, image=b.image.double()) for b in itertools.islice(stream, own)
    ]
    Replica(model, world).gradients(batches, objective.loss, UPDATE)
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def test_neither_microbatches_nor_ranks_say_who_is_not_told(ranks: Callable, tmp_path):
    path = made(tmp_path / "s2", "sentinel2_l1c", "B02 B03", size=16)
    whole = gradients(path, UPDATE)
    spread = [found for number in (2, 3) for found in ranks(number, gradients, path, 2)]
    for found in [gradients(path, micro) for micro in (1, 2, 4)] + spread:
        torch.testing.assert_close(found, whole, rtol=0, atol=1e-12)


def test_samples_are_told_in_their_shares_and_time_apart_from_place():
    samples = 4000
    situation = Situation(1, time=True, place=True, withheld=0.25).double()
    situation.time.unknown.data.fill_(1)
    situation.place.unknown.data.fill_(2)
    told = torch.ones(samples, 2, dtype=torch.float64)
    keys = torch.randint(2**62, (samples,), generator=torch.Generator().manual_seed(0))
    tokens, known = torch.zeros(samples, 1, 1).double(), Known(where=told, when=told, keys=keys)
    counts = situation(tokens, known).flatten().long().bincount(minlength=4) / samples
    expected = [0.75 * 0.75, 0.25 * 0.75, 0.75 * 0.25, 0.25 * 0.25]
    assert counts.tolist() == pytest.approx(expected, abs=5 * (0.25 / samples) ** 0.5)
    assert not situation.eval()(tokens, known).any()
