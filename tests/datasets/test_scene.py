"""A scene's chips carry labels, polygons and blocks that agree wherever chips overlap."""

import numpy as np
import pyogrio
import pytest
import rasterio.features
import shapely
from pyproj import Transformer

from swath.config import ConfigError, load, plain
from swath.data.build import build
from swath.data.chip import IGNORE
from swath.data.imagery import Imagery
from swath.data.split import Split, select
from swath.data.store import Store
from swath.datasets._labels import Labels
from swath.datasets.scene import Scene
from swath.geo.window import Window
from tests.geo.rasters import CORNER, UTM, place, real, write

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(1, 4000, (50, 70), dtype=np.uint16)
COUNTS = {
    "farm": 113_064,
    "forest": 59_344,
    "grass": 5_479,
    "meadow": 98_829,
    "residential": 30_674,
    "scrub": 28_521,
    "water": 14_734,
    "wetland": 14_399,
}
"""Pixels of each class in the Brandenburg scene, as published with the data."""


def square(row: float, col: float, height: float, width: float) -> shapely.Polygon:
    """Return the polygon that covers those pixels of the test scene."""
    x, y = CORNER
    return shapely.box(x + 10 * col, y - 10 * (row + height), x + 10 * (col + width), y - 10 * row)


FIELDS = [
    (square(5, 5, 30, 40), "crop"),  # larger, so under the pond, though it comes first or last
    (square(10, 10, 6, 6), "pond"),
    (square(40, 60, 20, 20), "wood"),  # reaches out of the scene
    (square(500, 500, 9, 9), "wood"),  # lies outside
]


def vectors(path, fields=FIELDS, crs=UTM, column="kind"):
    shapes, values = zip(*fields, strict=True)
    if crs != UTM:
        move = Transformer.from_crs(UTM, crs, always_xy=True)
        # Points along the edges too, which are bent there.
        dense = [shapely.segmentize(shape, 1.0) for shape in shapes]
        shapes = shapely.transform(dense, lambda p: np.column_stack(move.transform(*p.T)))
    pyogrio.raw.write(
        path,
        geometry=shapely.to_wkb(np.array(shapes)),
        field_data=[np.array(values)],
        fields=[column],
        geometry_type="Unknown",
        crs=crs,
    )
    return path


@pytest.fixture
def folder(tmp_path):
    write(tmp_path / "a_B02.tif", PIXELS)
    vectors(tmp_path / "fields.gpkg")
    return tmp_path


def scene(folder, labels=None, **given) -> Scene:
    if labels is None:
        labels = {"file": str(folder / "fields.gpkg"), "column": "kind"}
    return Scene(
        imagery=Imagery(
            path=str(folder), sensor="sentinel2_l1c", bands=("B02",), name="test", when="2020-05-01"
        ),
        labels=Labels(**labels) if labels else None,
        **({"chip": 16} | given),
    )


def expected() -> np.ndarray:
    """Class names of each pixel, painted by hand."""
    out = np.full((50, 70), "", dtype="<U4")
    out[5:35, 5:45], out[10:16, 10:16], out[40:50, 60:70] = "crop", "pond", "wood"
    return out


def names(source, label) -> np.ndarray:
    return np.array([*source.contents.label.classes, ""])[
        np.where(label == IGNORE, len(source.contents.label.classes), label)
    ]


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("crs", [UTM, "EPSG:4326", "EPSG:3035"])
def test_polygons_are_burnt_whatever_their_order_and_crs(folder, crs, turned):
    (folder / "fields.gpkg").unlink()
    vectors(folder / "fields.gpkg", FIELDS[::-1] if turned else FIELDS, crs)
    source = scene(folder, stride=11).open()
    assert source.contents.label.classes == ("crop", "pond", "wood")
    assert source.contents.groupings == source.contents.grouped_pixels == ("polygon", "block")
    for i in range(len(source)):
        chip = source.chip(i)
        at = chip.where
        area = Window(at.row, at.col, at.height, at.width).slices
        np.testing.assert_array_equal(names(source, chip.label), expected()[area])
        np.testing.assert_array_equal(chip.images["image"][0], PIXELS[area])
        # Every labelled pixel belongs to one polygon, and a polygon to one class.
        polygon = chip.groups["polygon"]
        np.testing.assert_array_equal(polygon >= 0, chip.label != IGNORE)
        assert polygon.dtype == np.int32
        assert chip.when.isoformat() == "2020-05-01T00:00:00+00:00"


