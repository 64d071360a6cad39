"""Memory of many channels: all tokens at once, group by group, and groups on tensor ranks.

    python benchmarks/channels.py --channels 200 500 1000 --tensor 1 2 4 8    # by the dry run
    python benchmarks/channels.py --measure --tensor 1 2                      # of real processes

The first prints what one rank holds at the peak of an update, by the dry run, of a ViT of width
1024, depth 12 and 16 heads in bf16 on 224 x 224 px, in patches of 16.
The second lays a small network out and trains it too, in as many processes as ranks, and
prints both figures, the bytes asked of the C library, and processor seconds of an update. See
channels.md.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from swath.batch.size import BatchSize
from swath.data.chip import Batch, Contents, Known
from swath.data.settings import DataSettings
from swath.datasets.synthetic import Synthetic
from swath.models import Inputs
from swath.models._channels import Channels
from swath.models.vit import ViT
from swath.nn.attention import CrossAttention
from swath.nn.bands import check_bands
from swath.parallel.mesh import Mesh
from swath.parallel.settings import Parallel
from swath.parallel.world import World
from swath.tasks.classify import Classify
from swath.train.dry import lay_out
from swath.train.job import TrainJob
from swath.train.settings import Compute, TrainSettings


class PlainEmbed(nn.Module):
    """Every channel's token, and one query that asks them all, with layers for keys and values."""

    unit = True

    def __init__(self, bands: tuple[str, ...], patch: int, width: int, heads: int) -> None:
        super().__init__()
        self.bands, self.patch = bands, patch
        self.proj = nn.Conv2d(len(bands), width, patch, stride=patch, bias=False)
        self.channel_embed = nn.Parameter(torch.zeros(len(bands), width))
        self.query = nn.Parameter(torch.zeros(width))
        self.cross_attn = CrossAttention(width, heads)

    def forward(
        self, image: Float[Tensor, "b c h w"], known: Known | None = None
    ) -> Float[Tensor, "b d gh gw"]:
        check_bands(image, self.bands, known)
        cut = image.unflatten(3, (-1, self.patch)).unflatten(2, (-1, self.patch))
        rows, cols = cut.shape[2], cut.shape[4]
        pixels = cut.permute(1, 0, 2, 4, 3, 5).flatten(4).flatten(1, 3)  # (c, n, q)
        weight = self.proj.weight.flatten(2).permute(1, 2, 0)
        tokens = torch.baddbmm(self.channel_embed[:, None], pixels, weight).transpose(0, 1)
        query = self.query.to(tokens.dtype).expand(len(tokens), 1, -1)
        found = self.cross_attn(query, tokens)
        return found[:, 0].unflatten(0, (len(image), rows, cols)).permute(0, 3, 1, 2)


@dataclass(frozen=True, kw_only=True)
class Plain(ViT):
    """A vit that does it all at once."""

    def embedding(self, inputs: Inputs) -> Any:
        width, _, heads = self.shape
        return PlainEmbed(tuple(b.name for b in inputs.bands), self.patch, width, heads)


