"""Items as Earth Search, the Planetary Computer, CDSE and USGS write them, cut to what matters.

The layouts follow public items in the tests of odc-stac and stactools.
"""

import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest

from swath.config import ConfigError
from swath.data.build import build
from swath.data.imagery import Imagery
from swath.data.split import Split
from swath.datasets._clouds import Clouds
from swath.datasets.scenes import Scenes
from swath.datasets.stac import Stac
from tests.datasets.test_stac import Server, serving
from tests.geo.rasters import write

pytest.importorskip("pystac")
TIFF = "image/tiff; application=geotiff; profile=cloud-optimized"
S2_NM = {"B02": ("blue", 0.49), "B03": ("green", 0.56), "B04": ("red", 0.665)}
S2_NM |= {"B05": ("rededge1", 0.704), "B08": ("nir", 0.842), "B8A": ("nir08", 0.865)}
OLI = {"B2": ("blue", 0.48), "B3": ("green", 0.56), "B4": ("red", 0.65), "B5": ("nir08", 0.86)}


def item(name, assets, **properties):
    about = {"datetime": "2023-06-25T10:00:00Z", **properties}
    ring = [[12.4, 52.4], [12.6, 52.4], [12.6, 52.6], [12.4, 52.4]]
    return {
        "type": "Feature", "stac_version": "1.0.0", "id": name, "bbox": [12.4, 52.4, 12.6, 52.6],
        "geometry": {"type": "Polygon", "coordinates": [ring]}, "collection": "c",
        "properties": about, "links": [], "assets": assets,
    }  # fmt: skip


def asset(href, eo=None, raster=None, **more):
    found = {"href": href, "type": TIFF, "roles": ["data"], **more}
    found |= {} if eo is None else {"eo:bands": [eo]}
    return found | ({} if raster is None else {"raster:bands": [raster]})


def earth_search(name="S2A_33UUU_0_L2A", root="https://cogs", **properties):
    """COGs by common name, JPEG 2000 on s3 beside them with the same bands, a preview."""
    raster = {"scale": 1e-4, "offset": -0.1, "data_type": "uint16"}
    assets = {}
    for band, (common, um) in S2_NM.items():
        eo = {"name": common, "common_name": common, "center_wavelength": um}
        assets[f"{common}-jp2"] = asset(
            f"s3://sentinel-s2-l2a/{band}.jp2", eo, raster, type="image/jp2"
        )
        assets[common] = asset(f"{root}/{name}/{band}.tif", eo, raster, gsd=10)
    assets["preview"] = asset(
        "https://cogs/p.jpg", {"name": "red", "center_wavelength": 0.665}, roles=["thumbnail"]
    )
    assets["scl-jp2"] = asset("s3://sentinel-s2-l2a/SCL.jp2", type="image/jp2")
    assets["scl"] = asset(f"{root}/{name}/SCL.tif", gsd=20)
    return item(name, assets, **properties)


def planetary(**properties):
    """Keys as ESA's, no raster:bands, files that have to be signed."""
    at = "https://sentinel2l2a01.blob.core.windows.net/sentinel2-l2"
    assets = {
        band: asset(f"{at}/{band}_10m.tif", {"name": band, "center_wavelength": um})
        for band, (_, um) in S2_NM.items()
    }
    assets["visual"] = asset(f"{at}/TCI.tif") | {"eo:bands": [{"name": b} for b in S2_NM][:3]}
    assets["SCL"] = asset(f"{at}/SCL_20m.tif")
    return item("S2B_MSIL2A", assets, **properties)


