"""The command line: every verb on a small real run, and every mistake a line and an exit code."""

import json
import os
import pathlib
import re
import subprocess
import sys
import time

import numpy as np
import pytest
from typer.testing import CliRunner

import swath
from swath import cli
from swath.config import ConfigError

ROOT = pathlib.Path(__file__).parents[1]
VERBS = [[], ["train"], ["evaluate"], ["predict"], ["baseline"], ["report"], ["show"], ["schema"]]
VERBS += [["data"], ["data", "build"], ["data", "show"], ["data", "stats"]]

RECIPE = """\
name: small
build:
  dataset:
    kind: scene
    imagery: {path: scene.tif, sensor: rgb, bands: [red, green, blue]}
    labels: {raster: labels.tif, classes: {"1": water, "2": land}}
    chip: 32
    stride: 16
    block: 32
  split: {by: block, test: 0.3, val: 0.1}
data: {store: stores/small}
model: {kind: unet, width: 8, depth: 1, dropout: 0}
task: {kind: segment}
batch: {samples: 4, micro: 2}
train: {samples: 40, evaluate_every: 20}
baselines: [{kind: forest, trees: 5}, {kind: majority}]
"""


def run(*words: str, folder: pathlib.Path = ROOT) -> subprocess.CompletedProcess:
    """Run ``swath`` as a user does."""
    command = [sys.executable, "-m", "swath", *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)


def invoke(*words: str) -> str:
    """Run a verb in this process and return what it printed; fail if it failed."""
    result = CliRunner().invoke(cli.app, list(words), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture(scope="module")
def lab(tmp_path_factory) -> pathlib.Path:
    """A folder with a scene of two kinds of ground, its labels and a recipe."""
    import rasterio

    folder = tmp_path_factory.mktemp("lab")
    draw = np.random.default_rng(0)
    rows, cols = np.mgrid[:128, :160]
    land = (np.sin(rows / 17) + np.cos(cols / 23) > 0).astype(np.uint8)
    image = 60 + 90 * land[None] + draw.normal(0, 12, (3, *land.shape))
    grid = {
        "crs": "EPSG:32633",
        "transform": rasterio.Affine(10, 0, 500000, 0, -10, 5800000),
        "height": 128,
        "width": 160,
        "dtype": "uint8",
    }
    with rasterio.open(folder / "scene.tif", "w", count=3, **grid) as file:
        file.write(image.clip(1, 255).astype(np.uint8))
        file.descriptions = ("red", "green", "blue")
    with rasterio.open(folder / "labels.tif", "w", count=1, **grid) as file:
        file.write(land + 1, 1)
    (folder / "recipe.yaml").write_text(RECIPE)
    return folder


@pytest.fixture
def inside(lab, monkeypatch) -> pathlib.Path:
    monkeypatch.chdir(lab)
    return lab


@pytest.fixture
def trained(inside) -> pathlib.Path:
    """The lab after ``swath train`` (the first time; then it is done already)."""
    invoke("train", "recipe.yaml")
    return inside


def test_train_builds_the_store_and_leaves_a_model(trained):
    """One command from files to a model; the folder says how it was made."""
    folder = trained / "runs/small"
    for name in ("settings.yaml", "metrics.jsonl", "model.safetensors", "model.json"):
        assert (folder / name).exists(), name
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["update"] for line in lines if "loss" in line] == list(range(1, 11))
    same = swath.load(trained / "recipe.yaml", f"folder={folder}")
    assert swath.load(folder) == same


def test_training_again_in_the_folder_changes_nothing(trained):
    """`swath train` resumes by itself; a finished run is finished."""
    weights = (trained / "runs/small/model.safetensors").read_bytes()
    invoke("train", "recipe.yaml")
    assert (trained / "runs/small/model.safetensors").read_bytes() == weights


def test_the_way_from_scene_to_report(trained):
    """predict, evaluate, baseline, report: each leaves what it says, and the table has all."""
    import rasterio

    (made,) = invoke("predict", "recipe.yaml").split()[-1:]
    with rasterio.open(made) as file, rasterio.open(trained / "scene.tif") as scene:
        assert (file.crs, file.transform, file.shape) == (scene.crs, scene.transform, scene.shape)
    told = invoke("evaluate", "runs/small")
    for words in ("oa ", "User's acc.", "Producer's acc.", "Adjusted ha", "confusion: rows are"):
        assert words in told
    assert re.search(r"^water +[\d.]+ ± [\d.]+ % ", told, re.MULTILINE)
    kept = json.loads((trained / "runs/small/scores.json").read_text())["map"]
    assert {"confusion", "users", "producers", "area"} <= kept.keys()
    table = invoke("baseline", "recipe.yaml")
    assert [name for name in ("unet", "forest, pixel", "majority") if name not in table] == []
    page = trained / invoke("report", "runs/small").strip()
    assert "<html" in page.read_text()


