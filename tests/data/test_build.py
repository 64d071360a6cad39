"""A store comes out the same however often its building was interrupted, and says what is wrong."""

import dataclasses
import json
import logging
import pathlib
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass

import numpy as np
import pytest

from swath.config import ConfigError, plain
from swath.data import build as room
from swath.data.build import _differing, build
from swath.data.chip import IGNORE
from swath.data.split import Split, select
from swath.data.stats import unplain
from swath.data.store import Store
from swath.data.summary import summary
from swath.data.touch import cut_objects
from swath.datasets.synthetic import Synthetic

SMALL = {"samples": 60, "size": 16, "bands": 2}
SHARD = 10_000  # bytes: several shards even of small samples


def made(folder, split=None, **settings):
    dataset = Synthetic(**{**SMALL, **settings})
    return build(dataset, folder, split or Split(), progress=False, shard_bytes=SHARD, threads=2)


def content(folder: pathlib.Path) -> dict[str, bytes]:
    """Every file of a store by its name; attributes as JSON, whose keys may be in any order."""
    files = {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}
    return {
        name: json.dumps(json.loads(data), sort_keys=True).encode() if "json" in name else data
        for name, data in files.items()
    }


@pytest.mark.parametrize("label", ["class", "flags", "mask", "value", "raster", "none"])
def test_the_store_gives_back_what_the_dataset_gave(tmp_path, label):
    """Pixels, labels, groups and places, for every kind of label and two resolutions."""
    dataset = Synthetic(**SMALL, label=label, coarse=1)
    store = build(dataset, tmp_path / "s", Split(), progress=False, shard_bytes=SHARD)
    source = dataset.open()
    order = np.array([59, 0, 7, 31])
    groups = source.contents.groupings
    read = store.read(order, groups=groups).result()
    for place, index in enumerate(order.tolist()):
        chip = source.chip(index)
        for name, image in chip.images.items():
            np.testing.assert_array_equal(read[name][place], image)
        for name in groups:
            np.testing.assert_array_equal(read[f"groups/{name}"][place], chip.groups[name])
        if label != "none":
            np.testing.assert_array_equal(read["label"][place], chip.label)
        where = (chip.where.ground, chip.where.row, chip.where.col)
        assert tuple(store.column("where")[index][:3]) == where


def test_an_interrupted_build_ends_in_the_same_store(tmp_path):
    """A read that fails after some shards, then another: every byte as in the undisturbed one."""
    whole = made(tmp_path / "whole", coarse=1, nodata=0.3)
    dataset = Synthetic(**SMALL, coarse=1, nodata=0.3)
    torn = tmp_path / "torn"
    for last in (25, 41):

        class Failing(Synthetic):
            def open(self, last=last):
                source = dataset.open()
                chip = source.chip

                def read(index):
                    if index == last:
                        raise ConfigError("a cable was pulled")
                    return chip(index)

                source.chip = read
                return source

        Failing.__module__, Failing.__qualname__ = Synthetic.__module__, Synthetic.__qualname__
        with pytest.raises(ConfigError, match="cable"):
            build(
                Failing(**SMALL, coarse=1, nodata=0.3), torn, Split(), progress=False,
                shard_bytes=SHARD,
            )  # fmt: skip
        with pytest.raises(ConfigError, match="not finished"):
            Store.open(torn)
        assert 0 < len(Store.open(torn, unfinished=True).missing()) < 60
    store = made(torn, coarse=1, nodata=0.3)
    assert store.attributes["stats"] == whole.attributes["stats"]
    assert content(torn) == content(tmp_path / "whole")


BUILD = """
import sys
from swath.data.build import build
from swath.data.split import Split
from swath.datasets.synthetic import Synthetic
print("begun", flush=True)
build(Synthetic(samples=400, size=16, bands=2), sys.argv[1], Split(), progress=False,
      shard_bytes=10000)
print("ended", flush=True)
"""


