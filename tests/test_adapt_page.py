"""The commands of docs/howto/adapt.md run as the page shows them."""

import json
import pathlib
import re
import shlex
import shutil

from swath.config import load
from swath.settings import Run
from tests.lab import RECIPE, invoke

PAGE = pathlib.Path(__file__).parents[1] / "docs/howto/adapt.md"


def test_the_example_runs_and_its_runs_began_with_the_pretrained_weights(
    lab, tmp_path, monkeypatch
):
    """After README's pretraining, to a score; the vit takes all of the encoder."""
    shutil.copytree(lab, tmp_path / "lab", ignore=shutil.ignore_patterns("runs"))
    monkeypatch.chdir(tmp_path / "lab")
    small = "width: 16, depth: 2, heads: 2"
    recipe = RECIPE.replace("width: 8, depth: 1, dropout: 0", "width: 8, depth: 1")
    pathlib.Path("mine.yaml").write_text(
        recipe.replace("samples: 40, evaluate_every: 20", "samples: 8")
    )
    page = PAGE.read_text()
    (name, encoder) = re.search(r"```yaml\n# (\w+\.yaml)\n(.*?)```", page, re.DOTALL).groups()
    pathlib.Path(name).write_text(encoder.replace("width: 96, depth: 4, heads: 3", small))
    filling = f"model={{kind: mae, {small}, patch: 4}}"
    invoke("train", "mine.yaml", "name=pretrained", filling, "task={kind: pretrain}")
    (block,) = re.findall(r"```bash\n(.*?)```", page, re.DOTALL)
    for line in block.splitlines():
        invoke(*shlex.split(line)[1:])
    pretrained = json.loads(pathlib.Path("runs/pretrained/model.json").read_text())["sha256"]
    for name in ("probe", "lora", "full"):
        settings = load(Run, [pathlib.Path(f"runs/{name}/settings.yaml")])
        assert settings.init is not None and settings.init.sha256 == pretrained
    assert json.loads(pathlib.Path("runs/full/scores.json").read_text())["model"]["samples"] > 0


def test_the_settings_of_the_page_are_settings():
    """Each block of YAML that shows ways to adapt, or decoders, line by line."""
    blocks = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    for word, words in (("probe", ["adapt={}"]), ("upernet", ["task.kind=segment", "model={}"])):
        (block,) = (b for b in blocks if word in b)
        for line in block.splitlines():
            given = line.split("#")[0].split(":", 1)[1].strip()
            load(Run, [], ["data.store=s", *(each.replace("{}", given) for each in words)])
