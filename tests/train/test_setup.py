"""A run folder belongs to its settings; what does not fit is said before anything is written."""

import dataclasses
import io
import json
import logging
import pathlib
import re
import shutil

import numpy as np
import pytest
import torch
import yaml
from rich.console import Console

from swath.batch.schedule import Schedule
from swath.batch.size import BatchSize
from swath.config import ConfigError, plain
from swath.data.build import build
from swath.data.settings import DataSettings
from swath.data.split import Split
from swath.data.store import Store
from swath.datasets.synthetic import Synthetic
from swath.models.unet import UNet
from swath.optimizers.adamw import AdamW
from swath.parallel.world import World
from swath.tasks.segment import Segment
from swath.train.assemble import assemble
from swath.train.describe import describe
from swath.train.export import load_model
from swath.train.interrupt import Interrupts
from swath.train.job import TrainJob, claim
from swath.train.progress import ProgressLine, Rate, line
from swath.train.record import read
from swath.train.score import score
from swath.train.settings import Compute, TrainSettings
from swath.train.setup import train
from swath.train.trainer import Trainer

FEW = TrainSettings(samples=32, evaluate_every=16, keep=1)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("setup") / "store"
    build(Synthetic(samples=40, size=16), path, Split(by="random"), progress=False)
    return str(path)


def job(store, folder, **changes):
    whole = TrainJob(
        folder=str(folder),
        data=DataSettings(store=store),
        model=UNet(width=4, depth=1),
        task=Segment(),
        batch=BatchSize(samples=8, micro=4),
        optim=AdamW(lr=1e-2),
        train=FEW,
        compute=Compute(device="cpu", threads=1),
    )
    return dataclasses.replace(whole, **changes)


@pytest.fixture(scope="module")
def done(store, tmp_path_factory):
    folder = tmp_path_factory.mktemp("done") / "run"
    return folder, train(job(store, folder))


def test_what_train_returns_are_the_figures_of_what_it_exports(done, store):
    """Scored again from the exported files, the validation figures come out the same."""
    folder, figures = done
    exported = load_model(folder)
    assert exported.about.update == figures["update"] and exported.about.seed == 0
    again = score(job(store, folder), "val")
    for name in ("oa", "miou", "loss"):
        assert again[name] == pytest.approx(figures[f"val/{name}"], rel=1e-6)


def test_the_first_weights_are_those_of_the_seed(store, tmp_path):
    """And of nothing else: not of what torch has drawn before."""

    def first(seed):
        run = job(store, tmp_path / str(seed), seed=seed)
        data = run.data.open()
        made = assemble(run, data, describe(run, data), World.alone(), Interrupts())
        return torch.cat([p.flatten() for p in made.state.model.parameters()])

    one, other, again = first(1), first(2), first(1)
    assert torch.equal(one, again) and not torch.equal(one, other)


def test_samples_that_make_no_whole_update_are_told(store, tmp_path, caplog):
    """The run is shorter than asked for, by less than a batch; who counts samples should know."""
    caplog.set_level("INFO", "swath")
    short = job(store, tmp_path)
    size = short.batch.samples
    longer = dataclasses.replace(short.train, samples=size + 1, evaluate_every=None)
    assert train(dataclasses.replace(short, train=longer))["samples"] == size
    said = f"train.samples={size + 1} is no multiple of batch.samples={size}: the run has 1 updates"
    assert f"{said}, {size} samples" in caplog.text


def test_score_says_how_many_samples_and_what_they_touch(done, store, caplog):
    folder, _ = done
    with caplog.at_level(logging.INFO):
        scored = score(job(store, folder))
    assert f"scoring {scored['samples']} samples of the test part of {store}" in caplog.text
    assert scored["samples"] == 8 and 0 <= scored["share_touching"] <= 1


def test_the_model_is_used_in_other_programs_as_the_page_says(done):
    """docs/howto/resume.md, with this run's folder."""
    page = pathlib.Path(__file__).parents[2] / "docs/howto/resume.md"
    (block,) = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    bands = load_model(done[0]).inputs.bands
    known = {"pixels": torch.ones(2, len(bands), 16, 16)}
    exec(block.replace("runs/NAME", str(done[0])), known)
    assert known["scores"].shape[:2] == (2, len(known["trained"].label.classes))


