"""A map knows its scene: it is not written over another's, nor taken for it."""

import dataclasses
import json
import pathlib
import shutil

import pytest
import rasterio

import swath
from swath.config import ConfigError
from swath.models import Outputs
from swath.predict.evaluate import score_maps
from swath.predict.map import predict
from swath.predict.origin import read_origin, same_scene
from swath.predict.settings import Predict
from swath.train.export import LoadedModel
from tests.lab import invoke
from tests.predict.small import untrained, write_scene

QUICK = Predict(overlap=0.0)


@pytest.fixture(scope="module")
def model():
    return untrained()


def another(folder: pathlib.Path, seed: int):
    """A scene called "scene" in a folder of its own, on the same ground as all others."""
    folder.mkdir(exist_ok=True)
    return write_scene(folder, 40, 40, seed=seed, hole=False)


def pixels(path):
    with rasterio.open(path) as raster:
        return raster.read()


def test_scenes_of_one_name_have_maps_of_their_own(model, tmp_path, caplog):
    """image.tif in ten folders is ten scenes; the map of the first stays what it is."""
    first, second = (another(tmp_path / name, seed) for seed, name in enumerate("ab"))
    with first.open() as scene:
        path = predict(model, scene, QUICK, tmp_path / "map")["classes"]
    before = path.read_bytes()
    with second.open() as scene:
        apart = predict(model, scene, QUICK, tmp_path / "map")["classes"]
    assert path.name == "scene.tif" and path.read_bytes() == before
    assert apart.name.startswith("scene-") and (pixels(apart) != pixels(path)).any()
    said = f"scene.tif is the map of another scene of that name ({tmp_path}/a/scene.tif); this one"
    assert said in caplog.text and "predict.scene.name=NAME calls it otherwise" in caplog.text
    with second.open() as scene:  # again: its own map
        assert predict(model, scene, QUICK, tmp_path / "map")["classes"] == apart
    assert len(list((tmp_path / "map").glob("*.tif"))) == 2


def test_the_map_of_a_scene_begun_is_not_taken_by_another(model, tmp_path):
    first, second = (another(tmp_path / name, seed) for seed, name in enumerate("ab"))

    def interrupt(done, strips):
        if done == 1:
            raise KeyboardInterrupt

    with first.open() as scene, pytest.raises(KeyboardInterrupt):
        predict(model, scene, QUICK, tmp_path / "map", progress=interrupt)
    with second.open() as scene:
        apart = predict(model, scene, QUICK, tmp_path / "map")["classes"]
    told = []
    with first.open() as scene:
        predict(model, scene, QUICK, tmp_path / "map", progress=lambda *n: told.append(n[0]))
    assert apart.name != "scene.tif" and told[0] == 1  # it went on


def test_a_scene_is_the_same_wherever_it_lies(model, tmp_path):
    """A run folder and its imagery may be copied to another machine."""
    imagery = another(tmp_path / "a", 0)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    moved = dataclasses.replace(imagery, path=str(tmp_path / "b/scene.tif"))
    for one in (imagery, moved):
        with one.open() as scene:
            assert predict(model, scene, QUICK, tmp_path / "map")["classes"].name == "scene.tif"
    origin = read_origin(tmp_path / "map/scene.tif")
    assert origin.scene == "scene" and origin.path == str(tmp_path / "a/scene.tif")
    assert same_scene({"red": "1", "nir": "2"}, {"red": "1"})
    assert not same_scene({"red": "1", "nir": "2"}, {"red": "1", "nir": "3"})
    assert not same_scene({"red": "1"}, {"nir": "1"})


def test_a_finished_map_is_left_and_not_written_over(model, tmp_path, caplog):
    """As a store and a run are: the same again is there already, another one is refused."""
    caplog.set_level("INFO", "swath")
    imagery, folder = another(tmp_path, 0), tmp_path / "map"
    with imagery.open() as scene:
        path = predict(model, scene, QUICK, folder)["classes"]
        before = path.stat()
        assert predict(model, scene, dataclasses.replace(QUICK, windows_at_once=1), folder)
        assert "scene.tif: is there, made by this model" in caplog.text
        with pytest.raises(ConfigError, match=r"other settings: predict.overlap was 0.0"):
            predict(model, scene, Predict(overlap=0.25), folder)
    counted = dataclasses.replace(imagery, scale=2.0)  # the same file, read otherwise
    with (
        counted.open() as scene,
        pytest.raises(ConfigError, match=r"scene's scale was None and is 2.0"),
    ):
        predict(model, scene, QUICK, folder)
    assert path.stat() == before
    path.rename(folder / "first.tif")
    with counted.open() as scene:
        predict(model, scene, QUICK, folder)
    path.write_bytes((tmp_path / "scene.tif").read_bytes())
    with imagery.open() as scene, pytest.raises(ConfigError, match="is no map that swath predict"):
        predict(model, scene, QUICK, folder)


def test_layers_of_an_older_map_are_removed(model, tmp_path, caplog):
    """Probabilities of last week's model beside this week's classes would be believed."""
    folder = tmp_path / "map"
    with another(tmp_path, 0).open() as scene:
        paths = predict(model, scene, Predict(overlap=0.0, probabilities=True), folder)
        predict(model, scene, QUICK, folder)
        assert paths["probabilities"].exists()  # of the same map
        caplog.set_level("INFO", "swath")
        predict(untrained(seed=1), scene, QUICK, folder)
    assert sorted(p.name for p in folder.glob("*.tif*")) == ["scene.tif", "scene.tif.aux.xml"]
    assert "scene_probabilities.tif: was removed: it belonged to the map that this" in caplog.text


def test_only_the_map_of_the_scene_is_scored_and_shown(trained, caplog, monkeypatch):
    """Another date on the same ground, in a file of the same name: with its own map, and that map
    alone, nothing is scored as if it were the scene that the store was built from."""
    folder = trained / "runs/two"
    shutil.copytree(trained / "runs/small", folder)
    (trained / "later").mkdir()
    with rasterio.open("scene.tif") as file:
        image, about, names = file.read(), file.profile, file.descriptions
    with rasterio.open("later/scene.tif", "w", **about) as file:
        file.write(255 - image)
        file.descriptions = names
    shutil.rmtree(folder / "map", ignore_errors=True)
    later = invoke("predict", "runs/two", "predict.scene.path=later/scene.tif").split()[-1]
    assert later == "runs/two/map/scene.tif"
    assert swath.run.evaluate(swath.load("runs/two")).keys() == {"model"}
    assert "is left out: it is the map of another scene" in caplog.text
    with pytest.raises(ConfigError, match=r"is the map of another scene \(.*later/scene.tif\)"):
        score_maps([later], swath.build(swath.load("runs/two")))
    own = invoke("predict", "runs/two").split()[-1]
    assert own != later
    scores = swath.run.evaluate(swath.load("runs/two"))
    assert scores["map"]["file"] == pathlib.Path(own).name
    kept = json.loads((folder / "scores.json").read_text())["map"]
    assert kept["file"] == pathlib.Path(own).name and (pixels(later) != pixels(own)).any()
    monkeypatch.setattr(LoadedModel, "outputs", Outputs(channels=1, dense=True))
    with pytest.raises(ConfigError, match="task gives 1 channel for each pixel; a map of mask"):
        swath.run.evaluate(swath.load("runs/two"))
    page = swath.report(swath.load("runs/two")).read_text()
    assert pathlib.Path(own).name in page
