"""A masked autoencoder's run that was cut short goes on as the unbroken one, masks included."""

import dataclasses
import os
import pathlib
import signal
from dataclasses import dataclass

import pytest

from swath import exits
from swath.data.settings import DataSettings
from swath.models.mae import MAE
from swath.parallel.settings import Parallel
from swath.parallel.world import World
from swath.tasks.pretrain import Pretrain
from swath.train.interrupt import Interrupted
from swath.train.job import TrainJob
from swath.train.setup import train
from tests.test_same_curve import assert_same, job, outcome
from tests.test_same_curve import store as store  # a fixture

SMALL = MAE(width=16, depth=1, heads=2, patch=3, decoder_depth=1, decoder_heads=2)


@dataclass(frozen=True, kw_only=True)
class Watched(Pretrain):
    """Pretrain, that writes down which patches were shown of the sample at which position."""

    seen: str

    def bind(self, label, counts, inputs=None):
        objective = super().bind(label, counts, inputs)
        plain_loss = objective.loss

        def loss(model, batch):
            shown, _ = objective.drawn(model, batch)
            pairs = zip(batch.positions.tolist(), shown.tolist(), strict=True)
            with open(self.seen, "a") as file:
                file.write("".join(f"{at} {number(places)}\n" for at, places in pairs))
            return plain_loss(model, batch)

        object.__setattr__(objective, "loss", loss)
        return objective


def number(places: list[int]) -> int:
    return sum(place * 16**i for i, place in enumerate(places))


def filling(store: pathlib.Path, folder: pathlib.Path, decoder: str, **changes) -> TrainJob:
    whole = job(store, folder, data=DataSettings(store=str(store)), **changes)
    model = dataclasses.replace(SMALL, decoder=decoder)
    return dataclasses.replace(whole, model=model, task=Watched(seen=str(folder / "seen")))


@pytest.fixture(scope="module")
def unbroken(store, tmp_path_factory):
    found = {}
    for decoder in ("full", "cross"):
        folder = tmp_path_factory.mktemp(decoder)
        train(filling(store, folder, decoder), world=World.alone())
        found[decoder] = outcome(folder)
    return found


class Cut(Exception):
    """The run ends here, and saves nothing."""


def cut_after(job: TrainJob, update: int, saves: bool) -> int | None:
    """Train until ``update`` is done; then be told to leave, rank 1 alone, or fail on all ranks."""
    from swath.train import trainer

    step, world = trainer.train_step, World.start("cpu")

    def and_cut(state, *args):
        figures = step(state, *args)
        if state.progress.update == update:
            if not saves:
                raise Cut
            if world.rank == 1:
                os.kill(os.getpid(), signal.SIGUSR1)
        return figures

    trainer.train_step = and_cut
    try:
        train(job)
    except Interrupted as left:
        return int(left.code)
    except Cut:
        return None
    finally:
        trainer.train_step = step
    return 0


def test_every_sample_is_shown_other_patches(unbroken):
    masks = unbroken["full"].samples
    assert len(masks) == 96 and len(set(masks.values())) > 90


@pytest.mark.parametrize(
    ("decoder", "parallel"),
    [
        ("full", Parallel()),
        ("full", Parallel(shard=2)),
        ("cross", Parallel(tensor=2)),
        ("cross", Parallel(pipeline=2)),
    ],
    ids=["replicas", "shards", "tensor", "pipeline"],
)
def test_cut_twice_it_goes_on_as_if_it_had_not_been(
    ranks, store, unbroken, tmp_path, decoder, parallel
):
    """Once without saving, so that an update is made again; once on a signal that rank 1 hears."""
    run = filling(store, tmp_path, decoder, parallel=parallel)
    assert ranks(2, cut_after, run, 3, False) == [None, None]
    assert ranks(2, cut_after, run, 5, True) == [exits.LEFT] * 2
    ranks(2, train, run)
    assert_same(outcome(tmp_path), unbroken[decoder], 1e-9)
