"""The store: what is written comes back, any Zarr tool reads it, and damage is found and named."""

import datetime
import json
import pickle
import shutil

import numpy as np
import pytest
import xarray
import zarr

from swath.config import ConfigError
from swath.data import direct, layout
from swath.data.chip import Chip, Contents, Ground, Label, Modality, Where
from swath.data.sensor import Band, Sensor
from swath.data.store import Store

FINE = Modality(
    name="s2",
    sensor=Sensor(name="s2", bands=(Band(name="B02", wavelength_nm=492.4), Band(name="B03"))),
    height=6,
    width=6,
    dtype="uint16",
)
COARSE = Modality(
    name="s1",
    sensor=Sensor(name="s1", bands=(Band(name="VV"),), nodata=float("nan"), unit="dB"),
    height=3,
    width=3,
    dtype="float32",
)
CONTENTS = Contents(
    modalities=(FINE, COARSE),
    label=Label(kind="mask", classes=("water", "land"), colours=("#0000ff", "#00ff00")),
    grounds=(Ground(name="g", height=60, width=60, transform=(10.0, 0, 0, 0, -10.0, 0)),),
    groupings=("block", "polygon"),
    grouped_pixels=("polygon",),
    licence="CC BY 4.0",
)


def chip(i: int) -> Chip:
    """Chip number ``i``: every array of it is made of ``i``; every third one is all zero."""
    rng = np.random.default_rng(i)
    return Chip(
        name=f"chip-ü{i}",
        images={
            "s2": rng.integers(0, 60_000, (2, 6, 6)).astype(np.uint16) * np.uint16(i % 3 != 0),
            "s1": rng.normal(size=(1, 3, 3)).astype(np.float32),
        },
        label=rng.integers(0, 2, (6, 6)),
        groups={"block": i // 2, "polygon": rng.integers(-1, 9, (6, 6)).astype(np.int32)},
        where=Where(0, i, 2 * i, 6, 6) if i else None,
        when=datetime.datetime(2020, 1, 1, 0, 0, i) if i else None,
        given=(None, "train", "val", "test")[i % 4],
    )


def build(path, *, compress=False, samples=11, finish=True, per_file=4) -> Store:
    store = Store.create(path, CONTENTS, samples, compress=compress, shard_bytes=per_file * 144)
    for part in store.missing():
        store.write_many(part.start, [chip(i) for i in part])
    if finish:
        store.finish(note={"mean": np.array([1.0, np.nan])})
    return store


@pytest.mark.parametrize("compress", [True, False])
def test_what_is_written_comes_back(tmp_path, compress):
    """In any order, with repetitions, over shards, by both ways of reading."""
    build(tmp_path / "s", compress=compress)
    store = Store.open(tmp_path / "s")
    assert len(store) == 11 and store.per_file == 4 and store.grid == (6, 6)
    assert (store._array("s2")._direct is None) is compress
    asked = [10, 0, 3, 3, 7, 4]
    found = store.read(asked, groups=["polygon", "block"]).result()
    chips = [chip(i) for i in asked]
    for name in ("s2", "s1"):
        assert found[name].dtype == store.modality(name).dtype
        assert (found[name] == np.stack([c.images[name] for c in chips])).all()
    assert (found["label"] == np.stack([c.label for c in chips])).all()
    assert (found["groups/polygon"] == np.stack([c.groups["polygon"] for c in chips])).all()
    assert found["groups/block"].tolist() == [c.groups["block"] for c in chips]
    assert store.read([1], ["s1"], label=False).result().keys() == {"s1"}
    assert store.read([]).result()["s2"].shape == (0, 2, 6, 6)


def test_columns_and_contents_come_back(tmp_path):
    build(tmp_path / "s")
    store = pickle.loads(pickle.dumps(Store.open(tmp_path / "s")))
    assert store.contents.label == CONTENTS.label and store.contents.grounds == CONTENTS.grounds
    assert store.contents.modalities[0] == FINE
    assert np.isnan(store.modality("s1").sensor.nodata)
    assert store.column("name").tolist() == [f"chip-ü{i}" for i in range(11)]
    assert store.column("where")[:2].tolist() == [[-1] * 5, [0, 1, 2, 6, 6]]
    assert store.column("when")[0] == layout.UNKNOWN_TIME
    assert store.column("when")[3] == 1577836803  # 2020-01-01T00:00:03Z
    assert store.column("given").tolist()[:5] == [255, 0, 1, 2, 255]
    assert np.isnan(store.attributes["note"]["mean"][1])


@pytest.mark.parametrize("compress", [True, False])
def test_zarr_python_and_xarray_read_a_store(tmp_path, compress):
    """The format is Zarr v3, not something like it; axes and band names travel along."""
    build(tmp_path / "s", compress=compress)
    group = zarr.open_group(tmp_path / "s", mode="r")
    expected = np.stack([chip(i).images["s2"] for i in range(11)])
    assert (group["s2"][:] == expected).all()
    assert (group["groups/block"][:] == np.arange(11) // 2).all()
    data = xarray.open_zarr(tmp_path / "s", consolidated=False)
    assert data["s2"].dims == ("sample", "s2_band", "s2_y", "s2_x")
    assert data["label"].dims == ("sample", "y", "x")
    assert data["s2"].attrs["bands"][0]["wavelength_nm"] == 492.4
    assert (data["s2"].isel(sample=7).values == expected[7]).all()
    assert data.attrs["swath"]["contents"]["licence"] == "CC BY 4.0"


def test_shards_written_by_zarr_python_are_read_directly(tmp_path):
    """The direct reader follows the specification, not TensorStore's habits."""
    store = build(tmp_path / "s")
    values = np.arange(11 * 72, dtype=np.uint16).reshape(11, 2, 6, 6)
    zarr.open_group(tmp_path / "s", mode="r+")["s2"][:] = values
    again = Store.open(store.path)
    assert again._array("s2")._direct is not None
    assert (again.read(np.arange(11)).result()["s2"] == values).all()


def test_a_shard_is_opened_once(tmp_path, monkeypatch):
    """Opening a file for every sample is what makes other readers slow."""
    store = build(tmp_path / "s")
    opened = []
    plain = direct._Shard
    monkeypatch.setattr(direct, "_Shard", lambda *a: opened.append(a[0][-7]) or plain(*a))
    for i in (0, 1, 9, 2, 5, 9, 4, 0, 10):
        assert (
            store.read([i], ["s2"], label=False).result()["s2"][0] == chip(i).images["s2"]
        ).all()
    assert sorted(opened) == ["0", "1", "2"]


def test_many_threads_may_read_and_write(tmp_path):
    from concurrent.futures import ThreadPoolExecutor

    store = Store.create(tmp_path / "s", CONTENTS, 40, shard_bytes=4 * 144)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda p: store.write_many(p.start, [chip(i) for i in p]), store.missing()))
        store.finish()
        found = list(pool.map(lambda i: store.read([i]).result()["s2"][0], range(40)))
    assert all((found[i] == chip(i).images["s2"]).all() for i in range(40))


