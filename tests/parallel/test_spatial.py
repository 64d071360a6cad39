"""Rows of an image on several ranks: every layer as on one, values and gradients.

All in float64, where what is wrong shows by ten orders of magnitude.
"""

import re

import pytest
import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks

from swath.config import ConfigError
from swath.data.chip import Batch
from swath.data.sensor import load_sensor
from swath.models import Inputs, Outputs
from swath.models.resnet import ResNet
from swath.models.unet import UNet
from swath.nn.norm import BatchNorm2d
from swath.nn.random import Draws, Dropout
from swath.nn.resize import Double
from swath.nn.settle import forget
from swath.parallel.apply import spread
from swath.parallel.mesh import Mesh
from swath.parallel.settings import Degrees, Parallel
from swath.parallel.spatial import own_rows, rows_of_ranks, share_rows
from swath.parallel.world import World


class Rows(nn.Module):
    """Layers that rows of an image may be shared under."""

    spatial, multiple = True, 4

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x):
        return self.layers(x)


class Whole(nn.Module):
    """A layer that makes the picture's channels three, and a network."""

    spatial = True

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.bands, self.network = nn.Conv2d(4, 3, 1), network
        self.multiple = network.multiple

    def forward(self, x):
        return self.network(self.bands(x))


LAYERS = {
    "3x3": nn.Conv2d(4, 6, 3, padding=1),
    "5x5, dilated, in groups": nn.Conv2d(4, 6, 5, padding=4, dilation=2, groups=2),
    "1x1, every other": nn.Conv2d(4, 6, 1, stride=2),
    "3x3, every other": nn.Conv2d(4, 6, 3, stride=2, padding=1),
    "7x7, every other": nn.Conv2d(4, 6, 7, stride=2, padding=3),
    "2x2, every other": nn.Conv2d(4, 6, 2, stride=2),
    "5x3": nn.Conv2d(4, 6, (5, 3), padding=(2, 0)),
    "pool 3": nn.MaxPool2d(3, 2, 1),
    "pool 2": nn.MaxPool2d(2),
    "double": Double(),
    "group norm": nn.GroupNorm(2, 4),
    "batch norm": BatchNorm2d(4),
    "gelu": nn.GELU(),
}


def picture(height, channels_last=False):
    """Return (2, 4, height, 12) whose rows differ in mean and spread."""
    generator = torch.Generator().manual_seed(3)
    image = torch.randn(2, 4, height, 12, generator=generator, dtype=torch.float64)
    image = 1 + image * torch.linspace(0.5, 2, height).double().view(-1, 1)
    return image.contiguous(memory_format=torch.channels_last) if channels_last else image


def statistics(model, world):
    """Return what batch norms have gathered on all ranks, and forget it."""
    gathered = []
    for module in model.modules():
        if isinstance(module, BatchNorm2d):
            gathered += [world.sum(t) for t in (module.sum_mean, module.sum_var, module.passes)]
    forget(model)
    return gathered


