"""`swath assess`: each cell is what the other verbs would say, is measured once, whoever measures,
and what is wrong is told before anything is measured."""

import contextlib
import csv
import dataclasses
import json
import pathlib
import re
import signal
import subprocess
import time
import types

import pytest

from swath import run as runs
from swath.assess import measure as measuring
from swath.assess import verb
from swath.assess.cells import cells
from swath.assess.identity import of
from swath.assess.measure import Measuring
from swath.assess.plan import Plan
from swath.assess.settings import Assess, Downstream
from swath.assess.ways import Way
from swath.assess.work import _take
from swath.config import ConfigError
from swath.parallel.world import World
from swath.train.init import checksum
from swath.train.interrupt import Interrupted
from tests.lab import invoke

TASK = """\
build:
  dataset: {kind: synthetic, samples: 60, size: 8, bands: 2, label: class, noise: 2.0}
  split: {by: block, test: 0.3, val: 0.2}
data: {store: store}
model: {kind: vit, width: 8, depth: 1, heads: 1, patch: 4, pool: mean}
task: {kind: classify}
batch: {samples: 4, micro: 2}
train: {samples: 8}
probe: {neighbours: 5}
"""
ASSESS = """\
name: small
models: {scratch: null, other: {from: other.safetensors}}
tasks: {land: {run: [task.yaml]}}
ways:
  knn: null
  linear: null
  full: {tries: [optim.lr=1e-3, optim.lr=1e-2]}
  probe: {models: [scratch]}
shares: [0.1, 1]
seeds: [0]
baselines: [{kind: majority}]
"""


