"""Many scenes become one store: what is left out is counted, and no place is on both sides."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import rasterio

from swath.config import ConfigError
from swath.data.build import build
from swath.data.imagery import Georeference, Imagery
from swath.data.split import Split, select
from swath.data.store import Store
from swath.data.summary import summary
from swath.datasets._clouds import Clouds
from swath.datasets._labels import Labels
from swath.datasets._listed import date_in
from swath.datasets.scenes import Scenes
from tests.geo.rasters import CORNER, place, real, write

RNG = np.random.default_rng(0)
X, Y = CORNER


def pixels(height=64, width=64):
    return RNG.integers(1, 4000, (2, height, width), dtype=np.uint16)


def gathered(folder, **given) -> Scenes:
    imagery = Imagery(path=str(folder / "*_img.tif"), sensor="sentinel2_l2a")
    return Scenes(**{"scenes": (imagery,), "chip": 16, "observed": 0.0} | given)


@pytest.fixture
def folder(tmp_path):
    """Six places, each seen at two dates; the second time half a scene to the east."""
    folder = tmp_path / "scenes"
    for number in range(6):
        x = X + 5000 * number
        for day, shift in (("20200501", 0), ("20200801", 320)):
            name = f"{number}_{day}_img.tif"
            write(folder / name, pixels(), place(x=x + shift), names=("B02", "B08"))
    return folder


def stored(dataset, tmp_path, split=None, name="store") -> Store:
    return build(dataset, tmp_path / name, split or Split(), progress=False, shard_bytes=60_000)


@pytest.mark.parametrize("block_m", [None, 320.0])
def test_the_same_place_at_two_dates_is_never_trained_and_tested_on(folder, tmp_path, block_m):
    """By block and by place no test window touches training pixels, at either date; dealt out at
    random, or scene by scene, many do."""
    store = stored(gathered(folder, block_m=block_m), tmp_path)
    where = store.column("where")
    assert store.samples == 12 * 16
    for by in ("block", "place"):
        test = select(store, Split(by=by, test=0.3), "test")
        assert len(test.indices) and test.share_touching() == 0
        assert len(np.unique(where[test.indices, 0])) > 1
    for by in ("scene", "random"):
        tests = [select(store, Split(by=by, test=0.3, val=0, seed=s), "test") for s in range(3)]
        assert max(test.share_touching() for test in tests) > 0.2
    places = store.column("groups/place")
    np.testing.assert_array_equal(places, where[:, 0] // 2)  # two scenes each, in order of names


@pytest.mark.parametrize("block_m", [None, 640.0])
def test_why_a_part_of_one_place_is_empty(folder, tmp_path, caplog, block_m):
    """In the words of this dataset: it has no classes, and its blocks are set in m."""
    one = replace(gathered(folder).scenes[0], path=str(folder / "0_*_img.tif"))
    with caplog.at_level("WARNING", "swath"):
        stored(gathered(folder, scenes=(one,), block_m=block_m), tmp_path, Split(stratify=True))
    told = "; ".join(caplog.messages)
    assert "class" not in told and "groups smaller" not in told
    first = ", for the first is trained on"
    if block_m is None:
        only, way = "but there is only 1 group by block", "set build.dataset.block_m, the edge of a"
        assert f"split.val=0.1, {only}, and a val part needs three{first}; {way}" in told
        assert f"split.test=0.2, {only}, and a test part needs two{first}; {way}" in told
    else:
        way = "make blocks smaller (build.dataset.block_m is 640 m), or choose another split.by"
        assert f"there are only 2 groups by block, and a val part needs three{first}; {way}" in told
        assert "training has 22 % of the samples, not the 70 % asked for: there are only 2" in told


def test_no_chip_lies_in_two_blocks(folder, tmp_path):
    """Squares of 250 m are 25 px: of each one chip of 16 px fits, and the rest is lost."""
    store = stored(gathered(folder, block_m=250.0), tmp_path)
    where, group = store.column("where").astype(int), store.column("groups/block")
    squares = {}
    for (ground, row, col, height, width), number in zip(where, group, strict=True):
        a, _, left, _, e, top = store.contents.grounds[ground].transform
        x = (left + a * np.array([col + 0.5, col + width - 0.5])) // 250
        y = -(top + e * np.array([row + 0.5, row + height - 0.5])) // 250
        assert x[0] == x[1] and y[0] == y[1]
        squares.setdefault((x[0], y[0]), set()).add(number)
    assert all(len(numbers) == 1 for numbers in squares.values())
    assert len({n for some in squares.values() for n in some}) == len(squares)


def test_one_place_in_two_zones_is_one_group(tmp_path):
    """Where zones meet, a product of either shows the ground in its own CRS."""
    write(tmp_path / "a_img.tif", pixels(), place(x=300_000.0), names=("B02", "B08"))
    there = rasterio.warp.transform("EPSG:32633", "EPSG:32632", [300_000.0], [Y])
    x, y = there[0][0], there[1][0]
    write(tmp_path / "b_img.tif", pixels(), place(x=x, y=y), "EPSG:32632", names=("B02", "B08"))
    write(tmp_path / "c_img.tif", pixels(), place(x=x - 5e4, y=y), "EPSG:32632", ("B02", "B08"))
    source = gathered(tmp_path).open()
    groups = [source.chip(i).groups["place"] for i in range(0, 48, 16)]
    assert groups == [0, 0, 1]
    blocks = gathered(tmp_path, block_m=320.0).open()
    found = [(c.where.ground, c.groups["block"]) for c in map(blocks.chip, range(len(blocks)))]
    assert {b for g, b in found if g == 0} & {b for g, b in found if g == 1}
    assert not {b for g, b in found if g < 2} & {b for g, b in found if g == 2}


def test_cloudy_and_empty_chips_are_left_out_and_counted(folder, tmp_path, caplog):
    """The shares are recomputed here with plain numpy, chip by chip."""
    kept = cloudy = unseen = 0
    for number, path in enumerate(sorted(folder.glob("*_img.tif"))):
        classes = RNG.choice([4, 5, 9], (64, 64), p=[0.5, 0.1, 0.4]).astype(np.uint8)
        classes[:32] = 4
        with rasterio.open(path, "r+") as file:
            image = file.read()
            image[0, :, : 6 * number] = 0  # of the last scene nothing is left
            file.write(image)
            grid = file.transform
        write(path.with_name(f"{path.stem}_SCL.tif"), classes, grid, nodata=0)
        if number == 11:
            continue
        for row in range(0, 64, 16):
            for col in range(0, 64, 16):
                here = (slice(row, row + 16), slice(col, col + 16))
                if np.isin(classes[here], (3, 8, 9, 10)).mean() > 0.2:
                    cloudy += 1
                elif (image[:, *here] > 0).all(0).mean() < 0.5:
                    unseen += 1
                else:
                    kept += 1
    clouds = Clouds(most=0.2, file=str(folder / "{scene}_SCL.tif"))
    dataset = gathered(folder, clouds=clouds, observed=0.5, before="2020-09-01")
    with caplog.at_level("INFO"):
        store = stored(dataset, tmp_path)
    assert min(kept, cloudy, unseen) > 5
    left = {
        "chips with too much cloud": cloudy,
        "chips observed too little": unseen,
        "scenes without data": 1,
    }
    assert store.samples == kept and store.attributes["left_out"] == left
    assert f"left out: {cloudy} chips with too much cloud, {unseen} chips obs" in caplog.text
    from rich.console import Console

    console = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(summary(store))
    assert f"{unseen} chips observed too little" in console.export_text()


def test_a_finished_or_interrupted_store_reads_no_scene_twice(folder, tmp_path, monkeypatch):
    """Surveys are kept beside the pixels; the store comes out the same as in one go."""
    from swath.datasets import _gather

    dataset = gathered(folder, observed=0.5)
    whole = stored(dataset, tmp_path, name="whole")
    read = _gather.Gathered.chip

    def torn(self, index):
        if index > 100:
            raise ConfigError("the power is gone")
        return read(self, index)

    monkeypatch.setattr(_gather.Gathered, "chip", torn)
    with pytest.raises(ConfigError, match="the power is gone"):
        stored(dataset, tmp_path)
    monkeypatch.setattr(_gather.Gathered, "chip", read)
    surveys: list[str] = []
    looked = _gather.survey

    def counted(one, how, notes):
        surveys.append(one.imagery.name)
        return looked(one, how, notes)

    monkeypatch.setattr(_gather, "survey", counted)
    monkeypatch.setattr("swath.datasets._survey._look", None)  # looking again would fail
    store = stored(dataset, tmp_path)
    assert store.fingerprint == whole.fingerprint and len(surveys) == 12
    monkeypatch.setattr(Imagery, "open", None)
    assert stored(dataset, tmp_path).fingerprint == whole.fingerprint


def test_a_note_of_another_file_or_setting_does_not_count(folder, tmp_path):
    stored(gathered(folder), tmp_path)
    notes = tmp_path / "store" / ".found"
    path = folder / "0_20200501_img.tif"
    empty = np.zeros((2, 64, 64), np.uint16)
    empty[:, :16] = 5
    write(path, empty, names=("B02", "B08"))
    source = gathered(folder, observed=0.5).resume(notes, progress=False)
    assert source.left_out == {"chips observed too little": 12}


def test_dates_and_labels_come_with_each_scene(folder, tmp_path):
    """A label raster for each scene, found by the scene's name; others have none and are left."""
    for path in sorted(folder.glob("*_20200801_img.tif"))[:5]:
        with rasterio.open(path) as file:
            write(folder / f"{path.stem}_truth.png.tif", file.read(1) % 2 + 1, file.transform)
    for path in sorted(folder.glob("*_20200801_img.tif"))[5:]:
        write(folder / f"{path.stem}_truth.png.tif", np.ones((4, 4), np.uint8), place(x=0.0))
    labels = Labels(raster=str(folder / "{scene}_truth.png.tif"), classes={"1": "even", "2": "odd"})
    store = stored(gathered(folder, labels=labels, after="2020-06-01"), tmp_path)
    left = {"scenes outside the dates": 6, "scenes without a label": 1}
    assert store.attributes["left_out"] == left and store.samples == 80
    found = store.read(np.arange(80), label=True).result()
    np.testing.assert_array_equal(found["label"], found["image"][:, 0] % 2)
    when = store.column("when").astype("datetime64[s]")
    assert (when == np.datetime64("2020-08-01")).all()