@pytest.mark.parametrize("wait", [None, 0.1])
def test_a_killed_build_ends_in_the_same_store(tmp_path, wait):
    """kill -9 at a random moment of the writing, and some time after; then one run to the end."""
    wait = float(np.random.default_rng().uniform(0.0, 0.05)) if wait is None else wait
    run = subprocess.Popen(
        [sys.executable, "-c", BUILD, str(tmp_path / "torn")], stdout=subprocess.PIPE
    )
    assert run.stdout.readline() == b"begun\n"
    time.sleep(wait)
    run.send_signal(signal.SIGKILL)
    run.wait()
    dataset = Synthetic(samples=400, size=16, bands=2)
    for name in ("torn", "whole"):
        build(dataset, tmp_path / name, Split(), progress=False, shard_bytes=SHARD)
    assert content(tmp_path / "torn") == content(tmp_path / "whole")


def test_threads_do_not_change_the_store(tmp_path):
    """The machine decides only how fast."""
    dataset = Synthetic(**SMALL, nodata=0.2)
    for threads in (1, 5):
        build(
            dataset, tmp_path / str(threads), Split(), progress=False, threads=threads,
            shard_bytes=SHARD,
        )  # fmt: skip
    assert content(tmp_path / "1") == content(tmp_path / "5")


def test_a_finished_store_is_left_alone_and_a_lost_shard_is_put_back(tmp_path):
    """Building again costs nothing; deleting a damaged file is all a user has to do."""
    made(tmp_path / "s")
    before = content(tmp_path / "s")
    times = {f: f.stat().st_mtime_ns for f in (tmp_path / "s").rglob("*")}
    made(tmp_path / "s")
    assert times == {f: f.stat().st_mtime_ns for f in (tmp_path / "s").rglob("*")}
    shard = next(f for f in (tmp_path / "s" / "fine" / "c").rglob("*") if f.is_file())
    shard.unlink()
    made(tmp_path / "s")
    assert content(tmp_path / "s") == before


