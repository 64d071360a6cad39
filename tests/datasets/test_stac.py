"""A catalogue made here from the real scene, and a server that is busy, breaks off and lies."""

import contextlib
import hashlib
import http.server
import json
import pathlib
import re
import shutil
import threading
from collections import Counter, defaultdict
from dataclasses import replace

import numpy as np
import pytest
import rasterio

from swath import config, run
from swath.config import ConfigError
from swath.data.build import build
from swath.data.split import Split
from swath.datasets._clouds import Clouds
from swath.datasets.scenes import Scenes
from swath.datasets.stac import Stac, about
from swath.settings import Run
from tests.geo.rasters import real

pystac = pytest.importorskip("pystac")
BANDS = ("B02", "B03", "B04")
AREA = (12.45, 52.4, 12.6, 52.6)
SIZE = 128
CLEAR = {"s2_0216": 0.2, "s2_0402": 0.2, "s2_0711": 1.0}
"""Share of each item's upper half that its classification calls clear, times two."""


class Server(http.server.ThreadingHTTPServer):
    """Serves a folder; ``plan`` says what happens to the next requests for a path."""

    daemon_threads = True

    def __init__(self, root: pathlib.Path) -> None:
        self.root, self.asked = root, Counter()
        self.plan: dict[str, list[str]] = defaultdict(list)
        self.ranges: list[str] = []
        self.keys: list[str | None] = []
        super().__init__(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server_port}"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *_):
        pass

    def do_GET(self):
        name = self.path.lstrip("/")
        self.server.asked[name] += 1
        self.server.keys.append(self.headers.get("Authorization"))
        plan = self.server.plan[name]
        step = plan.pop(0) if plan else ""
        file = self.server.root / name
        if step.isdigit() or not file.is_file():
            self.send_error(int(step or 404))
            return
        body = file.read_bytes()
        tag = f'"{hashlib.md5(body).hexdigest()}"'
        begin = 0
        if self.headers.get("Range") and self.headers.get("If-Range") in (None, tag):
            begin = int(self.headers["Range"].removeprefix("bytes=").rstrip("-"))
            self.server.ranges.append(name)
        self.send_response(206 if begin else 200)
        self.send_header("ETag", tag)
        if step == "page":
            self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body) - begin))
        if begin:
            self.send_header("Content-Range", f"bytes {begin}-{len(body) - 1}/{len(body)}")
        self.end_headers()
        cut = len(body) // 2 if step == "cut" else len(body)
        self.wfile.write(body[begin:cut])
        self.close_connection = True

    def do_POST(self):
        """Search, loosely: whatever is asked for, all items come, one a page."""
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked["search"] += 1
        items = sorted(self.server.root.glob("s2/*/*.json"))
        page = int(asked.get("token", 0))
        found = json.loads(items[page].read_text()) | {"links": []}
        links = []
        if page + 1 < len(items):
            link = {"rel": "next", "method": "POST", "href": f"{self.server.address}/search"}
            links = [link | {"body": {"token": page + 1}, "merge": True}]
        for asset in found["assets"].values():
            asset["href"] = f"{self.server.address}/s2/{found['id']}/{asset['href']}"
        page_ = {"type": "FeatureCollection", "features": [found], "links": links}
        body = json.dumps(page_).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory):
    """Three items of one place, as COGs: one more cloudy, one later; written by pystac."""
    import datetime

    root = tmp_path_factory.mktemp("catalogue")
    source = real("s2_brandenburg_l1c") / "IMG_DATA"
    top = pystac.Catalog("top", "made for a test")
    west, south, east, north = 12.49, 52.46, 12.52, 52.52
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    shape = {"type": "Polygon", "coordinates": [ring]}
    extent = pystac.Extent(
        pystac.SpatialExtent([[west, south, east, north]]),
        pystac.TemporalExtent([[datetime.datetime(2017, 1, 1), None]]),
    )
    collection = pystac.Collection("s2", "scenes", extent)
    top.add_child(collection)
    for number, (name, clear) in enumerate(CLEAR.items()):
        when = datetime.datetime(2017, int(name[3:5]), int(name[5:]), 10, 21, 1)
        item = pystac.Item(
            name, shape, [west, south, east, north], when, {"eo:cloud_cover": 20.0 * number}
        )
        collection.add_item(item)
        folder = root / "s2" / name
        folder.mkdir(parents=True)
        for band in BANDS:
            with rasterio.open(source / f"T33UUU_20170216T102101_{band}.jp2") as file:
                window = rasterio.windows.Window(200 * number, 0, SIZE, SIZE)
                pixels, place = file.read(window=window), file.window_transform(window)
                crs = file.crs
            grid = {"transform": place, "crs": crs, "count": 1, "height": SIZE, "width": SIZE}
            path = folder / f"{band}.tif"
            with rasterio.open(path, "w", driver="COG", dtype="uint16", **grid) as file:
                file.write(pixels)
            total = "1220" + hashlib.sha256(path.read_bytes()).hexdigest()
            extra = {"file:size": path.stat().st_size, "file:checksum": total}
            item.add_asset(band, pystac.Asset(path.name, extra_fields=extra))
        classes = np.full((1, SIZE, SIZE), 4, np.uint8)
        classes[:, : int(SIZE * (1 - clear / 2))] = 9
        with rasterio.open(folder / "scl.tif", "w", driver="GTiff", dtype="uint8", **grid) as file:
            file.write(classes)
        item.add_asset("scl", pystac.Asset("scl.tif"))
    top.normalize_hrefs(str(root))
    top.save(catalog_type=pystac.CatalogType.SELF_CONTAINED)
    return root