@pytest.mark.parametrize(
    ("path", "date"),
    [
        ("S2A_MSIL2A_20170613T101031_N0205_R022.SAFE", "2017-06-13T10:10:31"),
        ("LC08_L1TP_224078_20200518_20200518_01_RT.TIF", "2020-05-18T00:00:00"),
        ("tiles/2019-07-02/B02.tif", "2019-07-02T00:00:00"),
        ("T33UUU_20179916.tif", None),
        ("pucallpa/1985.tif", None),
    ],
)
def test_the_date_is_in_the_name(path, date):
    assert date_in(path) == date


def test_each_date_of_a_series_is_a_scene():
    """Pixels and times of the netCDF, against GDAL and against what the file says of its time."""
    cube = real("s2_romania_series") / "sentinel2_cube_subset_romania_10m.nc"
    grid = Georeference(crs="EPSG:3035", transform=(10, 0, 5271982, 0, -10, 2533004))
    files = {"B02": "netcdf:{path}:B2", "B08": "netcdf:{path}:B8"}
    one = Imagery(path=str(cube), sensor="sentinel2_l2a", files=files, georeference=grid)
    clouds = Clouds(most=0.5, file="netcdf:{path}:SCL")
    dates = {"after": "2018-07-01", "before": "2018-09-01"}
    source = Scenes(scenes=(one,), series=True, chip=50, clouds=clouds, **dates).open()
    with rasterio.open(f"netcdf:{cube}:B2") as band, rasterio.open(f"netcdf:{cube}:SCL") as classes:
        days = [int(band.tags(n)["NETCDF_DIM_time"]) for n in range(1, band.count + 1)]
        when = np.datetime64("2015-08-01") + np.array(days)
        inside = np.flatnonzero(
            (when >= np.datetime64("2018-07-01")) & (when < np.datetime64("2018-09-01"))
        )
        expected = []
        for n in inside.tolist():
            image, cloud = band.read(n + 1), np.isin(classes.read(n + 1), (3, 8, 9, 10))
            for row in (0, 50):
                for col in (0, 50):
                    here = (slice(row, row + 50), slice(col, col + 50))
                    if cloud[here].mean() <= 0.5 and (image[here] > 0).mean() >= 0.9:
                        expected.append((when[n], image[here]))
    assert len(source) == len(expected) > 4
    for i, (day, image) in enumerate(expected):
        chip = source.chip(i)
        np.testing.assert_array_equal(chip.images["image"][0], image)
        assert np.datetime64(chip.when.replace(tzinfo=None)) == day and chip.groups["block"] == 0