@pytest.mark.parametrize("memory", [0, 10**9])
def test_the_second_reading_equals_the_first(tmp_path, monkeypatch, memory):
    """From a memory map if the array fits in memory, by system calls if not."""
    monkeypatch.setattr(direct, "_memory_bytes", lambda: memory)
    store = build(tmp_path / "s")
    first, second = (store.read([5, 0, 10]).result()["s2"] for _ in range(2))
    assert (first == second).all() and (first[1] == chip(0).images["s2"]).all()
    store.write(0, chip(7))  # what was mapped is not what is there now
    assert (store.read([0]).result()["s2"][0] == chip(7).images["s2"]).all()


def test_a_build_cut_short_is_taken_up_again(tmp_path):
    """A shard that lacks any of its files is missing; the others are not written again."""
    store = Store.create(tmp_path / "s", CONTENTS, 11, shard_bytes=4 * 144, settings={"a": 1})
    assert store.missing() == [range(0, 4), range(4, 8), range(8, 11)]
    store.write_many(4, [chip(i) for i in range(4, 8)])
    store.write_many(8, [chip(i) for i in range(8, 11)])
    (tmp_path / "s/building/name/c/2/0").unlink()  # killed before its last column
    with pytest.raises(ConfigError, match=r"not finished: 2 of 3 shards are missing\. Run the"):
        Store.open(tmp_path / "s")
    again = Store.open(tmp_path / "s", unfinished=True)
    assert again.missing() == [range(0, 4), range(8, 11)] and again.attributes["settings"]["a"] == 1
    with pytest.raises(ConfigError, match=r"cannot be finished: 7 samples are missing"):
        again.finish()
    for part in again.missing():
        again.write_many(part.start, [chip(i) for i in part])
    again.finish()
    assert not (tmp_path / "s/building/name/c/0/0").exists()
    fresh = build(tmp_path / "t")
    for one, two in zip(
        *(s.read(np.arange(11)).result().values() for s in (again, fresh)), strict=True
    ):
        assert (one == two).all()