def test_chips_cover_the_scene_and_overlap_as_asked(folder):
    source = scene(folder, chip=16, stride=8).open()
    rows = sorted({source.chip(i).where.row for i in range(len(source))})
    assert rows == [0, 8, 16, 24, 32, 34]
    assert len(source) == len(rows) * len([*range(0, 54, 8), 54])
    assert source.chip(3).name == "test_0_24"


def test_a_scene_without_labels_is_built_and_split_by_blocks(folder):
    """Pretraining needs no labels. A chip goes, whole, with the block under its middle."""
    source = scene(folder, labels={}, block=20, chip=16, stride=8).open()
    assert source.contents.groupings == ("block",) and not source.contents.grouped_pixels
    for i in range(len(source)):
        chip = source.chip(i)
        middle = (chip.where.row + 8) // 20 * 4 + (chip.where.col + 8) // 20
        assert chip.groups == {"block": middle} and chip.label is None
    dataset = scene(folder, labels={}, block=16)
    store = build(dataset, folder / "store", Split(), progress=False)
    parts = [select(store, None, part) for part in ("train", "val", "test")]
    assert all(part.size for part in parts)
    assert sum(part.size for part in parts) == len(dataset.open())
    blocks = store.column("groups/block")
    whole = {int(b) for b in blocks[parts[0].indices]} & {int(b) for b in blocks[parts[2].indices]}
    assert not whole
    assert 0 <= parts[2].share_touching() < 1


def test_a_store_is_not_gone_on_with_from_another_file(folder, tmp_path):
    """Neither one whose building was cut short nor one that lost a shard: it would be of two."""
    dataset, options = scene(folder, {}), {"progress": False, "shard_bytes": 4 * 512}
    split = Split(by="random")
    source = dataset.open()
    asked = {"dataset": plain(dataset), "split": plain(split), "origins": source.origins}
    torn = Store.create(
        tmp_path / "torn", source.contents, len(source), shard_bytes=4 * 512, **asked
    )
    first = torn.missing()[0]
    torn.write_many(first.start, [source.chip(i) for i in first])
    lost = build(dataset, tmp_path / "lost", split, **options)
    shard = next(f for f in (tmp_path / "lost/image/c").rglob("*") if f.is_file())
    shard.unlink()
    before = (folder / "a_B02.tif").read_bytes()
    write(folder / "a_B02.tif", PIXELS + 1)
    for name in ("torn", "lost"):
        with pytest.raises(ConfigError, match=f"{name}: cannot go on: the file of test that holds"):
            build(dataset, tmp_path / name, split, **options)
    (folder / "a_B02.tif").write_bytes(before)
    ended = [build(dataset, tmp_path / name, split, **options) for name in ("torn", "lost")]
    assert ended[0].sum() == ended[1].sum() == lost.attributes["checksum"]