def test_a_run_folder_has_what_it_should(done):
    folder, _ = done
    names = {path.name for path in folder.iterdir()}
    expected = "settings.yaml metrics.jsonl tb checkpoints model.safetensors model.json"
    assert names == {*expected.split(), "starts.jsonl"}
    speeds = [figures for figures in read(folder) if "loss" in figures]
    assert all(f["samples_per_s"] > 0 and 0 <= f["data_wait"] <= 1 for f in speeds)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"optim": AdamW(lr=2e-2)}, "optim.lr was 0.01 there and is 0.02 now"),
        ({"seed": 4}, "seed was 0 there and is 4 now"),
        ({"model": UNet(width=8, depth=1)}, "model.width was 4 there and is 8 now"),
        (
            {"train": dataclasses.replace(FEW, samples=64)},
            "train.samples was 32 there and is 64 now",
        ),
    ],
)
def test_a_folder_of_other_settings_is_refused(changes, said, done, store):
    folder, _ = done
    with pytest.raises(ConfigError) as error:
        train(job(store, folder, **changes))
    assert f"{folder} belongs to other settings: {said}" in str(error.value)
    assert "does, or begin another run with name=ANOTHER" in str(error.value)


def claimed(store, folder, change=lambda tree: None):
    """Claim ``folder``, change what its settings.yaml says, and claim it again."""
    settings = job(store, folder)
    claim(folder, settings)
    path = folder / "settings.yaml"
    tree = yaml.safe_load(path.read_text())
    change(tree)
    path.write_text(yaml.safe_dump(tree))
    claim(folder, settings)
    return yaml.safe_load(path.read_text())


def test_a_run_begun_before_a_field_was_added_goes_on(store, tmp_path):
    """A later release adds train.patience, optim.eps and all of schedule: they are the defaults."""
    whole = claimed(store, tmp_path)

    def of_an_older_release(tree):
        del tree["train"]["patience"], tree["optim"]["eps"], tree["schedule"]

    assert claimed(store, tmp_path, of_an_older_release) == whole


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda tree: tree["optim"].update(amsgrad=True), "optim: amsgrad: adamw has no field"),
        (lambda tree: tree["model"].update(kind="unett"), "model: kind: no model 'unett'"),
        (lambda tree: tree["task"].pop("kind"), "task: needs a 'kind'"),
    ],
)
def test_settings_that_this_release_does_not_know_are_a_difference(change, said, store, tmp_path):
    with pytest.raises(ConfigError) as error:
        claimed(store, tmp_path, change)
    assert f"{tmp_path} belongs to other settings, of which this release" in str(error.value)
    assert said in str(error.value)
    assert "another folder for this run, or go on with the release that" in str(error.value)


