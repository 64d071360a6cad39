"""The U-Net's seams, sides and encoders."""

import pytest
import torch

from swath.data.sensor import Band
from swath.models import Inputs, Outputs
from swath.models.unet import UNet
from swath.nn.settle import Update, settle

ENCODERS = ["plain", "resnet18", "resnet34", "resnet50"]


def build(bands: int = 3, **settings) -> torch.nn.Module:
    torch.manual_seed(0)
    inputs = Inputs(bands=tuple(Band(name=f"B{i}") for i in range(bands)), size=32)
    return UNet(**settings).build(inputs, Outputs(channels=2, dense=True))


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("height, width", [(32, 64), (33, 50)])
def test_every_encoder_meets_the_decoder(encoder, height, width):
    model = build(encoder=encoder, width=8).eval()
    assert model(torch.randn(1, 3, height, width)).shape == (1, 2, height, width)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_gradient_reaches_every_parameter(encoder):
    model = build(encoder=encoder, width=8)
    model(torch.randn(2, 3, 32, 32)).square().sum().backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_an_encoder_has_torchvisions_names():
    """So that public ResNet weights, without their head, load into it."""
    names = set(build(encoder="resnet18").encoder.state_dict())
    assert {"conv1.weight", "layer2.0.downsample.1.running_var", "layer4.1.bn2.bias"} <= names
    assert not any(name.startswith("fc.") for name in names)


def test_padding_inside_does_not_reach_far_pixels():
    """A window that does not fit the halvings must give what it gives inside a larger one."""
    model = build(width=8, depth=1, dropout=0.0).double().eval()
    for module in model.modules():  # group norm sees the whole image; compare what is local
        if isinstance(module, torch.nn.GroupNorm):
            module.forward = lambda x: x
    image = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    whole, part = model(image), model(image[..., :47, :45])
    torch.testing.assert_close(part[..., :30, :30], whole[..., :30, :30], rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_it_sees_as_far_as_its_halvings(depth):
    """How far an output pixel depends on the input, doubled with every halving."""
    model = build(width=4, depth=depth, dropout=0.0).double().eval()
    for module in model.modules():
        if isinstance(module, torch.nn.GroupNorm):
            module.forward = lambda x: x
    size = 16 * 2**depth
    image = torch.zeros(1, 3, size, size, dtype=torch.float64, requires_grad=True)
    model(image)[0, 0, size // 2, size // 2].backward()
    seen = image.grad[0].abs().sum(0).any(0).nonzero().flatten()
    reach = int(seen.max() - seen.min() + 1)
    assert 5 * 2**depth <= reach <= 16 * 2**depth


def test_it_learns_a_rule_that_needs_the_neighbourhood():
    """Mark pixels whose 5x5 mean is positive: beyond 85 % in 50 updates, on images unseen."""
    model = build(bands=1, width=8, depth=1, dropout=0.0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    generator = torch.Generator().manual_seed(0)

    def draw() -> tuple[torch.Tensor, torch.Tensor]:
        x = torch.randn(4, 1, 20, 20, generator=generator)
        mean = torch.nn.functional.avg_pool2d(x, 5, 1, padding=2)
        return x, (mean[:, 0] > 0).long()

    for _ in range(50):
        x, y = draw()
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    x, y = draw()
    assert (model.eval()(x).argmax(1) == y).float().mean() > 0.85


def test_a_resnet_encoder_settles_its_statistics():
    model = build(encoder="resnet18", width=8)
    norm = model.encoder.bn1
    before = norm.running_mean.clone()
    model(torch.randn(2, 3, 32, 32))
    settle(model, lambda total: total, Update(samples=4, seen=4))
    assert not torch.equal(norm.running_mean, before) and norm.passes == 0
