"""Others' weights: files in their layouts, and the same numbers from transformers' own networks."""

import dataclasses

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from swath import run
from swath.adapt.probe import Probe
from swath.config import ConfigError, load
from swath.data.build import build
from swath.data.chip import Known
from swath.data.sensor import Band
from swath.data.split import Split
from swath.data.views import Global, Views
from swath.datasets.synthetic import Synthetic
from swath.models import Inputs, Outputs
from swath.models._channels import Channels
from swath.models.mae import MAE
from swath.models.unet import UNet
from swath.models.vit import ViT
from swath.nn.features import attention, features
from swath.settings import Run
from swath.tasks.classify import Classify
from swath.tasks.contrast import Contrast
from swath.tasks.moco import Moco
from swath.tasks.pretrain import Pretrain
from swath.train.begin import matched
from swath.train.describe import describe
from swath.train.export import load_model, save_model
from swath.train.foreign import _check_plain, write_foreign
from swath.train.given import read_weights
from swath.train.init import Init, checksum
from swath.train.match import Bands, match
from swath.train.setup import train
from tests.lab import invoke
from tests.train.test_init import job
from tests.train.test_init import store as store  # a fixture

WIDTH, SIZE, PATCH = 32, 16, 4


def vit(bands: int = 3, **changes) -> nn.Module:
    """Return a network with random weights, norms and biases too."""
    settings = ViT(width=WIDTH, depth=2, heads=4, patch=PATCH, **changes)
    inputs = Inputs(bands=tuple(Band(name=f"B{i}") for i in range(bands)), size=SIZE)
    network = settings.build(inputs, Outputs(channels=5, dense=False)).double()
    return randomised(network)


def randomised(network: nn.Module) -> nn.Module:
    draws = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=draws) * 0.2)
    return network.eval()


def begun(file, network, bands=3, given=None):
    """Return ``network`` with the weights in ``file``, and what became of them."""
    names = {f"B{i}": None for i in range(bands)}
    heads = {"head.weight", "head.bias"}
    found = match(read_weights(file, None), network, heads, Bands(given, names))
    network.load_state_dict({n: v() for n, v in found.values.items()}, strict=False)
    return network, found


def saved(tmp_path, tensors: dict[str, Tensor], name: str = "there.safetensors"):
    path = tmp_path / name
    if path.suffix == ".safetensors":
        safetensors.torch.save_file({n: t.contiguous().clone() for n, t in tensors.items()}, path)
    else:
        torch.save(tensors, path)
    return path


IMAGE = torch.randn(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1)).double()


@pytest.fixture(scope="module")
def hf():
    import transformers

    config = transformers.ViTConfig(
        hidden_size=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=4 * WIDTH,
        image_size=SIZE,
        patch_size=PATCH,
        layer_norm_eps=1e-6,
        num_labels=5,
    )
    return randomised(transformers.ViTForImageClassification(config).double())


@pytest.mark.parametrize("how", ["memory", "disk"])
def test_hugging_faces_vit_gives_the_same_answers(hf, tmp_path, how):
    """transformers' own code is the independent implementation."""
    if how == "disk":
        hf.save_pretrained(tmp_path)
        file = tmp_path / "model.safetensors"
    else:
        file = saved(tmp_path, hf.state_dict(), "there.pth")
    network, found = begun(file, vit())
    assert not found.left_out and not found.new
    with torch.no_grad():
        torch.testing.assert_close(network(IMAGE), hf(IMAGE).logits, rtol=1e-10, atol=1e-10)
        expected = hf.vit(IMAGE).last_hidden_state
        torch.testing.assert_close(network.tokens(IMAGE)[0], expected, rtol=1e-10, atol=1e-10)


def test_features_and_attention_are_hugging_faces(hf, tmp_path):
    """After each block, and of each head: from its own plain attention, which keeps them, and whose
    softmax is in float32."""
    network, _ = begun(saved(tmp_path, hf.state_dict(), "there.pth"), vit())
    before = hf.config._attn_implementation
    hf.set_attn_implementation("eager")
    try:
        with torch.no_grad():
            there = hf.vit(IMAGE, output_attentions=True, output_hidden_states=True)
    finally:
        hf.set_attn_implementation(before)
    close = {"rtol": 1e-6, "atol": 1e-6}
    for i, weights in enumerate(attention(network, IMAGE).values()):
        torch.testing.assert_close(weights, there.attentions[i].double(), **close)
    found = features(network, IMAGE, ["blocks.0", "blocks.1"])
    torch.testing.assert_close(found["blocks.0"], there.hidden_states[1], **close)
    assert len(there.attentions) == 2