def test_what_is_wrong_is_said(folder, tmp_path):
    imagery = gathered(folder).scenes[0]
    with pytest.raises(ConfigError, match=r"nothing matches '.*/\*\.jp2'; correct the pattern"):
        gathered(folder, scenes=(replace(imagery, path=str(folder / "*.jp2")),)).open()
    with pytest.raises(ConfigError, match=r"several sensors \(landsat8_oli, sentinel2_l2a\)"):
        gathered(folder, scenes=(imagery, replace(imagery, sensor="landsat8_oli")))
    with pytest.raises(ConfigError, match="0_20200501_img is there twice"):
        gathered(folder, scenes=(imagery, imagery)).open()
    with pytest.raises(ConfigError, match="none of 12 scenes lies between after=2021-01-01"):
        gathered(folder, after="2021-01-01").open()
    with pytest.raises(ConfigError, match="no date lies between"):
        gathered(folder, after="2021-01-01", before="2020-01-01")
    with pytest.raises(ConfigError, match="chip smaller"):
        gathered(folder, chip=65).open()
    with pytest.raises(ConfigError, match=r"no channel is described as SCL \(there are B02, B08"):
        gathered(folder, clouds=Clouds()).open()
    with pytest.raises(ConfigError, match=r"clouds: nobody knows .* sensor sentinel2_l1c"):
        some = (replace(imagery, sensor="sentinel2_l1c"),)
        gathered(folder, scenes=some, clouds=Clouds()).open()
    with pytest.raises(ConfigError, match="series needs files"):
        gathered(folder, series=True).open()


