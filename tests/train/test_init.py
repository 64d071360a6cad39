"""Weights in: taken, adapted, left out and new, on every layout; the file is part of the run."""

import dataclasses
import hashlib
import logging
import pathlib
import shutil

import pytest
import safetensors.torch
import torch

from swath.batch.size import BatchSize
from swath.config import ConfigError, dump, load
from swath.data.build import build
from swath.data.settings import DataSettings
from swath.data.split import Split
from swath.datasets.synthetic import Synthetic
from swath.models.mae import MAE
from swath.models.unet import UNet
from swath.models.vit import ViT
from swath.optimizers.adamw import AdamW
from swath.parallel.settings import Parallel
from swath.parallel.world import World
from swath.settings import Run
from swath.tasks.classify import Classify
from swath.tasks.pretrain import Pretrain
from swath.tasks.segment import Segment
from swath.train.begin import begin, matched
from swath.train.describe import describe, network
from swath.train.export import load_model
from swath.train.init import Init
from swath.train.job import TrainJob
from swath.train.record import read
from swath.train.settings import Compute, TrainSettings
from swath.train.setup import train
from swath.train.unfinished import export

SMALL = ViT(width=16, depth=2, heads=2, patch=4)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("init") / "store"
    build(Synthetic(samples=24, size=16), path, Split(by="random"), progress=False)
    return str(path)


def job(store, folder, **changes) -> TrainJob:
    whole = TrainJob(
        folder=str(folder),
        data=DataSettings(store=store),
        model=SMALL,
        task=Segment(),
        batch=BatchSize(samples=8, micro=2),
        optim=AdamW(lr=1e-3),
        train=TrainSettings(samples=24, precision="fp64", select="last"),
        compute=Compute(device="cpu", threads=1),
    )
    return dataclasses.replace(whole, **changes)


@pytest.fixture(scope="module")
def pretrained(store, tmp_path_factory):
    """A run on three of the bands, in another order."""
    folder = tmp_path_factory.mktemp("pretrained") / "run"
    bands = DataSettings(store=store, bands=("F2", "F0", "F1"))
    train(job(store, folder, data=bands, seed=3))
    return folder


def about_of(run: TrainJob):
    return describe(run, run.data.open())


def begun(run: TrainJob) -> dict[str, torch.Tensor]:
    """Return the first weights of ``run``."""
    model = network(run, about_of(run))
    begin(run.init, about_of(run), model, World.alone())
    return model.state_dict()


def test_a_network_begins_with_the_weights_of_a_run_its_bands_by_name(store, pretrained, caplog):
    caplog.set_level(logging.INFO)
    run = job(store, "none", init=Init(from_=str(pretrained), sha256=sha(pretrained)))
    found, there = begun(run), load_model(pretrained).network.state_dict()
    for name, value in there.items():
        if name != "patch_embed.proj.weight":
            torch.testing.assert_close(found[name], value.float(), msg=name)
    got, had = found["patch_embed.proj.weight"], there["patch_embed.proj.weight"].float()
    torch.testing.assert_close(got[:, 0], had[:, 1])  # F0
    torch.testing.assert_close(got[:, 2], had[:, 0] / 2)  # F2, of 550 nm
    torch.testing.assert_close(got[:, 3], had[:, 0] / 2)  # F3, of 600 nm: nearest is F2
    assert "adapted   patch_embed.proj.weight: bands by name: F3 shares F2" in caplog.text
    assert "left out  nothing" in caplog.text and "new       nothing" in caplog.text


def sha(folder: pathlib.Path) -> str:
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def test_places_and_patches_are_adapted_and_another_head_begins_anew(store, pretrained):
    run = job(
        store,
        "none",
        model=dataclasses.replace(SMALL, patch=8),
        init=Init(from_=str(pretrained), sha256=sha(pretrained)),
    )
    found = matched(run.init, about_of(run))
    assert found.adapted["pos_embed"] == "4 x 4 places to 2 x 2, bicubic"
    assert found.adapted["patch_embed.proj.weight"].startswith("patches of 4 px to 8 px; bands")
    assert found.new == ["head.weight", "head.bias"]  # one output for each pixel of a patch
    assert sorted(found.left_out) == ["head.bias", "head.weight"]
    assert {n: v().shape for n, v in found.values.items()}.items() <= {
        n: t.shape for n, t in network(run, about_of(run)).state_dict().items()
    }.items()