def compared(model, height, ranks, channels_last=False):
    """Return the largest differences to the whole image, as shares of the largest value: of values,
    of the image's gradient, of the parameters' (summed over ranks) and of batch statistics."""
    world = World.start("cpu")
    model = model.double().train()
    draws = Draws(model)
    whole = picture(height, channels_last).requires_grad_()
    with draws.keyed(7):
        out = model(whole)
    weight = torch.randn(out.shape, generator=torch.Generator().manual_seed(4), dtype=out.dtype)
    want = torch.autograd.grad((out * weight).sum(), [whole, *model.parameters()])
    want_statistics = statistics(model, World.alone())

    spread(model, Mesh.of(world, Parallel(spatial=ranks)), Parallel(spatial=ranks))
    first, end = rows_of_ranks(height, model.multiple, ranks)[world.rank]
    mine = whole.detach()[:, :, first:end].clone().requires_grad_()
    rows = slice(first * out.shape[2] // height, end * out.shape[2] // height)
    with draws.keyed(7):
        found = model(mine)
    got = torch.autograd.grad((found * weight[:, :, rows]).sum(), [mine, *model.parameters()])
    pairs = [(found, out[:, :, rows]), (got[0], want[0][:, :, first:end])]
    pairs += zip(map(world.sum, got[1:]), want[1:], strict=True)
    pairs += zip(statistics(model, world), want_statistics, strict=True)
    world.any(False)  # some layers need no exchange, and a rank must not leave while others connect
    return [((a - b).abs().max() / b.abs().max().clamp(min=1)).item() for a, b in pairs]


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_on_rows_is_the_layer_on_the_image(ranks, name, channels_last):
    for number, height in ((2, 16), (3, 28)):  # 28: the first rank has more rows
        model = Rows(LAYERS[name])
        for errors in ranks(number, compared, model, height, number, channels_last):
            assert max(errors) < 1e-12, (number, errors)


MODELS = {
    "plain": UNet(width=8, depth=2),
    "deeper": UNet(width=4, depth=3, dropout=0.5),
    "resnet18": UNet(encoder="resnet18", width=8),
}


def network(model):
    torch.manual_seed(1)
    inputs = Inputs(bands=load_sensor("rgb").bands, size=32)
    return model.build(inputs, Outputs(channels=3, dense=True))


@pytest.mark.parametrize(
    ("name", "height", "number"),
    [
        ("plain", 16, 2),
        ("plain", 16, 4),
        ("plain", 22, 3),  # 6 pieces of 4 rows, of which the last is not full
        ("deeper", 33, 4),
        ("resnet18", 64, 2),
        ("resnet18", 90, 3),
    ],
)
def test_a_network_on_rows_is_the_network_on_the_image(ranks, name, height, number):
    """Dropout and batch statistics among it, and heights that the halvings do not divide."""
    model = Whole(network(MODELS[name]))
    for errors in ranks(number, compared, model, height, number):
        assert max(errors) < 1e-12, errors


def float32_norm(number):
    """Return the largest error of a group norm in float32, at a mean of 10,000 spreads."""
    world = World.start("cpu")
    torch.manual_seed(2)
    image = 1e4 + torch.randn(1, 4, 8 * number, 16, dtype=torch.float64)
    model = Rows(nn.GroupNorm(2, 4))
    want = model.double()(image.float().double())
    model = spread(
        model.float(), Mesh.of(world, Parallel(spatial=number)), Parallel(spatial=number)
    )
    rows = slice(8 * world.rank, 8 * world.rank + 8)
    return (model(image[:, :, rows].float()) - want[:, :, rows]).abs().max().item()


def test_statistics_keep_their_digits_in_float32(ranks):
    """Sums of squares would leave nothing of a variance of 1 beside a mean of 10,000; float32
    itself rounds such a value by 5e-4."""
    assert max(ranks(2, float32_norm, 2)) < 2e-3


@pytest.mark.parametrize(
    ("height", "ranks", "shares"),
    [
        (16, 2, [(0, 8), (8, 16)]),
        (24, 4, [(0, 8), (8, 16), (16, 20), (20, 24)]),
        (21, 3, [(0, 8), (8, 16), (16, 21)]),
    ],
)
def test_rows_are_dealt_by_whole_multiples(height, ranks, shares):
    assert rows_of_ranks(height, 4, ranks) == shares


def test_ranks_have_each_row_of_a_microbatch_once():
    """Of image, labels and what was observed alike."""
    rows = torch.arange(22).view(1, 22, 1).expand(2, 22, 4)
    at = torch.arange(2)
    whole = Batch(
        image=rows[:, None].float(),
        valid=rows % 3 > 0,
        target=rows.clone(),
        positions=at,
        indices=at,
        seed=1,
    )
    worlds = [World(rank, 3, torch.device("cpu")) for rank in range(3)]
    shares = [own_rows(whole, Rows(), Mesh(world, Degrees(spatial=3))) for world in worlds]
    for name in ("image", "valid", "target"):
        joined = torch.cat([getattr(share, name) for share in shares], dim=-2)
        assert torch.equal(joined, getattr(whole, name)), name


def test_images_of_too_few_rows_are_refused():
    with pytest.raises(
        ConfigError, match=r"images of 20 rows come in 3 pieces of 8 .* at most 3.* 32 rows high"
    ):
        rows_of_ranks(20, 8, 4)


def refusal(*layers, model=None):
    with pytest.raises(ConfigError) as error:
        mesh = Mesh(World(0, 2, torch.device("cpu")), Degrees(spatial=2))
        share_rows(model or Rows(*layers), mesh)
    return str(error.value)


def test_models_without_rows_to_share_are_refused():
    inputs = Inputs(bands=load_sensor("rgb").bands, size=32)
    resnet = ResNet().build(inputs, Outputs(channels=3, dense=False))
    message = refusal(model=resnet)
    assert "spatial=2 shares the rows" in message and "ResNet is no such network" in message
    assert "unet, or replicate=2" in message


@pytest.mark.parametrize(
    ("layer", "why"),
    [
        (nn.Conv2d(4, 4, 3), "makes of 100 rows 98, not 100 / 1; pad it by 1"),
        (nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"), "pads by .*reflect"),
        (nn.MaxPool2d(2, ceil_mode=True), "returns indices or rounds sizes up"),
        (Dropout(0.1), "is not known to work on some of the rows"),
        (nn.LayerNorm(4), "is not known"),
    ],
)
def test_layers_that_see_more_than_some_rows_are_refused(layer, why):
    message = refusal(nn.GELU(), layer)
    assert re.search(rf"layer layers\.1 \({type(layer).__name__}\) {why}", message), message


def kept_bytes(number):
    """Return the bytes that a forward pass of a U-Net keeps for the backward one, and its sum."""
    world = World.start("cpu")
    model, parallel = network(UNet(width=8, depth=2)), Parallel(spatial=number)
    model = spread(model, Mesh.of(world, parallel), parallel)
    image = torch.ones(1, 3, 128, 64)
    first, end = rows_of_ranks(128, model.multiple, number)[world.rank]
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage  # held, so that no other takes its place
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        model(image[:, :, first:end])
    return sum(storage.nbytes() for storage in kept.values())


def test_a_rank_keeps_its_share_of_the_activations(ranks):
    """Beside it, the borrowed rows: two of 32 at full size, two of 8 at a quarter."""
    (alone,) = ranks(1, kept_bytes, 1)
    for number in (2, 4):
        most = max(ranks(number, kept_bytes, number))
        assert alone / number <= most < 1.1 * alone / number, (alone, most)