def test_scenes_without_a_date_cannot_be_chosen_by_date(folder):
    shutil.move(folder / "0_20200501_img.tif", folder / "0_img.tif")
    with pytest.raises(ConfigError, match=r"0_img.tif: after and before need a date"):
        gathered(folder, after="2020-01-01").open()


def test_all_cloudy_tells_how_many_and_what_to_do(folder):
    for path in folder.glob("*_img.tif"):
        with rasterio.open(path) as file:
            cloud = np.full((64, 64), 9, np.uint8)
            write(path.with_name(f"{path.stem}_SCL.tif"), cloud, file.transform)
    with pytest.raises(ConfigError, match=r"nothing is left of 12 scenes: 192 chips with too much"):
        gathered(folder, clouds=Clouds(file=str(folder / "{scene}_SCL.tif"))).open()


def test_scenes_looked_at_before_and_now_are_of_one_kind(folder, tmp_path):
    """A survey that was noted, and one made now, of files alike."""
    stored(gathered(folder), tmp_path, name="one")
    note = min((tmp_path / "one/.found").glob("*.json"))
    (tmp_path / "two/.found").mkdir(parents=True)
    shutil.copy(note, tmp_path / "two/.found")
    assert stored(gathered(folder), tmp_path, name="two").samples == 192


def test_a_block_narrower_than_a_chip_is_told(folder):
    with pytest.raises(ConfigError, match=r"block_m=150 is narrower than .* 16 px, 160 m; .* 640"):
        gathered(folder, block_m=150.0).open()


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"names": ("B02", "B04")}, r"with bands B02, B08 .* with bands B02, B04"),
        ({"names": ("B02", "B08"), "transform": place(20.0)}, r"pixels of 10.* pixels of 20"),
    ],
)
def test_scenes_of_other_bands_or_pixels_are_refused(folder, other, message):
    write(folder / "9_20200801_img.tif", pixels(), **other)
    with pytest.raises(ConfigError, match=f"scenes differ: 0_20200501_img is .*{message}"):
        gathered(folder).open()