def cdse(**properties):
    """STAC 1.1: every band in each resolution it was made in, on s3, with an alternate."""
    assets = {}
    for band, size in [(b, m) for b in (*S2_NM, "SCL") for m in (60, 20, 10)]:
        if size < {"B05": 20, "B8A": 20, "SCL": 20}.get(band, 10):
            continue
        key = f"{band}_{size}m"
        assets[key] = {
            "href": f"s3://eodata/{key}.jp2", "type": "image/jp2", "gsd": size,
            "roles": ["data", f"gsd:{size}m"], "raster:scale": 1e-4, "raster:offset": -0.1,
            "alternate": {"https": {"href": f"https://zipper/Nodes({key}.jp2)/$value"}},
            "file:size": 7, "file:checksum": "1620" + hashlib.sha3_256(b"content").hexdigest(),
        }  # fmt: skip
        if band != "SCL":
            about = {"name": band, "eo:center_wavelength": S2_NM[band][1]}
            assets[key]["bands"] = [about]
    about = {"datetime": None, "start_datetime": "2025-03-30T10:00:51Z"}
    about |= {"end_datetime": "2025-03-30T10:01:51Z", "constellation": "sentinel-2"}
    return item("S2C", assets, **about, **{"processing:version": "05.11"}, **properties) | {
        "stac_version": "1.1.0"
    }


def landsat(name="LC09", platform="landsat-9", prefix="SR_", **more):
    """Collection 2 level 2, as stactools makes it for the Planetary Computer and Earth Search."""
    raster = {"scale": 2.75e-5, "offset": -0.2, "data_type": "uint16"}
    assets = {
        common: asset(
            f"s3://usgs-landsat/{b}.TIF",
            {"name": f"{prefix}{b}", "common_name": common, "center_wavelength": um},
            raster,
            alternate={"usgs": {"href": f"https://landsatlook/{name}_{b}.TIF"}},
        )
        for b, (common, um) in OLI.items()
    }
    assets["lwir11"] = asset(
        "https://landsatlook/B10.TIF", {"name": "ST_B10", "center_wavelength": 10.9},
        {"scale": 0.00341802, "offset": 149.0},
    )  # fmt: skip
    assets["qa_pixel"] = asset("https://landsatlook/QA_PIXEL.TIF", roles=["cloud"])
    return item(name, assets, platform=platform, **more)


def sought(tmp_path, *items, **given) -> Stac:
    """Return the settings for a static catalogue of ``items``."""
    root = tmp_path / "catalogue"
    root.mkdir(exist_ok=True)
    links = [{"rel": "item", "href": f"./{one['id']}.json"} for one in items]
    for one in items:
        (root / f"{one['id']}.json").write_text(json.dumps(one))
    top = {"type": "Catalog", "stac_version": "1.0.0", "id": "c", "description": "of a test"}
    (root / "catalog.json").write_text(json.dumps(top | {"links": links}))
    settings = {"catalogue": str(root / "catalog.json"), "collection": "c", "chip": 16}
    settings |= {"sensor": "sentinel2_l2a", "bands": tuple(S2_NM), "tries": 1}
    return Stac(**{**settings, "folder": str(tmp_path / "fetched"), **given})


def found(tmp_path, *items, **given):
    (one,) = sought(tmp_path, *items, **given).find()
    return one, {band: asset.href.rpartition("/")[2] for band, asset in one.assets.items()}


def test_each_publisher_s_assets_are_found(tmp_path):
    """The right key, format and resolution, without ``assets``."""
    clouds = Clouds(most=0.1)
    tifs = {band: f"{band}.tif" for band in (*S2_NM, "SCL")}
    assert found(tmp_path, earth_search(), clouds=clouds)[1] == tifs
    one, files = found(tmp_path, planetary(), clouds=clouds)
    assert files == {b: f"{b}_{20 if b == 'SCL' else 10}m.tif" for b in tifs}
    one, files = found(tmp_path, cdse(), clouds=clouds)
    size = {"B05": 20, "B8A": 20, "SCL": 20}
    assert {asset.href for asset in one.assets.values()} == {
        f"https://zipper/Nodes({b}_{size.get(b, 10)}m.jp2)/$value" for b in tifs
    }
    assert one.assets["B02"].file == "B02.jp2" and one.when == "2025-03-30T10:00:51"
    total = hashlib.sha3_256(b"content").hexdigest()
    assert one.assets["B02"].checksum == f"sha3_256:{total}"
    for prefix in ("SR_", "OLI_", ""):
        given = {"sensor": "landsat8_oli", "bands": tuple(OLI), "clouds": clouds}
        one, files = found(tmp_path, landsat(prefix=prefix), **given)
        assert files == {b: f"LC09_{b}.TIF" for b in OLI} | {"QA_PIXEL": "QA_PIXEL.TIF"}
    with pytest.raises(ConfigError, match="no asset for band B8; there are"):
        found(tmp_path, landsat(), sensor="landsat8_oli", bands=("B8",))  # and not green


