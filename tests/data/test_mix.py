"""Several stores in one run: microbatches are the same for any ranks, and each store is whole."""

import itertools
import shutil
from collections import Counter

import numpy as np
import pytest
import torch

from swath.config import ConfigError
from swath.data.augment import Augment
from swath.data.mix import ROUND, Also, Shares
from swath.data.settings import DataSettings
from swath.data.split import Split
from tests.data.test_loader import VARIED, equal, made
from tests.several import three

HALF = Split(by="random", val=0.2, test=0.2)


@pytest.fixture(scope="module")
def stores(tmp_path_factory) -> tuple[str, str]:
    folder = tmp_path_factory.mktemp("mix")
    big = made(folder / "big", samples=60, size=8, bands=3)
    return big, made(folder / "small", samples=20, size=8, bands=3, seed=1)


def settings(stores, weight=3.0, **given) -> DataSettings:
    return DataSettings(store=stores[0], weight=weight, also=(Also(store=stores[1]),), **given)


def first(data, count, start=0, batch=12, rank=0, ranks=1, even=False, **options):
    options = {"micro": 3, "seed": 5, "prefetch": 4, "augment": VARIED, "device": "cpu"} | options
    stream = data.training(**options).stream(start, batch, rank, ranks, even=even)
    return list(itertools.islice(stream, count))


@pytest.mark.parametrize("weights", [(1,), (3, 1), (1, 1, 1), (0.9, 0.05, 0.05)])
def test_shares_are_kept_in_every_round_and_counted_from_anywhere(weights):
    """Against counting from the beginning; no remainder of a share is lost or given twice."""
    shares = Shares(weights, seed=3)
    assert shares.counts.sum() == ROUND
    assert np.abs(shares.counts - ROUND * np.array(weights) / sum(weights)).max() < 1
    before: Counter[int] = Counter()
    for number in range(3 * ROUND):
        store, count = shares.of(number)
        assert count == before[store]
        before[store] += 1
        if (number + 1) % ROUND == 0:
            turns = (number + 1) // ROUND
            assert [before[i] for i in range(len(weights))] == (turns * shares.counts).tolist()
    if len(weights) > 1:
        orders = [[shares.of(turn * ROUND + i)[0] for i in range(ROUND)] for turn in range(2)]
        assert orders[0] != orders[1] != sorted(orders[1])
        assert [Shares(weights, seed=4).of(i)[0] for i in range(ROUND)] != orders[0]


@pytest.mark.parametrize("ranks", [2, 3, 4])
def test_any_number_of_replicas_sees_the_same_microbatches(stores, ranks):
    data = settings(stores).open()
    whole = first(data, 32)
    for rank in range(ranks):
        mine = [b for i, b in enumerate(whole) if i % 4 % ranks == rank]
        found = first(data, len(mine), rank=rank, ranks=ranks, prefetch=1 + 4 * rank)
        assert all(equal(a, b) for a, b in zip(found, mine, strict=True))


def test_a_stream_begins_anywhere_and_keeps_step(stores):
    """What fills up for ranks without a microbatch is the update's first, whichever store's."""
    data = settings(stores).open()
    whole = first(data, 32)
    for update in (1, 5):
        rest = first(data, 8, start=12 * update)
        assert all(equal(a, b) for a, b in zip(rest, whole[4 * update :], strict=False))
    filled = first(data, 4, rank=2, ranks=3, even=True)
    assert [b.counts for b in filled] == [True, False, True, False]
    assert all(equal(filled[2 * u + 1], whole[4 * u]) for u in range(2))


def test_each_store_shows_each_sample_once_in_its_epoch(stores):
    """36 and 12 training samples; a microbatch has samples of one store, in that store's order and
    normalised by that store's statistics: as its own loader shows them alone."""
    data = settings(stores).open()
    plain = {"augment": Augment(), "micro": 3, "seed": 5, "prefetch": 4, "device": "cpu"}
    found = first(data, 100, batch=300, **plain)
    positions = torch.cat([b.positions for b in found])
    assert positions.tolist() == list(range(300))
    shares = Shares((3, 1), 5)
    for number, (each, samples) in enumerate(zip((data, data.also[0]), (36, 12), strict=True)):
        mine = [b for i, b in enumerate(found) if shares.of(i)[0] == number]
        alone = each.loader("train", **plain).stream(0, 300)
        for one, other in zip(mine, alone, strict=False):
            assert torch.equal(one.indices, other.indices)
            assert torch.equal(one.image, other.image) and torch.equal(one.target, other.target)
        epoch = torch.cat([b.indices for b in mine])[:samples]
        assert sorted(epoch.tolist()) == each.select("train").indices.tolist()
        assert len(mine) == (75, 25)[number]


def test_stores_that_do_not_fit_are_refused(stores, tmp_path):
    other = made(tmp_path / "bands", samples=20, size=8, bands=4)
    with pytest.raises(ConfigError, match=r"bands has bands F0, F1, F2, F3, and .*=wavelengths$"):
        settings((stores[0], other)).open()
    other = made(tmp_path / "size", samples=20, size=12, bands=3)
    with pytest.raises(ConfigError, match=r"has samples of 12 x 12 px, and .* 8 x 8 px"):
        settings((stores[0], other)).open()
    other = made(tmp_path / "classes", samples=20, size=8, bands=3, classes=4)
    with pytest.raises(ConfigError, match="has labels of kind mask"):
        settings((stores[0], other)).open()
    assert settings((stores[0], other)).open(labels=False).also  # nobody reads them
    with pytest.raises(ConfigError, match=r"weight=3 has no effect without also"):
        DataSettings(store=stores[0], weight=3.0)
    for same in (stores[0] + "/", shutil.copytree(stores[0], tmp_path / "copy")):
        with pytest.raises(ConfigError, match="hold the same samples, be it one store by two"):
            DataSettings(store=stores[0], also=(Also(store=str(same)),)).open()
    with pytest.raises(ConfigError, match="a store is there twice"):
        settings((stores[0], stores[0])).open()
    with pytest.raises(ConfigError, match="bands is empty; name some"):
        Also(store=stores[1], bands=())
    with pytest.raises(ConfigError, match="weight=0 must be above 0"):
        Also(store=stores[1], weight=0.0)
    with pytest.raises(ConfigError, match="at least one microbatch in 100"):
        first(settings(stores, weight=500.0).open(), 1)


def test_stores_of_other_sensors_keep_their_bands_and_sizes(tmp_path):
    """Where a model takes any bands; each microbatch tells its own."""
    first, *others = three(tmp_path)
    also = (Also(store=others[0]), Also(store=others[1], bands=("VH",)))
    one = DataSettings(store=first, bands=("B08", "B03"), also=also)
    data = one.open(labels=False, asks={"bands", "gsd_m"})
    seen = {
        (tuple(b.name for b in batch.bands), batch.known.gsd_m, tuple(batch.image.shape[1:]))
        for batch in itertools.islice(data.training(micro=2, seed=1).stream(0, 4), 20)
    }
    assert seen == {
        (("B08", "B03"), 10.0, (2, 16, 16)),
        (("B4", "B3", "B6"), 30.0, (3, 8, 8)),
        (("VH",), 10.0, (1, 16, 16)),
    }
    with pytest.raises(ConfigError, match=r"data.bands: \S* has no band 'B08'"):
        one.open(labels=False)
    no_gsd = made(tmp_path / "rgb", samples=20, size=8, bands=3)
    assert DataSettings(store=no_gsd).open(asks={"gsd_m"}).known.gsd_m == 10.0