@pytest.mark.parametrize("prefix", ["encoder.", "module.backbone."])
@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_a_prefix_and_a_decoder_are_ignored(store, pretrained, tmp_path, prefix, suffix):
    there = {
        prefix + n: t
        for n, t in load_model(pretrained).network.state_dict().items()
        if not n.startswith("head.")
    }
    there |= {"decoder_blocks.0.norm1.weight": torch.ones(8), "mask_token": torch.ones(8)}
    file = tmp_path / f"weights.{suffix}"
    if suffix == "pth":
        torch.save({"model": there, "epoch": 7}, file)
    else:
        safetensors.torch.save_file(there, file)
    init = Init(from_=str(file), bands=("F2", "F0", "F1"))
    found = matched(init, about_of(job(store, "none")))
    assert sorted(found.left_out) == ["decoder_blocks.0.norm1.weight", "mask_token"]
    assert found.new == ["head.weight", "head.bias"]
    torch.testing.assert_close(found.values["norm.weight"](), there[prefix + "norm.weight"])


def losses(folder) -> list[float]:
    return [line["loss"] for line in read(folder) if "loss" in line]


LAYOUTS = [(2, Parallel()), (2, Parallel(shard=2)), (2, Parallel(tensor=2))]


@pytest.fixture(scope="module")
def alone(store, pretrained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone") / "run"
    train(job(store, folder, init=Init(from_=str(pretrained))))
    return folder


@pytest.mark.parametrize(("number", "parallel"), LAYOUTS, ids=str)
def test_every_layout_begins_with_them(ranks, store, pretrained, alone, tmp_path, number, parallel):
    run = job(store, tmp_path / "run", init=Init(from_=str(pretrained)), parallel=parallel)
    ranks(number, train, run)
    assert losses(tmp_path / "run") == pytest.approx(losses(alone), rel=1e-9)
    first, second = (load_model(f).network.state_dict() for f in (tmp_path / "run", alone))
    for name, value in second.items():
        torch.testing.assert_close(first[name], value, rtol=1e-7, atol=1e-9, msg=name)


def test_it_goes_on_without_the_file_and_not_with_another(store, pretrained, alone, tmp_path):
    copied, folder = tmp_path / "weights", tmp_path / "run"
    shutil.copytree(pretrained, copied)
    run = job(store, folder, init=Init(from_=str(copied)))
    half = dataclasses.replace(
        run, train=dataclasses.replace(run.train, checkpoint_every=8, keep=9)
    )
    train(half)
    for late in ("00000002", "00000003"):
        shutil.rmtree(folder / "checkpoints" / late)
    (folder / "model.json").unlink()
    shutil.rmtree(copied)
    train(half)
    again = load_model(folder).network.state_dict()
    for name, value in load_model(alone).network.state_dict().items():
        assert torch.equal(again[name], value), name
    export(half)  # nor does this need it
    shutil.copytree(alone, copied)
    with pytest.raises(ConfigError, match=r"these are other weights \(sha256 \w{12}\) than those"):
        train(half)


def test_the_run_folder_keeps_the_checksum(store, pretrained, alone):
    kept = (alone / "settings.yaml").read_text()
    assert f"sha256: {sha(pretrained)}" in kept and f"from: {pretrained}" in kept


def test_settings_are_written_as_from(pretrained, tmp_path):
    """``from`` is a word of Python's own, and none of YAML's."""
    file = tmp_path / "run.yaml"
    file.write_text("data: {store: s}\ninit: {from: there.safetensors}\n")
    run = load(Run, [file], ["init.from=other.safetensors"])
    assert run.init.from_ == "other.safetensors" and "from: other.safetensors" in dump(run)
    with pytest.raises(ConfigError, match=r"init needs 'from' \(A run folder"):
        load(Run, [], ["data.store=s", "init.bands=[B02]"])
    with pytest.raises(ConfigError, match=r"init.form: .*did you mean 'from'"):
        load(Run, [], ["data.store=s", "init={form: x}"])


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            ViT(width=32, depth=2, heads=2, patch=4),
            r"pos_embed is 16 x 16 there and 16 x 32 in",
        ),
        (
            ViT(width=16, depth=12, heads=2, patch=4),
            r"\d+ of the \d+ tensors .* have a cou",
        ),
    ],
)
def test_another_network_is_refused_with_the_numbers(store, pretrained, model, message):
    run = job(store, "none", model=model, init=Init(from_=str(pretrained), sha256=sha(pretrained)))
    with pytest.raises(ConfigError, match=message) as told:
        begun(run)
    assert '"model={kind: vit, width: 16, depth: 2, heads: 2, patch: 4}"' in str(told.value)