@pytest.mark.parametrize("launcher", ["torchrun", "srun"])
@pytest.mark.parametrize(
    "verb",
    [["data", "build"], ["data", "show"], ["predict"], ["baseline"], ["report"]],
    ids=" ".join,
)
def test_a_verb_of_one_process_is_refused_to_several(inside, monkeypatch, verb, launcher):
    """All of them would write the same files; tasks of srun do so even if they cannot meet."""
    settings = {"WORLD_SIZE": "4", "RANK": "0", "MASTER_ADDR": "x"}
    for name, value in settings.items() if launcher == "torchrun" else []:
        monkeypatch.setenv(name, value)
    if launcher == "srun":
        monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "4")
    said = f"swath {' '.join(verb)} runs as one process, and 4 were started; start it without"
    with pytest.raises(ConfigError, match=said):
        invoke(*verb, "recipe.yaml", "name=several", "data.store=stores/several")
    assert not (inside / "runs/several").exists() and not (inside / "stores/several").exists()


@pytest.mark.parametrize("rank", [0, 1])
def test_of_several_ranks_the_first_writes_the_scores(trained, monkeypatch, rank):
    """All score, for each has a share of the samples; the second neither writes nor speaks."""
    import swath.train.setup

    monkeypatch.setattr(swath.train.setup, "score", lambda job: {"oa": 0.5})
    monkeypatch.setattr(swath.run, "FOLDER", "none")
    written = trained / "runs/small/scores.json"
    written.unlink(missing_ok=True)
    for name, value in {"WORLD_SIZE": "2", "RANK": str(rank), "MASTER_ADDR": "x"}.items():
        monkeypatch.setenv(name, value)
    told = invoke("evaluate", "recipe.yaml")
    assert written.exists() == ("0.5000" in told) == (rank == 0)
    assert bool(told) == (rank == 0)


def test_a_run_folder_that_was_copied_is_that_folder(trained, capsys):
    """Its settings do not say where it is; and ``folder=`` still wins."""
    import shutil

    shutil.copytree(trained / "runs/small", trained / "elsewhere/a copy=1")
    before = {p: p.stat().st_mtime_ns for p in (trained / "runs/small").rglob("*")}
    swath.run.evaluate(swath.load("elsewhere/a copy=1"))
    assert (trained / "elsewhere/a copy=1/scores.json").exists()
    assert {p: p.stat().st_mtime_ns for p in (trained / "runs/small").rglob("*")} == before
    assert swath.load("elsewhere/a copy=1", "folder=here").place == pathlib.Path("here")


def test_a_map_of_another_model_is_not_scored_as_this_ones(trained, caplog):
    """Nor do its figures stay in scores.json, where the report would take them."""
    import shutil

    folder = trained / "runs/mapped"
    shutil.copytree(trained / "runs/small", folder)
    swath.predict(swath.load(folder))
    assert swath.run.evaluate(swath.load(folder)).keys() == {"model", "map"}
    assert "map" in json.loads((folder / "scores.json").read_text())
    swath.train(swath.load("recipe.yaml", "name=another", "seed=5", "train.samples=20"))
    for name in ("model.json", "model.safetensors"):
        shutil.copy(trained / "runs/another" / name, folder / name)
    assert swath.run.evaluate(swath.load(folder)).keys() == {"model"}
    assert "another model made this map; run swath predict" in caplog.text
    assert json.loads((folder / "scores.json").read_text()).keys() == {"model"}


@pytest.mark.parametrize("name", ["scores.json", "baselines.json"])
@pytest.mark.parametrize("content", ["", '{"model": {"oa"', "3"])
def test_torn_figures_are_said(trained, name, content):
    folder = trained / "runs/torn"
    folder.mkdir(exist_ok=True)
    for path in folder.iterdir():
        path.unlink()
    (folder / name).write_text(content)
    with pytest.raises(ConfigError, match=rf"{name}: is damaged; swath (evaluate|baseline) writes"):
        swath.run.compared(swath.load("recipe.yaml", "name=torn"))


def test_a_second_process_is_told_that_a_folder_is_in_use(trained):
    """Two at work in one folder would spoil each other's files."""
    from swath.lock import lock

    run, folder = swath.load("recipe.yaml"), trained / "runs/small"
    said = r"small: another process \(swath train, pid"
    with lock(folder / ".lock", "swath train"), pytest.raises(ConfigError, match=said):
        swath.train(run)
    said = r"map: another process \(swath predict, pid"
    with lock(folder / "map/.scene.lock", "swath predict"), pytest.raises(ConfigError, match=said):
        swath.predict(run)


