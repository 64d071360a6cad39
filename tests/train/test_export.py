"""A trained model comes back as it was left, and says what is wrong when it cannot."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from swath.config import ConfigError
from swath.data.chip import Label
from swath.data.normalize import Normalizer
from swath.data.sensor import Band
from swath.data.split import Split
from swath.files import json_sum
from swath.models import Inputs
from swath.models.unet import UNet
from swath.tasks.segment import Segment
from swath.train import setup
from swath.train.export import About, load_model, save_model
from swath.train.heldout import Trained
from tests.train.small import trainer

BANDS = (Band(name="B04", wavelength_nm=665.0), Band(name="B08", wavelength_nm=842.0))
LABEL = Label(kind="mask", classes=("water", "forest", "field"))
TASK = Segment(class_weights=0.5)
COUNTS = (10.0, 200.0, 3000.0)


@pytest.fixture
def saved(tmp_path: Path):
    model = UNet(width=8, depth=1)
    inputs = Inputs(bands=BANDS, size=16)
    outputs = TASK.bind(LABEL, torch.tensor(COUNTS).double().numpy()).outputs
    network = model.build(inputs, outputs)
    about = About(
        model=model,
        inputs=inputs,
        outputs=outputs,
        task=TASK,
        label=LABEL,
        counts=COUNTS,
        normalize=Normalizer(
            bands=("B04", "B08"),
            shift=(1e3, 2e3),
            factor=(1e-4, 5.5),
            nodata=(0.0, None),
            scale=(1e-4, 1e-4),
            offset=(0.0, -0.1),
            unit=("reflectance",) * 2,
        ),
        seed=3,
        samples=4096,
        update=64,
        trained=Trained(store="store", split=Split()),
    )
    save_model(tmp_path, network.state_dict(), about)
    return tmp_path, network.eval(), about


def test_it_predicts_what_it_predicted_before(saved):
    folder, network, about = saved
    loaded = load_model(folder)
    image = torch.randn(2, 2, 16, 16)
    expected = about.bind().predict(network, image)
    assert torch.equal(loaded.objective.predict(loaded.network, image), expected)
    assert loaded.about == about and not loaded.network.training
    assert torch.equal(loaded.normalize(image)[0], about.normalize(image)[0])


def test_weights_that_stand_in_for_lost_ones_say_so(saved, tmp_path, caplog):
    """In whatever verb they are loaded."""
    made, _ = trainer(tmp_path, keep=3)  # each evaluation is the best so far
    made.run()
    harmed = made.checkpoints.path(12) / "average.safetensors"
    harmed.write_bytes(harmed.read_bytes()[:-1])
    assert setup._chosen(made) == 9 and made.state.progress.lost == 12
    folder, network, about = saved
    save_model(folder, network.state_dict(), dataclasses.replace(about, update=9, lost=12))
    assert load_model(folder).about.lost == 12
    assert (
        "model.safetensors: the best weights of this run, after update 12, were lost with a damaged"
        " checkpoint; these, after update 9, stand in for them" in caplog.text
    )


@pytest.mark.parametrize("ema", [None, 30])
def test_what_a_run_exports_is_the_average_if_there_is_one(ema, saved, tmp_path):
    """Of the update asked for, not of the last one."""
    _, _, about = saved
    made, _ = trainer(tmp_path, ema=ema, keep=12, checkpoint_every=8)
    made.run()
    setup.export_model(made.checkpoints, 9, tmp_path, about)
    there = made.checkpoints.path(9)
    own = load_file(there / "model.safetensors")
    wanted = load_file(there / "average.safetensors") if ema else own
    found = load_file(tmp_path / "model.safetensors")
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], value) for name, value in wanted.items())
    assert torch.equal(found["0.weight"], own["0.weight"]) == (ema is None)
    written = json.loads((tmp_path / "model.json").read_text())
    assert (written["update"], written["samples"]) == (9, 72)


def test_what_it_is_can_be_read_by_people(saved):
    folder, _, _ = saved
    about = json.loads((folder / "model.json").read_text())
    assert about["model"]["kind"] == "unet" and about["task"]["kind"] == "segment"
    assert [band["name"] for band in about["inputs"]["bands"]] == ["B04", "B08"]
    assert about["label"]["classes"] == ["water", "forest", "field"]


def test_no_model_is_said(tmp_path):
    with pytest.raises(ConfigError, match=r"model.json: there is no trained model; swath train"):
        load_model(tmp_path)


@pytest.mark.parametrize("best", [None, 3])
def test_how_far_an_unfinished_run_is_is_said(tmp_path, best):
    """With the way on, and the way to the model as it stands."""
    (tmp_path / "checkpoints/00000005").mkdir(parents=True)
    numbers = {"samples": 20, "best_update": best, "settings": {"train": {"samples": 400}}}
    (tmp_path / "checkpoints/00000005/state.json").write_text(json.dumps(numbers))
    with pytest.raises(ConfigError) as caught:
        load_model(tmp_path)
    which = "the best so far, after update 3" if best else "as it is now"
    assert str(caught.value).endswith(
        f"no trained model yet: the run is unfinished, at sample 20 of 400. swath train {tmp_path} "
        f"goes on with it; swath export {tmp_path} writes the model {which}"
    )


def test_damaged_weights_are_found(saved):
    folder, _, _ = saved
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[-1] ^= 64
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(ConfigError, match=r"model.safetensors: does not match the checksum"):
        load_model(folder)


def test_a_newer_version_is_refused(saved):
    folder, _, _ = saved
    about = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps({**about, "version": 2}))
    with pytest.raises(ConfigError, match="written by a newer Swath"):
        load_model(folder)


@pytest.mark.parametrize(
    ("was", "becomes"),
    [("1000.0", "3000.0"), ('"samples": 4096', '"samples": 4097'), ('"water"', '"forest "')],
)
def test_a_model_json_of_which_a_value_was_altered_is_refused(saved, was, becomes):
    """It would be used without a word: the weights are whole."""
    folder, _, _ = saved
    text = (folder / "model.json").read_text()
    assert text.count(was) == 1
    (folder / "model.json").write_text(text.replace(was, becomes))
    said = rf"model.json: does not match its own checksum: .* swath export {folder} writes it anew"
    with pytest.raises(ConfigError, match=said):
        load_model(folder)
    (folder / "model.json").write_text(json.dumps(json.loads(text), indent=7))
    load_model(folder)  # laid out otherwise, it says the same


def test_a_wrong_field_of_a_model_is_named(saved):
    folder, _, _ = saved
    about = json.loads((folder / "model.json").read_text())
    del about["about_sha256"]
    about["model"]["widht"] = about["model"].pop("width")
    (folder / "model.json").write_text(json.dumps({**about, "about_sha256": json_sum(about)}))
    with pytest.raises(ConfigError, match=r"model.json: model.widht: unet has no field"):
        load_model(folder)


@pytest.mark.parametrize("content", ["{}", "[]", "null", '{"version": "1"}', "3"])
def test_a_damaged_model_json_is_said(saved, content):
    folder, _, _ = saved
    (folder / "model.json").write_text(content)
    with pytest.raises(ConfigError, match=r"model.json: damaged: it says no version; swath train"):
        load_model(folder)
