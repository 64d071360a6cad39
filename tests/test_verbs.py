"""The verbs from Python: ``swath.train`` is a function to who asks, and a package to imports."""

import inspect
import pydoc
import subprocess
import sys

import pytest

import swath
import swath.run
import swath.train.export
from swath.config import ConfigError
from swath.data.imagery import Imagery
from swath.train.describe import describe
from tests.embed.small import small_store

ROOMS = ("assess", "embed", "predict", "report", "train")
VERBS = (*ROOMS, "baseline", "build", "dry_run", "embed_scene", "evaluate", "export", "load")


@pytest.mark.parametrize("verb", VERBS)
def test_help_shows_the_verb(verb):
    """`help(swath.train)`, and `swath.train?` in a notebook, say how to call it, not what lies in
    the package of that name."""
    found = getattr(swath, verb)
    text = pydoc.plain(pydoc.render_doc(found))
    assert text.startswith(f"Python Library Documentation: function {verb} in module swath.")
    first = inspect.getdoc(found).splitlines()[0]
    assert first in text and "PACKAGE CONTENTS" not in text
    assert f"{verb}{inspect.signature(found)}" in text
    assert next(iter(inspect.signature(found).parameters)) in ("run", "arguments", "settings")


@pytest.mark.parametrize("room", ROOMS)
@pytest.mark.parametrize("early", [True, False], ids=["imported first", "asked first"])
def test_a_verbs_package_is_imported_as_ever(room, early):
    """In every way of writing it, before and after the verb was used; in a process of its own, for
    a package writes its name into its parent when it is imported first."""
    lines = [
        f"import swath.{room}.settings" if room != "report" else "import swath.report.words",
        "import swath",
        f"assert inspect.isfunction(swath.{room}), swath.{room}",
    ]
    code = "\n".join(
        [
            "import inspect, sys",
            *(lines if early else [*lines[1:], lines[0], lines[2]]),
            f"import swath.{room}.{'words' if room == 'report' else 'settings'} as inside",
            "assert inside is sys.modules[inside.__name__] and inspect.ismodule(inside)",
            f"assert getattr(swath.{room}, inside.__name__.split('.')[-1]) is inside",
            f"from swath import {room}",
            f"assert {room} is swath.{room} and inspect.isfunction({room})",
            "import swath.predict.accuracy",
            "assert swath.predict.accuracy.__name__ == 'swath.predict.accuracy'",
        ]
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_importing_swath_imports_nothing_that_computes():
    """A notebook's first cell is over at once; settings are read when they are asked for."""
    code = "import sys, swath; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not {"numpy", "pydantic", "torch", "swath.run"} & set(done.stdout.split())
    assert {*VERBS, "Run", "ConfigError"} <= set(dir(swath)) & set(swath.__all__)


BUILT = {
    "scene": "build={dataset: {kind: scene, imagery: {path: a, sensor: landsat8_oli}}}",
    "folder": "build={dataset: {kind: folder, path: a, sensor: landsat8_oli}}",
    "cube": "build={dataset: {kind: cube, image: a.npy, labels: b.npy}}",
    "nothing": "build=null",
}


@pytest.mark.parametrize("built", BUILT)
def test_a_scene_without_a_sensor_is_taken_for_the_stores(built, monkeypatch):
    """Not for Sentinel-2, whatever it is; and that is said. If nothing tells it, it is asked."""
    opened, lines = [], []
    monkeypatch.setattr(
        swath.run.scene.log, "info", lambda text, *given: lines.append(text % given)
    )
    monkeypatch.setattr(swath.train.export, "load_model", lambda folder: None)
    monkeypatch.setattr(Imagery, "open", lambda self: opened.append(self.known_sensor) or 1 / 0)
    words = ["data.store=s", BUILT[built]]
    given = swath.load(*words, "predict.scene={path: b.tif, sensor: rgb}")
    silent = swath.load(*words, "predict.scene.path=b.tif")
    with pytest.raises(ZeroDivisionError):
        swath.predict(given, progress=False)
    assert opened == ["rgb"] and not lines
    if built in ("scene", "folder"):
        with pytest.raises(ZeroDivisionError):
            swath.predict(silent, progress=False)
        assert opened[1:] == ["landsat8_oli"]
        said = "predict.scene names no sensor; it is taken for landsat8_oli, the store's"
        assert lines == [said]
    else:
        with pytest.raises(
            ConfigError, match=r"b.tif: which sensor took this\? Say it beside path"
        ):
            swath.predict(silent, progress=False)


def test_nothing_to_map_is_told_before_a_scene_is_asked_for(tmp_path):
    """The scene would not help; a run that learned labels is asked for it."""
    store = small_store(tmp_path, samples=12)
    for model, task, message in (
        ("mae", "pretrain", "fill in hidden patches.*init.from="),
        ("vit", "contrast", "compare views of.*embed --scene"),
        ("vit", "classify", "there is no scene to map"),
    ):
        folder = tmp_path / task
        words = [f"model={{kind: {model}, patch: 8}}", f"task={{kind: {task}}}"]
        run = swath.load(f"data.store={store}", f"folder={folder}", *words)
        about = describe(run.job(), run.job().open())
        folder.mkdir()
        swath.train.export.save_model(folder, {}, about)
        with pytest.raises(ConfigError, match=message):
            swath.predict(run)
