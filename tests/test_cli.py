"""The command line: every verb on a small real run, and every mistake a line and an exit code."""

import json
import pathlib
import re
import signal
import subprocess
import sys
import time

import pytest

import swath
from swath import cli
from swath.config import ConfigError
from tests.lab import invoke

ROOT = pathlib.Path(__file__).parents[1]
VERBS = [
    [],
    ["train"],
    ["export"],
    ["evaluate"],
    ["predict"],
    ["embed"],
    ["probe"],
    ["similar"],
    ["anomalies"],
    ["baseline"],
    ["report"],
    ["show"],
    ["schema"],
]
VERBS += [["assess"], ["data"]]
VERBS += [["data", verb] for verb in ("build", "find", "fetch", "show", "stats")]


def run(*words: str, folder: pathlib.Path = ROOT) -> subprocess.CompletedProcess:
    """Run ``swath`` as a user does."""
    command = [sys.executable, "-m", "swath", *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)


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
    told = invoke("train", "recipe.yaml")
    assert (trained / "runs/small/model.safetensors").read_bytes() == weights
    assert re.search(
        r"^runs/small/model.safetensors: the model after update \d+  val/loss 0\.", told
    )
    verbs = ("predict", "evaluate", "baseline", "report")
    assert "  (a pixel counts in every chip that shows it)\nnext: " in told
    assert told.endswith(f"\nnext: {', '.join(f'swath {v} runs/small' for v in verbs)}\n")


def test_the_way_from_scene_to_report(trained):
    """predict, evaluate, baseline, report: each leaves what it says, and the table has all."""
    import rasterio

    (made,) = invoke("predict", "recipe.yaml").split()[-1:]
    with rasterio.open(made) as file, rasterio.open(trained / "scene.tif") as scene:
        assert (file.crs, file.transform, file.shape) == (scene.crs, scene.transform, scene.shape)
    told = invoke("evaluate", "runs/small")
    assert "model, on the held-out part (a pixel counts in every chip that shows it):\n" in told
    assert "map, on the held-out part (every pixel counts once):\n" in told
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
    [["data", "build"], ["data", "show"], ["baseline"], ["report"]],
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
    assert invoke("data", "stats", "stores/small") == text  # a store says it as well as a recipe
    assert [pathlib.Path(p) for p in invoke("data", "show", "stores/small").split()] == shown


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
    at = 4 * int(re.search(r"after update (\d+)", said)[1])
    with pytest.raises(
        ConfigError, match=rf"is unfinished, at sample {at} of 1000000\. swath train"
    ):
        invoke("predict", "runs/stopped")
    assert invoke("export", "runs/stopped").strip() == "runs/stopped/model.safetensors"
    told = json.loads((trained / "runs/stopped/model.json").read_text())
    assert 0 < told["samples"] <= at and told["samples"] == 4 * told["update"]
    assert (trained / invoke("predict", "runs/stopped", "predict.overlap=0").split()[-1]).exists()


def test_a_run_that_diverges_says_where(trained, capsys, monkeypatch):
    """One line with the update and the parameter, in place of a traceback."""
    words = ["train", "recipe.yaml", "name=wild", "optim.lr=1e30", "train.clip=null"]
    monkeypatch.setattr(sys, "argv", ["swath", *words])
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert left.value.code == 1
    assert re.search(r"swath: update \d+ \(samples \d+ to \d+\): gradient", capsys.readouterr().err)


SLOW = {"torch", "numpy._core", "rasterio", "odc", "pyproj", "shapely", "scipy", "sklearn"}
SLOW |= {"matplotlib", "tensorstore", "safetensors", "jinja2"}


@pytest.mark.parametrize(
    "words",
    [["show", "recipe.yaml", "--docs"], ["show", "--docs"], ["show", "--kinds"], ["schema"]],
    ids=" ".join,
)
def test_verbs_that_only_read_settings_import_nothing_that_computes(inside, words):
    """They answer at once; torch alone takes seconds to import, numpy a fifth of `show`."""
    code = (
        f"import sys; from swath import cli; sys.argv = ['swath', *{words}]"
        "\ntry: cli.main()\nexcept SystemExit: pass\n"
        f"sys.exit(str({SLOW} & set(sys.modules)) if {SLOW} & set(sys.modules) else 0)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    assert len(found.stdout) > 500


def test_numpy_is_there_for_whoever_uses_it_after_all(inside):
    """A model of one's own may import it, or a part of it, when settings are read."""
    lines = "import numpy as np\nimport numpy.linalg\nfrom numpy import pi\n\n"
    lines += "from dataclasses import dataclass\nfrom swath.models import Model\n\n"
    lines += "assert np.linalg.norm(np.ones(4)) == 2 and np.pi == pi\n\n"
    lines += "@dataclass(frozen=True, kw_only=True)\nclass Own(Model):\n    a: float = float(pi)\n"
    (inside / "ownmodel.py").write_text(lines)
    command = [sys.executable, "-m", "swath", "show", "recipe.yaml", "model={kind: 'ownmodel:Own'}"]
    found = subprocess.run(command, capture_output=True, text=True, cwd=inside)
    assert found.returncode == 0 and "a: 3.14" in found.stdout, found.stderr


def test_the_version_is_printed():
    assert invoke("--version") == f"swath {swath.__version__}\n"


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_help_says_what_a_verb_does(verb):
    """Every verb has a sentence and an example, and says what settings are where it takes them."""
    text = invoke(*verb, "--help")
    assert len(text) > 150
    assert verb in ([], ["data"]) or f"swath {' '.join(verb)} " in text.partition("  Example")[2]
    if verb not in ([], ["data"], ["schema"]):
        assert "FILE.yaml" in text and "KEY=VALUE" in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "no.yaml"], "swath: no.yaml: there is no such file; looked for /"),
        (["train"], "swath: name a settings file, such as mine.yaml, or a run folder, such as"),
        (["train", "Recipe.yml"], "there is no such file (did you mean recipe.yaml?)"),
        (["train", "recipe.yaml", "seed", "=", "1"], "a word has no spaces around its ="),
        (["predict", "scene.tif"], "swath: scene.tif: is no settings file, which would be text"),
        (["train", "trian"], "swath: 'trian' is neither a file, nor a run folder, nor key=value"),
        (["train", "recipe.yaml", "optim.lrr=1"], "swath: 'optim.lrr=1': optim.lrr: adamw has no"),
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
        (
            ["show", "recipe.yaml", "--only", "optimm"],
            "there is no 'optimm' (did you mean 'optim'?)",
        ),
        (["train", "--seed", "1"], "No such option: --seed"),
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


def test_a_process_that_the_system_ends_says_where():
    """As it does when a file that is mapped becomes shorter: no Python error can be raised then."""
    code = "import signal as s, swath.cli as c; c.app = lambda: s.raise_signal(s.SIGBUS); c.main()"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.returncode == -signal.SIGBUS
    assert "Fatal Python error: Bus error" in ended.stderr and "cli" in ended.stderr
