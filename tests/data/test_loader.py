"""The loader: the same microbatches for any sharing of the work, and what is in them."""

import itertools
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from swath.config import ConfigError, load
from swath.data.augment import Augment
from swath.data.bands import find_bands
from swath.data.build import build
from swath.data.chip import IGNORE
from swath.data.normalize import Normalize
from swath.data.settings import DataSettings
from swath.data.split import Split
from swath.datasets.synthetic import Synthetic


def made(folder, split=None, **settings) -> str:
    split = split or Split(by="random", val=0.2, test=0.2)
    build(Synthetic(**settings), folder, split, progress=False, shard_bytes=20_000)
    return str(folder)


@pytest.fixture(scope="module")
def masks(tmp_path_factory) -> str:
    """60 samples of two resolutions, some with no-data, labelled by pixel."""
    return made(tmp_path_factory.mktemp("masks") / "s", samples=60, size=8, coarse=2, nodata=0.3)


def first(data, count, start=0, batch=12, rank=0, ranks=1, **options):
    loader = data.loader("train", **{"micro": 3, "seed": 5, **options})
    return list(itertools.islice(loader.stream(start, batch, rank, ranks), count))


def equal(one, two) -> bool:
    tensors = ("image", "valid", "target", "positions", "indices")
    return one.seed == two.seed and all(
        torch.equal(getattr(one, t), getattr(two, t)) for t in tensors
    )


VARIED = Augment(flips=True, rotations=True, crop=6, gain=0.1, noise=0.1)


@pytest.mark.parametrize("ranks", [2, 3, 4])
def test_any_number_of_replicas_sees_the_same_microbatches(masks, ranks):
    """Microbatch i of each update is replica i % ranks's, whether or not the number divides."""
    data = DataSettings(store=masks).open()
    whole = first(data, 16, augment=VARIED)  # 4 updates of 4 microbatches
    for rank in range(ranks):
        mine = [b for i, b in enumerate(whole) if i % 4 % ranks == rank]
        found = first(data, len(mine), rank=rank, ranks=ranks, augment=VARIED)
        assert all(equal(a, b) for a, b in zip(found, mine, strict=True))


def test_a_stream_begins_anywhere(masks):
    data = DataSettings(store=masks).open()
    whole = first(data, 16, augment=VARIED)
    for update in (1, 3):
        rest = first(data, 4, start=12 * update, augment=VARIED)
        assert all(equal(a, b) for a, b in zip(rest, whole[4 * update :], strict=False))


@pytest.mark.parametrize("prefetch", [1, 9])
def test_prefetch_changes_nothing(masks, prefetch):
    data = DataSettings(store=masks).open()
    found = first(data, 8, prefetch=prefetch, augment=VARIED)
    assert all(equal(a, b) for a, b in zip(found, first(data, 8, augment=VARIED), strict=True))


