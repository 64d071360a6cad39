"""What the verbs do with a run folder, from the command line and from Python alike."""

import json
import os
import pathlib

import numpy as np
import pytest

import swath
from swath.config import ConfigError
from tests.lab import invoke


@pytest.mark.parametrize("rank", [0, 1])
def test_of_several_ranks_the_first_writes_the_scores(trained, monkeypatch, rank):
    """All score, for each has a share of the samples; the second neither writes nor speaks."""
    import swath.train.score

    monkeypatch.setattr(swath.train.score, "score", lambda job: {"oa": 0.5})
    monkeypatch.setattr(swath.run.scores, "MAPS", "none")
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


REFUSED = [
    (["predict", "data.bands=[red]"], "data.bands was None there and is ['red'] now; a trained"),
    (["predict", "batch.micro=4"], "batch.micro was 2 there and is 4 now; a trained model is"),
    (
        ["predict", "data.store=stores/x"],
        "data.store has no effect on swath predict: predict.s",
    ),
    (["predict", "train.keep=9"], "train.keep has no effect on swath predict; leave it out"),
    (["predict", "baselines=[]"], "baselines has no effect on swath predict; leave it out"),
    (
        ["evaluate", "build.split.test=0.5"],
        "build.split.test has no effect on swath evaluate",
    ),
    (
        ["evaluate", "predict={overlap: 0}"],
        "predict.overlap has no effect on swath evaluate: i",
    ),
    (["report", "model.width=64"], "model.width was 8 there and is 64 now; a trained model is"),
    (
        ["report", "predict.tile=64"],
        "predict.tile has no effect on swath report: it shows",
    ),
    (
        ["baseline", "data.balance=0.5"],
        "data.balance has no effect on swath baseline; leave",
    ),
    (["data build", "seed=3"], "seed has no effect on swath data build: build.split.seed is that"),
    (["probe", "predict.overlap=0.2"], "predict.overlap has no effect on swath probe: vectors are"),
    (
        ["embed", "predict.tile=64"],
        "predict.tile has no effect on swath embed: vectors are of the store's samples; of a scene",
    ),
    (["data stats", "optim.lr=1"], "optim.lr has no effect on swath data stats; leave it out"),
]


@pytest.mark.parametrize(("words", "said"), REFUSED, ids=lambda value: " ".join(value))
def test_a_word_that_a_verb_would_not_heed_is_refused(trained, words, said):
    """It would be ignored in silence, and the user believe that it was not."""
    verb, word = words
    with pytest.raises(ConfigError) as caught:
        invoke(*verb.split(), "runs/small", word)
    assert said in str(caught.value)


def test_words_that_say_which_run_is_meant_are_welcome(trained):
    """The same words behind every verb, as the README has it; and what a verb does heed."""
    words = ["recipe.yaml", "name=worded", "optim.lr=2e-3", "train.samples=20"]
    invoke("train", *words)
    for verb in ("predict", "evaluate", "baseline", "report"):
        invoke(verb, *words, "compute.threads=1")
    assert (trained / "runs/worded/report.html").exists()
    with pytest.raises(ConfigError, match=r"^'optim.lr=3e-3': optim.lr has no effect on swath bas"):
        invoke("baseline", "recipe.yaml", "name=worded", "optim.lr=3e-3")


def test_a_folder_of_other_settings_is_told_before_anything_is_gathered(trained):
    """The store of the new settings is not built first, which can take hours."""
    words = ["recipe.yaml", "seed=5", "data.store=stores/never"]
    for ranks in ([], ["--ranks", "2"]):
        with pytest.raises(ConfigError, match=r"runs/small belongs to other settings: seed was 0 "):
            invoke("train", *words, *ranks)
    assert not (trained / "stores/never").exists()


