"""Places alike: the nearest by cosine, none twice, where they are, in files that open elsewhere."""

import csv
import json

import numpy as np
import pyogrio
import pyproj
import pytest

import swath
from swath.config import ConfigError
from swath.data.places import middles
from swath.embed.found import text, write
from swath.embed.places import Places, read_place
from swath.embed.similar import SCORE, similar
from swath.embed.table import Table

MOVE = pyproj.Transformer.from_crs(32633, 4326, always_xy=True)


def filled(store, folder, grid=(), unit=0):
    """A table of random vectors of a store."""
    draw = np.random.default_rng(0)
    shape = (store.samples, *grid)
    plan = {"classes": ["water", "land"], "label": "mask", "store": store.fingerprint, "unit": unit}
    lat, lon = middles(store).T
    columns = {"lon": lon, "lat": lat, "name": store.column("name")}
    table = Table.begin(folder / "t.zarr", plan, store.samples, grid, 6, columns)
    for file in table.missing():
        mine = (len(table.rows(file)), *grid)
        vectors = 3 + draw.normal(size=(*mine, 6)).astype(np.float32)
        table.write(
            file,
            embedding=vectors,
            part=np.zeros(mine, np.uint8),
            label=np.ones(mine, np.int32),
        )
    table.finish()
    assert shape[0] == table.samples
    return Table.open(table.path)


@pytest.fixture
def store(inside):
    return swath.build(swath.load("recipe.yaml"), progress=False)


def test_the_best_come_first_and_none_overlaps_another(store, tmp_path):
    """Samples of the scene lie every 16 px and are 32 px wide."""
    table = filled(store, tmp_path)
    found = similar(Places(store, table), 7, 5)
    vectors = table.vectors(np.arange(store.samples)).astype(np.float64)
    vectors -= vectors.mean(0)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    cosine = vectors @ vectors[7]
    where, expected = store.column("where"), [7]
    for one in np.argsort(-cosine):
        apart = np.abs(where[expected, 1:3] - where[one, 1:3]).max(1) >= 32
        if apart.all() and len(expected) < 6:
            expected.append(int(one))
    assert [match.sample for match in found] == expected
    np.testing.assert_allclose([m.score for m in found], cosine[expected], atol=2e-6)
    told = text(found, SCORE)
    assert "rank   cosine" in told and "   1  " in told


def test_places_elsewhere_are_so_far_away(store, tmp_path):
    """By the middles of samples, on the ellipsoid of pyproj; and the best that is so far."""
    geod, table = pyproj.Geod(ellps="WGS84"), filled(store, tmp_path)
    lat, lon = middles(store).T
    km = geod.inv(np.full(len(lon), lon[7]), np.full(len(lat), lat[7]), lon, lat)[2] / 1000
    places = Places(store, table)
    np.testing.assert_allclose(places.km_from(7), km, rtol=4e-3)  # a sphere is off by that
    vectors = table.vectors(np.arange(store.samples)).astype(np.float64)
    vectors -= vectors.mean(0)
    cosine = vectors @ vectors[7] / np.linalg.norm(vectors, axis=1)
    best = similar(places, 7, 1)[1].sample
    away = float(places.km_from(7)[best]) * 1.01
    _, further = similar(places, 7, 1, away)
    far = km >= away
    assert not far[best] and cosine[further.sample] == cosine[far].max() < cosine[best]


def test_what_is_left_opens_elsewhere(store, tmp_path):
    """GDAL reads the rectangles where the samples are, with their cosines."""
    places = Places(store, filled(store, tmp_path))
    found = similar(places, 3, 4)
    table, shapes, picture = write(places, found, SCORE, tmp_path / "t-like-3")
    assert shapes.name == "t-like-3.geojson"
    frame = pyogrio.raw.read(shapes)
    assert frame[0]["crs"] == "EPSG:4326" and len(frame[2]) == 5
    rows = list(csv.DictReader(table.open()))
    assert [float(row["cosine"]) for row in rows] == [match.score for match in found]
    ring = json.loads(shapes.read_text())["features"][0]["geometry"]["coordinates"][0]
    _, row, col, _, _ = store.column("where")[3].tolist()
    corner = MOVE.transform(500000 + 10 * col, 5800000 - 10 * row)
    np.testing.assert_allclose(ring[0], corner, atol=1e-6)
    assert ring[0] == ring[-1] and len(ring) == 5
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_a_place_is_found_in_its_patch(store, tmp_path):
    """Of the patches that hold it, the one whose middle is nearest: a place in the middle of one
    is asked for."""
    table = filled(store, tmp_path, grid=(4, 4), unit=8)
    places = Places(store, table)
    _, row, col, _, _ = store.column("where")[5].tolist()
    lon, lat = MOVE.transform(500000 + 10 * (col + 20), 5800000 - 10 * (row + 12))
    number = places.at(lon, lat)
    box = places.box(number)
    assert (box.top, box.left, box.bottom, box.right) == (row + 8, col + 16, row + 16, col + 24)
    found = similar(places, number, 3)
    np.testing.assert_allclose((found[0].lon, found[0].lat), (lon, lat), atol=1e-6)


def test_queries_that_name_nothing_are_told(store, tmp_path):
    places = Places(store, filled(store, tmp_path))
    name = str(store.column("name")[2])
    assert places.named(name) == 2 and places.named("4") == 4
    for query, words in (
        (lambda: places.named(name + "x"), rf"no sample is called .*did you mean '{name}"),
        (lambda: places.at(15.0, 10.0), r"no sample shows 15, 10 .*; the nearest is 4\d\d\d.\d km"),
        (lambda: read_place("13.1;52"), "'13.1;52' is no place: write longitude,latitude"),
        (lambda: read_place("13.1,99"), "is no place"),
        (lambda: similar(places, 0, 0), "--count 0: ask for one place at least"),
        (lambda: similar(places, 0, 99), r"--count 99: .* has \d+ places that overlap neither"),
        (lambda: similar(places, 0, 1, 9), r" 0 places, 9 km away or more, .* or nearer ones"),
        (lambda: similar(places, 0, 1, -1), "--away -1: is a distance in kilometres"),
    ):
        with pytest.raises(ConfigError, match=words):
            query()
    patches = Places(store, filled(store, tmp_path / "p", (4, 4), 8))
    with pytest.raises(ConfigError, match=r"16 vectors here, .* \(--at LON,LAT\), or set embed"):
        patches.named("3")
    lost = filled(store, tmp_path / "r")
    lost.add("lon", np.full(store.samples, np.nan, np.float32))
    with pytest.raises(ConfigError, match=f"--away 2: where {store.column('name')[1]} lies on the"):
        similar(Places(store, lost), 1, 1, 2)
    table = filled(store, tmp_path / "q")
    table.plan["store"] = "another"
    with pytest.raises(ConfigError, match="these are embeddings of another store"):
        Places(store, table)