def test_the_network_to_set_is_told_as_one_types_it(store, pretrained, filled_in, tmp_path):
    """What is told is a word, which then fits; a file tells all of it but heads."""
    bare = tmp_path / "bare.safetensors"
    shutil.copy(pretrained / "model.safetensors", bare)
    three = DataSettings(store=store, bands=("F0", "F1", "F2"))
    deep = ViT(width=16, depth=16, heads=2, patch=4, decoder="linear")
    cases = [
        (filled_in, UNet(width=4, depth=1), "{kind: vit, width: 16, depth: 2, heads: 2, patch: 4}"),
        (filled_in, deep, "{kind: vit, width: 16, depth: 2, heads: 2, patch: 4, decoder: linear}"),
        (bare, UNet(width=4, depth=1), "{kind: vit, width: 16, depth: 2, heads: 1, patch: 4}"),
    ]
    for there, model, fitting in cases:
        run = job(store, "none", data=three, model=model, init=Init(from_=str(there)))
        with pytest.raises(ConfigError) as told:
            matched(run.init, about_of(run))
        assert f'the network that the weights are of is "model={fitting}"' in str(told.value)
        other = load(Run, [], [f"data.store={store}", "task={kind: segment}", f"model={fitting}"])
        run = dataclasses.replace(run, model=other.model)
        assert matched(run.init, about_of(run)).lacking in ([], ["cls_token"])


def test_other_heads_of_the_same_shapes_are_refused(store, pretrained):
    """Nothing in the file shows them, and attention would read the weights otherwise."""
    model = dataclasses.replace(SMALL, heads=4)
    run = job(store, "none", model=model, init=Init(from_=str(pretrained)))
    with pytest.raises(ConfigError, match=r"trained with 2 heads .* model.heads=4 here.*heads: 2"):
        matched(run.init, about_of(run))


def test_bands_that_nobody_names_are_asked_for(store, pretrained, tmp_path):
    file = tmp_path / "plain.safetensors"
    shutil.copy(pretrained / "model.safetensors", file)
    about = about_of(job(store, "none"))
    with pytest.raises(ConfigError, match=r"is for 3 bands and the data have 4 \(F0, F1, F2, F3\)"):
        matched(Init(from_=str(file)), about)
    with pytest.raises(ConfigError, match=r"init.bands names 2 bands and .* is for 3"):
        matched(Init(from_=str(file), bands=("F0", "F1")), about)


def test_what_is_no_file_of_weights_is_said(store, tmp_path):
    about = about_of(job(store, "none"))
    for name, message in (
        ("a.safetensors", "is no safetensors file"),
        ("a.pth", "is no file of t"),
    ):
        (tmp_path / name).write_bytes(b"nothing of the kind")
        with pytest.raises(ConfigError, match=message):
            matched(Init(from_=str(tmp_path / name)), about)
    with pytest.raises(ConfigError, match="there is no such folder or file"):
        matched(Init(from_=str(tmp_path / "b.safetensors")), about)
    with pytest.raises(
        ConfigError, match=r"there is no model.safetensors in this folder; name a run"
    ):
        matched(Init(from_=str(tmp_path)), about)
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(ConfigError, match="its run is not at its end: swath train goes on"):
        matched(Init(from_=str(tmp_path)), about)