@contextlib.contextmanager
def serving(root: pathlib.Path):
    server = Server(root)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def served(catalogue, tmp_path):
    """A copy of the catalogue's folder, and a server of it."""
    shutil.copytree(catalogue, tmp_path / "served")
    with serving(tmp_path / "served") as server:
        yield server


def sought(where, tmp_path, **given) -> Stac:
    settings = {"collection": "s2", "sensor": "sentinel2_l1c", "bands": BANDS, "chip": 32}
    settings |= {"folder": str(tmp_path / "fetched"), "wait_seconds": 0.001, "tries": 3}
    catalogue = str(where) if isinstance(where, pathlib.Path) else f"{where.address}/catalog.json"
    return Stac(**{"catalogue": catalogue, **settings, **given})


def stored(dataset, tmp_path, name="store"):
    return build(dataset, tmp_path / name, Split(val=0, test=0), progress=False)


def test_a_static_catalogue_is_chosen_from_by_place_date_and_cloud(catalogue, tmp_path):
    """Against what was put in; a later, a cloudier and an item elsewhere do not fit."""
    root = catalogue / "catalog.json"
    every = ["s2_0216", "s2_0402", "s2_0711"]
    for given, expected in (
        ({}, every),
        ({"area": AREA, "before": "2017-07-11"}, every[:2]),
        ({"after": "2017-02-17"}, every[1:]),
        ({"cloud_cover": 20}, every[:2]),
        ({"most": 1}, every[:1]),
    ):
        found = sought(root, tmp_path, **given).find()
        assert [item.id for item in found] == expected
    assert found[0].when == "2017-02-16T10:21:01" and set(found[0].assets) == set(BANDS)
    (line,) = about(found)
    assert line.startswith("s2_0216 ") and "2017-02-16T10:21" in line and "0.0 % cloud" in line
    assert float(line.split()[-2]) == pytest.approx(
        sum(a.size for a in found[0].assets.values()) / 1e6, abs=0.05
    )


