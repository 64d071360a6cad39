"""Every file of models/ goes through the same claims; a new one is tested by being there."""

import re
import subprocess
import sys

import pytest
import torch
from torch import nn

from swath.config import ConfigError, find, kinds
from swath.data.sensor import Band
from swath.models import Inputs, Model, Outputs

SMALL: dict[str, dict] = {
    "conv3d": {"filters": (4, 4), "kernel": (3, 3, 1), "hidden": (8,)},
    "mae": {"width": 24, "depth": 2, "heads": 3, "patch": 4, "decoder_depth": 1},
    "resnet": {},
    "unet": {"width": 8},
    "vit": {"width": 24, "depth": 2, "heads": 3, "patch": 4},
}
"""Settings that make a model small enough for a test; without an entry, the defaults."""
SMALL |= {f"vit {name}": SMALL["vit"] | {"decoder": name} for name in ("linear", "upernet")}

KINDS = kinds(Model)
WAYS = [*KINDS, "vit linear", "vit upernet"]
"""Kinds, some with a word on how."""


def inputs(bands: int = 4, size: int = 20) -> Inputs:
    """Bands from 400 nm up, every 50 nm."""
    return Inputs(
        bands=tuple(Band(name=f"B{i}", wavelength_nm=400.0 + 50 * i) for i in range(bands)),
        size=size,
    )


def build(kind: str, dense: bool, seed: int = 0, **options) -> nn.Module:
    """Return a small model of ``kind``."""
    torch.manual_seed(seed)
    settings = find(Model, kind.split()[0])(**SMALL.get(kind, {}))
    assert isinstance(settings, Model)
    return settings.build(
        inputs(**options), Outputs(channels=3, dense=dense, masked=settings.masked)
    )


def able(kind: str, dense: bool) -> bool:
    """Whether the family has such outputs; any other error of ``build`` is a failure."""
    try:
        build(kind, dense)
    except ConfigError as error:
        if "choose model.kind" in str(error) or "decoder=" in str(error):
            return False
        raise
    return True


def image(bands: int = 4, height: int = 20, width: int = 20, samples: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(7)
    return torch.randn(samples, bands, height, width, generator=generator)


every = pytest.mark.parametrize("kind", KINDS)
every_output = pytest.mark.parametrize(
    "kind, dense", [(kind, dense) for kind in WAYS for dense in (False, True) if able(kind, dense)]
)
every_dense = pytest.mark.parametrize("kind", [kind for kind in WAYS if able(kind, True)])


@every
def test_it_has_some_output_and_names_others_for_the_rest(kind):
    """What a family cannot do is refused with the kinds that can."""
    settings = find(Model, kind)(**SMALL.get(kind, {}))
    refused = []
    for dense, masked in ((False, False), (True, False), (True, True)):
        try:
            settings.build(inputs(), Outputs(channels=3, dense=dense, masked=masked))
        except ConfigError as error:
            refused.append(str(error))
    assert len(refused) < 3
    for message in refused:
        named = set(re.findall(r"\w+", message.split("choose model.kind ")[1])) - {"or"}
        assert named and named <= set(KINDS) - {kind}


@every_output
@pytest.mark.parametrize("bands", [1, 4, 11])
def test_shape_of_the_output(kind, dense, bands):
    model = build(kind, dense, bands=bands)
    out = model(image(bands))
    assert out.shape == ((2, 3, 20, 20) if dense else (2, 3))
    assert out.dtype == torch.float32 and torch.isfinite(out).all()


@every_output
@pytest.mark.parametrize("size", [9, 17, 31])
def test_training_samples_of_odd_size(kind, dense, size):
    model = build(kind, dense, size=size)
    out = model(image(height=size, width=size))
    assert out.shape == ((2, 3, size, size) if dense else (2, 3))


@every_dense
@pytest.mark.parametrize("height, width", [(1, 1), (7, 40), (33, 20), (45, 46)])
def test_dense_output_of_any_image_size(kind, height, width):
    """A map is made of windows of another size than the training samples."""
    model = build(kind, dense=True).eval()
    assert model(image(height=height, width=width)).shape == (2, 3, height, width)


@every_output
def test_every_linear_layer_is_called(kind, dense):
    """Not read for its weights: else what wraps or replaces a layer would have no effect."""
    model, called = build(kind, dense), set()
    linear = {name: m for name, m in model.named_modules() if isinstance(m, nn.Linear)}
    for name, layer in linear.items():
        layer.register_forward_hook(lambda *_, name=name: called.add(name))
    model(image())
    assert called == linear.keys()


@every_output
def test_the_seed_decides_the_first_weights(kind, dense):
    first, again, other = (build(kind, dense, seed=seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


@every_output
def test_gradient_reaches_every_parameter(kind, dense):
    model = build(kind, dense)
    model(image()).square().sum().backward()
    silent = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    # Keys' biases have no gradient: see swath/nn/attention.py. Nothing was hidden here.
    assert [name for name in silent if not name.endswith((".attn.k.bias", "mask_token"))] == []


@every_output
def test_in_evaluation_a_sample_does_not_know_its_neighbours(kind, dense):
    """The map must not depend on which windows go through the model together."""
    model = build(kind, dense).double().eval()
    x = image(samples=3).double()
    apart = torch.cat([model(sample[None]) for sample in x])
    torch.testing.assert_close(model(x), apart, rtol=1e-10, atol=1e-12)


@every_output
def test_random_layers_draw_from_torchs_generator_alone(kind, dense):
    """The trainer seeds it per microbatch; then a forward pass is a pure function."""
    model = build(kind, dense).train()
    outs = []
    for seed in (5, 5):
        torch.manual_seed(seed)
        outs.append(model(image()))
    assert torch.equal(*outs)


@every_output
def test_wrong_number_of_bands_is_said(kind, dense):
    model = build(kind, dense)
    with pytest.raises(ConfigError, match=r"image has 5 bands, the model was built for 4 \(B0, B1"):
        model(image(5))


@every_output
def test_weights_travel_by_safetensors(kind, dense, tmp_path):
    """Written and read back into a model of another seed, the outputs are equal."""
    from safetensors.torch import load_file, save_file

    model, other = build(kind, dense, seed=1).eval(), build(kind, dense, seed=2).eval()
    save_file(model.state_dict(), tmp_path / "weights.safetensors")
    other.load_state_dict(load_file(tmp_path / "weights.safetensors"))
    assert torch.equal(model(image()), other(image()))


def test_settings_are_read_without_torch():
    """`swath show` answers in 0.3 s, and importing torch alone takes several times that."""
    names = ", ".join(f"swath.models.{kind}" for kind in KINDS)
    code = f"import sys, {names}; assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