def test_satellites_are_chosen(tmp_path):
    """A collection has Landsat 7 and 9; either is written in several ways."""
    items = [landsat(), landsat("LE07", "LANDSAT_7")]
    given = {"sensor": "landsat8_oli", "bands": ("B2",)}
    for platform, name in (("LANDSAT_9", "LC09"), ("landsat-7", "LE07")):
        assert found(tmp_path, *items, platforms=(platform,), **given)[0].id == name
    with pytest.raises(ConfigError, match=r"no item of c fits: .*platforms \['landsat-5'\]"):
        found(tmp_path, *items, platforms=("landsat-5",), **given)


@pytest.mark.parametrize(
    ("one", "scale", "offset"),
    [
        (earth_search(), 1e-4, -0.1),  # as raster:bands says
        (earth_search(**{"earthsearch:boa_offset_applied": True}), 1e-4, 0.0),
        (
            earth_search(
                **{"earthsearch:boa_offset_applied": False, "s2:processing_baseline": "04.00"}
            ),
            1e-4,
            -0.1,
        ),
        (earth_search(**{"s2:processing_baseline": "02.14"}), 1e-4, 0.0),
        (planetary(**{"s2:processing_baseline": "05.09"}), None, -0.1),
        (planetary(**{"s2:processing_baseline": "02.12"}), None, 0.0),
        (planetary(), None, None),
        (cdse(), 1e-4, -0.1),
    ],
)
def test_what_counts_stand_for_is_read(tmp_path, one, scale, offset):
    item, _ = found(tmp_path, one)
    assert (item.scale, item.offset) == (scale, offset)


def test_bands_that_are_counted_differently_are_refused(tmp_path):
    given = {"sensor": "landsat8_oli", "bands": ("B2", "B10")}
    item, _ = found(tmp_path, landsat(), **given | {"bands": ("B2",)})
    assert (item.scale, item.offset) == (2.75e-5, -0.2)
    with pytest.raises(ConfigError, match=r"differently \(scale: B2 2.75e-05, B10 0.00341802\)"):
        found(tmp_path, landsat(), **given)


def test_scenes_with_and_without_the_offset_are_one_store(tmp_path):
    """The same ground before and after baseline 04.00, and once with the offset taken off: all
    chips hold the same reflectance, nothing that was not observed becomes a value."""
    counts = np.random.default_rng(0).integers(1, 4000, (16, 16)).astype(np.uint16)
    later = (counts + 1000).astype(np.uint16)
    counts[0, 0] = later[0, 0] = 0  # no data
    items = []
    for name, pixels, baseline, taken_off in (
        ("old", counts, "02.14", False),
        ("new", later, "05.09", False),
        ("off", counts, "05.09", True),
    ):
        about = {"s2:processing_baseline": baseline, "earthsearch:boa_offset_applied": taken_off}
        items.append(earth_search(name, str(tmp_path), **about))
        for band in ("B02", "B03"):
            write(tmp_path / name / f"{band}.tif", pixels)
    dataset = sought(tmp_path, *items, bands=("B02", "B03"))
    store = build(dataset, tmp_path / "store", Split(val=0, test=0), progress=False)
    modality = store.modality("image")
    assert (modality.sensor.scale, modality.sensor.offset) == (1e-4, -0.1)
    images = store.read(np.arange(3)).result()["image"]
    np.testing.assert_array_equal(images, np.broadcast_to(later, (3, 2, 16, 16)))
    scenes = Scenes(
        scenes=tuple(
            Imagery(
                path=str(tmp_path / name), sensor="sentinel2_l2a", bands=("B02",), offset=offset
            )
            for name, offset in (("new", -0.1), ("old", None))
        ),
        chip=16,
    )
    store = build(scenes, tmp_path / "scenes", Split(val=0, test=0), progress=False)
    images = store.read(np.arange(2)).result()["image"]
    np.testing.assert_array_equal(images, np.broadcast_to(later, (2, 1, 16, 16)))
    other = replace(scenes.scenes[1], scale=2e-4)
    with pytest.raises(ConfigError, match=r"differ: new .* 0.0001 a count.* old .* 0.0002 a count"):
        replace(scenes, scenes=(scenes.scenes[0], other)).open()


