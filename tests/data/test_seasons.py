"""Partners: of the same place, of another date, of the same part, the same on any rank."""

import dataclasses
import itertools
import logging
import types

import numpy as np
import pytest
import torch

from swath.config import ConfigError
from swath.data.augment import Augment
from swath.data.build import build
from swath.data.chip import Known
from swath.data.imagery import Imagery
from swath.data.mix import Also
from swath.data.places import middles, times
from swath.data.seasons import Partners, places
from swath.data.settings import DataSettings
from swath.data.split import Split, select
from swath.data.store import Store
from swath.data.views import Global, Views
from swath.datasets.scenes import Scenes
from tests.geo.rasters import CORNER, place, write
from tests.several import made

WHOLE = Views(global_=Global(scale=(1, 1)), ratio=1, seasons=True)
DATES = ("20200101", "20200501", "20200801")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Twelve places of four chips each: the first seven at three dates, others at one; of place 7
    there are two scenes of the same day. At the last date scenes begin a chip farther west."""
    folder = tmp_path_factory.mktemp("seasons")
    rng = np.random.default_rng(0)
    for number in range(12):
        for when, day in enumerate(DATES if number < 7 else DATES[:1]):
            for twice in range(2 if number == 7 else 1):
                shape = (2, 32, 48) if when == 2 else (2, 32, 32)
                x = CORNER[0] + 5000 * number - (160 if when == 2 else 0)
                pixels = rng.integers(1, 4000, shape, dtype=np.uint16)
                name = f"{number}{'ab'[twice]}_{day}_img.tif"
                write(folder / name, pixels, place(x=x), names=("B02", "B08"))
    one = Imagery(path=str(folder / "*_img.tif"), sensor="sentinel2_l2a")
    scenes = Scenes(scenes=(one,), chip=16, observed=0.0)
    path = str(folder / "store")
    build(scenes, path, Split(by="place", val=0.2, test=0.3), progress=False)
    return path


def test_samples_of_one_place_have_one_number(store):
    """As their corners on the ground say; those of different places have different ones."""
    opened = Store.open(store)
    where = opened.column("where")
    corners = []
    for ground, row, col, *_ in where:
        a, _, c, _, e, f = opened.contents.grounds[ground].transform
        corners.append((round(a * col + c), round(e * row + f)))
    found = places(opened)
    assert len(set(zip(corners, found.tolist(), strict=True))) == len(set(corners))
    assert len(set(found.tolist())) == len(set(corners)) == 12 * 4 + 7 * 2
    counts = np.bincount(found)
    assert sorted(counts.tolist()) == [1] * (7 * 2 + 16) + [2] * 4 + [3] * 28


def test_partners_are_of_the_same_place_another_date_and_the_same_part(store):
    opened = Store.open(store)
    when, where = opened.column("when"), places(opened)
    for part in ("train", "val", "test"):
        selection = select(opened, None, part)
        partners, at = Partners(selection), np.repeat(selection.indices, 60)
        drawn = partners.of(at, np.arange(len(at)), 3)
        assert np.isin(drawn, selection.indices).all() and (where[drawn] == where[at]).all()
        own = drawn == at
        assert (when[drawn] != when[at])[~own].all()
        dates = np.array([len(set(when[where == one].tolist())) for one in where])
        assert (own == (dates[at] == 1)).all()
        assert partners.found == (dates[selection.indices] > 1).sum() > 0
        both = [set(drawn[at == index].tolist()) for index in selection.indices]
        assert {len(some) for some in both if len(some) > 1} <= {2}  # each of the other dates


def test_a_partner_is_drawn_evenly_by_its_position_alone(store):
    opened = Store.open(store)
    selection = select(opened, None, "train")
    partners = Partners(selection)
    three = next(i for i in selection.indices if (partners.places == partners.places[i]).sum() == 3)
    positions = np.arange(4000)
    at = np.full(4000, three)
    drawn = partners.of(at, positions, 1)
    values, counts = np.unique(drawn, return_counts=True)
    assert len(values) == 2 and three not in values
    assert abs(counts[0] - 2000) < 5 * 1000**0.5
    assert (partners.of(at[7:9], positions[7:9], 1) == drawn[7:9]).all()
    assert (partners.of(at, positions, 2) != drawn).any()


def test_every_second_view_is_of_the_partner(store, caplog):
    """On any number of parts, in training and when scored; the run says how many have one."""
    data = DataSettings(store=store).open(labels=False)
    with caplog.at_level(logging.INFO, "swath"):
        loader = data.training(micro=4, seed=3, augment=Augment(), views=WHOLE)
    partners = loader.partners
    told = f"{partners.found} of {partners.samples} samples have a partner of another date"
    assert told in caplog.text
    images = {}
    for batch in data.loader("train", micro=8).sweep():
        images |= dict(zip(batch.indices.tolist(), batch.image.numpy(), strict=True))

    def seen(parts: int) -> dict[int, tuple[int, bytes]]:
        found = {}
        for part in range(parts):
            stream = loader.stream(24, 24, part, parts)
            for _ in range(6 // parts):
                batch = next(stream)
                others = partners.of(batch.indices.numpy(), batch.positions.numpy(), 3)
                assert batch.places.tolist() == partners.places[batch.indices].tolist()
                for row, other in enumerate(others.tolist()):
                    first, second = (view[row].numpy() for view in batch.views)
                    assert (first == images[int(batch.indices[row])]).all()
                    assert (second == images[other]).all()
                    found[int(batch.positions[row])] = (other, second.tobytes())
        return found

    assert seen(1) == seen(2) == seen(3) and len(seen(1)) == 24
    scored = [
        [v.numpy().tobytes() for b in one.sweep() for v in b.views[1]]
        for one in (data.loader("val", micro=m, views=WHOLE) for m in (3, 5))
    ]
    assert scored[0] == scored[1]


def test_every_second_view_is_told_its_own_date_and_place(store):
    """The partner's; a network that is shown both views at once is told so for each."""
    data = DataSettings(store=store).open(labels=False, asks=("where", "when"))
    loader = data.training(micro=4, seed=3, views=WHOLE)
    model, differ = types.SimpleNamespace(asks={"where", "when"}), 0
    for batch in itertools.islice(loader.stream(0, 24), 6):
        others = loader.partners.of(batch.indices.numpy(), batch.positions.numpy(), 3)
        every = np.concatenate([batch.indices.numpy(), others])
        both = batch.told_views(model)["known"]
        told = Known.joined(both)
        np.testing.assert_array_equal(told.when.numpy(), times(data.store)[every])
        np.testing.assert_array_equal(told.where.numpy(), middles(data.store)[every])
        assert torch.equal(both[0].keys, both[1].keys)
        differ += int((both[0].when != both[1].when).any(1).sum())
    assert differ > 8
    (one, *_) = data.loader("val", micro=4, views=Views()).sweep()
    assert one.other is None
    first, second = one.told_views(model)["known"]
    assert torch.equal(first.when, second.when)


def test_places_of_two_stores_are_told_apart(store, tmp_path):
    other = made(tmp_path / "other", "sentinel2_l2a", "B02 B08", size=16)
    settings = DataSettings(store=store, also=(Also(store=other),))
    mixed = settings.open(labels=False).training(micro=4, views=WHOLE)
    found = [set(next(one.stream(0, 4)).places.tolist()) for one in mixed.loaders]
    assert not found[0] & found[1]


def test_a_store_of_one_date_is_refused(store):
    data = DataSettings(store=store).open(labels=False)
    selection = data.select("train")
    when = data.store.column("when")
    first = selection.indices[when[selection.indices] == when.min()]
    few = dataclasses.replace(selection, indices=first)
    object.__setattr__(data, "select", lambda part: few)
    with pytest.raises(ConfigError, match=f"none of {len(first)} training samples was cut from"):
        data.training(micro=4, views=WHOLE)
