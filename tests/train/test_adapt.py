"""Ways to go on from given weights: what learns, how fast, on all layouts; what is exported."""

import dataclasses

import pytest
import safetensors.torch
import torch
from torch import nn

from swath.adapt.full import Full
from swath.adapt.lora import LoRA
from swath.adapt.probe import Probe
from swath.config import ConfigError
from swath.data.build import build
from swath.data.split import Split
from swath.datasets.synthetic import Synthetic
from swath.models.unet import UNet
from swath.nn.lora import Lora
from swath.optimizers.adamw import AdamW
from swath.parallel.settings import Parallel
from swath.train.adapted import build as network_of
from swath.train.adapted import factors, optimizer
from swath.train.dry import lay_out
from swath.train.export import load_model
from swath.train.init import Init
from swath.train.setup import train
from tests.layouts.subjects import NarrowUNet
from tests.train.test_init import SMALL, about_of, job, losses
from tests.train.test_init import store as store  # a fixture

DROPPING = dataclasses.replace(SMALL, drop_path=0.3, pool=None)


@pytest.fixture(scope="module")
def pretrained(store, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pretrained") / "run"
    train(job(store, folder, seed=3))
    return folder


WAYS = {
    "full": Full(decay=0.5),
    "probe": Probe(),
    "lora": LoRA(rank=4, layers=("q", "v", "proj", "fc1", "fc2")),
}


def adapted(store, folder, pretrained, way, **changes):
    settings = {"model": DROPPING, "init": Init(from_=str(pretrained)), "adapt": WAYS[way]}
    run = job(store, folder, **{**settings, **changes})
    return dataclasses.replace(run, train=dataclasses.replace(run.train, ema=16))


@pytest.fixture(scope="module")
def alone(store, pretrained, tmp_path_factory):
    folders = {way: tmp_path_factory.mktemp("alone") / way for way in WAYS}
    for way, folder in folders.items():
        train(adapted(store, folder, pretrained, way))
    return folders


LAYOUTS = [
    (2, Parallel()),
    (2, Parallel(shard=2)),
    (2, Parallel(tensor=2)),
    (2, Parallel(pipeline=2)),
    (4, Parallel(tensor=2, shard=2, recompute="full")),
]
CASES = [(way, *layout) for way in WAYS for layout in LAYOUTS[: 5 if way == "lora" else 3]]


@pytest.mark.parametrize(("way", "number", "parallel"), CASES)
def test_every_layout_follows_one_process(
    ranks, store, pretrained, alone, tmp_path, way, number, parallel
):
    ranks(number, train, adapted(store, tmp_path, pretrained, way, parallel=parallel))
    assert losses(tmp_path) == pytest.approx(losses(alone[way]), rel=1e-9)
    found, expected = (load_model(f).network.state_dict() for f in (tmp_path, alone[way]))
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-7, atol=1e-9, msg=name)


@pytest.mark.parametrize("way", WAYS)
def test_what_is_frozen_is_bit_for_bit_what_it_was(pretrained, alone, way):
    before, after = (load_model(f).network.state_dict() for f in (pretrained, alone[way]))
    same = {name for name, value in before.items() if torch.equal(after[name], value)}
    learned = {
        "full": {n for n in before if not n.endswith("attn.k.bias")},
        "probe": {"head.weight", "head.bias"},
        "lora": {n for n in before if n.endswith("weight") and "norm" not in n and ".k." not in n}
        - {"patch_embed.proj.weight"}
        | {"head.bias"},
    }[way]
    assert same == set(before) - learned


@pytest.mark.parametrize("way", WAYS)
def test_a_run_that_is_cut_ends_as_the_unbroken_one(store, pretrained, alone, tmp_path, way):
    whole = adapted(store, tmp_path, pretrained, way)
    course = dataclasses.replace(whole.train, checkpoint_every=8, keep=9)
    whole = dataclasses.replace(whole, train=course)
    train(whole)
    for path in sorted((tmp_path / "checkpoints").iterdir())[1:]:
        (path / "state.json").write_text("torn")
    (tmp_path / "model.json").unlink()
    train(whole)
    found, expected = (load_model(f).network.state_dict() for f in (tmp_path, alone[way]))
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_layer_wise_rates_are_those_of_mae(store):
    """He et al.'s code: decay ** (layers - i), i = 0 for what is before the blocks, i + 1 for
    block i, layers = blocks + 1 for norm and head."""
    run = job(store, "none", adapt=Full(decay=0.5), optim=AdamW(lr=1.0))
    about = about_of(run)
    model = network_of(run, about.inputs, about.outputs)
    made = optimizer(run, model, factors(run, about.inputs, about.outputs))
    names = {parameter: name for name, parameter in model.named_parameters()}
    expected = {"pos_embed": 0.125, "patch_embed": 0.125, "0": 0.25, "1": 0.5, "norm": 1, "head": 1}
    seen = set()
    for group in made.param_groups:
        for parameter, name in zip(group["params"], group["param_names"], strict=True):
            assert names[parameter] == name
            part = name.removeprefix("blocks.").split(".")[0]
            assert group["lr"] == expected[part], name
            assert group["weight_decay"] == (
                0.05
                if (parameter.ndim > 1 and part[0] != "p") or name == "patch_embed.proj.weight"
                else 0
            ), name
            seen.add(name)
    assert seen == {name for name, p in model.named_parameters() if p.requires_grad}


