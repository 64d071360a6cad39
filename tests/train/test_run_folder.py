"""Nothing of another run is gone on with, and a run that is refused leaves the folder alone."""

import dataclasses
import json
import os
import signal
from pathlib import Path

import pytest
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from swath.batch.size import BatchSize
from swath.config import ConfigError
from swath.data.build import build
from swath.data.settings import DataSettings
from swath.data.split import Split
from swath.datasets.synthetic import Synthetic
from swath.files import write_folder
from swath.models.unet import UNet
from swath.parallel.world import World
from swath.tasks.segment import Segment
from swath.train.interrupt import Interrupted
from swath.train.job import FREE, TrainJob, check_trained, claim
from swath.train.record import Recorder, read
from swath.train.settings import Compute, TrainSettings
from swath.train.setup import train
from tests.train.test_record import an_hour_later


def made_store(path: Path, seed: int = 0) -> str:
    build(Synthetic(samples=40, size=16, seed=seed), path, Split(by="random"), progress=False)
    return str(path)


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> str:
    return made_store(tmp_path_factory.mktemp("run_folder") / "store")


def job(store: str, folder: Path, **changes) -> TrainJob:
    whole = TrainJob(
        folder=str(folder),
        data=DataSettings(store=store),
        model=UNet(width=4, depth=1),
        task=Segment(),
        batch=BatchSize(samples=8, micro=4),
        train=TrainSettings(samples=16, checkpoint_every=8),
        compute=Compute(device="cpu", threads=1),
    )
    return dataclasses.replace(whole, **changes)


