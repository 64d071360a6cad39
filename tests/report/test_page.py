"""The page: whole, self-contained, and alive in a browser."""

import dataclasses
import json
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass

import numpy as np
import pytest

from swath.config import ConfigError
from swath.data.settings import DataSettings
from swath.predict.evaluate import figures_of, write_scores
from swath.predict.map import predict
from swath.predict.settings import Predict
from swath.report.page import write
from swath.train.export import save_model
from tests.predict.small import LAND, untrained, write_scene

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
NEEDS_BROWSER = pytest.mark.skipif(
    BROWSER is None, reason="no chromium on this machine (apt-get install chromium)"
)


@dataclass(frozen=True, kw_only=True)
class Settings:
    name: str = "small <one>"
    predict: Predict = dataclasses.field(default_factory=Predict)


def test_pictures_of_the_page_warn_of_nothing(tmp_path):
    """They have no place on the Earth and need none; a run without maps opens no raster before. In
    a process of its own: rasterio's warning comes once."""
    code = (
        "import warnings; warnings.simplefilter('error')\n"
        "import numpy as np; from swath.report.images import jpeg, png, shade_png\n"
        "grey = np.full((8, 8, 3), 90, np.uint8)\n"
        "print(jpeg(grey)[:15], png(grey)[:14], shade_png(np.ones((4, 4)))[:14])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["data:image/jpeg", "data:image/png", "data:image/png"]


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The report of a run folder with everything but a store."""
    folder = tmp_path_factory.mktemp("run")
    imagery = write_scene(folder)
    model = untrained()
    save_model(folder, model.network.state_dict(), model.about)
    with imagery.open() as scene:
        paths = predict(model, scene, Predict(uncertainty=True), folder / "map")
    import rasterio

    with rasterio.open(paths["classes"]) as raster:
        found = raster.read(1)
    truth = np.where(np.arange(found.size).reshape(found.shape) % 5, found, 1).astype(np.uint8)
    figures = figures_of(found, truth, LAND.classes, 0.01)
    write_scores(folder, "map", {"file": "scene.tif", "part": "test", "split": "block", **figures})
    lines = [
        f'{{"update": {i}, "samples": {8 * i}, "loss": {2 / i}, "lr": 0.001}}' for i in range(1, 30)
    ]
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    return write(
        folder,
        name="small <one>",
        settings=Settings(),
        data=DataSettings(store=str(folder / "none")),
        rows=[{"name": "unet", **figures}, {"name": "forest, pixel", "oa": 0.4, "balanced": 0.3}],
        scores={"map": {"part": "test", "split": "block", **figures}},
        imagery=imagery,
    )


def browse(page, *flags):
    """What headless Chromium makes of the page."""
    return subprocess.run(
        [
            BROWSER,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--no-first-run",
            f"--user-data-dir={page.parent / 'browser'}",
            *flags,
            page.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_the_page_is_one_file_without_a_network(page):
    """Every picture is inside; nothing is fetched from anywhere."""
    text = page.read_text()
    sources = re.findall(r'(?:src|href)="([^"]*)"', text)
    assert sources and all(s.startswith(("data:", "#")) for s in sources)
    assert not re.search(r"@import|url\(|fetch\(|https?://", text)
    assert sorted(p.name for p in page.parent.iterdir() if p.suffix == ".html") == ["report.html"]


def test_the_page_says_what_the_run_holds(page):
    text = page.read_text()
    assert re.search("\\d\N{NARROW NO-BREAK SPACE}\\d{3} reference pixels", text)
    assert "small &lt;one&gt;" in text and "<one>" not in text
    for words in ("The map", "Against the baselines", "Olofsson", "Training", "forest, pixel"):
        assert words in text
    for name in LAND.classes:
        assert name in text
    assert 'class="uncertainty"' in text and 'class="reference"' not in text


@NEEDS_BROWSER
def test_the_page_runs_in_a_browser(page):
    """Scripts run to their end: values stand below the curves, the slider has set the opacity."""
    done = browse(page, "--dump-dom", "--enable-logging=stderr", "--log-level=0")
    assert re.search(r"training <b>[\d.]+</b>", done.stdout)
    assert re.search(r'class="classes"[^>]*style="opacity: 0\.65', done.stdout)
    assert "CONSOLE" not in done.stderr, done.stderr


@NEEDS_BROWSER
@pytest.mark.parametrize("dark", [False, True])
def test_the_page_looks_as_meant(page, tmp_path, dark):
    """Light on light, dark on dark, and the map's colours in the middle of it."""
    from matplotlib.image import imread

    picture = tmp_path / "page.png"
    flags = ["--blink-settings=preferredColorScheme=0"] if dark else []
    browse(page, f"--screenshot={picture}", "--window-size=1200,1100", "--hide-scrollbars", *flags)
    pixels = imread(picture)[..., :3]
    assert pixels.shape[:2] == (1100, 1200)
    paper = pixels[:, :20].mean()
    assert paper < 0.2 if dark else paper > 0.9
    middle = pixels[450:900, 300:900]
    assert (middle.max(2) - middle.min(2)).mean() > 0.1, "there is no coloured map"


def test_an_unfinished_run_says_so_and_what_to_do(tmp_path, monkeypatch):
    """At the top; a run at its end, or out of patience, says nothing of the kind."""
    state = tmp_path / "checkpoints/00000013/state.json"
    state.parent.mkdir(parents=True)
    (tmp_path / "metrics.jsonl").write_text('{"update": 13, "samples": 832, "loss": 2.0}\n')

    def page(samples, **others):
        train = {"samples": samples, "patience": 3}
        numbers = {"samples": 832, "stale": 0, "settings": {"train": train, "batch": BATCH}}
        state.write_text(json.dumps(numbers | others))
        data = DataSettings(store=str(tmp_path / "none"))
        return write(tmp_path, name="x", settings=Settings(), data=data).read_text()

    said = page(6400)
    assert "832 of 6\N{NARROW NO-BREAK SPACE}400 samples, unfinished." in said
    assert f"<code>swath export {tmp_path}</code> adds the model as it stands here." in said
    assert "swath baseline" not in said, "the settings have none"
    assert "unfinished" not in page(890) and "unfinished" not in page(6400, stale=3)
    model = untrained()
    save_model(tmp_path, model.network.state_dict(), model.about)
    assert "swath evaluate" not in page(890), "there is no store to score it on"
    monkeypatch.setattr("swath.report.page.has_test", lambda data: True)
    said = page(890)
    assert f"<code>swath evaluate {tmp_path}</code> adds accuracy here." in said
    assert "swath export" not in said


BATCH = {"samples": 64, "micro": 16}


def test_an_empty_folder_is_said(tmp_path):
    with pytest.raises(ConfigError, match="nothing to report on yet: no model, no figures"):
        write(tmp_path / "run", name="x", settings=Settings(), data=DataSettings(store="nowhere"))