@pytest.mark.parametrize("content", [b"", b"\x00\x00", b"\xff\xfe", b"[1, 2", b"hello", b"seed: 0"])
def test_damaged_settings_are_said_and_left_alone(content, store, tmp_path):
    path = tmp_path / "settings.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"settings.yaml is damaged \(.*(\n.*)*put the file back"):
        claim(tmp_path, job(store, tmp_path))
    assert path.read_bytes() == content


def test_settings_of_the_machine_may_change(done, store):
    folder, figures = done
    changes = {
        "compute": Compute(device="cpu", threads=2, prefetch=1),
        "train": dataclasses.replace(FEW, keep=5, checkpoint_every=8, record_every=16),
    }
    assert train(job(store, folder, **changes)) == figures


def test_another_store_under_the_same_settings_is_refused(done, store, tmp_path):
    folder, _ = done
    build(Synthetic(samples=40, size=16, seed=1), tmp_path, Split(by="random"), progress=False)
    with pytest.raises(ConfigError, match=r"the run began with store [0-9a-f]+, now it is"):
        train(job(str(tmp_path), folder))


def test_another_split_of_the_same_pixels_is_refused(done, store, tmp_path):
    """Settings, pixels and statistics are the same; only who is trained on differs."""
    folder, figures = done
    shutil.copytree(store, tmp_path / "s")
    assert train(job(str(tmp_path / "s"), folder)) == figures
    Store.open(tmp_path / "s").update(split=plain(Split(by="random", seed=9)))
    with pytest.raises(ConfigError, match=r"the run began with store [0-9a-f]+, now it is"):
        train(job(str(tmp_path / "s"), folder))


@pytest.mark.parametrize("last", [False, True])
def test_a_store_that_is_replaced_under_a_run_ends_it(last, done, store, tmp_path, monkeypatch):
    """Before the next checkpoint, or before the model is written; with the first one put back the
    run ends as if nothing had been. A lost shard may be put back meanwhile."""
    here, other = tmp_path / "s", tmp_path / "other"
    shutil.copytree(store, here)
    build(Synthetic(samples=40, size=16, seed=1), other, Split(by="random"), progress=False)
    often = dataclasses.replace(FEW, keep=9, checkpoint_every=8)
    opened, swapped = Store.open(here), []
    Store.open(here).update(checksum=None)
    opened.check_same()
    Store.open(here).update(checksum=opened.attributes["checksum"])

    def swap() -> None:
        here.rename(tmp_path / "old")
        other.rename(here)
        swapped.append(True)

    def update(trainer, real=Trainer._update) -> None:
        real(trainer)
        if trainer.state.progress.update == 2 and not last and not swapped:
            swap()

    def run(trainer, real=Trainer.run) -> None:
        real(trainer)
        if last and not swapped:
            swap()

    monkeypatch.setattr(Trainer, "_update", update)
    monkeypatch.setattr(Trainer, "run", run)
    folder = tmp_path / "run"
    said = "s: another store lies here than was opened, .* goes on from its last checkpoint, which"
    with pytest.raises(ConfigError, match=said):
        train(job(str(here), folder, train=often))
    saved = sorted(path.name for path in (folder / "checkpoints").glob("0*"))
    assert saved[-1] == f"{4 if last else 1:08d}" and not (folder / "model.safetensors").exists()
    here.rename(other)
    with pytest.raises(ConfigError, match="s: there is no longer the store that was opened"):
        opened.check_same()
    (tmp_path / "old").rename(here)
    assert train(job(str(here), folder, train=often)) == done[1]


def test_the_same_store_elsewhere_is_welcome(done, store, tmp_path):
    folder, figures = done
    build(Synthetic(samples=40, size=16), tmp_path, Split(by="random"), progress=False)
    assert train(job(str(tmp_path), folder)) == figures


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"batch": BatchSize(samples=64)}, "train.samples=32 is less than one update of batch"),
        ({"schedule": Schedule(warmup=40)}, "schedule: warmup=40 is longer than the run of 32"),
    ],
)
def test_settings_that_contradict_are_refused(changes, said, store, tmp_path):
    with pytest.raises(ConfigError) as error:
        job(store, tmp_path, **changes)
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"patience": 3}, "patience=3 has no effect: it counts evaluations"),
        ({"evaluate_every": 10**6}, "evaluate_every=1000000 has no effect in a run of 100000"),
        ({"ema": 0}, "ema=0 must be at least 1"),
        ({"clip": -1.0}, "clip=-1.0 must be positive, or null for none"),
        ({"skip_nonfinite": -1}, "skip_nonfinite and record_every must not be negative"),
    ],
)
def test_train_settings_without_sense_are_refused(changes, said):
    with pytest.raises(ConfigError) as error:
        TrainSettings(**changes)
    assert said in str(error.value)


def test_compute_settings_without_sense_are_refused():
    with pytest.raises(ConfigError, match="threads=0 and prefetch=4 must be at least 1"):
        Compute(threads=0)


def test_evaluating_without_a_validation_part_is_refused(store, tmp_path):
    data = DataSettings(store=store, split=Split(by="random", val=0.0))
    with pytest.raises(ConfigError, match=r"evaluate_every=16 has no effect: .* set split.val"):
        train(job(store, tmp_path, data=data))
    train(job(store, tmp_path / "2", data=data, train=TrainSettings(samples=8)))
    assert load_model(tmp_path / "2").about.update == 1  # the last weights, for want of a best


