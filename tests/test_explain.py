"""What ``swath show`` tells of settings: all of them, in the words that one would type."""

import dataclasses
import re

import pytest
from typer.testing import CliRunner

from swath import cli, config, explain
from swath.config import ConfigError
from swath.data.sensor import load_sensor, sensors
from swath.models import Model
from swath.settings import COLLECTIONS, Run
from tests.lab import invoke

RECIPE = "model: {kind: unet}\ntask: {kind: segment}\ndata: {store: s}\n"


def shown(*words: str) -> str:
    result = CliRunner().invoke(cli.app, ["show", *words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_without_a_recipe_all_fields_are_explained():
    """A newcomer has none yet: `swath show --docs` is every field of every kind, once."""
    text = shown("--docs")
    assert "# What the run is called; its folder is runs/NAME.\nname: run\n" in text
    for choice in COLLECTIONS.values():
        for kind in config.kinds(choice):
            cls = config.find(choice, kind)
            assert re.search(rf"# -- .*\n *kind: {kind}\n", text), kind
            for field in dataclasses.fields(cls):
                assert re.search(rf"^ *{field.name}:", text, re.MULTILINE), field.name
                assert " ".join(config.docs(cls)[field.name].split()[:4]) in text, field.name
    assert "store:  # needed" in text
    assert "encoder: plain  # one of plain, resnet18, resnet34, resnet50" in text
    assert re.search(r"^optim:  # kind: adamw if nothing is said; or:\n  # -- ", text, re.MULTILINE)
    assert re.search(r"^build: null  # or:\n  # The files and their labels", text, re.MULTILINE)


def test_values_are_written_as_they_are_typed(tmp_path):
    """None, in YAML, is a word of four letters: what can be typed is null."""
    (tmp_path / "r.yaml").write_text(RECIPE)
    for text in (shown("--docs"), shown(str(tmp_path / "r.yaml"), "--docs")):
        assert not re.search(r"\b(None|True|False)\b", text)
        assert "null: runs/NAME" in text and "folder: null" in text


@pytest.mark.parametrize(
    ("only", "begins"),
    [
        ("optim.adamw.lr", "# Peak learning rate, tuned for"),
        ("model.unet", "# -- Encoder and decoder"),
        ("predict.scene", "# A folder with one file per band"),
        ("seed", "# Of everything random"),
    ],
)
def test_a_part_is_explained_alone(only, begins):
    text = shown("--docs", "--only", only)
    assert text.startswith(begins)
    assert len(text) < 4000


@pytest.mark.parametrize(
    ("only", "message"),
    [
        ("modle", r"modle: there is no 'modle' \(did you mean 'model'\?\)"),
        ("train, xyz", "xyz: there is no 'xyz'; there are name, seed, folder, build"),
        ("model.xyz", f"model.xyz: there is no 'xyz'; there are {', '.join(config.kinds(Model))}"),
        ("build.dataset.imagery", r"no 'imagery' \(did you mean 'build.dataset.scene.imagery'\?\)"),
        ("seed.x", "seed.x: there is nothing in seed"),
    ],
)
def test_a_part_that_is_not_there_is_said(only, message):
    with pytest.raises(ConfigError, match=message):
        explain.reference(Run, only)


def test_parts_are_shown_together(inside):
    """A list with commas; each part under its name."""
    text = invoke("show", "recipe.yaml", "--only", "train,optim.lr")
    assert text.startswith("# train\nsamples: 40 ") and re.search(r"\n# optim.lr\n0.001 ", text)
    text = shown("--docs", "--only", "train,seed")
    assert text.startswith("# train\n# Length of the run") and "\n# seed\n# Of everything" in text


def test_sensors_are_listed_with_their_bands():
    """Whoever has to say which sensor it was must learn what there is to say."""
    text = shown("--kinds")
    for name in sensors():
        (line,) = re.findall(rf"^sensor +{name} +(.+)$", text, re.MULTILINE)
        known = load_sensor(name)
        assert f"{len(known.bands)} bands" in line and len(line) > 40
        assert known.names[0] in line and known.names[-1] in line
    line = re.search(r"sentinel2_l2a +(.+)", text)[1]
    assert line.startswith("Sentinel-2 MSI, level 2A: reflectance at the surface")
    assert "; 12 bands at 10, 20, 60 m: B01, B02" in line