def test_lora_with_a_the_identity_is_one_step_of_the_whole_matrix():
    """Then the gradient of B is that of the matrix."""
    torch.manual_seed(0)
    plain = nn.Linear(4, 3).double()
    other = nn.Linear(4, 3).double()
    other.load_state_dict(plain.state_dict())
    lora = Lora(other, 4, 1.0).double()
    with torch.no_grad():
        lora.lora_a.copy_(torch.eye(4))
    x = torch.randn(7, 4).double()
    assert torch.equal(lora(x), plain(x))  # B begins at 0
    for layer in (plain, lora):
        layer(x).square().sum().backward()
    assert lora.lora_b.grad is not None and plain.weight.grad is not None
    torch.testing.assert_close(lora.lora_b.grad, plain.weight.grad)
    merged = other.weight - 0.1 * lora.lora_b.grad @ lora.lora_a
    torch.testing.assert_close(merged, plain.weight - 0.1 * plain.weight.grad)


def test_the_exported_model_is_the_one_that_learned(store, pretrained, tmp_path):
    """The plain network with merged weights says what the network with its thin products says."""
    run = adapted(store, tmp_path, pretrained, "lora")
    run = dataclasses.replace(run, train=dataclasses.replace(run.train, ema=None))
    train(run)
    about = about_of(run)
    network = network_of(run, about.inputs, about.outputs).double()
    last = max((tmp_path / "checkpoints").iterdir())
    network.load_state_dict(safetensors.torch.load_file(last / "model.safetensors"))
    exported = load_model(tmp_path).network.double()
    assert not any("lora" in name for name in exported.state_dict())
    image = torch.randn(2, 4, 16, 16).double()
    with torch.no_grad():
        # The exported weights are float32.
        torch.testing.assert_close(exported(image), network.eval()(image), rtol=1e-5, atol=1e-6)


def test_a_frozen_encoder_keeps_its_statistics_and_drops_nothing(tmp_path_factory):
    folder = tmp_path_factory.mktemp("frozen")
    build(Synthetic(samples=12, size=32), folder / "store", Split(by="random"), progress=False)
    model = NarrowUNet()
    run = job(str(folder / "store"), folder / "a", model=model)
    run = dataclasses.replace(run, train=dataclasses.replace(run.train, samples=8))
    train(run)
    init = Init(from_=str(folder / "a"))
    there = load_model(folder / "a").network.state_dict()
    for decoder in (False, True):
        name = str(folder / f"b{decoder}")
        train(dataclasses.replace(run, folder=name, init=init, adapt=Probe(decoder=decoder)))
        found = load_model(name).network.state_dict()
        changed = {
            n.split(".")[0] for n, value in there.items() if not torch.equal(found[n], value)
        }
        assert changed == ({"head", "decoder"} if decoder else {"head"})


def test_the_dry_run_counts_what_learns_alone(store):
    from swath.data.store import Store

    contents = Store.open(store).contents
    held = {}
    for way in (None, "probe", "lora"):
        run = job(store, "none", adapt=way and WAYS[way], init=Init(from_="x") if way else None)
        memory = lay_out(run, contents, 1).shares[0].memory
        held[way] = memory
    head = 8 * (16 * 48 + 48)  # float64
    assert held["probe"].gradients == head and 2 * head <= held["probe"].optimiser < 2.1 * head
    assert head < held["lora"].gradients < held[None].gradients
    assert held["probe"].parameters == held[None].parameters < held["lora"].parameters
    assert held["probe"].activations < held[None].activations


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"adapt": Probe()}, r"adapt.kind=probe keeps the weights .* random: say whose they are"),
        (
            {"adapt": Probe(), "init": Init(from_="x"), "parallel": Parallel(pipeline=2)},
            r"parallel.pipeline=2: with adapt.kind=probe only the last piece would have something",
        ),
    ],
)
def test_settings_that_do_not_fit_one_another_are_refused(store, changes, message):
    with pytest.raises(ConfigError, match=message):
        job(store, "none", **changes)


@pytest.mark.parametrize(
    ("model", "way", "message"),
    [
        (SMALL, Probe(decoder=True), r"decoder=true has no effect: ViT has no decoder"),
        (SMALL, LoRA(layers=("query",)), r"query is no linear .* ViT, which has fc1, fc2, k, proj"),
        (SMALL, LoRA(rank=17), r"rank=17: blocks.0.attn.q is 16 x 16, so its rank is 16 at most"),
        (UNet(width=4, depth=1), LoRA(), r"q is no linear layer of UNet, which has none"),
    ],
)
def test_ways_that_do_not_fit_the_network_are_refused(store, model, way, message):
    run = job(store, "none", model=model, adapt=way, init=Init(from_="x"))
    about = about_of(run)
    with pytest.raises(ConfigError, match=message):
        network_of(run, about.inputs, about.outputs)


def test_wrong_numbers_are_refused():
    with pytest.raises(ConfigError, match=r"decay=1.5 must be above 0 and at most 1"):
        Full(decay=1.5)
    with pytest.raises(ConfigError, match=r"rank=0 must be at least 1"):
        LoRA(rank=0)
