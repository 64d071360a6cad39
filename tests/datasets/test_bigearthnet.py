"""BigEarthNet as it is published, written out from real patches where they are there."""

import csv
import json
import pathlib

import numpy as np
import pytest
import rasterio
from rasterio.crs import CRS

from swath.config import ConfigError
from swath.data.build import build
from swath.data.split import Split, select
from swath.datasets._corine import CLASSES_19, CLASSES_43, TO_19
from swath.datasets.bigearthnet import S1, S2, BigEarthNet

DATA = pathlib.Path(__file__).parents[3] / "shared/data/bigearthnet"
real = pytest.mark.skipif(not DATA.exists(), reason=f"{DATA} is not there")
CORNER = (300_000.0, 5_400_000.0)  # of tile 33UUP


def write(file, image, step, x, y):
    file.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(
        file, "w", driver="GTiff", dtype=image.dtype.name, count=1, height=len(image),
        width=len(image), crs="EPSG:32633", transform=rasterio.Affine(step, 0, x, 0, -step, y),
    ) as raster:  # fmt: skip
        raster.write(image, 1)


def place(name):
    col, row = (int(part) for part in name.split("_")[-2:])
    return CORNER[0] + 1200 * col, CORNER[1] - 1200 * row


def write_patch(folder, images, s1_folder=None):
    for key, (bands, size) in (S1 if s1_folder else S2).items():
        target = s1_folder or folder
        for band, image in zip(bands, images[key], strict=True):
            write(target / f"{target.name}_{band}.tif", image, 1200 / size, *place(folder.name))


def pixels(seed):
    draw = np.random.default_rng(seed)
    images = {
        key: draw.integers(1, 9000, (len(bands), size, size)).astype(np.uint16)
        for key, (bands, size) in S2.items()
    }
    return {**images, "s1": draw.normal(-12, 3, (2, 120, 120)).astype(np.float32)}


def version_1(root, patches, s1=False):
    """patches: (name, labels43, images)."""
    for i, (name, labels, images) in enumerate(patches):
        write_patch(root / "S2" / name, images)
        x, y = place(name)
        facts = {
            "labels": labels,
            "coordinates": {"ulx": x, "uly": y, "lrx": x + 1200, "lry": y - 1200},
            "projection": CRS.from_epsg(32633).to_wkt(),
            "tile_source": "x.SAFE",
            "acquisition_date": "2017-06-13 10:10:31",
        }
        (root / "S2" / name / f"{name}_labels_metadata.json").write_text(json.dumps(facts))
        if s1:
            radar = root / "S1" / f"S1A_IW_GRDH_1SDV_2017061{i}T165809_33UUP_{i}_88"
            write_patch(root / "S2" / name, images, radar)
            facts = {"labels": labels, "corresponding_s2_patch": name}
            (radar / f"{radar.name}_labels_metadata.json").write_text(json.dumps(facts))