def everything(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_checkpoints_of_other_settings_are_refused_without_settings_yaml_too(store, tmp_path):
    """Settings of the machine, and the store's place, may still change."""
    begun = job(store, tmp_path, seed=4)
    figures = train(begun, world=World.alone())
    (tmp_path / "settings.yaml").unlink()
    before = everything(tmp_path)
    with pytest.raises(ConfigError, match="belongs to other settings: seed was 4 there and is 5"):
        train(dataclasses.replace(begun, seed=5), world=World.alone())
    longer = dataclasses.replace(begun.train, samples=32)
    with pytest.raises(ConfigError, match=r"train.samples was 16 there and is 32 now; set it back"):
        train(dataclasses.replace(begun, train=longer), world=World.alone())
    assert everything(tmp_path) == before
    free = dataclasses.replace(begun.train, keep=3, record_every=8)
    again = dataclasses.replace(begun, train=free, compute=Compute(device="cpu", prefetch=1))
    assert train(again, world=World.alone()) == figures
    assert yaml.safe_load((tmp_path / "settings.yaml").read_text())["seed"] == 4


def test_a_run_refused_for_its_store_leaves_the_folder_as_it_was(store, tmp_path):
    folder = tmp_path / "run"
    train(job(store, folder), world=World.alone())
    before = everything(folder)
    other = made_store(tmp_path / "other", seed=1)
    with pytest.raises(ConfigError, match="the run began with store"):
        train(job(other, folder), world=World.alone())
    assert everything(folder) == before


def test_a_refused_run_makes_no_folder(store, tmp_path):
    whole = job(store, tmp_path / "run")
    bad = dataclasses.replace(whole.train, evaluate_every=8)
    none = DataSettings(store=store, split=Split(by="random", val=0.0))
    with pytest.raises(ConfigError, match=r"set split.val"):
        train(dataclasses.replace(whole, train=bad, data=none), world=World.alone())
    assert not (tmp_path / "run").exists()


def test_a_checkpoint_of_an_older_release_goes_on(store, tmp_path):
    """Its settings have no train.patience yet."""
    figures = train(job(store, tmp_path), world=World.alone())
    for path in (tmp_path / "checkpoints").iterdir():
        files = {name: content for name, content in everything(path).items()}
        numbers = json.loads(files["state.json"])
        del files["manifest.json"], numbers["settings"]["train"]["patience"]
        write_folder(path, {**files, "state.json": json.dumps(numbers).encode()})
    (tmp_path / "settings.yaml").unlink()
    assert train(job(store, tmp_path), world=World.alone()) == figures


def test_an_evaluation_done_again_is_recorded_once(store, tmp_path, monkeypatch):
    """Asked to leave before the evaluation, then killed after its line, before the checkpoint."""
    write = Recorder.write

    def asked(recorder, figures):
        write(recorder, figures)
        if figures["update"] == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    def killed(recorder, figures):
        write(recorder, figures)
        raise KeyboardInterrupt

    for then, stops in ((asked, Interrupted), (killed, KeyboardInterrupt)):
        monkeypatch.setattr(Recorder, "write", then)
        with pytest.raises(stops):
            train(job(store, tmp_path), world=World.alone())
        an_hour_later(tmp_path)
    assert "val/loss" in read(tmp_path)[-1]
    monkeypatch.undo()
    for _ in range(2):
        train(job(store, tmp_path), world=World.alone())
        told = [(line["update"], "val/loss" in line) for line in read(tmp_path)]
        assert told == [(1, False), (2, False), (2, True)]
        board = EventAccumulator(str(tmp_path / "tb"))
        board.Reload()
        assert [point.step for point in board.Scalars("loss")] == [1, 2]
        assert [point.step for point in board.Scalars("val/loss")] == [2]
        an_hour_later(tmp_path)


def test_another_model_than_the_trained_one_is_refused(store, tmp_path):
    """Scoring and mapping would take the trained one and say nothing."""
    settings = job(store, tmp_path)
    check_trained(tmp_path, settings)  # nothing is trained yet: who loads the model says so
    claim(tmp_path, settings)
    wider = dataclasses.replace(settings, model=UNet(width=8, depth=1))
    said = f"{tmp_path} belongs to other settings: model.width was 4 there and is 8 now; a trained"
    with pytest.raises(ConfigError) as error:
        check_trained(tmp_path, wider)
    assert str(error.value).startswith(said)
    assert (
        "place of the recipe, for the settings that it was trained with, or train another"
        in str(error.value)
    )
    with pytest.raises(ConfigError, match=r"train.samples was 16 there and is 8 now"):
        check_trained(tmp_path, dataclasses.replace(settings, train=TrainSettings(samples=8)))


def test_what_scoring_heeds_may_differ_from_training(store, tmp_path):
    """The store and its split, the batch, the precision, the machine."""
    settings = job(store, tmp_path)
    claim(tmp_path, settings)
    heeded = dataclasses.replace(
        settings,
        data=DataSettings(store="elsewhere", split=Split(by="random", seed=3)),
        batch=BatchSize(samples=16, micro=8),
        train=dataclasses.replace(settings.train, precision="bf16", keep=9),
        compute=Compute(device="cpu", threads=2),
    )
    check_trained(tmp_path, heeded)


def leaves(tree, *path):
    """Every setting that the result depends on; what is free is not found here, but listed."""
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from leaves(value, *path, name)
        else:
            yield (*path, name)


FREE_PLACES = {tuple(place.split(".")) for place in FREE}


def test_every_setting_counts_but_those_of_the_machine(store, tmp_path):
    """One after the other is made another in settings.yaml, which then is another run's."""
    settings = job(store, tmp_path)
    claim(tmp_path, settings)
    path = tmp_path / "settings.yaml"
    whole = path.read_text()
    found = list(leaves(yaml.safe_load(whole)))
    assert {place[0] for place in found} == {f.name for f in dataclasses.fields(TrainJob)}
    for place in found:
        tree = yaml.safe_load(whole)
        inside = tree
        for name in place[:-1]:
            inside = inside[name]
        value = inside[place[-1]]
        if place[-1] == "stage":
            inside["stage"] = {"folder": "elsewhere"}
        elif isinstance(value, bool):
            inside[place[-1]] = not value
        else:
            inside[place[-1]] = value + 1 if isinstance(value, (int, float)) else f"{value}er"
        path.write_text(yaml.safe_dump(tree))
        if place in FREE_PLACES or place[:1] in FREE_PLACES:
            claim(tmp_path, settings)
            assert path.read_text() == whole
            continue
        with pytest.raises(ConfigError, match=f"{tmp_path} belongs to other settings"):
            claim(tmp_path, settings)