def test_what_a_busy_server_sends_is_the_scene(served, tmp_path, caplog, monkeypatch):
    """503 twice, a file that breaks off, a page that fails: the store is that of the local files,
    and what broke off goes on where it stopped."""
    monkeypatch.setattr("swath.datasets._fetch._PIECE", 1000)  # so that half a file is many
    root = served.root / "catalog.json"
    local = stored(sought(root, tmp_path), tmp_path, "local")
    served.plan |= {
        "s2/s2_0216/B02.tif": ["503", "503"],
        "s2/s2_0402/B03.tif": ["cut", "cut"],
        "s2/s2_0402/s2_0402.json": ["502"],
    }
    with caplog.at_level("INFO"):
        store = stored(sought(served, tmp_path), tmp_path)
    assert served.asked["s2/s2_0216/B02.tif"] == 3
    assert served.ranges == ["s2/s2_0402/B03.tif"] * 2
    assert "fetched 9 files" in caplog.text and "503 Service Unavailable" in caplog.text
    assert store.samples == local.samples == 48
    image, expected = (s.read(np.arange(48)).result()["image"] for s in (store, local))
    np.testing.assert_array_equal(image, expected)
    np.testing.assert_array_equal(store.column("when"), local.column("when"))
    with rasterio.open(served.root / "s2" / "s2_0711" / "B03.tif") as file:
        np.testing.assert_array_equal(image[32, 1], file.read(1)[:32, :32])


def test_a_store_goes_on_without_the_catalogue_and_fetches_nothing_twice(served, tmp_path):
    """The second file of an item is not there at first; a finished store asks nobody."""
    away = served.root / "s2" / "s2_0711" / "B04.tif"
    kept = away.read_bytes()
    away.unlink()
    dataset = sought(served, tmp_path, parallel=1)
    with pytest.raises(ConfigError, match=r"s2_0711/B04.tif: the server answers 404"):
        stored(dataset, tmp_path)
    before = Counter(served.asked)
    away.write_bytes(kept)
    stored(replace(dataset, tries=5, parallel=2), tmp_path)
    again = served.asked - before
    assert again == Counter({"s2/s2_0711/B04.tif": 1})
    served.shutdown()
    assert stored(dataset, tmp_path).samples == 48


def test_a_search_is_asked_and_its_answer_is_checked(served, tmp_path):
    """An API with pages that returns too much; the items are those of the static catalogue."""
    core = "https://api.stacspec.org/v1.0.0"
    root = json.loads((served.root / "catalog.json").read_text())
    root["conformsTo"] = [f"{core}/core", f"{core}/item-search"]
    href = f"{served.address}/search"
    root["links"] = [
        {"rel": "search", "method": "POST", "href": href, "type": "application/geo+json"}
    ]
    (served.root / "catalog.json").write_text(json.dumps(root))
    dataset = sought(served, tmp_path, area=AREA, after="2017-03-01", before="2017-09-01")
    found = dataset.find()
    assert [item.id for item in found] == ["s2_0402", "s2_0711"] and served.asked["search"] == 3
    dataset.fetch(found, progress=False)
    assert sorted(p.name for p in (tmp_path / "fetched/s2/s2_0402").iterdir()) == [
        f"{b}.tif" for b in BANDS
    ]


def test_clouds_are_told_by_an_asset(served, tmp_path):
    """The share of rows that are cloud is known: chips of 32 px are cloudy, half or clear."""
    clouds = Clouds(most=0.1, band="SCL", values=(8, 9))
    dataset = sought(served, tmp_path, clouds=clouds, assets={"SCL": "scl"}, observed=0)
    store = stored(dataset, tmp_path)
    cloudy = {name: int(SIZE * (1 - clear / 2)) for name, clear in CLEAR.items()}
    rows = [row for edge in cloudy.values() for row in range(0, SIZE, 32) if edge - row < 0.1 * 32]
    assert store.samples == 4 * len(rows) > 0
    assert store.attributes["left_out"] == {"chips with too much cloud": 48 - store.samples}