def test_an_epoch_shows_every_training_sample_once(masks):
    data = DataSettings(store=masks).open()
    train = data.select("train").indices
    seen = torch.cat([b.indices for b in first(data, 36 // 3)])
    assert len(train) == 36 and sorted(seen.tolist()) == train.tolist()
    assert torch.cat([b.positions for b in first(data, 12)]).tolist() == list(range(36))


def test_a_batch_holds_what_the_store_holds(masks):
    """Normalised by hand from the store's columns; no-data is 0 and not valid; labels match."""
    data = DataSettings(store=masks, resample="nearest").open()
    batch = first(data, 1)[0]
    raw = data.store.read(batch.indices.numpy()).result()
    coarse = raw["coarse"].repeat(2, axis=2).repeat(2, axis=3)
    whole = np.concatenate([raw["fine"], coarse], axis=1).astype(np.float64)
    norm = data.normalize
    shift, factor = (np.array(v)[:, None, None] for v in (norm.shift, norm.factor))
    expected = np.where(whole == 0, 0.0, (whole - shift) / factor)
    np.testing.assert_allclose(batch.image.numpy(), expected, atol=1e-5)
    assert (batch.valid.numpy() == (whole != 0).all(1)).all()
    assert (batch.target.numpy() == raw["label"]).all() and batch.target.dtype == torch.int64
    assert batch.image.dtype == torch.float32


def test_a_pixel_is_valid_where_every_band_saw_it(masks, monkeypatch):
    loader = DataSettings(store=masks).open().loader("train", micro=2)
    observed = torch.ones(2, 3, 4, 4, dtype=torch.bool)
    observed[0, 0, 1, 2] = observed[1, 2, 3, 0] = False
    monkeypatch.setattr(loader, "_image", lambda _: (observed.float(), observed))
    batch = next(loader.stream(0, 2))
    assert (~batch.valid).nonzero().tolist() == [[0, 1, 2], [1, 3, 0]]


def test_a_sweep_shows_each_sample_once_on_any_number_of_replicas(masks):
    data = DataSettings(store=masks).open()
    loader = data.loader("val", micro=5)
    whole = list(loader.sweep())
    assert torch.cat([b.indices for b in whole]).tolist() == data.select("val").indices.tolist()
    shared = [list(loader.sweep(rank, 3)) for rank in range(3)]
    again = [b for turn in itertools.zip_longest(*shared) for b in turn if b is not None]
    assert all(equal(a, b) for a, b in zip(again, whole, strict=True))
    assert [b.indices.tolist() for b in loader.sweep(indices=[7, 3])] == [[7, 3]]


def test_bands_come_in_the_order_asked(masks):
    """Also when modalities are interleaved."""
    data = DataSettings(store=masks).open()
    names = [f"{m.name}/{m.sensor.bands[i].name}" for m, i in data.channels]
    order = [4, 1, 5, 0]
    some = replace(data.settings, bands=tuple(names[i] for i in order)).open()
    one, all_ = first(some, 1)[0], first(data, 1)[0]
    torch.testing.assert_close(one.image, all_.image[:, order])
    assert [b.name for b in some.bands] == [names[i].split("/")[1] for i in order]


def test_a_sample_is_varied_anew_in_every_epoch(masks):
    """Draws are keyed by the position in the run; by the sample, each would look the same again."""
    data = DataSettings(store=masks).open()
    noisy, plain = Augment(noise=0.1), Augment()
    added: dict[int, list] = {}
    for one, other in zip(
        first(data, 24, augment=noisy), first(data, 24, augment=plain), strict=True
    ):
        for index, noise in zip(one.indices.tolist(), one.image - other.image, strict=True):
            added.setdefault(index, []).append(noise)
    assert len(added) == 36 and all(len(noises) == 2 for noises in added.values())
    for early, late in added.values():
        assert early.std() > 0.05 and (early - late).std() > 0.05


def test_a_sample_is_varied_alike_in_a_microbatch_of_any_size(masks):
    """Draws are keyed by the position in the run, not by the place in the microbatch."""
    data = DataSettings(store=masks).open()
    few, many = (first(data, 24 // n, micro=n, augment=VARIED) for n in (3, 12))
    for name in ("image", "valid", "target"):
        mine, theirs = (torch.cat([getattr(b, name) for b in some]) for some in (few, many))
        torch.testing.assert_close(mine, theirs)


def test_each_microbatch_has_a_seed_of_its_own(masks):
    """Over two epochs of 12; all would drop the same numbers otherwise, run after run."""
    data = DataSettings(store=masks).open()
    mine, theirs = ([b.seed for b in first(data, 24, seed=seed)] for seed in (5, 6))
    assert len({*mine, *theirs}) == 48


def test_another_seed_is_another_order_and_other_variations(masks):
    data = DataSettings(store=masks).open()

    def made_of(seed):
        plain, noisy = (
            first(data, 12, seed=seed, augment=Augment(noise=noise)) for noise in (0.0, 0.1)
        )
        return torch.cat([b.indices for b in plain]), noisy[0].image - plain[0].image

    (order, noise), (other, others) = made_of(5), made_of(6)
    assert not torch.equal(order, other) and torch.equal(order.sort()[0], other.sort()[0])
    assert (noise - others).std() > 0.05


def test_inputs_are_normalised_by_the_training_part_alone(masks, tmp_path):
    """By hand, of the store's own split and of another: no pixel held out has a say."""
    for split in (None, Split(by="random", val=0.3, test=0.4, seed=3)):
        data = DataSettings(store=masks, split=split).open()
        train = data.select("train").indices
        raw = data.store.read(train).result()["fine"].astype(np.float64)
        everything = data.store.read(np.arange(60)).result()["fine"].astype(np.float64)
        for i in range(raw.shape[1]):
            mine, every = (x[:, i][x[:, i] != 0] for x in (raw, everything))
            norm = data.normalize
            assert norm.shift[i] == pytest.approx(mine.mean(), rel=1e-6)
            assert norm.factor[i] == pytest.approx(mine.std(), rel=1e-6)
            assert norm.shift[i] != pytest.approx(every.mean(), rel=1e-4)


@dataclass(frozen=True, kw_only=True)
class Stripes(Synthetic):
    """Pixels grouped by stripes of two rows, so that parts share samples."""

    def open(self):
        return Striped(super().open())


class Striped:
    def __init__(self, source) -> None:
        self.source = source
        self.contents = replace(source.contents, groupings=("stripe",), grouped_pixels=("stripe",))

    def __len__(self) -> int:
        return len(self.source)

    def chip(self, i: int):
        rows = np.arange(8)[:, None] // 2 + 4 * i
        groups = {"stripe": np.broadcast_to(rows, (8, 8)).astype(np.int32)}
        return replace(self.source.chip(i), groups=groups)


@pytest.mark.parametrize("kind", ["mask", "raster"])
def test_pixels_of_other_parts_are_ignored(kind, tmp_path):
    """Every labelled pixel is a target in one part, and in no other."""
    split = Split(by="stripe", val=0.3, test=0.3)
    stripes = Stripes(samples=49, size=8, classes=2, label=kind, unlabelled=0.2)
    build(stripes, tmp_path / "s", split, progress=False)
    data = DataSettings(store=str(tmp_path / "s")).open()
    labels = data.store.read(np.arange(49)).result()["label"]
    seen, touched = np.zeros(labels.shape, int), 0
    for part in ("train", "val", "test"):
        for batch in data.loader(part, micro=7).sweep():
            seen[batch.indices.numpy()] += known(batch.target.numpy())
            touched += len(batch.indices)
    assert (seen == known(labels)).all() and 0 < seen.mean() < 1 and touched > 49


def known(label: np.ndarray) -> np.ndarray:
    return np.isfinite(label) if label.dtype.kind == "f" else label != IGNORE


def test_inputs_are_normalised_without_the_pixels_held_out(tmp_path):
    """Where parts share samples too."""
    stripes = Stripes(samples=49, size=8, classes=2)
    build(stripes, tmp_path / "s", Split(by="stripe", val=0.3, test=0.3), progress=False)
    data = DataSettings(store=str(tmp_path / "s")).open()
    found = data.store.read(np.arange(49), groups=("stripe",)).result()
    mine = data.select("train").member(found["groups/stripe"])
    for i, shift in enumerate(data.normalize.shift):
        band = found["fine"][:, i].astype(np.float64)
        assert shift == pytest.approx(band[mine].mean(), rel=1e-9)
        assert shift != pytest.approx(band.mean(), rel=1e-6)


@pytest.mark.parametrize(
    ("kind", "shape", "dtype"),
    [
        ("class", (3,), torch.int64),
        ("flags", (3, 3), torch.int64),
        ("value", (3, 3), torch.float32),
        ("raster", (3, 3, 6, 6), torch.float32),
        ("none", None, None),
    ],
)
def test_targets_have_the_shape_of_their_kind(tmp_path, kind, shape, dtype):
    path = made(tmp_path / "s", samples=40, size=8, label=kind)
    target = first(DataSettings(store=path).open(), 1, augment=VARIED)[0].target
    assert (target is None) if shape is None else (target.shape == shape and target.dtype == dtype)


def test_balance_shows_rare_classes_as_often(tmp_path):
    """Classes of 60 % to 5 %: with balance 1 they are drawn alike; with 0.5 in between."""
    path = made(tmp_path / "s", samples=300, size=4, label="class", classes=4)
    counts = {}
    for balance in (0.0, 0.5, 1.0):
        data = DataSettings(store=path, balance=balance, normalize=Normalize(kind="none")).open()
        seen = first(data, 16, micro=500, batch=500)
        counts[balance] = np.bincount(torch.cat([b.target for b in seen]), minlength=4) / 8_000
    spread = {b: c.max() / c.min() for b, c in counts.items()}
    assert spread[1.0] < 1.12 < spread[0.5] < spread[0.0]
    assert spread[0.5] == pytest.approx(spread[0.0] ** 0.5, rel=0.12)


def test_the_loader_says_how_long_it_made_the_step_wait(masks, monkeypatch):
    """By a clock of its own that ticks once a look: waiting is counted, the consumer's work not."""
    import swath.data.loader as module

    ticks = itertools.count()
    monkeypatch.setattr(module.time, "perf_counter", lambda: float(next(ticks)))
    loader = DataSettings(store=masks).open().loader("train", micro=3)
    stream = loader.stream(0, 3)
    for expected in (1.0, 2.0, 3.0):
        next(stream)
        assert loader.waited == expected
        next(ticks)  # the consumer works


def test_mistakes_are_clear(masks, tmp_path):
    data = DataSettings(store=masks).open()
    with pytest.raises(ConfigError, match=r"batch=10 is not a multiple of micro=3"):
        next(data.loader("train", micro=3).stream(0, 10))
    with pytest.raises(ConfigError, match=r"crop=99 is larger than the samples, 8 x 8"):
        data.loader("train", micro=3, augment=Augment(crop=99))
    name = data.bands[0].name
    with pytest.raises(ConfigError, match=rf"has no band '{name}x'; did you mean '{name}'\?"):
        find_bands(data.store.contents, [name + "x"], data.store.path)
    one = DataSettings(store=made(tmp_path / "w", samples=20, size=4)).open()
    listed = ", ".join(band.name for band in one.bands)  # each once, not as image/B02 too
    with pytest.raises(ConfigError, match=rf"has no band 'thermal'; there are {listed}$"):
        find_bands(one.store.contents, ["thermal"], one.store.path)
    with pytest.raises(ConfigError, match=rf"'{name}' is named twice"):
        find_bands(data.store.contents, [name, name], data.store.path)
    with pytest.raises(ConfigError, match=r"balance=2.0 must be in 0..1"):
        DataSettings(store=masks, balance=2.0)
    with pytest.raises(ConfigError, match=r"bands is empty"):
        DataSettings(store=masks, bands=())
    path = made(tmp_path / "v", samples=20, size=4, label="value")
    with pytest.raises(ConfigError, match=r"balance=1.0 has no effect: labels of kind value"):
        next(DataSettings(store=path, balance=1.0).open().loader("train", micro=1).stream(0, 1))


def test_settings_are_written_as_yaml(tmp_path):
    file = tmp_path / "x.yaml"
    file.write_text("store: s\nbands: [B02, B03]\nnormalize: {clip: 4}\nsplit: {by: polygon}\n")
    found = load(DataSettings, [file], ["balance=0.5"])
    assert found.normalize.clip == 4 and found.split.by == "polygon" and found.balance == 0.5