def test_blocks_are_squares_of_the_scene(folder):
    source = scene(folder, block=20).open()
    for i in range(len(source)):
        chip = source.chip(i)
        at = chip.where
        rows, cols = np.mgrid[at.row : at.row + 16, at.col : at.col + 16]
        np.testing.assert_array_equal(chip.groups["block"], rows // 20 * 4 + cols // 20)


def test_which_feature_is_on_top(folder):
    """The pond stays in the field; on request the later feature wins, as in a plain burn."""
    (folder / "fields.gpkg").unlink()
    vectors(folder / "fields.gpkg", FIELDS[::-1])
    labels = {"file": str(folder / "fields.gpkg"), "column": "kind"}
    source = scene(folder, labels).open()
    assert names(source, source.chip(0).label)[10, 10] == "pond"
    source = scene(folder, labels | {"on_top": "later"}).open()
    assert names(source, source.chip(0).label)[10, 10] == "crop"


def test_values_are_mapped_to_classes(folder):
    labels = {"file": str(folder / "fields.gpkg"), "column": "kind"}
    classes = {"wood": "green", "crop": "green", "pond": "blue"}
    source = scene(folder, labels | {"classes": classes, "colours": ("#00ff00", "#0000ff")}).open()
    assert source.contents.label.classes == ("green", "blue")
    assert source.contents.label.colours == ("#00ff00", "#0000ff")
    label = source.chip(0).label
    assert label[7, 7] == 0 and label[12, 12] == 1 and label[0, 0] == IGNORE


def test_numbers_in_a_column_are_written_as_in_yaml(folder, tmp_path):
    """YAML keys are text, columns may be whole or real numbers: 3, "3" and 3.0 are one."""
    for number, kind in enumerate((np.int64, np.float64)):
        path = tmp_path / f"{number}.gpkg"
        vectors(path, [(shape, kind(3 + i)) for i, (shape, _) in enumerate(FIELDS[:2])])
        labels = {"file": str(path), "column": "kind", "classes": {"3": "crop", "4": "pond"}}
        label = scene(folder, labels).open().chip(0).label
        assert label[7, 7] == 0 and label[12, 12] == 1


def test_points_and_touched_pixels(folder, tmp_path):
    x, y = CORNER
    spots = [(shapely.Point(x + 75, y - 35), "tree"), (shapely.Point(x + 12, y - 101), "rock")]
    labels = {"file": str(vectors(tmp_path / "p.gpkg", spots)), "column": "kind"}
    label = scene(folder, labels).open().chip(0).label
    assert [tuple(p) for p in np.argwhere(label != IGNORE)] == [(3, 7), (10, 1)]
    thin = [(square(2.6, 0, 0.3, 12), "road")]
    labels["file"] = str(vectors(tmp_path / "q.gpkg", thin))
    assert (scene(folder, labels).open().chip(0).label == IGNORE).all()
    label = scene(folder, labels | {"all_touched": True}).open().chip(0).label
    np.testing.assert_array_equal(label[2, :12], 0)


def test_a_label_raster_on_its_own_grid(folder):
    classes = RNG.integers(1, 4, (25, 35), dtype=np.uint8)
    classes[3, 4] = 0
    path = write(folder / "cover.tif", classes, place(20), nodata=0)
    labels = {"raster": str(path), "classes": {"3": "c", "1": "a", "2": "b"}}
    source = scene(folder, labels, chip=50).open()
    assert source.contents.label.classes == ("c", "a", "b")
    assert source.contents.groupings == ("block",)
    fine = classes.repeat(2, 0).repeat(2, 1)[:, :50]
    ids = np.array([IGNORE, 1, 2, 0], np.uint8)
    np.testing.assert_array_equal(source.chip(0).label, ids[fine])


def test_a_quantity_is_regressed(folder):
    """A finer grid gets values in between, not steps of whole numbers; holes stay unknown."""
    cover = np.tile(np.arange(35, dtype=np.uint8) * 2, (25, 1))
    cover[3, 4] = 255
    path = write(folder / "cover.tif", cover, place(20), nodata=255)
    labels = {"raster": str(path), "quantity": "tree cover", "unit": "%"}
    source = scene(folder, labels, chip=50).open()
    label = source.contents.label
    assert (label.kind, label.classes, label.unit) == ("raster", ("tree cover",), "%")
    found = source.chip(0).label
    assert found.shape == (1, 50, 50) and found.dtype == np.float32
    np.testing.assert_allclose(found[0, 20, 1:49], np.arange(1, 49) - 0.5)
    assert np.isnan(found).sum() == 4 and np.isnan(found[0, 6:8, 8:10]).all()


def test_no_labels_and_chips_without_data(tmp_path):
    half = PIXELS.copy()
    half[:, :40] = 0
    write(tmp_path / "a_B02.tif", half)
    source = scene(tmp_path, labels={}).open()
    assert source.contents.label.kind == "none" and source.chip(0).label is None
    kept = scene(tmp_path, labels={}, observed=0.5).open()
    assert 0 < len(kept) < len(source)
    for i in range(len(kept)):
        assert (kept.chip(i).images["image"] != 0).mean() >= 0.5
    with pytest.raises(ConfigError, match="no chip of 50 px is observed to 90%"):
        scene(tmp_path, labels={}, observed=0.9, chip=50).open()


def test_a_recipe_reads_as_a_scientist_writes_it(folder):
    file = folder / "recipe.yaml"
    file.write_text(
        f"imagery: {{path: {folder}, sensor: sentinel2_l1c, bands: [B02]}}\n"
        f"labels: {{file: {folder}/fields.gpkg, column: kind, others: ignore,\n"
        "         classes: {crop: field, pond: water}}\nchip: 32\nstride: 16\n"
    )
    source = load(Scene, [file]).open()
    assert source.contents.label.classes == ("field", "water") and len(source) == 2 * 4 + 4
    file.write_text(f"imagery: {{path: {folder}, sensor: rgb}}\nlabels: {{fil: a}}\n")
    with pytest.raises(ConfigError, match=r"recipe.yaml:2: labels.fil: .*did you mean 'file'"):
        load(Scene, [file])
    file.write_text("imagery: {path: a/b}\n")  # said on reading, before any file is looked at
    with pytest.raises(ConfigError, match=r"recipe.yaml:1: a/b: which sensor took this\? Say it"):
        load(Scene, [file])


# What a user can do wrong, and what is said.


def says(message: str, folder, labels=None, **given) -> None:
    with pytest.raises(ConfigError, match=message):
        scene(folder, labels, **given).open()


def test_labels_outside_the_class_map(folder):
    labels = {"file": str(folder / "fields.gpkg"), "column": "kind", "classes": {"crop": "crop"}}
    says(
        r"column kind has values outside the class map: pond, wood; add them .*ignore",
        folder,
        labels,
    )
    label = scene(folder, labels | {"others": "ignore"}).open().chip(0).label
    assert label[7, 7] == 0 and label[12, 12] == 0  # the pond is not burnt, so the field shows
    says(r"has none of the classes' values corn; it has crop, pond, wood", folder,
         labels | {"classes": {"corn": "corn"}, "others": "ignore"})  # fmt: skip
    path = write(folder / "cover.tif", RNG.integers(1, 6, (50, 70), dtype=np.uint8))
    raster = {"raster": str(path), "classes": {"1": "a", "2": "b"}}
    says(
        r"cover.tif: channel 1 has values outside the class map: 3, 4, 5; add them to classes or, "
        r"if they mean that the class is not known, set others: ignore beside classes",
        folder,
        raster,
    )
    label = scene(folder, raster | {"others": "ignore"}, chip=50).open().chip(0).label
    assert set(np.unique(label)) == {0, 1, IGNORE}
    says(r"labels.classes: 'one' is not a pixel value", folder, raster | {"classes": {"one": "a"}})


def test_a_column_that_is_no_class_is_refused(folder, tmp_path):
    """A class for each area would all be trained on, and nothing tested; so for each number or
    name of a field. Who means it says so with classes."""
    labels = {"column": "kind"}
    few = [(shape, 100.5 + i) for i, (shape, _) in enumerate(FIELDS)]
    labels["file"] = str(vectors(tmp_path / "area.gpkg", few))
    says(
        r"area.gpkg: column kind has 4 different values in 4 features \(100.5, 101.5, 102.5, "
        r"...\), which are numbers with fractions, .*say with classes .*"
        r"\{100.5: first, 103.5: second\}.*"
        r"gdal_rasterize -a kind.*quantity: kind",
        folder,
        labels,
    )
    named = labels | {"classes": {"100.5": "small"}, "others": "ignore"}
    assert scene(folder, named).open().contents.label.classes == ("small",)
    spots = [(square(2 * i, 2 * j, 1, 1), f"field {i} {j}") for i in range(5) for j in range(5)]
    labels["file"] = str(vectors(tmp_path / "names.gpkg", spots))
    says(r"has 25 different values in 25 features .*names features rather than", folder, labels)
    doubled = [(shape, name[:-2]) for shape, name in spots]  # 5 values, each of 5 features
    labels["file"] = str(vectors(tmp_path / "rows.gpkg", doubled))
    assert len(scene(folder, labels).open().contents.label.classes) == 5
    codes = [(shape, f"1.{i}") for i, (shape, _) in enumerate(FIELDS)]  # text, not numbers
    labels["file"] = str(vectors(tmp_path / "codes.gpkg", codes))
    assert scene(folder, labels).open().contents.label.classes == ("1.0", "1.1", "1.2", "1.3")
    many = [(square(i // 25, i % 25, 1, 1), i // 2) for i in range(600)]
    labels["file"] = str(vectors(tmp_path / "many.gpkg", many))
    says(r"has 300 different values in 600 features .*at most 255 classes fit", folder, labels)
    says(
        r"labels: 2 colours, but column kind of .* has 3 values: crop, pond, wood",
        folder,
        {"file": str(folder / "fields.gpkg"), "column": "kind", "colours": ("#000000", "#ffffff")},
    )


def test_vector_files_that_do_not_serve(folder, tmp_path):
    labels = {"file": str(folder / "fields.gpkg"), "column": "kind"}
    says(r"none.gpkg: there is no such file", folder, labels | {"file": str(folder / "none.gpkg")})
    says(r"no column 'class'; there are kind", folder, labels | {"column": "class"})
    says(r"no layer 'a'; there are fields", folder, labels | {"layer": "a"})
    (folder / "bad.gpkg").write_text("no vectors")
    says(r"bad.gpkg: is not a vector file", folder, labels | {"file": str(folder / "bad.gpkg")})
    far = vectors(tmp_path / "far.gpkg", FIELDS[3:])
    says(
        r"far.gpkg: none of 1 labelled features lies in the scene: they cover lon [\d.]+.*lat "
        r".* \(EPSG:32633\), the scene lon 12.*\(EPSG:32633\); one of them has a wrong CRS, or is",
        folder,
        labels | {"file": str(far)},
    )
    bare = vectors(tmp_path / "bare.gpkg", crs=UTM)
    pyogrio.raw.write(
        bare,
        geometry=shapely.to_wkb(np.array([FIELDS[0][0]])),
        field_data=[np.array(["crop"])],
        fields=["kind"],
        geometry_type="Polygon",
        layer="second",
        crs=UTM,
    )
    says(r"bare.gpkg: choose a layer of bare, second", folder, labels | {"file": str(bare)})


def test_vectors_without_crs(folder, tmp_path):
    (tmp_path / "a.csv").write_text('WKT,kind\n"POLYGON ((0 0, 1 0, 1 1, 0 0))",crop\n')
    says(r"a.csv: has no coordinate reference system", folder,
         {"file": str(tmp_path / "a.csv"), "column": "kind"})  # fmt: skip


def test_label_rasters_that_do_not_serve(folder):
    noise = write(folder / "noise.tif", RNG.random((50, 70)))
    labels = {"raster": str(noise), "classes": {"1": "a"}}
    write(folder / "noise.tif", RNG.random((100, 100)), place(5))
    says(r"has more than 4096 values; is it classes\? Give quantity", folder, labels)
    away = write(folder / "away.tif", PIXELS, place(10, 900000))
    said = r"away.tif: the label raster lies elsewhere than the scene: it covers lon .* scene lon"
    says(said, folder, labels | {"raster": str(away)})
    bare = write(folder / "bare.tif", PIXELS, crs=None)
    says(r"bare.tif: has no coordinate reference", folder, labels | {"raster": str(bare)})


def test_settings_that_contradict_one_another(folder):
    cover = {"raster": "a", "classes": {"1": "a", "2": "b"}}
    many = {str(i): str(i) for i in range(300)}
    for message, given in (
        (
            r"or raster, .*: {file: fields.gpkg, column: crop}, or {raster: classes.tif, classes:",
            {},
        ),
        (r"need either file \(vectors\) or raster", {"file": "a", "column": "c", **cover}),
        (r"say which column of a tells the class, such as column: crop", {"file": "a"}),
        (r"unit has no effect; it belongs to raster", {"file": "a", "column": "c", "unit": "m"}),
        (r"column has no effect; it belongs to file", {"column": "c", **cover}),
        (
            r"a raster needs either classes or quantity: {raster: a, classes: {1: water, 2: fore.*"
            r".* or {raster: a, quantity: tree cover}",
            {"raster": "a"},
        ),
        (r"a raster needs either classes or quantity", {"quantity": "q", **cover}),
        (r"unit has no effect without quantity", {"unit": "m", **cover}),
        (r"1 colours for 2 classes", {"colours": ("#000000",), **cover}),
        (r"300 classes; at most 255 fit", {"raster": "a", "classes": many}),
    ):
        with pytest.raises(ConfigError, match=message):
            Labels(**given)
    for message, given in (
        (r"stride=17: chips of 16 px would leave gaps", {"stride": 17}),
        (r"observed=2 is not a share", {"observed": 2.0}),
        (r"chip=0 and block=128: both are at least 1 px", {"chip": 0}),
    ):
        with pytest.raises(ConfigError, match=message):
            scene(folder, **given)
    says(r"50 x 70 px, too few for a chip of 51; make chip smaller", folder, chip=51)


# The real scene, where it is.


def brandenburg(**labels) -> Scene:
    path = real("s2_brandenburg_l1c")
    (file,) = path.glob("gis_osm*.gpkg")
    return Scene(
        imagery=Imagery(path=str(path / "IMG_DATA"), sensor="sentinel2_l1c", bands=("B02",)),
        labels=Labels(file=str(file), column="fclass", **labels),
        chip=96,
        stride=96,
    )


def test_brandenburg_has_the_published_class_counts():
    """The scene is 8 x 16 chips of 96 px, so each pixel is counted once."""
    source = brandenburg(on_top="later").open()
    counts = np.zeros(256, int)
    for i in range(len(source)):
        counts += np.bincount(source.chip(i).label.ravel(), minlength=256)
    assert len(source) == 128
    assert dict(zip(source.contents.label.classes, counts.tolist(), strict=False)) == COUNTS
    assert round(1 - counts[IGNORE] / counts.sum(), 3) == 0.309


def test_brandenburg_smaller_polygons_are_on_top():
    """Against one plain burn of all polygons, largest first; 228 px change their class."""
    source = brandenburg().open()
    (file,) = real("s2_brandenburg_l1c").glob("gis_osm*.gpkg")
    _, _, geometry, (kinds,) = pyogrio.raw.read(file, columns=["fclass"])
    shapes = shapely.from_wkb(geometry)
    order = sorted(range(len(shapes)), key=lambda i: -shapes[i].area)
    classes = source.contents.label.classes
    whole = rasterio.features.rasterize(
        [(shapes[i], classes.index(kinds[i])) for i in order],
        (768, 1536),
        fill=IGNORE,
        transform=place(),
        dtype="uint8",
    )
    for i in range(0, len(source), 5):
        chip = source.chip(i)
        area = Window(chip.where.row, chip.where.col, 96, 96).slices
        np.testing.assert_array_equal(chip.label, whole[area])
    scrub = int((whole == classes.index("scrub")).sum())
    assert scrub - COUNTS["scrub"] == 228