def ways(channels: int, size: dict[str, Any]) -> dict[str, ViT]:
    """Return the networks that are compared."""
    tree = (channels // 5, 8)  # of 200: 40 groups of five channels, then eight of five groups
    return {
        "plain": Plain(**size),
        "attention": ViT(**size, channels=Channels(groups=(8,))),
        "tree": ViT(**size, channels=Channels(groups=tree if tree[0] % 8 == 0 else (40, 8))),
        "linear": ViT(**size, channels=Channels(groups=(8,), aggregate="linear")),
    }


def contents(channels: int, size: int) -> Contents:
    return Synthetic(size=size, bands=channels, label="class", classes=10).open().contents


def job(model: ViT, micro: int, parallel: Parallel, precision: Any, device: Any) -> TrainJob:
    return TrainJob(
        folder="none",
        data=DataSettings(store="none"),
        model=model,
        task=Classify(),
        batch=BatchSize(samples=micro, micro=micro),
        train=TrainSettings(samples=100 * micro, precision=precision),
        parallel=parallel,
        compute=Compute(device=device),
    )


def predict(options: argparse.Namespace) -> None:
    size = {"width": 1024, "depth": 12, "heads": 16, "patch": 16, "pool": "mean"}
    for channels in options.channels:
        seen = contents(channels, 224)
        for name, model in ways(channels, size).items():
            if name not in options.ways:
                continue
            for tensor in options.tensor:
                parallel = Parallel(tensor=tensor, recompute=options.recompute)
                memory = lay_out(
                    job(model, options.micro, parallel, "bf16", "auto"), seen, tensor
                ).largest.memory
                gib = {
                    "total": memory.total / 2**30,
                    "activations": memory.activations / 2**30,
                }
                row = {"channels": channels, "way": name, "tensor": tensor, **gib}
                print(json.dumps(row), flush=True)


SMALL = {"width": 128, "depth": 2, "heads": 4, "patch": 8, "pool": "mean"}
CHANNELS, SIDE, MICRO = 96, 64, 4


def learned(way: str, tensor: int, updates: int) -> dict[str, Any]:
    """Return the peak in bytes, and the median of an update's processor seconds, of this rank."""
    from swath.parallel.apply import spread
    from swath.parallel.replica import Replica
    from tests.parallel.heap import Peak, asked

    parallel = Parallel(tensor=tensor)
    mesh = Mesh.of(World.start("cpu"), parallel)
    settings = job(ways(CHANNELS, SMALL)[way], MICRO, parallel, "fp32", "cpu")
    seen = contents(CHANNELS, SIDE)
    inputs = Inputs(bands=seen.modalities[0].sensor.bands, size=SIDE)
    objective = settings.task.bind(seen.label, np.ones(10), inputs)
    before = asked()
    torch.manual_seed(0)
    replica = Replica(spread(settings.model.build(inputs, objective.outputs), mesh, parallel), mesh)
    optimizer = settings.optim.build(replica.model)
    at = torch.arange(MICRO)
    seconds, most = [], 0
    for number in range(updates + 2):
        image = torch.randn(MICRO, CHANNELS, SIDE, SIDE)
        valid = torch.ones(MICRO, SIDE, SIDE, dtype=torch.bool)
        batch = Batch(
            image=image, valid=valid, target=at % 10, positions=at, indices=at, seed=0, keys=at
        )
        began = time.process_time()
        if number == 1:  # the first fills caches of torch's kernels
            with Peak() as peak:
                replica.gradients([batch], objective.loss)
                optimizer.step()
            most = peak.bytes - before
        else:
            replica.gradients([batch], objective.loss)
            optimizer.step()
            seconds += [time.process_time() - began] if number else []
    return {"bytes": most, "seconds": statistics.median(seconds)}


def measure(options: argparse.Namespace) -> None:
    from tests.ranks import Ranks

    ranks = Ranks()
    try:
        for tensor in options.tensor:
            for way, model in ways(CHANNELS, SMALL).items():
                subject = job(model, MICRO, Parallel(tensor=tensor), "fp32", "cpu")
                told = lay_out(subject, contents(CHANNELS, SIDE), tensor).largest.memory.total
                real = ranks(tensor, learned, way, tensor, options.updates, timeout_seconds=600)
                row = {
                    "way": way,
                    "tensor": tensor,
                    "predicted_mib": told / 2**20,
                    "measured_mib": max(one["bytes"] for one in real) / 2**20,
                    "seconds": max(one["seconds"] for one in real),
                }
                print(json.dumps(row), flush=True)
    finally:
        ranks.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--channels", type=int, nargs="+", default=[200, 500, 1000])
    parser.add_argument("--tensor", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--ways", nargs="+", default=["plain", "attention", "tree", "linear"])
    parser.add_argument("--micro", type=int, default=2)
    parser.add_argument("--recompute", default="none")
    parser.add_argument("--measure", action="store_true")
    parser.add_argument("--updates", type=int, default=5)
    options = parser.parse_args()
    measure(options) if options.measure else predict(options)


if __name__ == "__main__":
    main()