def test_bands_are_found_by_name_and_by_wavelength(served, tmp_path):
    """As catalogues call them: B2, blue with a wavelength in um, or one channel of several."""
    path = served.root / "s2" / "s2_0216" / "s2_0216.json"
    item = json.loads(path.read_text())
    old = item["assets"]
    item["assets"] = {
        "b2": old["B02"],
        "green": old["B03"] | {"eo:bands": [{"name": "green", "center_wavelength": 0.56}]},
        "red-edge": old["B02"] | {"eo:bands": [{"name": "re", "center_wavelength": 0.704}]},
        "visual": old["B04"] | {"eo:bands": [{"name": n} for n in ("red", "green", "blue")]},
    }
    path.write_text(json.dumps(item))
    dataset = sought(served, tmp_path, most=1, assets={"B04": "visual#1"})
    (found,) = dataset.find()
    assert {b: pathlib.Path(a.href).name for b, a in found.assets.items()} == {
        band: f"{band}.tif" for band in BANDS
    }
    assert found.assets["B04"].file == "visual.tif" and found.assets["B04"].channel == "#1"
    assert stored(dataset, tmp_path).samples == 16


def test_what_is_wrong_is_said(served, tmp_path):
    with pytest.raises(ConfigError, match=r"no item of s2 fits: area \[1.0, 2.0, 3.0, 4.0\]"):
        sought(served, tmp_path, area=(1.0, 2.0, 3.0, 4.0)).find()
    with pytest.raises(ConfigError, match="has no collection 's3'; there are s2"):
        sought(served, tmp_path, collection="s3").find()
    with pytest.raises(ConfigError, match=r"has no asset for band B08; there are B02, .*KEY"):
        sought(served, tmp_path, bands=("B02", "B08")).find()
    with pytest.raises(ConfigError, match="has no asset 'blue'"):
        sought(served, tmp_path, assets={"B02": "blue"}).find()
    with pytest.raises(ConfigError, match="catalogue cannot be read, after 2 tries"):
        sought(served, tmp_path, catalogue="http://127.0.0.1:9/catalog.json", tries=2).find()
    with pytest.raises(ConfigError, match="is not west, south, east and north"):
        sought(served, tmp_path, area=(12.6, 52.4, 12.4, 52.6))
    served.plan["s2/s2_0216/B02.tif"] = ["503"] * 3
    with pytest.raises(ConfigError, match=r"B02.tif: cannot be fetched, after 3 tries: .* 503"):
        sought(served, tmp_path).open()
    served.plan["s2/s2_0216/B02.tif"] = ["403"]
    with pytest.raises(ConfigError, match="403 Forbidden; the server wants a key"):
        sought(served, tmp_path).open()
    path = served.root / "s2" / "s2_0216" / "B02.tif"
    whole = path.read_bytes()
    path.write_bytes(whole[:1000])
    with pytest.raises(ConfigError, match=rf"it has 1000 bytes, .* says {len(whole)}"):
        sought(served, tmp_path).open()
    path.write_bytes(whole[:-1] + b"?")
    with pytest.raises(ConfigError, match=r"checksum \(sha256\) is another than the"):
        sought(served, tmp_path).open()


def test_find_and_fetch_are_verbs(catalogue, tmp_path, capsys):
    words = ["build.dataset.kind=stac", f"build.dataset.catalogue={catalogue}/catalog.json"]
    words += ["build.dataset.collection=s2", "build.dataset.sensor=sentinel2_l1c"]
    words += ["build.dataset.bands=[B02]", f"data.store={tmp_path}/store"]
    lines = run.find(run.load(*words))
    assert [line.split()[0] for line in lines] == list(CLEAR)
    with pytest.raises(ConfigError, match=r"build\.dataset is of kind synthetic"):
        run.find(run.load("build.dataset.kind=synthetic", f"data.store={tmp_path}/store"))


def test_the_how_to_loads_as_printed(tmp_path):
    """The recipes of docs/howto/gather.md are whole; the least of them is run by test_pages."""
    page = (pathlib.Path(__file__).parents[2] / "docs/howto/gather.md").read_text()
    made = []
    for name, block in re.findall(r"```yaml\n# (\w+\.yaml)\n(build:.*?)```", page, re.DOTALL):
        (tmp_path / name).write_text(block)
        made.append(config.load(Run, [tmp_path / name]).build.dataset)
    assert [type(dataset) for dataset in made] == [Scenes, Scenes, Scenes, Stac]
    assert made[1].after == made[3].after == "2018-05-01"
    assert made[2].series and made[2].scenes[0].files
