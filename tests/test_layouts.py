"""Every layout follows one process: loss, gradient norm and parameters after five updates.

A layout is a line in LAYOUTS: the ``parallel:`` settings and the models that they are for. All of
them learn the same synthetic samples with drop path, clipping and moving averages, in float64; and
once more, each layout with fewer models, in float32.
"""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from swath.batch.size import BatchSize
from swath.data import draw
from swath.data.augment import Augment
from swath.data.chip import IGNORE, Batch, Known, Label
from swath.data.sensor import Band, load_sensor
from swath.data.views import Viewer
from swath.models import Inputs, Model
from swath.models._channels import Channels
from swath.models.mae import MAE
from swath.models.resnet import ResNet
from swath.models.unet import UNet
from swath.models.vit import ViT
from swath.nn.residual import ResNetEncoder
from swath.nn.unet import UNet as UNetNetwork
from swath.optimizers.adamw import AdamW
from swath.parallel.apply import spread
from swath.parallel.mesh import Mesh
from swath.parallel.replica import Replica
from swath.parallel.settings import Parallel
from swath.parallel.world import World
from swath.tasks import Objective, Task
from swath.tasks.classify import Classify
from swath.tasks.contrast import Contrast
from swath.tasks.dino import Dino
from swath.tasks.moco import Moco
from swath.tasks.pretrain import Pretrain
from swath.tasks.segment import Segment
from swath.train.ema import Average
from swath.train.settings import TrainSettings
from swath.train.state import TrainState
from swath.train.step import train_step

BANDS = load_sensor("rgb").bands
MANY = tuple(Band(name=f"B{i}") for i in range(11))
CLASSES = ("water", "forest", "town", "field")
BATCH = BatchSize(samples=12, micro=2)
UPDATES = 5