def test_a_build_killed_before_the_checksum_of_a_lost_shard_makes_it_again(tmp_path, monkeypatch):
    """Nothing is missing then, and no run that began with the store would go on."""
    made(tmp_path / "s")
    before = content(tmp_path / "s")
    next(f for f in (tmp_path / "s" / "fine" / "c").rglob("*") if f.is_file()).unlink()
    with monkeypatch.context() as patch:
        patch.setattr(Store, "sum", lambda self: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            made(tmp_path / "s")
    torn = Store.open(tmp_path / "s")
    assert not torn.missing() and torn.attributes["checksum"] is None
    made(tmp_path / "s")
    assert content(tmp_path / "s") == before


def test_a_store_of_other_settings_is_refused(tmp_path, monkeypatch):
    """The message names the field; an unfinished store may take another split."""
    made(tmp_path / "s")
    with pytest.raises(ConfigError, match=r"s: was built from other settings: dataset.seed is 0 "):
        made(tmp_path / "s", seed=1)
    with pytest.raises(ConfigError, match=r"split.test is 0.2 in the store and 0.3 in the s"):
        made(tmp_path / "s", Split(test=0.3))

    looked = "the files were looked through before the settings were compared"
    monkeypatch.setattr(Synthetic, "open", lambda self: pytest.fail(looked))
    with pytest.raises(ConfigError, match=r"dataset.noise is"):
        made(tmp_path / "s", noise=3.0)


def test_a_store_is_built_at_an_address_as_in_a_folder(tmp_path):
    """An address is not a path on disk: file:// goes the way that s3:// and gs:// go, cut short
    and taken up again, and nothing appears where a Path of it would lie."""
    address = f"file://{tmp_path / 'far'}"
    here = pathlib.Path(address)
    assert not Store.exists(address)
    Store.create(
        address, Synthetic(**SMALL).open().contents, 60, shard_bytes=SHARD,
        dataset=plain(Synthetic(**SMALL)), split=plain(Split()),
    )  # fmt: skip
    assert Store.exists(address)
    store = made(address)
    made(tmp_path / "near")
    assert content(tmp_path / "far") == content(tmp_path / "near")
    assert Store.open(address).done and made(address).path == store.path == address
    assert not here.exists()
    with pytest.raises(ConfigError, match=r"file:.*: was built from other settings: dataset.seed"):
        made(address, seed=1)


def test_an_address_that_cannot_be_is_refused(tmp_path, monkeypatch):
    """Before anything is made: a Path of an address would be a folder called "s3:"."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="an address cannot be a Path"):
        made(pathlib.Path("s3://bucket/x"))
    with pytest.raises(ConfigError, match=r'foo://x: is no address of a store.*scheme "foo"'):
        made("foo://x")
    assert not list(tmp_path.iterdir())


def test_a_class_without_training_samples_is_named_and_another_split_taken_up(tmp_path):
    """The pixels that were written stay good."""
    data = {"label": "class", "samples": 40}
    bad = Split(by="block", stratify=False, val=0.0, test=0.9, seed=3)
    said = r"no training sample of 'c1', 'c2' \('c1' is in 9 group\(s\).*try another seed"
    with pytest.raises(ConfigError, match=said):
        made(tmp_path / "s", bad, **data)
    assert not Store.open(tmp_path / "s", unfinished=True).missing()
    store = made(tmp_path / "s", Split(by="random"), **data)
    assert store.attributes["split"]["by"] == "random"


def test_a_class_that_cannot_be_tested_is_said(tmp_path, caplog, monkeypatch):
    """It is trained on; its score would be of nothing."""
    monkeypatch.setattr(logging.getLogger("swath"), "propagate", True)
    split = Split(by="random", stratify=False, val=0.0, test=0.02)  # 1 of 40
    store = made(tmp_path / "s", split, label="class", samples=40)
    counts = select(store, None, "test").counts
    assert (counts == 0).sum() == 2
    lost = ", ".join(f"c{i}" for i in np.flatnonzero(counts == 0))
    assert f"split by=random: nothing to test on of {lost}" in caplog.text


def test_what_is_built_where_is_said_first(tmp_path, monkeypatch):
    """Who misspelt data.store must not wait for a new store to learn it; a finished one is silent,
    and one cut short says how much is left."""
    lines = []
    monkeypatch.setattr(room.log, "info", lambda text, *given: lines.append(text % given))
    monkeypatch.chdir(tmp_path)
    store = made("stores/fields")
    said = "{}: there is no store yet{}; building it, kind synthetic"
    known = "stores/fields: 60 samples; known are the date of 0, the place of 60"
    assert lines == [said.format("stores/fields", ""), known]
    made("stores/fields")
    assert len(lines) == 2
    with monkeypatch.context() as patch:
        patch.setattr(Synthetic, "open", lambda self: 1 / 0)
        for wrong in ("stroes/fields", "stores/feilds"):
            with pytest.raises(ZeroDivisionError):  # before the first look at a file
                made(wrong)
            assert lines.pop() == said.format(wrong, " (there is stores/fields)")
    next(f for f in pathlib.Path("stores/fields/fine/c").rglob("*") if f.is_file()).unlink()
    lost = sum(len(samples) for samples in store.missing())
    made("stores/fields")
    assert 0 < lost < 60 and lines[2:] == [f"stores/fields: going on; {lost} of 60 samples to read"]


def test_an_unknown_grouping_is_refused_before_anything_is_packed(tmp_path):
    """Packing can take an hour; the way out is what the dataset does group by."""
    with pytest.raises(ConfigError, match=r"there are random, .*; set build.split.by=block$"):
        made(tmp_path / "a", Split(by="polygon"))
    assert not (tmp_path / "a").exists()


def test_other_bad_input_is_named(tmp_path):
    """Unknown grouping, labels outside the class map, all no-data, a dataset that changed."""
    with pytest.raises(ConfigError, match="not grouped by 'polygon'; there are random, bl"):
        made(tmp_path / "a", Split(by="polygon"))
    with pytest.raises(ConfigError, match="were published without a split"):
        select(made(tmp_path / "b"), Split(by="given"), "train")

    def changed(**attributes):
        class Changed(Synthetic):
            def open(self):
                source = Synthetic(**SMALL, label=self.label).open()
                chip = source.chip

                def read(index):
                    found = chip(index)
                    for name, value in attributes.items():
                        setattr(found, name, value)
                    return found

                source.chip = read
                return source

        return Changed(**SMALL)

    image = np.zeros((2, 16, 16), np.uint16)
    with pytest.raises(ConfigError, match="c: no pixel is labelled that some band observed"):
        build(changed(images={"fine": image}), tmp_path / "c", Split(), progress=False)
    with pytest.raises(ConfigError, match="band F0, F1 is no-data in every training sample"):
        nothing = changed(images={"fine": image}, label=None)
        build(dataclasses.replace(nothing, label="none"), tmp_path / "c2", Split(), progress=False)
    image = image.copy()
    image[1] = 5
    with pytest.raises(ConfigError, match="band F0 is no-data in every training sample"):
        build(changed(images={"fine": image}), tmp_path / "c3", Split(), progress=False)
    label = np.full((16, 16), 7, np.uint8)
    with pytest.raises(ConfigError, match=r"sample 0 .*: label 7 is outside the class map of 3"):
        build(changed(label=label), tmp_path / "d", Split(), progress=False, threads=1)
    wide = {"fine": np.zeros((3, 16, 16), np.uint16)}
    with pytest.raises(ConfigError, match=r"'fine' is uint16 .3, 16, 16."):
        build(changed(images=wide), tmp_path / "e", Split(), progress=False)
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigError, match="is a file; a store is a folder"):
        made(tmp_path / "file")


def test_a_split_that_nobody_published_is_found_before_packing(tmp_path):
    """Packing may take hours; what the files say of the split is known before."""
    said = (
        r"split.by=given: this dataset was published without a split to train on \(nothing says "
        r"the part of a sample\); set build.split.by=block"
    )
    with pytest.raises(ConfigError, match=said):
        made(tmp_path / "s", Split(by="given"))
    assert not (tmp_path / "s").exists()

    class Tested(Synthetic):
        announced = ("test",)

        def open(self):
            source = super().open()
            chip = source.chip
            source.contents = dataclasses.replace(source.contents, given=self.announced)
            source.chip = lambda index: dataclasses.replace(chip(index), given="test")
            return source

    with pytest.raises(ConfigError, match=r"\(it names samples for test only\)"):
        build(Tested(**SMALL), tmp_path / "s", Split(by="given"), progress=False)
    assert not (tmp_path / "s").exists()
    Tested.announced = ()
    with pytest.raises(ConfigError, match=r"sample 0 .* is published as test, which its contents"):
        build(Tested(**SMALL), tmp_path / "s", Split(), progress=False, threads=1)


def test_pixels_cannot_be_grouped_where_they_have_no_label(tmp_path):
    """A dataset of one's own may announce it; found before packing, not as a traceback after."""

    class Wrong(Synthetic):
        def open(self):
            source = super().open()
            source.contents = dataclasses.replace(source.contents, grouped_pixels=("block",))
            return source

    with pytest.raises(ConfigError, match="groups pixels by block, but its label is a none"):
        build(Wrong(**SMALL, label="none"), tmp_path / "s", Split(), progress=False)
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize("groups", [1, 2, 3])
def test_an_empty_part_is_said_when_the_store_is_built(tmp_path, caplog, groups):
    """With one group a class is only trained on, with two not validated; asked for, it is said."""

    class Few(Synthetic):
        def open(self):
            source = super().open()
            chip = source.chip

            def grouped(index):
                found = chip(index)
                block = found.label * groups + index % groups
                return dataclasses.replace(found, groups={"block": block})

            source.chip = grouped
            return source

    with caplog.at_level(logging.WARNING, "swath"):
        split = Split() if groups < 3 else Split(val=0.05, test=0.05)
        store = build(Few(**SMALL, label="class"), tmp_path / "s", split, progress=False)
    told = "\n".join(caplog.messages)
    only = f"but there are only {3 * groups} groups by block"
    assert (f"the val part is empty: split.val=0.1, {only}" in told) == (groups < 3)
    small = r"training has [34]\d % of what is labelled, not the 90 % asked for: .* only 9 groups"
    assert bool(re.search(small, told)) == (groups == 3)
    tested = f"the test part is empty: split.test=0.2, {only}"
    assert (tested in told) == (groups == 1)
    if groups == 1:
        assert "for 3 classes (a group is of the class it has most of), and a class needs" in told
        way = "make groups smaller, join classes, or choose another split.by"
        assert way in told
    caplog.clear()
    select(store, Split(val=0.0), "train")
    assert not caplog.messages


def test_a_full_disk_is_said_and_nothing_is_lost(tmp_path, monkeypatch):
    """The shards before it stay; with space again, the build goes on."""
    original = Store.write_many
    calls = []

    def full(self, start, chips):
        calls.append(start)
        if len(calls) == 3:
            raise ConfigError("samples 30 to 39 cannot be written: the disk is full")
        original(self, start, chips)

    monkeypatch.setattr(Store, "write_many", full)
    with pytest.raises(ConfigError, match="the disk is full"):
        made(tmp_path / "s")
    monkeypatch.undo()
    kept = Store.open(tmp_path / "s", unfinished=True)
    assert sum(map(len, kept.missing())) < 60
    made(tmp_path / "s")
    made(tmp_path / "whole")
    assert content(tmp_path / "s") == content(tmp_path / "whole")


@pytest.mark.parametrize("by", ["block", "patch", "random"])
def test_parts_are_disjoint_and_whole(tmp_path, by):
    """Every labelled pixel is in exactly one part, and statistics are of the training part."""
    store = made(tmp_path / "s", Split(by=by), unlabelled=0.2)
    every = np.arange(60)
    groups = ("patch",) if by == "patch" else ()
    read = store.read(every, groups=groups).result()
    seen = np.zeros(read["label"].shape, int)
    for part in ("train", "val", "test"):
        selection = select(store, None, part)
        some = selection.indices
        group = read["groups/patch"][some] if groups else None
        known = selection.restrict(read["label"][some], group) != IGNORE
        assert known.any(axis=(1, 2)).all()
        seen[some] += known
        assert selection.size == known.sum() == selection.counts.sum()
        of_sample = selection.sample_counts()
        np.testing.assert_array_equal(of_sample.sum(1), known.sum((1, 2)))
    np.testing.assert_array_equal(seen, read["label"] != IGNORE)
    train = select(store, None, "train")
    other = np.concatenate([select(store, None, p).indices for p in ("val", "test")])
    if by == "patch":
        foreign = ~train.member(read["groups/patch"][train.indices])
        used = read["fine"][train.indices][:, 0][~foreign]
    else:
        assert not set(train.indices) & set(other)
        used = read["fine"][train.indices][:, 0]
    band = unplain(store.attributes["stats"])["fine"][0]
    assert band.mean == pytest.approx(used.mean(), rel=1e-12)
    assert band.pixels == used.size


def test_touching_is_what_counting_pixels_finds(tmp_path):
    """Blocks of whole samples never touch; patches that straddle samples do; against a mask."""
    store = made(tmp_path / "s", Split(by="patch"), unlabelled=0.995, samples=50)
    assert select(store, Split(by="block"), "test").share_touching() == 0.0
    test, train = (select(store, None, part) for part in ("test", "train"))
    read = store.read(np.arange(50), groups=("patch",)).result()
    mine = train.restrict(read["label"], read["groups/patch"]) != IGNORE
    by_hand = mine[test.indices].any(axis=(1, 2)).mean()  # samples do not overlap
    assert test.share_touching() == pytest.approx(by_hand)
    assert 0 < by_hand < 1


def test_cut_polygons_are_what_counting_pixels_finds(tmp_path, caplog):
    """Blocks that touch nowhere cut polygons all the same: against sets made pixel by pixel."""

    class Fields(Synthetic):
        """Samples whose patches are known as polygons; they straddle samples, and so blocks."""

        def open(self):
            source = super().open()
            chip = source.chip
            source.contents = dataclasses.replace(
                source.contents, groupings=("block", "polygon"), grouped_pixels=("polygon",)
            )

            def renamed(index):
                found = chip(index)
                groups = {"block": found.groups["block"], "polygon": found.groups["patch"]}
                return dataclasses.replace(found, groups=groups)

            source.chip = renamed
            return source

    dataset = Fields(**{**SMALL, "samples": 49}, unlabelled=0.9)
    with caplog.at_level(logging.WARNING, "swath"):
        store = build(dataset, tmp_path / "s", Split(), progress=False)
    test, train = (select(store, None, part) for part in ("test", "train"))
    read = store.read(np.arange(49), groups=("polygon",)).result()
    known = read["label"] != IGNORE
    groups = read["groups/polygon"]
    sets = [set(groups[i][known[i]].tolist()) for i in range(49)]
    trained = set().union(*(sets[i] for i in train.indices))
    tested = set().union(*(sets[i] for i in test.indices))
    hits = np.mean([bool(sets[i] & trained) for i in test.indices])
    assert 0 < hits < 1 and 0 < len(tested & trained) < len(tested)
    assert test.nearness() == {"share_touching": 0.0, "share_same_object": pytest.approx(hits)}
    cut = cut_objects(test, train)
    assert (cut.tested, cut.both) == (len(tested), len(tested & trained))
    assert (
        f"split by=block: of {cut.tested} polygons in the test part, {cut.both} lie in training "
        f"too ({100 * hits:.0f} % of the test windows show one); build.split.by=polygon keeps each"
    ) in caplog.text
    assert f"{hits:.1%}; {cut.both} of {cut.tested} polygons on both sides" in printed(store)
    whole = select(store, Split(by="polygon"), "test")
    assert whole.nearness()["share_same_object"] == 0 and whole.share_touching() > 0
    caplog.clear()
    build(dataset, tmp_path / "t", Split(by="polygon"), progress=False)
    assert "lie in training too" not in caplog.text
    assert "share_same_object" not in select(made(tmp_path / "u"), None, "test").nearness()


@dataclass(frozen=True, kw_only=True)
class Striped(Synthetic):
    """Rows 0 to 3 were observed in no band, row 5 in all but the first."""

    def open(self):
        source = super().open()
        whole = source.chip

        def chip(index):
            found = whole(index)
            for image in found.images.values():
                scale = image.shape[-1] / self.size
                image[:, : int(4 * scale)] = 0
            found.images["fine"][0, 5] = 0
            return found

        source.chip = chip
        return source


@pytest.mark.parametrize("label", ["mask", "raster"])
@pytest.mark.parametrize("coarse", [0, 1])
def test_what_no_band_observed_has_no_label(tmp_path, label, coarse):
    """It would be learned and scored from nothing; one band that saw it is enough to keep it."""
    dataset = Striped(**SMALL, label=label, coarse=coarse, nodata=0.01)
    store = build(dataset, tmp_path / "s", Split(), progress=False)
    read = store.read(np.arange(store.samples)).result()
    unknown = read["label"] == IGNORE if label == "mask" else np.isnan(read["label"]).all(1)
    before = np.stack([dataset.open().chip(i).label for i in range(store.samples)])
    absent = before == IGNORE if label == "mask" else np.isnan(before).all(1)
    seen = (read["fine"] != 0).any(1)
    if coarse:
        seen |= (read["coarse"] != 0).any(1).repeat(2, 1).repeat(2, 2)
    assert not seen[:, :4].any() and seen[:, 5].any()
    np.testing.assert_array_equal(unknown, absent | ~seen)
    if label == "mask":
        counted = sum(select(store, None, part).counts.sum() for part in ("train", "val", "test"))
        assert counted == (~unknown).sum()


def printed(store) -> str:
    """What the terminal shows of a store."""
    import io

    from rich.console import Console

    out = io.StringIO()
    Console(file=out, width=140).print(summary(store))
    return out.getvalue()


def test_the_summary_shows_counts_and_bands(tmp_path, caplog):
    """Figures of the selection, printed."""
    store = made(tmp_path / "s", unlabelled=0.1)
    text = printed(store)
    assert f"{int(select(store, None, 'train').counts[1]):,}" in text
    assert "by block, val 0.1, test 0.2, seed 0" in text
    assert f"{unplain(store.attributes['stats'])['fine'][1].mean:.5g}" in text
    assert "0.0%" in text  # blocks do not touch
    assert "Labelled pixels" in text and "samples with any of them" in text
    with caplog.at_level("INFO", "swath"):
        plain_text = printed(made(tmp_path / "t", label="none"))
    assert "Labelled" not in plain_text and re.search(r"\blabel +none *\n", plain_text)
    assert caplog.messages[-1].endswith("t: 60 samples; known are the date of 0, the place of 60")
    assert re.search(r"place known +60 of 60 *\n", plain_text)


def test_the_summary_says_what_a_count_of_0_is(tmp_path):
    """Without the offset, means of counts could not be read as reflectance."""
    store = made(tmp_path / "s")
    (one, *others) = store.contents.modalities
    sensor = dataclasses.replace(one.sensor, scale=2e-5, offset=-0.1, unit="reflectance")
    some = (dataclasses.replace(one, sensor=sensor), *others)
    store.contents = dataclasses.replace(store.contents, modalities=some)
    text = " ".join(printed(store).split())
    assert f"Bands of {one.name} over the training part, in 2e-05 reflectance; a count of 0" in text
    assert "a count of 0 is -0.1 reflectance" in text


def test_a_setting_that_is_not_there_is_said_in_words():
    """No None, which nobody has written."""
    classes = {"1": "water", "2": "flooded"}
    found = _differing({"classes": classes}, {"classes": {"1": "water"}}, "labels")
    assert found == "labels.classes.2 is 'flooded' in the store and not set in the settings"
    found = _differing({}, {"when": "2017-02-16"}, "imagery")
    assert found == "imagery.when is not set in the store and '2017-02-16' in the settings"


def test_a_scene_with_nan_for_no_data_is_built_further_and_trained_on(tmp_path):
    """NaN is not equal to NaN, but the no-data value of float imagery is the same tomorrow."""

    class Floating(Synthetic):
        def open(self):
            source = super().open()
            first = source.contents.modalities[0]
            sensor = dataclasses.replace(first.sensor, nodata=float("nan"))
            first = dataclasses.replace(first, sensor=sensor)
            source.contents = dataclasses.replace(source.contents, modalities=(first,))
            return source

    for _ in range(2):
        assert build(Floating(**SMALL), tmp_path / "s", Split(), progress=False).done


HELD = """
import sys
from swath.data import build as room
from swath.data.split import Split
from swath.datasets.synthetic import Synthetic
write = room._write
def held(*given):
    write(*given)
    print("written", flush=True)
    sys.stdin.readline()
room._write = held
room.build(Synthetic(samples=60, size=16, bands=2), sys.argv[1], Split(), progress=False)
"""


def test_two_builders_of_one_store_do_not_meet(tmp_path):
    """The second is told so while the first builds, and finds the finished store after it."""
    command = [sys.executable, "-c", HELD, str(tmp_path / "s")]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as first:
        assert first.stdout.readline() == "written\n"
        with pytest.raises(ConfigError, match=rf"s: another process .*pid {first.pid}.* at work"):
            made(tmp_path / "s")
        assert not Store.open(tmp_path / "s", unfinished=True).done
        first.communicate("\n")
    assert first.returncode == 0
    assert made(tmp_path / "s").done and not (tmp_path / "s/.lock").exists()


def test_a_finished_store_is_taken_where_nobody_may_write(tmp_path, monkeypatch):
    """Many train from one store that belongs to somebody else."""
    made(tmp_path / "s")
    monkeypatch.setattr("swath.data.build.lock", lambda *_: pytest.fail("took a lock"))
    assert made(tmp_path / "s").done


def test_the_checksum_tells_other_pixels(tmp_path):
    one, same, other = (made(tmp_path / n, seed=s) for n, s in (("a", 0), ("b", 0), ("c", 1)))
    assert one.fingerprint == same.fingerprint != other.fingerprint
    split = made(tmp_path / "d", Split(by="random", seed=7))
    assert split.fingerprint == one.fingerprint  # the pixels are