def set_up() -> None:
    """Write the files of a comparison into the folder that the test is in."""
    import torch
    from safetensors.torch import save_file

    pathlib.Path("task.yaml").write_text(TASK)
    pathlib.Path("assess.yaml").write_text(ASSESS)
    run = runs.load("task.yaml")
    from swath.train.describe import describe, network

    runs.build(run, progress=False)
    torch.manual_seed(9)
    model = network(dataclasses.replace(run, seed=7).job(), describe(run.job(), run.data.open()))
    save_file(model.state_dict(), "other.safetensors")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a comparison that was gone through."""
    path = tmp_path_factory.mktemp("assess")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(path)
        set_up()
        path.joinpath("told").write_text(invoke("assess", "assess.yaml"))
    return path


def records(folder=pathlib.Path("assess/small")):
    found = folder.glob("cells/**/*.json")
    return {str(p.relative_to(folder)): json.loads(p.read_text()) for p in sorted(found)}


def test_all_is_measured_and_told(folder, monkeypatch):
    monkeypatch.chdir(folder)
    told = (folder / "told").read_text()
    assert "land: Overall accuracy, on the held-out part" in told
    assert re.search(r"way +model +10 % \(3\) +100 % \(36\)\nbaseline  majority  ", told)
    assert re.search(r"\nfull +other - scratch  [+-]0\.", told)
    assert "land: other is ahead of scratch in " in told and " of 6 comparisons, behind in " in told
    unknown = "whether other has learned from images of the test places is not known: there is"
    assert f"\nland: {unknown}" in told
    rows = list(csv.DictReader(pathlib.Path("assess/small/results.csv").read_text().splitlines()))
    assert len(rows) == len(records()) == 2 * (1 + 3 * 2 + 1)
    summary = json.loads(pathlib.Path("assess/small/results.json").read_text())
    assert {(r["way"], r["model"]) for r in summary} == {(r["way"], r["model"]) for r in rows}
    assert "| full | other - scratch | " in pathlib.Path("assess/small/results.md").read_text()
    page = pathlib.Path("assess/small/report.html").read_text()
    assert unknown in page and unknown in pathlib.Path("assess/small/results.md").read_text()
    assert page.count("<svg") == 4 and "http" not in page.replace("http://www.w3.org", "")
    assert not pathlib.Path("assess/small/runs/land/full/other/1-0").exists()
    known = {name for cell in records().values() for name in cell}
    assert known >= {"figures", "of", "seconds", "labels", "validated", "chosen", "share_touching"}


def test_a_cell_is_what_the_other_verbs_say(folder, monkeypatch):
    """Typed by hand: train with so many labels from these weights, then evaluate; probe."""
    monkeypatch.chdir(folder)
    record = records()["cells/land/full/other/0.1-0.json"]
    words = ["adapt={kind: full}", record["chosen"], "init.from=other.safetensors", "name=hand"]
    hand = runs.load("task.yaml", *words, "data.labels={share: 0.1, seed: 0}")
    figures = runs.train(hand)
    assert figures["val/oa"] == pytest.approx(record["validated"][record["chosen"]])
    assert record["validated"][record["chosen"]] == max(record["validated"].values())
    assert records()["cells/land/full/other/1-0.json"]["labels"] == 36  # samples, not their blocks
    assert runs.evaluate(hand)["model"]["oa"] == pytest.approx(record["figures"]["oa"])


def test_features_are_scored_as_the_probe_scores_them(folder, monkeypatch):
    """All labels: `swath probe` of a run whose model is those very weights."""
    from swath.embed.probe import probe
    from swath.embed.table import Table

    monkeypatch.chdir(folder)
    (path,) = pathlib.Path("assess/small/features/land/other").glob("*.zarr")
    settings = dataclasses.replace(runs.load("task.yaml").probe, shares=(1.0,))
    rows = {row.method: row.mean["oa"] for row in probe(Table.open(path), settings)}
    for method in ("knn", "linear"):
        record = records()[f"cells/land/{method}/other/1-0.json"]
        assert record["figures"]["oa"] == pytest.approx(rows[method])
        assert record["vectors"] == record["labels"] == 36


def test_what_is_done_is_not_done_again_and_what_was_cut_goes_on(folder, monkeypatch, tmp_path):
    """A cell is interrupted in its training; the others stand, and it ends as it would have."""
    import shutil

    whole = records(folder / "assess/small")
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    lost = pathlib.Path("assess/small/cells/land/full/other/0.1-0.json")
    lost.unlink()
    measured = []
    real = measuring.score_tuned

    def cut(tries, place, world):
        measured.append(place)
        if len(measured) > 1:
            return real(tries, place, world)
        with monkeypatch.context() as patch:
            patch.setattr("swath.train.setup.export_model", _interrupted)
            return real(tries, place, world)

    monkeypatch.setattr(measuring, "score_tuned", cut)
    page = pathlib.Path("assess/small/report.html")
    page.unlink()
    with pytest.raises(Interrupted):
        verb.assess("assess.yaml")
    assert not lost.exists() and len(records()) == len(whole) - 1
    assert f"{len(whole) - 1} of {len(whole)} cells, unfinished" in page.read_text()
    verb.assess(verb.load(["assess.yaml"]))
    assert len(measured) == 2
    again = records()
    assert again.keys() == whole.keys()
    for name, one in again.items():
        assert one["figures"] == pytest.approx(whole[name]["figures"], rel=1e-6, nan_ok=True)


def test_tables_and_page_are_there_as_far_as_it_is(folder, monkeypatch, tmp_path):
    """After each cell; of a task that has no cell yet, too."""
    import shutil

    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    record, found = Measuring.record, []

    def looked(self, cell):
        pages = pathlib.Path("assess/small").glob("report.html")
        found.append([re.findall(r"(\d of \d) cells, unfinished", p.read_text()) for p in pages])
        return record(self, cell)

    monkeypatch.setattr(Measuring, "record", looked)
    monkeypatch.setattr("swath.assess.shown.SHARE", 1e9)
    shutil.rmtree("assess/small/cells")
    pathlib.Path("assess/small/report.html").unlink()
    words = ["shares=[1]", "ways={knn: null}", "baselines=[{kind: majority}]"]
    words += ["models={other: {from: other.safetensors}}"]
    words += ["tasks={land: {run: [task.yaml]}, b: {run: [task.yaml]}}"]
    verb.assess("assess.yaml", *words)
    assert found == [[], [["1 of 4"]], [["2 of 4"]], [["3 of 4"]]]
    assert "unfinished" not in pathlib.Path("assess/small/report.html").read_text()


def test_records_of_few_labels_that_an_older_swath_measured_are_refused(
    folder, monkeypatch, tmp_path
):
    """Those of all labels are not: they are computed as ever."""
    import shutil

    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    for path in pathlib.Path("assess/small/cells/land/knn").glob("*/*.json"):
        record = json.loads(path.read_text())
        assert ("computed" in record["of"]) == (path.stem != "1-0")
        record["of"].pop("computed", None)
        path.write_text(json.dumps(record))
    verb.prepare(verb.load(["assess.yaml", "shares=[1]"]))
    said = r"knn/scratch/0.1-0.json: was measured by an older Swath.* remove .*/cells/land/knn, and"
    with pytest.raises(ConfigError, match=said):
        verb.prepare(verb.load(["assess.yaml"]))


def test_features_are_made_anew_of_other_weights(folder, monkeypatch, tmp_path):
    """The weights are trained again after the features were made and before a record was."""
    import shutil

    from safetensors.torch import load_file, save_file

    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    begun = pathlib.Path("assess/small/features/land/other/model.safetensors")
    before, made = load_file(begun), begun.stat().st_mtime_ns
    words = ["assess.yaml", "ways={knn: null}", "shares=[1]", "baselines=[]"]
    words += ["models={other: {from: other.safetensors}}"]
    shutil.rmtree("assess/small/cells")
    verb.assess(verb.load(words))
    assert begun.stat().st_mtime_ns == made  # the same weights: not made again
    save_file({k: v + 1 for k, v in load_file("other.safetensors").items()}, "other.safetensors")
    with pytest.raises(ConfigError, match=r"measured with weights=.* and .*features/land, and"):
        verb.assess(verb.load(words))
    shutil.rmtree("assess/small/cells")
    verb.assess(verb.load(words))
    after = load_file(begun)
    assert all(after[k].equal(v + 1) for k, v in before.items())
    ((_, record),) = records().items()
    assert record["of"]["weights"] == checksum(pathlib.Path("other.safetensors"))


def _interrupted(*_):
    raise Interrupted("left")


ONE = (
    "models={other: {from: other.safetensors}}",
    "ways={knn: null, full: {tries: [optim.lr=1e-3, optim.lr=1e-2]}}",
    "baselines=[]",
)


def _on_ranks(folder):
    import os

    os.chdir(folder)
    settings = verb.load(["assess.yaml", "name=ranked", "shares=[0.1]", *ONE])
    with World.start("cpu") as world:
        return verb.assess(settings, world=world)


def test_ranks_find_the_same(folder, ranks, tmp_path):
    first, second = ranks(2, _on_ranks, str(folder))
    assert "land: Overall accuracy" in first and second == ""
    alone, both = records(folder / "assess/small"), records(folder / "assess/ranked")
    assert both.keys() == {f"cells/land/{way}/other/0.1-0.json" for way in ("knn", "full")}
    for name, one in both.items():
        assert one["figures"] == pytest.approx(alone[name]["figures"], rel=1e-5, nan_ok=True)


def test_what_another_process_measures_is_left_to_it(folder, monkeypatch):
    """Cells are taken one by one; a lock that nobody holds any more does not hold up."""
    from contextlib import ExitStack

    monkeypatch.chdir(folder)
    plan = Plan(verb.load(["assess.yaml", "name=apart", "ways={full: null}", "baselines=[]"]))
    with ExitStack() as one, ExitStack() as two:
        assert [_take(plan, one), _take(plan, two)] == [0, 1]
    with ExitStack() as later:
        assert _take(plan, later) == 0
    plan = Plan(verb.load(["assess.yaml"]))
    with ExitStack() as done:
        assert _take(plan, done) == len(plan.cells)


def test_a_folder_that_cannot_be_written_is_told_and_not_waited_for(folder, monkeypatch):
    """The super-user of the tests may write everywhere: so a file lies where a lock would."""
    from contextlib import ExitStack

    monkeypatch.chdir(folder)
    plan = Plan(verb.load(["assess.yaml", "name=unwritable", "ways={full: null}", "baselines=[]"]))
    plan.lock(plan.cells[0]).mkdir(parents=True)
    said = r"full/\w+: cannot be written: Is a directory"
    with pytest.raises(ConfigError, match=said), ExitStack() as held:
        _take(plan, held)


def held_by(pid: int, place: pathlib.Path) -> pathlib.Path | None:
    """Return the lock of the cell that process ``pid`` measures; None between cells."""
    for path in place.glob("cells/**/.*.lock"):
        with contextlib.suppress(OSError, ValueError):
            if json.loads(path.read_text())["pid"] == pid:
                return path
    return None


def test_a_job_is_killed_and_none_of_its_cells_is_lost_or_measured_twice(
    folder, monkeypatch, caplog
):
    """--jobs 2: this process waits until the other has measured a cell and is killed, by kill -9,
    in the middle of another."""
    monkeypatch.chdir(folder)
    words = ["name=jobs", "ways={full: {tries: [optim.lr=1e-3]}}", "seeds=[0, 1, 2]"]
    words += ["models={other: {from: other.safetensors}}", "baselines=[]"]
    place, measured, before = pathlib.Path("assess/jobs"), [], {}
    started, record = [], Measuring.record

    def start(*args, **more):
        started.append(subprocess.Popen(*args, **more))
        return started[0]

    def killed() -> None:
        (helper,), deadline = started, time.monotonic() + 120
        while time.monotonic() < deadline:
            if records(place) and held_by(helper.pid, place):
                helper.send_signal(signal.SIGSTOP)
                if lock := held_by(helper.pid, place):
                    name = str(lock.with_name(f"{lock.stem[1:]}.json").relative_to(place))
                    before.update(records(place))
                    if name not in before:
                        helper.kill()
                        measured.append(name)
                        return
                helper.send_signal(signal.SIGCONT)
            time.sleep(0.001)
        raise AssertionError("the other process has measured nothing within two minutes")

    def and_wait(self, cell):
        if not before:
            killed()
        measured.append(str(cell.file(place).relative_to(place)))
        return record(self, cell)

    monkeypatch.setattr(verb, "subprocess", types.SimpleNamespace(Popen=start, DEVNULL=-3))
    monkeypatch.setattr(Measuring, "record", and_wait)
    told = invoke("assess", "assess.yaml", *words, "--jobs", "2")
    lost, *mine = measured
    assert len(records(place)) == 6 and "100 % (36)" in told
    assert len(mine) == len(set(mine)) and lost in mine
    assert (
        before
        and not before.keys() & set(mine)
        and before.keys() | set(mine) == records(place).keys()
    )
    assert all(records(place)[name] == record for name, record in before.items())
    assert "1 of 2 jobs ended early (exit code -9); the others measured their cells" in caplog.text


def test_ways_by_name_are_filled_in():
    task = Downstream(run=("t.yaml",))

    def way(**own):
        return Assess(models={"m": None}, tasks={"t": task}, ways=own).way(next(iter(own)))

    assert way(full=None) == Way(kind="train", words=("adapt={kind: full}",), scratch=())
    assert way(full=Way(tries=("a=1",))).scratch == () and way(knn=None).kind == "knn"
    own = way(full=Way(words=("adapt={kind: full, decay: 1}",)))
    assert own.words == ("adapt={kind: full, decay: 1}",) and own.scratch is None
    assert way(mine=Way(words=("optim.lr=1",), scratch=())).scratch == ()


def test_each_seed_may_have_weights_of_its_own(folder, monkeypatch, tmp_path):
    """A cell begins with those of its seed, and its features are not those of another seed."""
    import torch
    from safetensors.torch import load_file, save_file

    monkeypatch.chdir(folder)
    given = load_file("other.safetensors")
    for seed in (0, 1):
        save_file({k: v + seed for k, v in given.items()}, tmp_path / f"mae-{seed}.safetensors")
    words = [f"models={{mae: {{from: '{tmp_path}/mae-{{seed}}.safetensors'}}}}", "seeds=[0, 1]"]
    plan = Plan(verb.load(["assess.yaml", *words, "name=each", "ways={knn: null}"]))
    first, second = (next(c for c in plan.cells if (c.way, c.seed) == ("knn", s)) for s in (0, 1))
    for cell in (first, second):
        init = plan.run(cell).init
        torch.testing.assert_close(
            load_file(init.from_), {k: v + cell.seed for k, v in given.items()}
        )
    assert of(plan, first)["weights"] != of(plan, second)["weights"]
    assert plan.begun(first) != plan.begun(second)


def test_a_word_may_be_longer_than_the_name_of_a_file():
    words = ["models={a: null}", "tasks={t: {run: [x.yaml]}}", f"seeds={list(range(100))}"]
    assert len(words[-1]) > 255 and verb.load(words).seeds == tuple(range(100))


def test_cells_are_all_combinations_in_an_order():
    settings = verb.load(["models={a: null, b: null}", "tasks={t: {run: [x.yaml]}}"])
    found = [str(cell) for cell in cells(settings)]
    assert len(found) == len(set(found)) == 2 * 2 * 3 * 3
    assert found[0] == "t, knn, a, 1 % of labels, seed 0"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["shares=[0]"], r"shares=\[0.0\]: each is above 0 and at most 1"),
        (["seeds=[1, 1]"], r"seeds=\[1, 1\]: one is there twice"),
        (["models={}"], "models is empty; there is nothing to compare"),
        (["ways={mine: null}"], r"ways.mine: only knn, linear, probe, full, lora are known"),
        (["ways={baseline: {kind: knn}}"], "ways.baseline: baselines go by this name; call"),
        (["ways={knn: {tries: [a=1]}}", "name=x"], "tries has no effect on kind=knn"),
        (["ways={full: {models: [none]}}"], "ways.full.models: there is no 'none', only scratch"),
        (["tasks={land: {run: [task.yaml], ways: [x]}}"], "tasks.land.ways: there is no 'x'"),
        (["ways={full: {words: [adapt]}}"], "'adapt' is no key=value word"),
        (["ways={full: {words: [optim.lrr=1]}}", "name=x"], r"tasks.land, full: .*no field 'lrr'"),
        (["models={m: {from: gone}}", "ways={knn: null}", "name=x"],
         "init.from=gone: there is no such folder or file"),
        (["tasks={land: {run: [task.yaml, 'data.labels={share: 0.5}']}}", "name=x"],
         "data.labels has no effect there: shares say it"),
        (["tasks={land: {run: [task.yaml, probe.neighbours=7]}}"],
         "was measured with probe.neighbours=5, it is 7 now; set that back, choose another name"),
        (["models={other: {from: other.safetensors, missing: zero}}", "ways={knn: null}"],
         "was measured with init.missing=None, it is 'zero' now"),
        (["models={other: {from: other.safetensors, bands: [F1, F0]}}", "ways={linear: null}"],
         r"was measured with init.bands=None, it is \['F1', 'F0'\] now"),
        (["tasks={land: {run: [task.yaml, train.precision=bf16]}}", "ways={knn: null}"],
         "was measured with train.precision=None, it is 'bf16' now"),
        (["tasks={land: {run: [task.yaml], figure: big}}", "name=x", "ways={knn: null}"],
         r"tasks.land.figure: there is no 'big' among the figures of .*; there are balanced, "),
        (["tasks={p: {run: [task.yaml, 'task={kind: contrast}']}}", "name=x"],
         r"tasks.p, .*: task.kind=contrast is a pretraining: it reads no labels, so there is "
         r"nothing to score.*classify or segment; .* models: \{pretrained: \{from: runs/"),
        (["tasks={land: {run: [task.yaml]}, b: {run: [task.yaml, model.width=16]}}", "name=x"],
         r"tasks.b, models.other: init.from: pos_embed is 4 x 8 there and 4 x 16 in this"),
        (["notes.txt"], "notes.txt: is no settings file"),
        (["--jobs", "2", "--ranks", "2"], "--jobs 2 --ranks 2: at least 1 job, and either several"),
    ],
)  # fmt: skip
def test_mistakes_are_told(folder, monkeypatch, words, message):
    monkeypatch.chdir(folder)
    with pytest.raises(ConfigError, match=message):
        invoke("assess", "assess.yaml", *words)


def test_records_of_other_settings_are_told_before_a_store_is_built(folder, monkeypatch):
    monkeypatch.chdir(folder)
    words = "tasks={land: {run: [task.yaml, probe.neighbours=7, data.store=gone]}}"
    with pytest.raises(ConfigError, match=r"was measured with probe.neighbours=5, it is 7 now"):
        invoke("assess", "assess.yaml", words)
    assert not pathlib.Path("gone").exists()


def test_labels_that_are_no_classes_are_told(folder, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    text = TASK.replace("label: class", "label: value").replace("classify", "regress")
    pathlib.Path("value.yaml").write_text(text)
    words = ["models={scratch: null}", "tasks={v: {run: [value.yaml]}}", "ways={knn: null}"]
    with pytest.raises(ConfigError, match="its labels are of kind value; knn tells classes apart"):
        invoke("assess", *words)


def test_a_difference_counts_where_its_confidence_interval_leaves_zero_out():
    """Of 1, 2, 3 the mean is 2, half the interval 4.303 / sqrt(3) = 2.48; one seed says nothing."""
    from swath.assess.table import _clear

    assert [_clear(e) for e in ([1, 2, 3], [2, 3, 4], [-2, -3, -4], [0.1])] == [0, 1, -1, 0]
    same = ([1e-12] * 3, [1e-12, 2e-12, 1e-12], [0.1] * 3, [0.3 - 0.2, 0.2 - 0.1, 0.5 - 0.4])
    assert [_clear(e) for e in same] == [0] * 4  # no deviation, but for rounding