@pytest.fixture
def served(tmp_path):
    (tmp_path / "served").mkdir()
    with serving(tmp_path / "served") as server:
        yield server


def test_the_planetary_computer_signs_its_own_files(tmp_path, monkeypatch):
    """Those that are not signed yet, and nobody else's; what has no place for them is refused."""
    dataset = sought(tmp_path, planetary(), bands=("B02",))
    items, asked = dataset.find(), []
    monkeypatch.setattr("swath.datasets.stac.fetch", lambda wanted, **_: asked.extend(wanted))
    dataset.fetch(items)
    there = "https://planetarycomputer.microsoft.com/api"
    replace(dataset, catalogue=f"{there}/stac/v1").fetch(items)
    assert [one.sign for one in asked] == [None, f"{there}/sas/v1/sign?href={{href}}"]
    with pytest.raises(ConfigError, match=r"sign='https://x' has no {href} in it, as in https://"):
        replace(dataset, sign="https://x")
    with pytest.raises(ConfigError, match=r"B04: 'visual#red' is no key .* such as visual#1"):
        replace(dataset, assets={"B04": "visual#red"})


def test_files_that_want_a_key_are_told_or_taken(tmp_path, served: Server, monkeypatch):
    """s3 without an alternate: what to do, and a file brought by hand is taken. A signer, a token,
    a page to log in, and a checksum of another kind, against the local server."""
    one = earth_search()
    one["assets"] = {"blue": one["assets"]["blue-jp2"]}
    dataset = sought(tmp_path, one, bands=("B02",))
    place = tmp_path / "fetched/c/S2A_33UUU_0_L2A/B02.jp2"
    with pytest.raises(ConfigError, match=rf"aws s3 cp s3://sentinel-s2-l2a/B02.jp2 {place}, and"):
        dataset.fetch(dataset.find())
    place.parent.mkdir(parents=True)
    place.touch()
    assert dataset.fetch(dataset.find(), progress=False).files == 0

    (served.root / "B02.jp2").write_bytes(b"content")
    two = cdse()
    two["assets"] = {"B02_10m": two["assets"]["B02_10m"]}
    two["assets"]["B02_10m"]["alternate"]["https"]["href"] = f"{served.address}/B02.jp2"
    (served.root / "signed").write_text(json.dumps({"href": f"{served.address}/B02.jp2"}))
    dataset = sought(tmp_path, two, bands=("B02",), token="A_KEY")
    with pytest.raises(ConfigError, match=r"token=A_KEY: there is no such .*export A_KEY"):
        dataset.fetch(dataset.find())
    served.plan["B02.jp2"] = ["403"]
    dataset = sought(tmp_path, two, bands=("B02",))
    with pytest.raises(ConfigError, match=r"403 .*wants a key.* bring the file to .*c/S2C/B02.jp2"):
        dataset.fetch(dataset.find(), progress=False)
    served.plan["B02.jp2"] = ["page"]
    with pytest.raises(ConfigError, match=r"sends a web page and no image; .*log in"):
        dataset.fetch(dataset.find(), progress=False)
    (served.root / "B02.jp2").write_bytes(b"CONTENT")
    with pytest.raises(ConfigError, match=r"checksum \(sha3_256\) is another"):
        dataset.fetch(dataset.find(), progress=False)
    (served.root / "B02.jp2").write_bytes(b"content")
    monkeypatch.setenv("A_KEY", "secret")
    dataset = sought(
        tmp_path, two, bands=("B02",), sign=f"{served.address}/signed#{{href}}", token="A_KEY"
    )
    served.plan["signed"] = ["404"]
    with pytest.raises(ConfigError, match=r"the server that signs answers 404 .*Correct sign"):
        dataset.fetch(dataset.find(), progress=False)
    assert dataset.fetch(dataset.find(), progress=False).bytes == 7
    assert served.keys[-2:] == [None, "Bearer secret"]  # the signer is shown no token
    assert (tmp_path / "fetched/c/S2C/B02.jp2").read_bytes() == b"content"