def test_attributes_change_in_one_rename(tmp_path):
    """A failed update leaves the old attributes on disk and in memory."""
    store = build(tmp_path / "s")
    store.update(splits={"a": [1, 2]})
    with pytest.raises(TypeError):
        store.update(bad=object())
    assert repr(Store.open(store.path).attributes) == repr(store.attributes)
    assert store.attributes["splits"] == {"a": [1, 2]} and "bad" not in store.attributes


@pytest.mark.parametrize("compress", [True, False])
def test_a_damaged_sample_is_found_and_named(tmp_path, compress):
    """One flipped bit in sample 6: the other samples read, this one says which file it is in."""
    build(tmp_path / "s", compress=compress)
    file = tmp_path / "s/s2/c/1/0/0/0"
    table = np.frombuffer(file.read_bytes()[-68:-4], "<u8").reshape(4, 2)
    data = bytearray(file.read_bytes())
    data[int(table[2, 0]) + 20] ^= 1
    file.write_bytes(data)
    store = Store.open(tmp_path / "s")
    assert (store.read([4, 5, 7]).result()["s2"][0] == chip(4).images["s2"]).all()
    with pytest.raises(
        ConfigError, match=r"s/s2/c/1/0/0/0: sample 6 of 's2' is damaged: .*(checksum|Blosc)"
    ):
        store.read([5, 6]).result()


@pytest.mark.parametrize("compress", [True, False])
@pytest.mark.parametrize("how", ["short", "table", "gone"])
def test_a_damaged_shard_is_found_and_named(tmp_path, compress, how):
    build(tmp_path / "s", compress=compress)
    file = tmp_path / "s/s2/c/1/0/0/0"
    data = bytearray(file.read_bytes())
    data[-10] ^= 1
    if how == "gone":
        file.unlink()
    else:
        file.write_bytes(data[:40] if how == "short" else data)
    store = Store.open(tmp_path / "s")
    with pytest.raises(
        ConfigError, match=r"s/s2/c/1/0/0/0: sample 5 of 's2' is damaged: .*swath data build"
    ):
        store.read([5]).result()
    assert store.missing() == ([range(4, 8)] if how == "gone" else [])


def test_a_repaired_shard_is_the_only_one_written(tmp_path):
    """What the message advises works: delete the file, write what is missing."""
    store = build(tmp_path / "s")
    (tmp_path / "s/s2/c/1/0/0/0").unlink()
    again = Store.open(store.path)
    for part in again.missing():
        again.write_many(part.start, [chip(i) for i in part])
    assert again.missing() == []
    assert (again.read([6]).result()["s2"][0] == chip(6).images["s2"]).all()


def test_a_misspelt_store_is_told_the_one_that_was_meant(tmp_path, monkeypatch):
    """One of nearly its name, not any that lies in the same folder; and where it was looked for."""
    monkeypatch.chdir(tmp_path)
    for name in ("fields", "forest"):
        zarr.open_group(tmp_path / "stores" / name, mode="w")
    said = "there is no such store"
    with pytest.raises(ConfigError, match=rf"{said} \(did you mean stores/fields\?\)"):
        Store.open("stores/feilds")
    with pytest.raises(ConfigError, match=rf"{said} \(did you mean stores/forest\?\)"):
        Store.open("stroes/forest")
    with pytest.raises(
        ConfigError, match=rf"{said}; swath data build .*for {tmp_path}/stores/mine:"
    ):
        Store.open("stores/mine")


