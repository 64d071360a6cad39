"""A model spread while it is hollow has the weights of one that each rank had whole."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from swath.data.sensor import load_sensor
from swath.models import Inputs, Outputs
from swath.models.resnet import ResNet
from swath.models.vit import ViT
from swath.parallel.apply import spread
from swath.parallel.fill import spread_hollow
from swath.parallel.mesh import Mesh
from swath.parallel.settings import Parallel
from swath.parallel.world import World

INPUTS = Inputs(bands=load_sensor("landsat8_oli").bands, size=16)
OUTPUTS = Outputs(channels=3, dense=False)
MODELS = {
    "vit": ViT(patch=4, width=32, depth=2, heads=4, pool="mean"),
    "spectral": ViT(patch=4, width=32, depth=2, heads=4, embed="wavelengths"),
    "resnet": ResNet(depth=18),
}
LAYOUTS = [
    ("vit", 2, {"shard": 2}),
    ("vit", 4, {"shard": 2, "tensor": 2, "recompute": "full"}),
    ("vit", 2, {"pipeline": 2}),
    ("spectral", 3, {"shard": 3}),
    ("resnet", 4, {"replicate": 2, "shard": 2}),
]


def build(name: str) -> nn.Module:
    torch.manual_seed(3)
    return MODELS[name].build(INPUTS, OUTPUTS)


def content(model: nn.Module) -> dict[str, tuple[Any, Tensor]]:
    """Return this rank's values, also of what no checkpoint holds, and how they are spread."""
    tensors = dict([*model.named_parameters(), *model.named_buffers()])
    return {
        name: (t.placements, t.to_local()) if hasattr(t, "placements") else (None, t)
        for name, t in tensors.items()
    }


def both_ways(name: str, parallel: Parallel) -> list[int]:
    mesh = Mesh.of(World.start("cpu"), parallel)
    plain = content(spread(build(name), mesh, parallel))
    made = []

    def counted() -> nn.Module:
        model = build(name) if mesh.world.first else different(name)
        made.append(sum(p.numel() for p in model.parameters() if not p.is_meta))
        return model

    filled = content(spread_hollow(counted, mesh, parallel))
    assert filled.keys() == plain.keys() and filled
    for key, (placements, value) in plain.items():
        assert filled[key][0] == placements, key
        assert torch.equal(filled[key][1], value), key
        assert filled[key][1].device.type == "cpu"
    return made


def different(name: str) -> nn.Module:
    """Return the model with other values: those of rank 0 have to be taken."""
    torch.manual_seed(4)
    return MODELS[name].build(INPUTS, OUTPUTS)


@pytest.mark.parametrize(("name", "number", "degrees"), LAYOUTS, ids=str)
def test_filled_it_is_what_it_would_have_been(ranks, name, number, degrees):
    """And only rank 0 has built it with values."""
    first, *others = ranks(number, both_ways, name, Parallel(**degrees))
    whole = sum(p.numel() for p in build(name).parameters())
    assert first == [0, whole] and others == [[0]] * (number - 1)


class Eager(nn.Module):
    """Asks for values while it is built."""

    def __init__(self) -> None:
        super().__init__()
        steps = torch.linspace(0, 1, 4)
        self.layer = nn.Linear(4, 4, bias=steps[3].item() > 0.5)


class Loose(nn.Module):
    """Keeps a tensor where nobody can find it."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.table = torch.arange(4.0)


def needing_values(kind: type[nn.Module]) -> dict[str, Tensor]:
    parallel = Parallel(shard=2)
    torch.manual_seed(3)
    mesh = Mesh.of(World.start("cpu"), parallel)
    model = spread_hollow(kind, mesh, parallel)
    assert not any(t.is_meta for t in vars(model).values() if isinstance(t, Tensor))
    return {name: t.full_tensor() for name, t in model.state_dict().items()}


@pytest.mark.parametrize("kind", [Eager, Loose])
def test_a_model_that_cannot_be_hollow_is_built_whole(ranks, kind):
    torch.manual_seed(3)
    kind()  # on rank 0 the first one was for its shapes
    expected = kind().state_dict()
    for found in ranks(2, needing_values, kind):
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            assert torch.equal(found[name], value)