def test_a_checksum_in_the_settings_is_held_to(store, pretrained, tmp_path):
    wrong = Init(from_=str(pretrained), sha256="0" * 64)
    with pytest.raises(ConfigError, match=r"its checksum is \w{64}, init.sha256 asks for 0000"):
        train(job(store, tmp_path / "run", init=wrong))
    assert not (tmp_path / "run" / "settings.yaml").exists()


def test_damaged_weights_of_a_run_are_refused(store, pretrained, tmp_path):
    shutil.copytree(pretrained, tmp_path / "there")
    file = tmp_path / "there" / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=r"does not match the checksum in model.json"):
        train(job(store, tmp_path / "run", init=Init(from_=str(tmp_path / "there"))))


def test_weights_that_were_replaced_are_refused(store, pretrained, tmp_path):
    """After their checksum was taken, and before they are read; of a run, or of any file."""
    whole, plain = tmp_path / "run", tmp_path / "plain.safetensors"
    shutil.copytree(pretrained, whole)
    shutil.copy(pretrained / "model.safetensors", plain)
    about = about_of(job(store, "none"))
    for path in (whole, plain):
        init = Init(from_=str(path), bands=("F0", "F1", "F2"), sha256=sha(pretrained))
        matched(init, about)
        with pytest.raises(ConfigError, match=r"was replaced since this began: .* was 0000"):
            matched(dataclasses.replace(init, sha256="0" * 64), about)


@pytest.fixture(scope="module")
def filled_in(store, tmp_path_factory):
    """A masked autoencoder of three bands, pretrained without labels."""
    folder = tmp_path_factory.mktemp("mae") / "run"
    model = MAE(width=16, depth=2, heads=2, patch=4, decoder_depth=1, decoder_heads=2)
    bands = DataSettings(store=store, bands=("F0", "F1", "F2"))
    train(job(store, folder, data=bands, model=model, task=Pretrain()))
    return folder


def test_a_network_begins_with_the_encoder_of_a_masked_autoencoder(store, filled_in, caplog):
    """Its tokens are those of the encoder, whose fixed positions become learned ones."""
    caplog.set_level(logging.INFO)
    data = DataSettings(store=store, bands=("F0", "F1", "F2"))
    for changes in ({}, {"positions": "waves"}):
        model = dataclasses.replace(SMALL, **changes)
        init = Init(from_=str(filled_in), sha256=sha(filled_in))
        run = job(store, "none", data=data, model=model, init=init)
        network_ = network(run, about_of(run)).float().eval()
        network_.load_state_dict(begun(run))
        image = torch.randn(2, 3, 16, 16)
        mae = load_model(filled_in).network
        with torch.no_grad():
            expected = mae.tokens(image)[0]
            torch.testing.assert_close(network_.tokens(image)[0], expected)
    assert "pos_embed: the sines and cosines that the weights go by" in caplog.text
    assert "decoder_blocks.* (16), decoder_embed.bias" in caplog.text
    assert "begins at random" not in caplog.text  # but for the head, of course


def test_a_class_token_that_the_weights_lack_is_told(store, filled_in, tmp_path, caplog):
    build(Synthetic(samples=8, size=16, label="class"), tmp_path / "s", Split(by="random"))
    init = Init(from_=str(filled_in), sha256=sha(filled_in))
    begun(job(str(tmp_path / "s"), "none", task=Classify(), init=init))
    assert "begins at random in part, for which there are no weights: cls_token" in caplog.text


def test_learned_positions_that_are_left_out_are_told(store, pretrained, caplog):
    init = Init(from_=str(pretrained), sha256=sha(pretrained))
    begun(job(store, "none", model=dataclasses.replace(SMALL, positions="waves"), init=init))
    assert "its learned positions are left out" in caplog.text
    assert "model.positions=learned takes them" in caplog.text