def test_what_is_no_store_says_so(tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere: there is no such store; swath data build m"):
        Store.open(tmp_path / "nowhere")
    zarr.open_group(tmp_path / "foreign", mode="w")
    with pytest.raises(ConfigError, match=r"foreign: there is no store here"):
        Store.open(tmp_path / "foreign")
    (tmp_path / "foreign/zarr.json").write_text("{")
    with pytest.raises(ConfigError, match=r"foreign/zarr.json: damaged: not JSON"):
        Store.open(tmp_path / "foreign")


def test_a_newer_store_is_refused(tmp_path):
    build(tmp_path / "s")
    file = tmp_path / "s/zarr.json"
    node = json.loads(file.read_text())
    node["attributes"]["swath"]["version"] = 99
    file.write_text(json.dumps(node))
    with pytest.raises(
        ConfigError, match=r"newer Swath \(store version 99, this one reads up to 1\)"
    ):
        Store.open(tmp_path / "s")


@pytest.mark.parametrize(
    ("node", "said"),
    [
        ([], "damaged: not a Zarr group"),
        ({"attributes": []}, "damaged: not a Zarr group"),
        ({"attributes": {"swath": {}}}, "damaged: its 'swath' says no version"),
        ({"attributes": {"swath": []}}, "damaged: its 'swath' says no version"),
        ({"attributes": {"swath": {"version": "1"}}}, "damaged: its 'swath' says no version"),
        (
            {"attributes": {"swath": {"version": 1, "done": True}}},
            "damaged: its 'swath' lacks compress, ",
        ),
    ],
)
def test_damaged_attributes_are_said(tmp_path, node, said):
    build(tmp_path / "s")
    (tmp_path / "s/zarr.json").write_text(json.dumps(node))
    with pytest.raises(ConfigError, match=f"s/zarr.json: {said}"):
        Store.open(tmp_path / "s")


def flipped(file, old: bytes, new: bytes):
    content = file.read_bytes()
    assert old in content and len(old) == len(new)
    file.write_bytes(content.replace(old, new, 1))


def test_a_changed_figure_in_the_attributes_is_noticed(tmp_path):
    """Statistics that are wrong by one digit would train another model, without a word; so would
    those whose checksum is gone."""
    store = build(tmp_path / "s")
    store.update(stats={"s2": [1.25]})
    file = tmp_path / "s/zarr.json"
    flipped(file, b"1.25", b"1.35")
    with pytest.raises(ConfigError, match=r"s/zarr.json: damaged: it does not match its checksum"):
        Store.open(tmp_path / "s")
    node = json.loads(file.read_text())
    del node["attributes"]["swath_sha256"]
    file.write_text(json.dumps(node))
    with pytest.raises(ConfigError, match=r"s/zarr.json: damaged: it does not match its checksum"):
        Store.open(tmp_path / "s")


@pytest.mark.parametrize(
    ("name", "old", "new", "said"),
    [
        ("s2", b"uint16", b"uint17", "uint17"),
        ("s2", b"uint16", b"ujnt16", "ujnt16"),
        ("s2", b'"shape":[11', b'"shape":[12', r"it says \(12, 2, 6, 6\) uint16, 4 a file; \(11,"),
        ("s2", b'"chunk_shape":[4', b'"chunk_shape":[5', "it says .* 5 a file; .* 4 were written"),
        ("name", b'"uint8"', b'"uint9"', "uint9"),
        ("where", b'"shape":[11', b'"shape":[10', r"it says \(10, 5\) int32"),
        ("label", b"{", b"[", "JSON"),
    ],
)
def test_a_damaged_description_of_an_array_is_named(tmp_path, name, old, new, said):
    build(tmp_path / "s")
    flipped(tmp_path / f"s/{name}/zarr.json", old, new)
    store = Store.open(tmp_path / "s")
    with pytest.raises(ConfigError, match=rf"s/{name}/zarr.json: damaged: .*{said}"):
        store.column(name) if store.specs[name].column else store.read([0]).result()


def test_a_finished_store_is_not_made_unfinished(tmp_path):
    """Whoever opened it before it was finished would write back what is no longer so."""
    store = build(tmp_path / "s", finish=False)
    late = Store.open(tmp_path / "s", unfinished=True)
    store.finish()
    for change in (lambda: late.update(stats={}), late.finish):
        with pytest.raises(ConfigError, match="another process has finished this store"):
            change()
    assert Store.open(tmp_path / "s").done
    assert Store.open(tmp_path / "s").column("name").size


def test_the_checksum_is_of_what_is_held_and_not_of_how(tmp_path):
    """Packed or not, in shards of any size: the same; with another pixel or label: another."""
    one, other = build(tmp_path / "a"), build(tmp_path / "b", compress=True, per_file=3)
    assert one.sum() == other.sum()
    one.update(checksum=one.sum())
    other.update(checksum=other.sum())
    assert one.fingerprint == other.fingerprint
    changed = chip(5)
    changed.images["s2"][1, 2, 3] += 1
    other.write(5, changed)
    assert one.sum() != other.sum() and one.fingerprint != other.fingerprint
    changed = chip(5)
    changed.label[0, 0] = 1 - changed.label[0, 0]
    other.write(5, changed)
    assert one.sum() != other.sum()


def test_a_chip_that_does_not_fit_is_named(tmp_path):
    store = Store.create(tmp_path / "s", CONTENTS, 3)
    for change, message in [
        ({"s2": np.zeros((3, 6, 6), np.uint16)}, r"'s2' is uint16 \(3, 6, 6\), the store holds"),
        (
            {"s2": np.zeros((2, 6, 6), np.int16)},
            r"'s2' is int16 \(2, 6, 6\), the store holds uint16",
        ),
        ({"s2": None}, r"'s2' is missing"),
    ]:
        bad = chip(0)
        bad.images = {k: v for k, v in {**bad.images, **change}.items() if v is not None}
        with pytest.raises(ConfigError, match=r"chip 'chip-ü0': " + message):
            store.write_many(0, [bad])
    bad = chip(0)
    bad.label = np.full((6, 6), 300)
    with pytest.raises(ConfigError, match=r"'label' holds 300..300, which does not fit uint8"):
        store.write_many(0, [bad])


def test_mistakes_in_asking_are_clear(tmp_path):
    store = build(tmp_path / "s")
    with pytest.raises(IndexError, match=r"samples are 0 to 10, asked: \[11\]"):
        store.read([11])
    with pytest.raises(IndexError, match=r"asked: \[ 3 -1\]"):
        store.read([3, -1])
    with pytest.raises(ConfigError, match=r"no modality 's3'; there are s2, s1"):
        store.read([0], ["s3"])
    with pytest.raises(ConfigError, match=r"no column 'label'; there are groups/block, where"):
        store.column("label")
    with pytest.raises(ConfigError, match=r"something is here already"):
        Store.create(tmp_path / "s", CONTENTS, 3)
    with pytest.raises(ConfigError, match=r"at least one sample, there are 0"):
        Store.create(tmp_path / "t", CONTENTS, 0)
    with pytest.raises(ConfigError, match=r"modality 'label': a store cannot use this name"):
        layout.specs(
            Contents(
                modalities=(Modality(**{**vars(FINE), "name": "label"}),), label=Label(kind="none")
            )
        )


def test_a_full_disk_is_a_clear_error(tmp_path):
    """On a file system of 64 KiB; the store stays one that can be taken up again."""
    import subprocess

    full = tmp_path / "full"
    full.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", str(full)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("may not mount a small file system here")
    try:
        store = Store.create(full / "s", CONTENTS, 2000, compress=False)
        with pytest.raises(
            ConfigError, match=r"samples 0 to 1999 cannot be written: the disk is full"
        ):
            store.write_many(0, [chip(i % 7 + 1) for i in range(2000)])
        assert Store.open(full / "s", unfinished=True).missing() == [range(0, 2000)]
    finally:
        subprocess.run(["umount", "-l", str(full)], check=True)