def test_a_model_is_not_scored_under_a_build_that_was_not_made(trained):
    """From Python, or after an edit of the recipe: nothing is built anew by scoring."""
    text = (trained / "recipe.yaml").read_text().replace("test: 0.3", "test: 0.2")
    (trained / "edited.yaml").write_text(text)
    with pytest.raises(
        ConfigError,
        match=r"small: was built from other settings: split.test is 0.3 in the sto",
    ):
        swath.run.evaluate(swath.load("edited.yaml"))


@pytest.mark.parametrize(
    ("word", "said"),
    [
        (
            "build.dataset={kind: folder, folder: x}",
            "folder has no field 'folder' (did you mean",
        ),
        (
            "build.dataset={kind: scene, imagery: {path: a, sensor: rgb}, labels: {raster: b, "
            "classes: [sea, land]}}",
            "labels.classes: expected pairs, such as {1: sea, 2: land}, got a list",
        ),
        ("model=unet", "expected settings, such as model: {kind: unet}, got 'unet'"),
        ("train.samples=2k", "train.samples: expected integer, got '2k'; write 2000"),
        ("train.epochs=3", "train has no field 'epochs' (did you mean 'samples'?)"),
        ("optim.learning_rate=1", "adamw has no field 'learning_rate' (did you mean 'lr'?)"),
        (
            "samples=10",
            "a run has no field 'samples' (did you mean 'batch.samples' or 'train.samples'?)",
        ),
        ("lr=1e-3", "a run has no field 'lr' (did you mean 'optim.lr'?)"),
        ("epochs=3", "(did you mean 'batch.samples' or 'train.samples'?)"),
        ("trian.samples=3", "a run has no field 'trian' (did you mean 'train'?)"),
        ("baselines=forest", "expected a list, such as baselines: [{kind: forest}], got 'forest'"),
        ("baselines=[forest]", "expected settings, such as baselines: [{kind: forest}], got 'f"),
        ("data=null", "data: expected settings, such as data: {store: ...}"),
    ],
)
def test_first_mistakes_are_answered_with_what_to_write(word, said):
    """What newcomers typed; each message shows the way that it is written here."""
    with pytest.raises(ConfigError) as caught:
        swath.load("data.store=s", word)
    assert said in str(caught.value)


def test_a_misspelt_run_folder_is_told_the_one_that_was_meant(trained):
    with pytest.raises(ConfigError, match=r"as seed=1 \(did you mean runs/small\?\)$"):
        swath.load("runs/smal")
    with pytest.raises(ConfigError, match=r"as seed=1; run folders are runs/"):
        swath.load("runs/quite_another")


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("build.dataset.imagery.path=a.tif", "build.dataset.imagery.path: a.tif: there is no such"),
        ("build.dataset.labels.raster=b.tif", "build.dataset.labels.raster: b.tif: there is no"),
        (
            "build.dataset.imagery.sensor=rgbb",
            "build.dataset.imagery.sensor: no sensor 'rgbb'",
        ),
        ("data.store=stores/c build=null", "data.store: stores/c: there is no such store"),
    ],
)
def test_what_is_not_there_is_told_with_its_setting(inside, word, said):
    """Several settings name files; which of them has to be mended?"""
    run = swath.load("recipe.yaml", "name=lacking", "data.store=stores/lacking", *word.split())
    with pytest.raises(ConfigError) as caught:
        swath.build(run, progress=False)
    assert str(caught.value).startswith(said)


def test_a_store_stands_for_the_setting_that_names_it(inside):
    swath.build(swath.load("recipe.yaml"), progress=False)
    assert swath.load("stores/small").data.store == "stores/small"
    assert swath.load("recipe.yaml", "stores/small", "seed=1").data.store == "stores/small"


def test_a_run_without_data_is_told_what_a_run_needs():
    with pytest.raises(ConfigError) as caught:
        swath.load("seed=1")
    assert str(caught.value).endswith(
        "a run needs 'data' (Which store, bands and normalisation, written data: {store: ...}); "
        "swath show --docs tells every setting, swath show --kinds what there is to choose from"
    )