@dataclass(frozen=True)
class Subject:
    """A model, and what it learns."""

    model: Model
    task: Task
    size: int
    dense: bool
    bands: tuple[Band, ...] = BANDS
    sensors: bool = False
    """Whether each microbatch is of one of three sensors, with places and times, some unknown."""

    @property
    def inputs(self) -> Inputs:
        return Inputs(bands=self.bands, size=self.size)

    def objective(self) -> Objective:
        label = Label(kind="mask" if self.dense else "class", classes=CLASSES)
        return self.task.bind(label, np.array([30.0, 20.0, 10.0, 10.0]), self.inputs)

    def network(self, dtype: torch.dtype) -> nn.Module:
        torch.manual_seed(1)
        network = self.model.build(self.inputs, self.objective().outputs)
        return self.task.fitted(network, BATCH.samples * UPDATES).to(dtype)

    def batch(self, first: int, counts: bool = True) -> Batch:
        """Return the microbatch whose first sample is at position ``first``."""
        draws = [np.random.default_rng([5, p]) for p in range(first, first + BATCH.micro)]
        if self.sensors:
            return self.sensed(first, draws, counts)
        images = np.stack([d.normal(size=(len(self.bands), self.size, self.size)) for d in draws])
        image = torch.from_numpy(images)
        if self.dense:
            target = image[:, :3].argmax(1)
            hidden = [d.random((self.size, self.size)) < d.random() for d in draws]
            target[torch.from_numpy(np.stack(hidden))] = IGNORE
        else:
            target = image[:, : len(CLASSES)].mean((2, 3)).argmax(1)
            target[::3] = -1
        at = torch.arange(first, first + BATCH.micro)
        valid = torch.ones(BATCH.micro, self.size, self.size, dtype=torch.bool)
        views: tuple[Tensor, ...] = ()
        seen: tuple[Tensor, ...] = ()
        if self.task.wants is not None:
            observed = torch.ones_like(image, dtype=torch.bool)
            views, seen = Viewer(self.task.wants, Augment())(image, observed, at.numpy(), 5)
        if self.model.masked:  # what was not observed is what has no label
            valid, image = target != IGNORE, image * (target != IGNORE)[:, None]
        return Batch(
            image=image,
            valid=valid,
            target=target,
            positions=at,
            indices=at,
            seed=1000 + first,
            counts=counts,
            keys=torch.from_numpy(draw.keys(5, at.numpy(), "task")),
            views=views,
            seen=tuple(each.all(1) for each in seen),
        )

    def sensed(self, first: int, draws: list[np.random.Generator], counts: bool) -> Batch:
        """Return a microbatch of the sensor whose turn it is."""
        name, gsd, size = SENSORS[first // BATCH.micro % len(SENSORS)]
        bands = load_sensor(name).bands[:4]
        image = np.stack([d.normal(size=(len(bands), size, size)) for d in draws])
        valid = np.stack([d.random((size, size)) < 0.8 for d in draws])
        where, when = (np.stack([d.random(2) * [60, 200] for d in draws]) for _ in range(2))
        where[0] = np.nan
        at = torch.arange(first, first + BATCH.micro)
        return Batch(
            image=torch.from_numpy(image * valid[:, None]),
            valid=torch.from_numpy(valid),
            target=None,
            positions=at,
            indices=at,
            seed=1000 + first,
            counts=counts,
            keys=torch.from_numpy(draw.keys(5, at.numpy(), "task")),
            known=Known(bands, gsd, torch.from_numpy(where), torch.from_numpy(when)),
        )


SENSORS = (("sentinel2_l2a", 10.0, 32), ("landsat8_oli", 30.0, 16), ("sentinel1_grd", 10.0, 32))


class NarrowUNet(UNet):
    """A U-Net on a ResNet-18 that is quick in float64."""

    def build(self, inputs: Inputs, outputs: Outputs) -> nn.Module:
        encoder = ResNetEncoder(tuple(band.name for band in inputs.bands), depth=18, width=8)
        return UNetNetwork(encoder, encoder.bands, outputs.channels, width=8, dropout=0.2)


FILLING: dict[str, Any] = {"patch": 4, "width": 32, "depth": 2, "heads": 4}
FILLING |= {"decoder_width": 16, "decoder_depth": 2, "decoder_heads": 4}

SUBJECTS = {
    "vit": Subject(
        ViT(patch=4, width=32, depth=4, heads=4, pool="mean", drop_path=0.2),
        Classify(smoothing=0.1), 16, dense=False,
    ),
    "vit-dense": Subject(
        ViT(patch=4, width=32, depth=4, heads=4, drop_path=0.2), Segment(), 16, dense=True
    ),
    "vit-token": Subject(  # 17 tokens, which divide by no number of ranks
        ViT(patch=4, width=32, depth=4, heads=4, pool="token", drop_path=0.2),
        Classify(), 16, dense=False,
    ),
    "vit-linear": Subject(
        ViT(patch=4, width=32, depth=4, heads=4, decoder="linear"), Segment(), 16, dense=True
    ),
    "vit-upernet": Subject(  # of which tokens between its blocks are read
        ViT(patch=4, width=32, depth=4, heads=4, drop_path=0.2, decoder="upernet", decoder_width=8),
        Segment(), 16, dense=True,
    ),
    "mae": Subject(MAE(**FILLING), Pretrain(), 32, dense=True),  # 16 of 64 patches shown
    "mae-token": Subject(  # 17 tokens, and 65 in the decoder
        MAE(**FILLING, class_token=True, positions="learned"), Pretrain(), 32, dense=True
    ),
    "mae-cross": Subject(MAE(**FILLING, decoder="cross"), Pretrain(), 32, dense=True),
    "contrast": Subject(
        ViT(patch=4, width=32, depth=4, heads=4, pool="mean", drop_path=0.2),
        Contrast(hidden=(16,), width=8), 16, dense=False,
    ),
    "vit-channels": Subject(  # the fourth group has two channels, the others three
        ViT(patch=4, width=32, depth=2, heads=4, pool="mean", channels=Channels(groups=(4,))),
        Classify(), 16, dense=False, bands=MANY,
    ),
    "mae-channels": Subject(
        MAE(**FILLING, channels=Channels(groups=(8, 4), aggregate="linear", heads=2)),
        Pretrain(), 32, dense=True, bands=MANY,
    ),
    "mae-sensors": Subject(
        MAE(
            **FILLING, embed="wavelengths", positions="metres", time=True, place=True, mask="both",
            band_groups=True,
        ),
        Pretrain(), 32, dense=True, sensors=True,
    ),
    "dino": Subject(  # large views of 16 tokens, small ones of 4
        ViT(patch=4, width=32, depth=2, heads=4, pool="mean", drop_path=0.2),
        Dino(hidden=(16,), width=8, prototypes=12, memory=48, freeze=24), 16, dense=False,
    ),
    "moco": Subject(
        ViT(patch=4, width=32, depth=2, heads=4, pool="mean", drop_path=0.2),
        Moco(hidden=(16,), width=8, predictor=(16,), memory=48), 16, dense=False,
    ),
    "resnet": Subject(ResNet(depth=18, width=16, dropout=0.1), Classify(), 64, dense=False),
    "unet": Subject(UNet(width=8, depth=2, dropout=0.2), Segment(), 16, dense=True),
    "unet-resnet": Subject(NarrowUNet(), Segment(), 64, dense=True),
}  # fmt: skip
TWO = " of 2"
"""What names of subjects of two blocks in place of four end in: half of the work."""
SUBJECTS |= {
    name + TWO: dataclasses.replace(one, model=dataclasses.replace(one.model, depth=2))
    for name, one in SUBJECTS.items()
    if isinstance(one.model, ViT) and one.model.decoder != "upernet"
}


@dataclass(frozen=True)
class Layout:
    """One line of the table."""

    ranks: int
    subjects: tuple[str, ...]
    parallel: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        words = "-".join(f"{k}={v}" for k, v in self.parallel.items())
        return f"{words or 'replicas'}-{self.ranks}"


ALL = ("vit", "vit-dense", "resnet", "unet")
TOKENS = ("vit", "vit-dense")
FILLED = ("mae", "mae-cross")
CHANNELS = ("vit-channels", "mae-channels")
DECODED = ("vit-linear", "vit-upernet")
KINDS = ("gather", "lss", "ring", "ulysses")
LAYOUTS = [
    Layout(1, ALL, {"recompute": "full"}),
    Layout(1, TOKENS, {"recompute": "selective"}),
    Layout(2, ALL),
    Layout(2, ("mae", "mae-token", "mae-cross", "contrast")),
    Layout(3, ("vit", "resnet", "contrast")),
    Layout(4, ("vit",), {"bucket": 1}),
    Layout(2, ALL, {"shard": 2}),
    Layout(2, ("mae", "mae-token", "mae-cross", "contrast"), {"shard": 2}),
    Layout(3, ("vit",), {"shard": 3}),
    Layout(3, ("dino",)),
    Layout(2, ("dino",), {"shard": 2}),
    Layout(3, ("dino",), {"shard": 3, "reshard": False, "recompute": "full"}),
    Layout(2, ("dino",), {"tensor": 2}),
    Layout(4, ("dino",), {"tensor": 2, "shard": 2, "wrap": "matrix"}),
    Layout(2, ("dino",), {"tensor": 2, "sequence": True}),
    Layout(2, ("dino",), {"context": 2}),
    Layout(3, ("moco",)),
    Layout(2, ("moco",), {"shard": 2}),
    Layout(2, ("moco",), {"tensor": 2}),
    Layout(4, ("moco",), {"tensor": 2, "shard": 2, "recompute": "full"}),
    Layout(2, ("moco",), {"context": 2}),
    Layout(4, ("vit", "resnet"), {"shard": 4}),
    Layout(4, ("vit", "resnet", "unet"), {"replicate": 2, "shard": 2}),
    Layout(2, ("vit",), {"shard": 2, "reshard": False}),
    Layout(2, ("vit", "resnet"), {"shard": 2, "wrap": "matrix", "recompute": "full"}),
    Layout(2, TOKENS, {"tensor": 2}),
    Layout(2, ("mae", "mae-token", "mae-cross", "contrast"), {"tensor": 2}),
    Layout(2, (*FILLED, "contrast"), {"tensor": 2, "sequence": True}),
    Layout(4, ("mae", "contrast"), {"tensor": 2, "shard": 2, "recompute": "full"}),
    Layout(2, ("mae-token", "mae-cross", "contrast"), {"context": 2}),
    Layout(4, TOKENS, {"tensor": 4}),
    Layout(2, ("vit-channels",), {"shard": 2, "wrap": "matrix", "recompute": "full"}),
    Layout(2, CHANNELS, {"tensor": 2}),
    Layout(4, ("vit-channels",), {"tensor": 4, "recompute": "full"}),
    Layout(4, CHANNELS, {"tensor": 2, "shard": 2, "sequence": True}),
    Layout(4, ("vit-channels",), {"tensor": 2, "replicate": 2}),
    Layout(4, ("vit-channels",), {"tensor": 2, "context": 2}),
    Layout(4, ("vit-channels",), {"tensor": 2, "pipeline": 2}),
    Layout(2, TOKENS, {"tensor": 2, "sequence": True}),
    Layout(4, TOKENS, {"tensor": 2, "shard": 2}),
    Layout(4, TOKENS, {"tensor": 2, "shard": 2, "wrap": "matrix"}),
    Layout(4, TOKENS, {"tensor": 2, "sequence": True}),
    Layout(8, TOKENS, {"replicate": 2, "tensor": 2, "shard": 2}),
    Layout(4, ("vit",), {"tensor": 2, "shard": 2, "sequence": True, "recompute": "selective"}),
    Layout(2, (*TOKENS, "resnet"), {"pipeline": 2}),
    Layout(2, DECODED),
    Layout(2, DECODED, {"shard": 2}),
    Layout(2, DECODED, {"tensor": 2, "sequence": True}),
    Layout(2, DECODED, {"context": 2}),
    Layout(2, DECODED, {"pipeline": 2}),
    Layout(4, ("vit-upernet",), {"tensor": 2, "shard": 2, "recompute": "full"}),
    Layout(4, ("vit-upernet",), {"pipeline": 2, "context": 2, "attention": "ring"}),
    Layout(4, ("vit-upernet",), {"pipeline": 2, "tensor": 2, "sequence": True}),
    Layout(2, ("mae", "mae-token", "mae-cross"), {"pipeline": 2}),
    Layout(2, ("mae-cross",), {"pipeline": 2, "schedule": "interleaved", "stages": 2}),
    Layout(4, FILLED, {"pipeline": 4}),
    Layout(4, ("mae",), {"pipeline": 2, "shard": 2, "recompute": "full"}),
    Layout(4, ("mae",), {"pipeline": 2, "tensor": 2, "sequence": True}),
    Layout(4, ("mae-token",), {"pipeline": 2, "context": 2}),
    Layout(4, (*TOKENS, "resnet"), {"pipeline": 4}),
    Layout(3, ("vit",), {"pipeline": 3}),
    Layout(2, ("mae-sensors",), {"shard": 2}),
    Layout(2, ("mae-sensors",), {"tensor": 2}),
    Layout(2, TOKENS, {"pipeline": 2, "schedule": "gpipe"}),
    Layout(2, TOKENS, {"pipeline": 2, "schedule": "interleaved", "stages": 2}),
    Layout(2, TOKENS, {"pipeline": 2, "recompute": "full"}),
    Layout(4, TOKENS, {"pipeline": 2, "replicate": 2}),
    Layout(4, TOKENS, {"pipeline": 2, "shard": 2}),
    Layout(4, ("vit",), {"pipeline": 2, "shard": 2, "schedule": "interleaved", "stages": 2}),
    Layout(4, ("vit",), {"pipeline": 2, "shard": 2, "reshard": False, "recompute": "selective"}),
    Layout(4, TOKENS, {"pipeline": 2, "tensor": 2}),
    Layout(4, TOKENS, {"pipeline": 2, "tensor": 2, "sequence": True}),
    Layout(8, ("vit",), {"pipeline": 2, "shard": 2, "tensor": 2}),
    *(Layout(2, (*TOKENS, "vit-token"), {"context": 2, "attention": kind}) for kind in KINDS),
    *(Layout(4, (*TOKENS, "vit-token"), {"context": 4, "attention": kind}) for kind in KINDS),
    Layout(3, ("vit-token",), {"context": 3, "attention": "ring", "recompute": "full"}),
    Layout(2, TOKENS, {"context": 2, "recompute": "selective"}),
    Layout(4, (*TOKENS, "vit-token"), {"context": 2, "shard": 2}),
    Layout(4, ("vit-token",), {"context": 2, "shard": 2, "attention": "ring", "wrap": "matrix"}),
    Layout(4, TOKENS, {"context": 2, "replicate": 2, "attention": "lss"}),
    Layout(4, (*TOKENS, "vit-token"), {"context": 2, "tensor": 2, "attention": "ulysses"}),
    Layout(4, ("vit",), {"context": 2, "tensor": 2, "attention": "ring", "sequence": True}),
    Layout(4, ("vit-token",), {"context": 2, "pipeline": 2}),
    Layout(8, ("vit",), {"context": 2, "shard": 2, "tensor": 2, "recompute": "full"}),
    Layout(2, ("unet", "unet-resnet"), {"spatial": 2}),
    Layout(3, ("unet",), {"spatial": 3, "recompute": "full"}),
    Layout(4, ("unet",), {"spatial": 4, "recompute": "selective"}),
    Layout(4, ("unet",), {"spatial": 2, "replicate": 2}),
    Layout(4, ("unet",), {"spatial": 2, "shard": 2}),
    Layout(8, ("unet",), {"spatial": 2, "replicate": 2, "shard": 2}),
]


def learned(
    subject: Subject, parallel: Parallel, dtype: torch.dtype, rate: float = 1e-2
) -> dict[str, Any]:
    """Return losses, gradient norms, and weights (whole, by name) after the updates."""
    mesh = Mesh.of(World.start("cpu"), parallel)
    model = spread(subject.network(dtype), mesh, parallel)
    replica = Replica(model, mesh, bucket=100_000)
    # AdamW divides by the size of the gradient: where that is rounding noise, a small eps would
    # blow it up to whole steps.
    optimizer = AdamW(lr=rate, eps=1e-8 if dtype == torch.float64 else 1e-3).build(model)
    state = TrainState(model, optimizer, Average(model, 24))
    settings = TrainSettings(samples=BATCH.samples * UPDATES, clip=0.5)
    objective, figures = subject.objective(), []
    for update in range(UPDATES):
        first = update * BATCH.samples
        figures.append(
            train_step(
                state,
                dealt(subject, first, mesh, replica.in_step),
                objective.loss,
                replica,
                settings,
                BATCH.samples,
                1.0,
            )
        )
    return {
        "loss": [f["loss"] for f in figures],
        "grad_norm": [f["grad_norm"] for f in figures],
        "weights": whole(model.state_dict()),
        "average": whole(state.average.tensors),
    }


def dealt(subject: Subject, first: int, mesh: Mesh, even: bool) -> list[Batch]:
    """Return this rank's microbatches of the update that begins at ``first``."""
    mine = []
    for row in range(0, BATCH.passes, mesh.data_ranks):
        if row + mesh.data_rank < BATCH.passes:
            mine.append(subject.batch(first + (row + mesh.data_rank) * BATCH.micro))
        elif even:
            mine.append(subject.batch(first, counts=False))
    return mine


def whole(tensors: dict[str, Tensor]) -> dict[str, np.ndarray]:
    """Return whole tensors on every rank."""
    return {
        name: (t.full_tensor() if hasattr(t, "full_tensor") else t).detach().numpy().copy()
        for name, t in tensors.items()
    }


@functools.cache
def alone(name: str, dtype: torch.dtype, rate: float = 1e-2) -> dict[str, Any]:
    return learned(SUBJECTS[name], Parallel(), dtype, rate)


def compare(found: dict[str, Any], expected: dict[str, Any], tolerance: float) -> None:
    np.testing.assert_allclose(found["loss"], expected["loss"], rtol=tolerance)
    np.testing.assert_allclose(found["grad_norm"], expected["grad_norm"], rtol=tolerance)
    for kind in ("weights", "average"):
        assert set(found[kind]) <= set(expected[kind]) and found[kind]
        for name, value in found[kind].items():
            np.testing.assert_allclose(
                value, expected[kind][name], rtol=tolerance, atol=tolerance, err_msg=name
            )


CASES = [(layout, name) for layout in LAYOUTS for name in layout.subjects]


def blocks_for(layout: Layout, name: str, dtype: torch.dtype) -> str:
    """Return the subject that learns for ``name``: four blocks once for each layout and where
    pieces of a pipeline need them, else two."""
    pieces = layout.parallel.get("pipeline", 1) * layout.parallel.get("stages", 1)
    few = pieces <= 2 and (name != "vit" or dtype == torch.float32)
    return name + TWO if few and name + TWO in SUBJECTS else name


@pytest.mark.parametrize(("layout", "name"), CASES, ids=str)
def test_a_layout_follows_one_process(ranks, layout, name):
    name = blocks_for(layout, name, torch.float64)
    expected = alone(name, torch.float64)
    parallel = Parallel(**layout.parallel)
    everywhere = ranks(layout.ranks, learned, SUBJECTS[name], parallel, torch.float64)
    for found in everywhere:
        compare(found, expected, 1e-9)
    for kind in ("weights", "average"):  # a rank may hold some of the layers only
        assert set().union(*(found[kind] for found in everywhere)) == set(expected[kind])


def in_float32(layout: Layout, name: str) -> bool:
    """Whether ``name`` learns in ``layout`` in float32 too: every layout with one model or two."""
    if name == "resnet":
        return set(layout.parallel) <= {"replicate", "shard"}
    return name in ("vit", "mae") or ("vit" not in layout.subjects and name == layout.subjects[0])


def compare_float32(found: dict[str, Any], expected: dict[str, Any]) -> None:
    """Fail unless figures agree to 1e-5, and so does each tensor, its difference measured against
    its own length: a number that is the small difference of large ones keeps their rounding."""
    for figure in ("loss", "grad_norm"):
        np.testing.assert_allclose(found[figure], expected[figure], rtol=1e-5, err_msg=figure)
    for kind in ("weights", "average"):
        for name, value in found[kind].items():
            other = expected[kind][name].astype(float)
            away = np.linalg.norm(value - other)
            assert away <= 1e-5 * np.linalg.norm(other), f"{kind} {name}: {away:.2e} away"


@pytest.mark.parametrize(("layout", "name"), [c for c in CASES if in_float32(*c)], ids=str)
def test_a_layout_follows_one_process_in_float32(ranks, layout, name):
    # At the usual rate its fifth update makes rounding 40 times as large.
    rate = 1e-3 if name == "resnet" else 1e-2
    name = blocks_for(layout, name, torch.float32)
    expected = alone(name, torch.float32, rate)
    parallel = Parallel(**layout.parallel)
    for found in ranks(layout.ranks, learned, SUBJECTS[name], parallel, torch.float32, rate):
        compare_float32(found, expected)
