"""Models that are small enough to learn in every layout, what they learn, and from what samples.

All learn invented samples with drop path or drop-out, some without labels; no two of these are
equal, and what a sample is depends on its position alone.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from swath.batch.size import BatchSize
from swath.data import draw
from swath.data.augment import Augment
from swath.data.chip import IGNORE, Batch, Known, Label
from swath.data.sensor import Band, load_sensor
from swath.data.views import Viewer
from swath.models import Inputs, Model, Outputs
from swath.models._channels import Channels
from swath.models.mae import MAE
from swath.models.resnet import ResNet
from swath.models.unet import UNet
from swath.models.vit import ViT
from swath.nn.residual import ResNetEncoder
from swath.nn.unet import UNet as UNetNetwork
from swath.tasks import Objective, Task
from swath.tasks.classify import Classify
from swath.tasks.contrast import Contrast
from swath.tasks.dino import Dino
from swath.tasks.moco import Moco
from swath.tasks.pretrain import Pretrain
from swath.tasks.segment import Segment

BANDS = load_sensor("rgb").bands
MANY = tuple(Band(name=f"B{i}") for i in range(11))
CLASSES = ("water", "forest", "town", "field")
BATCH = BatchSize(samples=12, micro=2)
UPDATES = 2  # the second goes by the weights, moments and teachers that the first leaves


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
        keys = torch.from_numpy(draw.keys(5, np.arange(first, first + BATCH.micro), "known"))
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
            known=Known(bands, gsd, torch.from_numpy(where), torch.from_numpy(when), keys),
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