def version_2(root, rows, images):
    """rows: the metadata table; images: one dict per row."""
    for row, found in zip(rows, images, strict=True):
        scene = row["patch_id"].rsplit("_", 2)[0]
        folder = root / "BigEarthNet-S2" / scene / row["patch_id"]
        write_patch(folder, found)
        radar = row["s1_name"]
        write_patch(folder, found, root / "BigEarthNet-S1" / radar.rsplit("_", 3)[0] / radar)
    with (root / "metadata.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        for row in rows:
            table.writerow({**row, "labels": " ".join(repr(v) for v in row["labels"]).join("[]")})


def test_nineteen_classes_are_made_of_forty_three():
    """32 of them are merged into 19, 11 are left out; each belongs to one."""
    assert len(CLASSES_19) == 19
    assert len(set(CLASSES_43)) == 43
    assert sum(coarse is None for coarse in TO_19.values()) == 11
    assert {coarse for coarse in TO_19.values() if coarse} == set(CLASSES_19)


@real
def test_real_labels_of_version_1_map_to_their_published_19():
    """The pack holds both nomenclatures, as published."""
    facts = json.loads((DATA / "ben_v1_30patches.json").read_text())
    for patch in facts["patches"]:
        found = {TO_19[name] for name in patch["labels43"]} - {None}
        assert found == set(patch["labels19"])


@real
def test_real_patches_of_version_1_come_through_the_published_layout(tmp_path):
    """Every pixel of 30 real patches, their classes, and the split from its lists."""
    packed = np.load(DATA / "ben_v1_30patches.npz")
    facts = json.loads((DATA / "ben_v1_30patches.json").read_text())["patches"]
    names = [fact["name"] for fact in facts]
    images = [
        {key: packed[key][i] for key in (*S2, "s1")}
        for i in (packed["name"].tolist().index(name) for name in names)
    ]
    labels = [fact["labels43"] for fact in facts]
    version_1(tmp_path, list(zip(names, labels, images, strict=True)), s1=True)
    lists = {}
    for part in ("train", "val", "test"):
        lists[part] = str(tmp_path / f"{part}.csv")
        chosen = [f["name"] for f in facts if f["split"] == part]
        pathlib.Path(lists[part]).write_text("\n".join(chosen))
    dataset = BigEarthNet(path=str(tmp_path / "S2"), s1=str(tmp_path / "S1"), splits=lists)
    store = build(dataset, tmp_path / "store", Split(by="given"), progress=False)
    order = [names.index(name) for name in store.column("name")]
    assert len(order) == 30
    for key in (*S2, "s1"):
        found = store.read(np.arange(30)).result()[key]
        np.testing.assert_array_equal(found, np.stack([images[i][key] for i in order]))
    flags = store.column("label")
    for row, i in zip(flags, order, strict=True):
        assert {CLASSES_19[k] for k in np.flatnonzero(row)} == set(facts[i]["labels19"])
    for part in ("train", "val", "test"):
        chosen = {store.column("name")[i] for i in select(store, None, part).indices}
        assert chosen == {f["name"] for f in facts if f["split"] == part}


@real
def test_real_patches_of_version_2_lie_side_by_side(tmp_path):
    """24 real patches: places follow from one header per tile, so mosaics have no gaps."""
    packed = np.load(DATA / "ben_v2_24patches.npz")
    facts = json.loads((DATA / "ben_v2_24patches.json").read_text())["patches"]
    facts = [f for f in facts if f["country"] == "Austria"]
    images = [
        {key: packed[key][i] for key in (*S2, "s1")}
        for i in (packed["name"].tolist().index(f["patch_id"]) for f in facts)
    ]
    version_2(tmp_path, facts, images)
    dataset = BigEarthNet(
        path=str(tmp_path / "BigEarthNet-S2"), s1=str(tmp_path / "BigEarthNet-S1"),
        metadata=str(tmp_path / "metadata.csv"), block_m=2400.0,
    )  # fmt: skip
    source = dataset.open()
    by_name = {f["patch_id"]: f for f in facts}
    for i in range(len(source)):
        chip = source.chip(i)
        fact = by_name[chip.name]
        assert {CLASSES_19[k] for k in np.flatnonzero(chip.label)} == set(fact["labels"])
        assert chip.given == {"validation": "val"}.get(fact["split"], fact["split"])
        ground = source.contents.grounds[chip.where.ground]
        x = ground.transform[2] + 10 * chip.where.col
        y = ground.transform[5] - 10 * chip.where.row
        assert (x, y) == place(chip.name)
        assert chip.when.year in (2017, 2018)
    assert source.contents.groupings == ("block", "scene", "country")


def small_table(root):
    rows = [
        {
            "patch_id": f"S2A_MSIL2A_20170613T101031_N9999_R022_T33UUP_{30 + i}_88",
            "labels": ["Pastures", "Beaches, dunes, sands"] if i else ["Marine waters"],
            "split": ("train", "validation", "test")[i],
            "country": "Austria",
            "s1_name": f"S1B_IW_GRDH_1SDV_20170612T165809_33UUP_{30 + i}_88",
        }
        for i in range(3)
    ]
    version_2(root, rows, [pixels(i) for i in range(3)])
    return rows


def test_the_table_may_be_parquet_or_csv(tmp_path):
    """As published, and as written out without pyarrow; both say the same."""
    rows = small_table(tmp_path)
    path = str(tmp_path / "BigEarthNet-S2")
    from_csv = BigEarthNet(path=path, metadata=str(tmp_path / "metadata.csv")).open()
    assert from_csv.chip(1).label.sum() == 2
    pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "metadata.parquet")
    from_parquet = BigEarthNet(path=path, metadata=str(tmp_path / "metadata.parquet")).open()
    for i in range(3):
        np.testing.assert_array_equal(from_csv.chip(i).label, from_parquet.chip(i).label)
        assert from_csv.chip(i).given == from_parquet.chip(i).given