def test_no_right_to_write_is_a_line(capsys, monkeypatch):
    def refused(*_):
        raise PermissionError(13, "Permission denied", "runs/small/scores.json")

    monkeypatch.setattr(swath.run, "evaluate", refused)
    monkeypatch.setattr(sys, "argv", ["swath", "evaluate", "data.store=s"])
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert left.value.code == 2
    assert capsys.readouterr().err == "swath: runs/small/scores.json: Permission denied\n"


def test_the_store_is_shown(inside):
    """Look before you train: pictures, and classes per part."""
    invoke("data", "build", "recipe.yaml")
    shown = [pathlib.Path(line) for line in invoke("data", "show", "recipe.yaml").split()]
    assert shown and all((inside / p).read_bytes().startswith(b"\x89PNG") for p in shown)
    text = invoke("data", "stats", "recipe.yaml")
    assert "water" in text and "red" in text


def test_figures_of_baselines_are_json(inside, monkeypatch):
    """What is no number is null: NaN is no JSON, and browsers and jq stop at it."""
    import swath.baselines

    figures = {"name": "forest", "oa": float("nan"), "users": np.array([0.5, np.nan])}
    monkeypatch.setattr(swath.baselines, "fit_and_score", lambda *_, **__: figures)
    swath.run.baseline(swath.load("recipe.yaml", "name=nothing"))
    text = (inside / "runs/nothing/baselines.json").read_text()
    assert "NaN" not in text
    assert json.loads(text)[0] == {"name": "forest", "oa": None, "users": [0.5, None]}
    assert "forest" in swath.run.comparison(swath.load("recipe.yaml", "name=nothing"))


def test_pictures_of_a_store_at_an_address_are_refused(inside):
    """They are written beside the store; nothing is made where a folder of that name would lie."""
    with pytest.raises(ConfigError, match="s3://b/x: pictures are written beside the store"):
        swath.run.pictures(swath.load("recipe.yaml", "data.store=s3://b/x"))
    assert not (inside / "s3:").exists()


def test_show_says_where_each_value_was_written(inside):
    """The value, its file and line or word, and what it means; and it loads again."""
    text = invoke("show", "recipe.yaml", "seed=3", "--docs")
    lines = {line.split("#")[0].strip(): line for line in text.splitlines()}
    assert lines["seed: 3"].endswith("# 'seed=3'")
    assert lines["name: small"].endswith("# recipe.yaml:1")
    assert lines["warmup: 0"].endswith("# default")
    assert "Samples over which the rate rises" in text
    (inside / "shown.yaml").write_text(text)
    assert swath.load("shown.yaml") == swath.load("recipe.yaml", "seed=3")


def test_show_of_a_part_and_of_the_kinds(inside):
    """Long texts have a way to the part that is wanted."""
    assert invoke("show", "recipe.yaml", "--only", "batch").split("#")[0].strip() == "samples: 4"
    kinds = invoke("show", "--kinds")
    for kind in ("scene", "unet", "vit", "segment", "adamw", "forest"):
        assert f" {kind} " in kinds


def test_the_schema_is_json(inside):
    """An editor reads it from a file that this was sent to."""
    assert json.loads(invoke("schema"))["title"] == "Run"


def test_a_signal_saves_and_leaves_with_a_code_of_its_own(trained):
    """A job script tests for 75 and submits itself again; the line says that nothing is lost."""
    words = ["train", "recipe.yaml", "name=stopped", "train.samples=1000000"]
    command = [sys.executable, "-m", "swath", *words]
    process = subprocess.Popen(command, cwd=trained, stderr=subprocess.PIPE, text=True)
    record = trained / "runs/stopped/metrics.jsonl"
    end = time.monotonic() + 100
    while time.monotonic() < end and not (record.exists() and record.read_text()):
        time.sleep(0.1)
    process.terminate()
    _, said = process.communicate(timeout=60)
    assert process.returncode == 75, said
    assert re.search(r"swath: SIGTERM: saved after update \d+; the same command goes on", said)
    assert list((trained / "runs/stopped/checkpoints").iterdir())


def test_a_run_that_diverges_says_where(trained, capsys, monkeypatch):
    """One line with the update and the parameter, in place of a traceback."""
    words = ["train", "recipe.yaml", "name=wild", "optim.lr=1e30", "train.clip=null"]
    monkeypatch.setattr(sys, "argv", ["swath", *words])
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert left.value.code == 1
    assert re.search(r"swath: update \d+ \(samples \d+ to \d+\): gradient", capsys.readouterr().err)