def test_a_run_with_sparse_records_ends_with_the_figures_of_its_last_update(
    store, tmp_path, caplog
):
    """No validation part, whose line would be there anyway."""
    data = DataSettings(store=store, split=Split(by="random", val=0.0))
    sparse = job(store, tmp_path, data=data, train=TrainSettings(samples=32, record_every=24))
    figures = train(sparse)
    assert figures["update"] == 4 and figures["samples"] == 32 and figures["loss"] > 0
    assert [f["update"] for f in read(tmp_path)] == [3, 4]
    assert train(sparse) == figures and "says nothing of" not in caplog.text
    (tmp_path / "metrics.jsonl").unlink()
    assert train(sparse) == {"update": 4}  # finished, only its records are lost
    assert f"{tmp_path / 'metrics.jsonl'}: says nothing of updates 1 to 4, which" in caplog.text


def test_a_record_that_was_cut_is_told_when_the_run_goes_on(store, tmp_path, caplog):
    """Its curve would begin in the middle, or have a gap, without a word."""
    run = job(store, tmp_path)
    train(run)
    path = tmp_path / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    train(run)
    assert "says nothing of" not in caplog.text
    path.write_text("".join(line for line in lines if json.loads(line)["update"] < 3))
    train(run)
    assert f"{path}: says nothing of updates 3 to 4, which this run has made" in caplog.text


def test_a_part_that_is_empty_cannot_be_scored(done, store):
    folder, _ = done
    data = DataSettings(store=store, split=Split(by="random", test=0.0))
    with pytest.raises(ConfigError, match=r"the split has no test part: split.test is 0; set spli"):
        score(job(store, folder, data=data))


def test_more_ranks_than_microbatches_are_refused(ranks, store, tmp_path):
    with pytest.raises(AssertionError, match="3 ranks cannot share 2 microbatches"):
        ranks(3, train, job(store, tmp_path))


def test_other_bands_than_the_models_are_refused(done, store):
    folder, _ = done
    data = DataSettings(store=store, bands=("F0", "F1"))
    with pytest.raises(ConfigError, match=r"takes bands F0, F1, F2, F3, the data give F0, F1"):
        score(job(store, folder, data=data))


@pytest.mark.parametrize("precision", ["bf16", "tf32"])
def test_less_exact_arithmetic_learns_about_the_same(precision, done, store, tmp_path):
    """The loss of the same updates, to the few per cent that bfloat16's 8 bits leave."""
    folder, _ = done
    train(job(store, tmp_path, train=dataclasses.replace(FEW, precision=precision)))
    found, exact = ([f["loss"] for f in read(p) if "loss" in f] for p in (tmp_path, folder))
    assert found == pytest.approx(exact, rel=0.03)
    if precision == "bf16":
        assert found != exact


def test_torch_is_left_as_it_was(store, tmp_path):
    import torch

    before = torch.get_rng_state(), torch.get_num_threads(), torch.get_float32_matmul_precision()
    train(job(store, tmp_path, train=TrainSettings(samples=8, precision="tf32")))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (torch.get_num_threads(), torch.get_float32_matmul_precision()) == before[1:]


def test_two_worlds_are_one_run(ranks, store, done, tmp_path):
    """Two ranks evaluate, too: their validation figures are those of one."""
    _, figures = done
    for found in ranks(2, train, job(store, tmp_path)):
        assert found == pytest.approx(figures, rel=1e-4)


def train_without_records(job) -> str:
    """A folder stands where metrics.jsonl should; only rank 0 opens it."""
    (pathlib.Path(job.folder) / "metrics.jsonl").mkdir(parents=True, exist_ok=True)
    try:
        train(job)
    except (OSError, RuntimeError) as error:
        return str(error)
    return "trained"


def test_if_rank_0_cannot_record_no_rank_is_left_waiting(ranks, store, tmp_path):
    first, second = ranks(2, train_without_records, job(store, tmp_path))
    assert "Is a directory" in first and second == "rank 0 failed; its own message says why"


def test_a_notebook_may_pass_its_world(store, tmp_path):
    figures = train(job(store, tmp_path), world=World.alone())
    assert np.isfinite(figures["val/loss"])


FIGURES = {
    "update": 12,
    "samples": 49_200_000,
    "loss": 0.41271,
    "lr": 1.5e-4,
    "grad_norm": 1.0,
    "skipped": 0,
    "samples_per_s": 2310.0,
    "data_wait": 0.02,
    "seconds": 1.0,
}