def test_hugging_faces_mae_gives_its_encoder(tmp_path):
    import transformers

    config = transformers.ViTMAEConfig(
        hidden_size=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=4 * WIDTH,
        image_size=SIZE,
        patch_size=PATCH,
        layer_norm_eps=1e-6,
        mask_ratio=0.0,
        decoder_hidden_size=8,
        decoder_num_hidden_layers=1,
        decoder_num_attention_heads=2,
        decoder_intermediate_size=16,
    )
    mae = randomised(transformers.ViTMAEForPreTraining(config).double())
    mae.save_pretrained(tmp_path)
    network, found = begun(tmp_path / "model.safetensors", vit())
    assert found.new == ["head.weight", "head.bias"]
    assert found.left_out and all("decoder" in name for name in found.left_out)
    with torch.no_grad():
        noise = torch.arange(16.0).expand(2, -1)  # nothing is masked; tokens keep their order
        expected = mae.vit(IMAGE, noise=noise).last_hidden_state
        torch.testing.assert_close(network.tokens(IMAGE)[0], expected, rtol=1e-10, atol=1e-10)


def timm(network: nn.Module, prefix: str = "") -> dict[str, Tensor]:
    """Return the weights in timm's layout, written out by hand from its definition."""
    state = network.state_dict()
    found = {
        "cls_token": state["cls_token"].reshape(1, 1, WIDTH),
        "pos_embed": state["pos_embed"].reshape(1, -1, WIDTH),
    }
    for name in ("patch_embed.proj", "norm"):
        found |= {f"{name}.{kind}": state[f"{name}.{kind}"] for kind in ("weight", "bias")}
    for i in range(2):
        for kind in ("weight", "bias"):
            parts = [state[f"blocks.{i}.attn.{part}.{kind}"] for part in "qkv"]
            found[f"blocks.{i}.attn.qkv.{kind}"] = torch.cat(parts)
            for name in ("norm1", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2"):
                found[f"blocks.{i}.{name}.{kind}"] = state[f"blocks.{i}.{name}.{kind}"]
    return {prefix + name: tensor for name, tensor in found.items()}


def same(network: nn.Module, other: nn.Module, image: Tensor = IMAGE) -> None:
    with torch.no_grad():
        torch.testing.assert_close(network.tokens(image)[0], other.tokens(image)[0])


def test_timms_vit_and_a_masked_autoencoder_of_its_names_load(tmp_path):
    """SatMAE without groups is one: timm's names, and a decoder."""
    there = vit()
    more = {"mask_token": torch.zeros(1, 1, 8), "decoder_embed.weight": torch.zeros(8, WIDTH)}
    file = saved(tmp_path, {"model": timm(there) | more, "epoch": 3}, "satmae.pth")
    network, found = begun(file, vit().apply(nn.Module.eval))
    assert sorted(found.left_out) == sorted(more) and found.new == ["head.weight", "head.bias"]
    same(network, there)


def test_satmaes_groups_of_bands_become_the_mean_of_their_tokens(tmp_path):
    """Against the tokens of each group, by its definition: projections of some bands each, and an
    embedding of the group beside that of the place."""
    there, groups, beside = vit(bands=5), ((0, 1, 2), (3, 4)), 8
    draws = torch.Generator().manual_seed(9)
    state = timm(there)
    weight = state.pop("patch_embed.proj.weight")
    state.pop("patch_embed.proj.bias")
    biases = torch.randn(2, WIDTH, generator=draws).double()
    places = torch.randn(1, 17, WIDTH - beside, generator=draws).double()
    channel = torch.randn(1, 2, beside, generator=draws).double()
    first = torch.randn(1, 1, beside, generator=draws).double()
    state |= {"pos_embed": places, "channel_embed": channel, "channel_cls_embed": first}
    for i, group in enumerate(groups):
        state |= {
            f"patch_embed.{i}.proj.weight": weight[:, group],
            f"patch_embed.{i}.proj.bias": biases[i],
        }
    network, found = begun(saved(tmp_path, state), vit(bands=5), bands=5)
    assert found.new == ["head.weight", "head.bias"] and not found.left_out
    image = torch.randn(1, 5, SIZE, SIZE, generator=draws).double()
    tokens = []
    for i, group in enumerate(groups):
        x = nn.functional.conv2d(image[:, group], weight[:, group], biases[i], stride=PATCH)
        x = x.flatten(2).mT
        tokens.append(x + torch.cat([places[:, 1:], channel[:, i : i + 1].expand(1, 16, -1)], 2))
    with torch.no_grad():
        got = network.embedded(image)
    torch.testing.assert_close(got[:, 1:], torch.stack(tokens).mean(0))
    expected = state["cls_token"][0] + torch.cat([places[:, 0], first[:, 0]], 1)
    torch.testing.assert_close(got[:, 0], expected)


@pytest.mark.parametrize("prefix", ["", "encoder."])
def test_prithvis_frames_become_one_still_image(tmp_path, prefix):
    """Its positions are sines and cosines of row, column and frame; 4 frames of 14 x 14 are as many
    as one of 28 x 28."""
    there = vit()
    state = timm(there, prefix)
    weight = state[f"{prefix}patch_embed.proj.weight"]
    state[f"{prefix}patch_embed.proj.weight"] = weight[:, :, None]  # a tube of one frame
    one = torch.randn(16, WIDTH, generator=torch.Generator().manual_seed(2)).double()
    frames = [one.clone() for _ in range(4)]
    for number, frame in enumerate(frames):
        frame[:, -8:] = number  # a quarter tells the time
    first = torch.zeros(1, WIDTH).double()
    state[f"{prefix}pos_embed"] = torch.cat([first, *frames])[None]
    state[f"{prefix}temporal_embed_enc.scale"] = torch.zeros(1)
    network, found = begun(saved(tmp_path, state), vit())
    assert found.left_out == [f"{prefix}temporal_embed_enc.scale"]
    with torch.no_grad():
        there.pos_embed.copy_(torch.cat([first, frames[0]]))
    same(network, there)


def test_what_an_encoder_lacks_is_said(tmp_path):
    state = timm(vit())
    del state["blocks.1.mlp.fc2.bias"], state["norm.weight"]
    _, found = begun(saved(tmp_path, state), vit())
    assert found.lacking == ["blocks.1.mlp.fc2.bias", "norm.weight"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("names")
    source = Synthetic(samples=24, size=16, label="class", bands=3)
    build(source, folder / "store", Split(by="random"), progress=False)
    model = ViT(width=16, depth=2, heads=2, patch=4)
    train(job(str(folder / "store"), folder / "run", task=Classify(), model=model))
    return folder / "run"


def test_a_run_written_for_hugging_face_opens_there(trained):
    import transformers

    ours = load_model(trained)
    theirs = transformers.ViTForImageClassification.from_pretrained(write_foreign(trained, "hf"))
    image = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(theirs.eval()(image).logits, ours.network(image))
    assert theirs.config.id2label == dict(enumerate(ours.label.classes))


def test_a_run_written_by_timms_names_comes_back(trained):
    file = write_foreign(trained, "timm")
    there = safetensors.torch.load_file(file)
    assert there["blocks.1.attn.qkv.weight"].shape == (48, 16) and there["pos_embed"].ndim == 3
    ours = load_model(trained).network
    again = ViT(width=16, depth=2, heads=2, patch=4).build(
        load_model(trained).inputs, load_model(trained).outputs
    )
    again.load_state_dict(there)
    image = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(again.eval()(image), ours(image))


def test_the_command_writes_it_and_refuses_other_names_and_networks(trained, store, tmp_path):
    invoke("export", str(trained), "--names", "timm")
    with pytest.raises(ConfigError, match="--names=keras: there are timm and hf"):
        run.export_for(load(Run, [trained / "settings.yaml"]), "keras")
    other = job(store, tmp_path, model=UNet(width=4, depth=1))
    train(other)
    with pytest.raises(ConfigError, match="unet has no counterpart by other names; vit and mae h"):
        write_foreign(tmp_path, "timm")
    begun_as(store, tmp_path / "dense", ViT(**TINY))
    with pytest.raises(ConfigError, match=r"Hugging Face's ViT has a class token.*pool=token"):
        write_foreign(tmp_path / "dense", "hf")
    begun_as(store, tmp_path / "mae", MAE(**TINY, decoder_depth=1), task=PIXELS)
    with pytest.raises(ConfigError, match=r"ViT has a class token.*model.class_token=true. timm"):
        write_foreign(tmp_path / "mae", "hf")


TINY = {"width": 16, "depth": 1, "heads": 2, "patch": 4}
WHOLE = Views(global_=Global(scale=(1.0, 1.0)))
CONTRAST, PIXELS = Contrast(hidden=(8,), width=4, views=WHOLE), Pretrain()


def begun_as(store, folder, model, gsd_m=None, **changes):
    """Write to ``folder`` such a run's model with random weights; return it."""
    run = job(store, folder, model=model, **changes)
    about = describe(run, run.data.open())
    about = dataclasses.replace(about, inputs=dataclasses.replace(about.inputs, gsd_m=gsd_m))
    folder.mkdir(parents=True)
    network = randomised(model.build(about.inputs, about.outputs))
    save_model(folder, network.state_dict(), about)
    return load_model(folder)


def test_layers_that_others_do_not_have_are_not_written(store, tmp_path):
    size = TINY
    begun_as(store, tmp_path / "time", ViT(**size, time=True))
    with pytest.raises(ConfigError, match=r"a vit with a token of time or place .* has no counter"):
        write_foreign(tmp_path / "time", "timm")
    train(job(store, tmp_path, model=ViT(**size, channels=Channels(groups=(3,)))))
    with pytest.raises(ConfigError, match=r"a vit with aggregated channels .* has no counterpart"):
        write_foreign(tmp_path, "timm")
    with pytest.raises(ConfigError, match=r"a vit with gated hidden layers .* has no counterpart"):
        _check_plain(ViT(**size, gated=True), tmp_path)


@pytest.mark.parametrize(("positions", "gsd_m"), [("waves", None), ("metres", 30.0)])
def test_weights_made_from_wavelengths_and_waves_are_written_out(store, tmp_path, positions, gsd_m):
    """At 30 m a place is three steps of 10 m from the next."""
    model = ViT(**TINY, embed="wavelengths", positions=positions, pool="mean")
    ours = begun_as(store, tmp_path / "run", model, gsd_m, task=CONTRAST)
    there = safetensors.torch.load_file(write_foreign(tmp_path / "run", "timm"))
    assert not [name for name in there if name.startswith("head")]
    plain = dataclasses.replace(model, embed="bands", positions="learned")
    again = plain.build(ours.inputs, ours.outputs).eval()
    missing, more = again.load_state_dict(there, strict=False)
    assert all(name.startswith("head") for name in missing) and not more
    same(again, ours.network, torch.randn(2, 4, 16, 16))


@pytest.mark.parametrize(
    ("model", "task", "left"),
    [
        (ViT(**TINY), CONTRAST, "the head"),
        (ViT(**TINY), Moco(hidden=(8,), width=4, predictor=(8,)), "the head"),
        (MAE(**TINY, class_token=True, decoder="cross", decoder_depth=1), PIXELS,
         "the cross decoder and its token"),
    ],
)  # fmt: skip
def test_an_encoder_is_written_without_what_read_it_out(store, tmp_path, caplog, model, task, left):
    """transformers' ViTModel, which has a pooler that no file of a pretrained encoder has."""
    import transformers

    ours = begun_as(store, tmp_path / "run", model, task=task)
    with caplog.at_level("INFO"):
        path = write_foreign(tmp_path / "run", "hf")
    assert f"left out: {left}, which others do not have" in caplog.text
    theirs, told = transformers.ViTModel.from_pretrained(path, output_loading_info=True)
    assert all(name.startswith("pooler") for name in told["missing_keys"])
    assert not told["unexpected_keys"]
    image = torch.randn(2, 4, 16, 16)
    with torch.no_grad():
        found = theirs.eval()(image).last_hidden_state
    torch.testing.assert_close(found, ours.network.tokens(image)[0], rtol=1e-4, atol=1e-5)


def test_nothing_frozen_is_read_from_a_class_token_that_nobody_trained(store, tmp_path, caplog):
    """A mae has none unless told to; a vit reads one unless told not to."""
    mae = MAE(**TINY, decoder_depth=1, positions="learned")
    begun_as(store, tmp_path / "mae", mae, task=PIXELS)
    init = Init(from_=str(tmp_path / "mae"))
    probe = job(store, tmp_path / "run", task=CONTRAST, init=init, adapt=Probe(), model=ViT(**TINY))
    with pytest.raises(ConfigError, match=r"no class token, .* random one; set model.pool=mean"):
        train(probe)
    assert "task.kind=contrast compares views of a sample, and these differ by where" in caplog.text
    mean = dataclasses.replace(probe.model, pool="mean")
    train(dataclasses.replace(probe, model=mean))


def test_a_dense_networks_encoder_is_written(store, tmp_path, caplog):
    model = ViT(width=16, depth=4, heads=2, patch=4, decoder="upernet", decoder_width=8)
    ours = begun_as(store, tmp_path / "run", model)
    with caplog.at_level("INFO"):
        there = safetensors.torch.load_file(write_foreign(tmp_path / "run", "timm"))
    assert "left out: the head and the decoder, which others do not have" in caplog.text
    again = dataclasses.replace(model, decoder=None, decoder_width=None)
    again = again.build(ours.inputs, ours.outputs).eval()
    assert again.load_state_dict(there, strict=False).unexpected_keys == []
    same(again, ours.network, torch.randn(2, 4, 16, 16))


@pytest.mark.parametrize("more", [{}, {"embed": "wavelengths", "positions": "metres"}])
def test_a_masked_autoencoder_is_hugging_faces(store, tmp_path, more):
    """Encoder and decoder of transformers' ViTMAE, with half of the patches hidden; and by timm's
    names it comes back."""
    import transformers

    sizes = {"decoder_width": 8, "decoder_depth": 2, "decoder_heads": 2}
    model = MAE(**TINY, **sizes, class_token=True, mask_ratio=0.5, **more)
    ours = begun_as(store, tmp_path / "run", model, 30.0 if more else None, task=PIXELS)
    path = write_foreign(tmp_path / "run", "hf")
    theirs, told = transformers.ViTMAEForPreTraining.from_pretrained(path, output_loading_info=True)
    assert not told["missing_keys"] and not told["unexpected_keys"]
    assert theirs.config.norm_pix_loss and theirs.config.mask_ratio == 0.5
    image = torch.randn(2, 4, 16, 16)
    order = torch.stack([torch.randperm(16) for _ in image])
    with torch.no_grad():
        answer = theirs.eval()(image, noise=order.argsort(1).float()).logits
        found = ours.network(image, order[:, :8], order[:, 8:])
    asked = answer.gather(1, order[:, 8:, None].expand(-1, -1, answer.shape[2]))
    torch.testing.assert_close(found, asked, rtol=1e-4, atol=1e-5)

    plain = dataclasses.replace(model, embed="bands", positions="learned")
    again = plain.build(ours.inputs, ours.outputs).eval()
    for file in (write_foreign(tmp_path / "run", "timm"), path / "model.safetensors"):
        names = {band.name: None for band in ours.inputs.bands}
        how = match(read_weights(file, None), again, set(), Bands(None, names))
        assert not how.new and not how.left_out
        again.load_state_dict({n: v() for n, v in how.values.items()})
        with torch.no_grad():
            torch.testing.assert_close(again(image), ours.network(image), rtol=1e-4, atol=1e-5)


def test_weights_made_from_wavelengths_begin_a_network_with_weights_for_each_band(store, tmp_path):
    """Those of three bands in another order, of which the run saw others: the tokens are those of
    the encoder that is told which bands they are."""
    model = ViT(**TINY, embed="wavelengths", pool="mean")
    there = begun_as(store, tmp_path / "run", model, task=CONTRAST)
    seen = {"x": 2190, "F0": 490, "VV": None}
    bands = tuple(Band(name=name, wavelength_nm=nm) for name, nm in seen.items())
    inputs = Inputs(bands=bands, size=16)
    plain = dataclasses.replace(model, embed="bands")
    about = dataclasses.replace(there.about, model=plain, inputs=inputs)
    init = Init(from_=str(tmp_path / "run"))
    init = dataclasses.replace(init, sha256=checksum(init.file))
    with pytest.raises(ConfigError, match=r"init.bands=\['x'\] has no effect: .*wavelengths"):
        matched(dataclasses.replace(init, bands=("x",)), about)
    found = matched(init, about)
    assert not found.lacking
    assert found.adapted == {"patch_embed.proj.weight": "made from what x, F0, VV see"}
    ours = plain.build(inputs, there.outputs).eval()
    ours.load_state_dict({n: value() for n, value in found.values.items()})
    image = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(
            ours.tokens(image)[0], there.network.tokens(image, Known(bands=bands))[0]
        )