def test_verbs_that_need_no_torch_do_not_import_it(inside):
    """They answer at once; torch alone takes seconds to import."""
    code = (
        "import sys; from swath import cli; sys.argv = ['swath', 'show', 'recipe.yaml', '--docs'];"
        "\ntry: cli.main()\nexcept SystemExit: pass\n"
        "slow = {'torch', 'rasterio', 'scipy', 'sklearn', 'matplotlib', 'tensorstore'}\n"
        "sys.exit(str(slow & set(sys.modules)) if slow & set(sys.modules) else 0)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert found.returncode == 0, found.stderr


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_help_says_what_a_verb_does(verb):
    """Every verb has a sentence and, where it takes settings, says what they are."""
    text = invoke(*verb, "--help")
    assert len(text) > 150
    if verb not in ([], ["data"], ["schema"]):
        assert "FILE.yaml" in text and "KEY=VALUE" in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "no.yaml"], "swath: no.yaml: cannot be read: No such file or directory"),
        (["train"], "swath: name a settings file, such as"),
        (["train", "trian"], "swath: 'trian' is neither a file, nor a run folder, nor key=value"),
        (["train", "recipe.yaml", "optim.lrr=1"], "swath: 'optim.lrr=1': optim.lrr: AdamW has no"),
        (["train", "recipe.yaml", "batch.samples=64"], "less than one update of batch.samples=64"),
        (["train", "recipe.yaml", "schedule.warmup=99"], "warmup=99 is longer than the run"),
        (["train", "recipe.yaml", "task=null"], "there is no task: training needs a model and"),
        (["train", "recipe.yaml", "data.split={by: random}"], "data.split beside build.split"),
        (["train", "recipe.yaml", "name=a/b"], "name='a/b' names a folder"),
        (["train", "recipe.yaml", f"seed={10**23}"], "a seed is a number from 0 to 4294967295"),
        (["train", "recipe.yaml", "folder=/proc/1/x"], "swath: /proc/1/x: cannot be written: "),
        (["data", "build", "recipe.yaml", "data.store=/proc/1/x"], "/proc/1/x: cannot be written"),
        (["predict", "recipe.yaml", "name=untrained"], "there is no trained model"),
        (["evaluate", "stores"], "swath: stores: no run folder"),
        (["report", "recipe.yaml", "name=untrained"], "swath train"),
        (["show", "recipe.yaml", "--only", "optimm"], "there is no 'optimm'; there are name, seed"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "",
)
def test_a_mistake_is_one_line_and_exit_code_2(lab, words, message):
    """No traceback: what is wrong, and what to do."""
    (lab / "stores").mkdir(exist_ok=True)
    result = run(*words, folder=lab)
    assert result.returncode == 2, result.stderr
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_other_settings_in_an_old_folder_are_refused(trained, capsys, monkeypatch):
    """Half a curve of one experiment and half of another is worth nothing."""
    monkeypatch.setattr(sys, "argv", ["swath", "train", "recipe.yaml", "optim.lr=0.5"])
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert left.value.code == 2
    assert "optim.lr was 0.001 there and is 0.5 now" in capsys.readouterr().err


def test_the_report_shows_examples_in_the_runs_precision(trained, monkeypatch):
    """With its threads too: what the page shows is what was scored."""
    from swath.report import page

    seen = []
    monkeypatch.setattr(page, "examples", lambda *given: seen.append(given[2:]))
    run = swath.load("runs/small", "train.precision=bf16", "compute.threads=1")
    swath.run.report(run)
    assert seen == [("bf16", run.compute)]


@pytest.mark.parametrize("verb", ["evaluate", "predict"])
def test_a_model_other_than_the_trained_one_is_not_silently_that_one(trained, verb):
    with pytest.raises(
        ConfigError, match=r"model.width was 8 there and is 64 now; a trained model"
    ):
        invoke(verb, "runs/small", "model.width=64")
    with pytest.raises(ConfigError, match=r"seed was 0 there and is 3 now"):
        invoke(verb, "recipe.yaml", "seed=3")


def test_python_and_the_command_line_are_the_same(trained):
    """`swath.train(run)` is the verb; the packages of that name stay packages."""
    import swath.train.settings

    chosen = swath.load("recipe.yaml")
    assert swath.train(chosen).keys() >= {"val/oa"} or swath.train(chosen)
    assert os.fspath(swath.report(chosen)).endswith("report.html")
    assert swath.train.settings.TrainSettings() == chosen.train.__class__()
    with pytest.raises(ConfigError, match="no field 'sede'"):
        swath.load("recipe.yaml", "sede=1")
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        swath.trian  # noqa: B018
