"""What the how-to pages on gathering and pretraining show runs as printed, and side by side."""

import pathlib
import re
import shlex

import numpy as np
import rasterio
import yaml

from swath.data.sensor import load_sensor
from tests.geo.rasters import place, write
from tests.lab import invoke

ROOT = pathlib.Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs/howto").glob("*.md"))]
RECIPES = sorted((ROOT / "recipes/brandenburg").glob("*.yaml"))
S2 = load_sensor("sentinel2_l2a").names
DRAW = np.random.default_rng(0)


def files(page: pathlib.Path, part: str = "") -> dict[str, str]:
    """Return the settings files of a page by name, of one of its parts if that is named."""
    text = page.read_text().partition(f"\n## {part}\n" if part else "\n")[2]
    text = text.partition("\n## ")[0] if part else text
    found = re.findall(r"^( *)```yaml\n *# (\w+\.yaml)(.*?)```", text, re.DOTALL | re.MULTILINE)
    return {name: re.sub(f"^{indent}", "", f"#{rest}", flags=re.M) for indent, name, rest in found}


def commands(page: pathlib.Path, part: str) -> list[list[str]]:
    text = page.read_text().partition(f"\n## {part}\n")[2].partition("\n## ")[0]
    blocks = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
    lines = [shlex.split(line, comments=True) for block in blocks for line in block.splitlines()]
    return [line for line in lines if line]


def scene(path: str, bands: int = 1, metres: float = 10.0, size: int = 64, at: int = 0, **given):
    """Write a GeoTIFF of ``bands``, ``at`` so many sizes to the east."""
    pixels = DRAW.integers(500, 3000, (bands, size, size), dtype=np.uint16) + given.pop("more", 0)
    there = place(metres) @ rasterio.Affine.translation(at * size, 0)
    values = (pixels / 100 - 30).astype(np.float32) if given.pop("db", False) else pixels
    write(pathlib.Path(path), values, there, **given)


def test_the_least_of_gathering_runs(tmp_path, monkeypatch):
    """Files without names of bands, dates or clouds, of a sensor that nobody knows."""
    monkeypatch.chdir(tmp_path)
    page, part = ROOT / "docs/howto/gather.md", "The least that is needed"
    for name, text in files(page, part).items():
        pathlib.Path(name).write_text(text)
    for number in range(6):
        scene(f"data/tiles/{number}.tif", bands=3, at=2 * number)
    built, stats, shown = (invoke(*line[1:]) for line in commands(page, part))
    assert built.strip().endswith("stores/tiles") and "stores/tiles-chips.png" in shown
    assert all(band in stats for band in ("green", "red", "near_infrared"))


def test_several_sensors_run_as_printed(tmp_path, monkeypatch):
    """From files of four sensors to the features of one that the run never saw; only the network
    and the run are made smaller."""
    monkeypatch.chdir(tmp_path)
    for number in range(4):
        folder = f"data/sentinel2/S2A_MSIL2A_2018070{number + 1}T101021.SAFE/GRANULE/a/IMG_DATA"
        for band in S2:
            scene(f"{folder}/R10m/T33_{band}_10m.tif", at=2 * number)
        scene(f"data/sentinel1/{number}.tif", bands=2, at=2 * number, db=True)
        for band in ["B1", "B2", "B3", "B4", "B5"]:
            place_ = {"metres": 30.0, "at": 2 * number}
            scene(f"data/landsat8/LC08_2018070{number + 1}/a_{band}.TIF", more=7000, **place_)
            scene(f"data/landsat7/LE07_2002070{number + 1}/a_{band}.TIF", **place_)
    page, part = ROOT / "docs/howto/pretrain.md", "Several sensors"
    small = {"width: 128, depth: 4, heads: 4, patch: 4": "width: 16, depth: 1, heads: 2, patch: 16",
             "decoder_width: 64": "decoder_width: 16", "25_600": "64"}  # fmt: skip
    for name, text in files(page, part).items():
        for before, after in small.items():
            text = text.replace(before, after)
        pathlib.Path(name).write_text(text)
    lines = commands(page, part)
    assert len(lines) == 7
    for line in lines:
        invoke(*line[1:])
    assert "val@sentinel1/loss" in pathlib.Path("runs/sensors/metrics.jsonl").read_text()
    assert {p.stem.split("-")[0] for p in pathlib.Path("runs/sensors/embed").glob("*.zarr")} == {
        "landsat7",
        "landsat8",
    }


def test_the_pages_can_be_followed_in_one_folder():
    """Files, runs and stores of one name on two pages are the same: none is refused because another
    page's is there, nor the demo's."""
    seen: dict[tuple[str, str], str] = {}
    every = {str(path.relative_to(ROOT)): path.read_text() for path in RECIPES}
    for page in PAGES:
        every |= {f"{page.name}: {name}": text for name, text in files(page).items()}
    assert len(every) > 20
    for where, text in every.items():
        settings = yaml.safe_load(text)
        names = [("file", where.rpartition(": ")[2])]
        if {"name", "task"} <= settings.keys():
            names.append(("run", settings["name"]))
        if "build" in settings:
            names.append(("store", settings["data"]["store"]))
        for name in names:
            assert seen.setdefault(name, where) == where, f"{name}: {seen[name]} and {where}"
