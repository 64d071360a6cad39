"""A pretrained encoder with a decoder for maps: what begins anew, what learns, on all layouts."""

import dataclasses
import logging

import pytest
import torch

from swath.adapt.full import Full
from swath.adapt.lora import LoRA
from swath.adapt.probe import Probe
from swath.data.settings import DataSettings
from swath.models.unet import UNet
from swath.parallel.settings import Parallel
from swath.train.adapted import build as network_of
from swath.train.adapted import factors
from swath.train.export import load_model
from swath.train.init import Init
from swath.train.setup import train
from tests.train.test_init import SMALL, about_of, job, losses
from tests.train.test_init import filled_in as filled_in  # fixtures
from tests.train.test_init import store as store

WAYS = {"full": Full(decay=0.5), "probe": Probe(), "lora": LoRA(rank=4)}
DECODERS = {
    name: dataclasses.replace(SMALL, decoder=name, drop_path=0.3, positions="waves")
    for name in ("linear", "upernet")
}
DECODERS["upernet"] = dataclasses.replace(DECODERS["upernet"], decoder_width=8)
CASES = [
    ("upernet", "full", 2, Parallel(shard=2)),
    ("upernet", "probe", 2, Parallel()),
    ("upernet", "lora", 2, Parallel(pipeline=2)),
    ("linear", "full", 2, Parallel(tensor=2)),
    ("linear", "probe", 2, Parallel(shard=2)),
    ("linear", "lora", 2, Parallel(tensor=2)),
]


def adapted(store, folder, filled_in, decoder, way, **changes):
    data = DataSettings(store=store, bands=("F0", "F1", "F2"))
    settings = {"data": data, "model": DECODERS[decoder], "adapt": WAYS[way]}
    return job(store, folder, **settings, init=Init(from_=str(filled_in)), **changes)


@pytest.mark.parametrize(("decoder", "way", "number", "parallel"), CASES)
def test_a_decoder_learns_on_a_pretrained_encoder(
    ranks, store, filled_in, tmp_path, caplog, decoder, way, number, parallel
):
    """Equal on all layouts; with a probe, and but for LoRA's layers, the encoder stays as it was,
    and all of the decoder learns."""
    caplog.set_level(logging.INFO)
    train(adapted(store, tmp_path / "alone", filled_in, decoder, way))
    assert "begins at random" not in caplog.text  # of the encoder
    new = "  new       2: head.weight, head.bias"
    if decoder == "upernet":
        new = "  new       46: decoder.pyramid.levels.* (8), decoder.pooled.* (12), decoder.whole"
    assert new in caplog.text
    spread = tmp_path / "spread"
    ranks(number, train, adapted(store, spread, filled_in, decoder, way, parallel=parallel))
    assert losses(spread) == pytest.approx(losses(tmp_path / "alone"), rel=1e-9)
    before = load_model(filled_in).network.state_dict()
    found, after = (load_model(f).network.state_dict() for f in (spread, tmp_path / "alone"))
    for name, value in after.items():
        torch.testing.assert_close(found[name], value, rtol=1e-7, atol=1e-9, msg=name)
    encoder = {n for n in after if not n.startswith(("decoder", "head"))}
    changed = {n for n in encoder if not torch.equal(after[n], before[n])}
    keys = {n for n in encoder if n.endswith("attn.k.bias")}
    lora = {f"blocks.{i}.attn.{layer}.weight" for i in (0, 1) for layer in "qv"}
    assert changed == {"full": encoder - keys, "probe": set(), "lora": lora}[way]
    assert torch.equal(after["norm.weight"], before["norm.weight"]) == (way != "full")


def test_the_decoder_learns_at_the_full_rate(store, filled_in):
    run = adapted(store, "none", filled_in, "upernet", "full")
    about = about_of(run)
    rates = factors(run, about.inputs, about.outputs)
    names = [name for name, _ in network_of(run, about.inputs, about.outputs).named_parameters()]
    slower = {name for name in names if name.startswith(("blocks", "patch_embed"))}
    assert set(rates) == slower and any(name.startswith("decoder") for name in names)


@pytest.mark.parametrize(("asked", "learning"), [(None, True), (True, True), (False, False)])
def test_whether_the_decoder_learns_can_be_said(store, filled_in, asked, learning):
    """False is for weights that come with a decoder."""
    run = adapted(store, "none", filled_in, "upernet", "probe")
    run = dataclasses.replace(run, adapt=Probe(decoder=asked))
    about = about_of(run)
    network = network_of(run, about.inputs, about.outputs)
    assert all(p.requires_grad == learning for p in network.decoder.parameters())
    assert network.head.weight.requires_grad and not network.norm.weight.requires_grad
    other = dataclasses.replace(run, model=UNet(width=4, depth=1))
    unet = network_of(other, about.inputs, about.outputs)
    assert all(p.requires_grad == (asked is True) for p in unet.decoder.parameters())


def test_a_decoder_comes_with_the_weights_and_begins_anew_in_another_width(
    store, filled_in, tmp_path, caplog
):
    first = adapted(store, tmp_path / "first", filled_in, "upernet", "probe")
    train(dataclasses.replace(first, train=dataclasses.replace(first.train, samples=8)))
    for width, words in ((8, "taken     82: "), (4, "new       45: decoder.pyramid")):
        caplog.clear()
        caplog.set_level(logging.INFO)
        run = adapted(store, tmp_path / str(width), tmp_path / "first", "upernet", "probe")
        model = dataclasses.replace(run.model, decoder_width=width)
        course = dataclasses.replace(run.train, samples=8)
        train(dataclasses.replace(run, model=model, train=course))
        assert words in caplog.text and "begins at random" not in caplog.text