def test_mistakes_are_named(tmp_path):
    """Missing files, foreign labels, bands of another size, settings without effect."""
    small_table(tmp_path)
    path, table = str(tmp_path / "BigEarthNet-S2"), tmp_path / "metadata.csv"
    text = table.read_text()
    with pytest.raises(ConfigError, match=r"none.csv: there is no such file"):
        BigEarthNet(path=path, metadata=str(tmp_path / "none.csv")).open()
    with pytest.raises(ConfigError, match="classes=43: version 2 has 19 classes only"):
        BigEarthNet(path=path, metadata=str(table), classes=43)
    with pytest.raises(ConfigError, match="exclude has no effect on version 2"):
        BigEarthNet(path=path, metadata=str(table), exclude=("snow.csv",))
    table.write_text(text.replace("Marine waters", "Lava"))
    with pytest.raises(ConfigError, match=r"labels Lava of S2A.* are none of the 19 classes"):
        BigEarthNet(path=path, metadata=str(table)).open()
    table.write_text(text)
    source = BigEarthNet(path=path, metadata=str(table)).open()
    file = next(pathlib.Path(path).rglob("*_31_88_B05.tif"))
    write(file, np.zeros((120, 120), np.uint16), 10, 0, 0)
    with pytest.raises(
        ConfigError, match=r"_B05.tif: has 1 x 120 x 120 px, expected one band of 6"
    ):
        source.chip(1)
    file.unlink()
    with pytest.raises(ConfigError, match=r"_B05.tif: there is no such file"):
        source.chip(1)
    version_1(tmp_path / "v1", [("S2A_MSIL2A_20170613T101031_3_4", ["Lava"], pixels(0))])
    with pytest.raises(ConfigError, match="labels Lava are none of the 43 classes"):
        BigEarthNet(path=str(tmp_path / "v1/S2")).open()


def test_lists_leave_out_patches_and_43_classes_stay(tmp_path):
    """Those under snow go; a patch of none of the 19 classes is there among 43 only."""
    names = [f"S2A_MSIL2A_20170613T101031_{i}_4" for i in range(3)]
    labels = [["Pastures"], ["Airports"], ["Peatbogs", "Airports"]]
    version_1(tmp_path, list(zip(names, labels, map(pixels, range(3)), strict=True)))
    path = str(tmp_path / "S2")
    (tmp_path / "snow.csv").write_text(names[0])
    assert [p.name for p in BigEarthNet(path=path).open()._patches] == [names[0], names[2]]
    source = BigEarthNet(path=path, exclude=(str(tmp_path / "snow.csv"),)).open()
    assert [source.chip(i).name for i in range(len(source))] == [names[2]]
    every = BigEarthNet(path=path, classes=43).open()
    assert every.chip(2).label.sum() == 2
    assert len(every) == 3