def test_the_line_for_people_spells_its_units():
    assert line(FIGURES, 63_060_000, 2310.0) == (
        "update 12  samples 49.2M  loss 0.4127  lr 1.50e-04  2 310 samples/s  data wait 2%"
        "  1 h 40 min left"
    )
    nan = float("nan")  # of a figure that is not defined
    scored = {"update": 3, "samples": 36, "val/oa": 0.5, "val/iou/water": 0.1, "val/r2": nan}
    assert line(scored, 100) == "update 3  samples 36  val/oa 0.5000"


def test_the_time_left_is_told_from_minutes_not_from_an_update():
    """The first update takes ten times as long, the others now 1 s, now 3 s; an hour later the
    machine is twice as fast, which is known within minutes."""
    rate, told, seconds = Rate(), [], 20.0
    for update in range(1, 301):
        told.append(rate(seconds, 10 * update))
        seconds += 1.0 + 2.0 * (update % 2)
    assert told[:5] == [None] * 5 and told[5] is not None
    assert all(rate == pytest.approx(5.0, rel=0.3) for rate in told[5:])
    assert all(rate == pytest.approx(5.0, rel=0.01) for rate in told[100:])
    for update in range(301, 701):
        last = rate(seconds, 10 * update)
        seconds += 1.0
    assert last == pytest.approx(10.0)
    assert line(FIGURES, 63_060_000).endswith("data wait 2%")


def test_in_a_log_file_updates_are_told_now_and_then_and_scores_always():
    out = io.StringIO()
    with ProgressLine(100, every=3600, console=Console(file=out, width=200)) as show:
        show(FIGURES)
        show(FIGURES)
        show({"update": 12, "samples": 96, "val/oa": 0.75})
    assert [text.split("  ")[0] for text in out.getvalue().splitlines()] == ["update 12"] * 2
    assert "val/oa 0.7500" in out.getvalue()


def test_on_a_terminal_the_line_renews_itself():
    out = io.StringIO()
    console = Console(file=out, width=200, force_terminal=True)
    with ProgressLine(10**8, console=console) as show:
        show(FIGURES)
    assert "loss 0.4127" in out.getvalue() and "2 310 samples/s" in out.getvalue()


def test_settings_are_kept_as_yaml_and_metrics_as_json_lines(done):
    folder, _ = done
    assert "kind: unet" in (folder / "settings.yaml").read_text()
    for text in (folder / "metrics.jsonl").read_text().splitlines():
        assert {"update", "samples"} <= json.loads(text).keys()


def test_a_split_that_tests_on_what_was_trained_on_is_refused(done, store, tmp_path):
    """Whether it is asked for, or the same pixels were built into a store with it."""
    folder, _ = done
    split = Split(by="random", seed=9)
    said = r"trained on \d+ of the 8 samples in the test part of this split \(by=random, seed=9\)"
    with pytest.raises(ConfigError, match=said):
        score(job(store, folder, data=DataSettings(store=store, split=split)))
    again = str(tmp_path / "again")
    build(Synthetic(samples=40, size=16), again, split, progress=False)
    with pytest.raises(ConfigError, match=said):
        score(job(again, folder))


def test_another_store_may_be_scored_and_says_so(done, store, tmp_path):
    folder, _ = done
    assert "other_store" not in score(job(store, folder))
    other = str(tmp_path / "other")
    build(Synthetic(samples=40, size=16, seed=3), other, Split(by="random"), progress=False)
    scored = score(job(other, folder))
    assert scored["other_store"] is True and scored["share_touching"] is None


def test_a_store_with_other_pixels_is_another_store(done, store, tmp_path):
    """Classes and statistics may be the same; the pixels are not."""
    folder, _ = done
    shutil.copytree(store, tmp_path / "s")
    changed = Store.open(tmp_path / "s")
    chip = Synthetic(samples=40, size=16).open().chip(3)
    chip.images["fine"][0, 0, 0] += 1
    changed.write(3, chip)
    changed.update(checksum=changed.sum())
    with pytest.raises(ConfigError, match="the run began with store"):
        train(job(str(tmp_path / "s"), folder))
