"""What an update of a masked autoencoder costs: masked or not, by us or by transformers.

    python benchmarks/mae.py --preset tiny --size 112 --patch 8 --micro 8 --rounds 5

Times forward, loss, backward and optimiser step of one microbatch, all ways in turn in each round,
there and back, so that a slow moment of the machine falls on all of them; prints seconds of the
processor and of the clock (medians), and the ratios within rounds (quartiles) as JSON. Both
networks have the same shape, class token, precision and optimiser. See benchmarks/mae.md.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import nn
from transformers import ViTMAEConfig, ViTMAEForPreTraining

from swath.data import draw
from swath.data.chip import Batch, Label
from swath.data.sensor import Band
from swath.models import Inputs
from swath.models.mae import MAE
from swath.optimizers.adamw import AdamW
from swath.tasks.pretrain import Pretrain

BANDS = 6


def microbatch(micro: int, size: int) -> Batch:
    at = torch.arange(micro)
    return Batch(
        image=torch.randn(micro, BANDS, size, size, generator=torch.Generator().manual_seed(0)),
        valid=torch.ones(micro, size, size, dtype=torch.bool),
        target=None,
        positions=at,
        indices=at,
        seed=0,
        keys=torch.from_numpy(draw.keys(0, np.arange(micro), "task")),
    )


def update_of(network: nn.Module, loss: Callable[[], torch.Tensor]) -> Callable[[], None]:
    optimizer = AdamW().build(network)

    def update() -> None:
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()

    return update


def ways(settings: argparse.Namespace) -> dict[str, Callable[[], None]]:
    """Return an update of each way."""
    inputs = Inputs(bands=tuple(Band(name=f"B{i}") for i in range(BANDS)), size=settings.size)
    objective = Pretrain().bind(Label(kind="none"), None, inputs)
    batch = microbatch(settings.micro, settings.size)
    base = MAE(preset=settings.preset, patch=settings.patch, class_token=True)
    width, depth, heads = base.shape
    decoder_width, decoder_depth, decoder_heads = base.decoder_shape

    def ours(**other: object) -> Callable[[], None]:
        made = MAE(preset=settings.preset, patch=settings.patch, class_token=True, **other)
        network = made.build(inputs, objective.outputs)

        def loss() -> torch.Tensor:
            total, weight = objective.loss(network, batch)
            return total / weight

        return update_of(network, loss)

    def whole() -> Callable[[], None]:
        network = base.build(inputs, objective.outputs)
        return update_of(network, lambda: (network(batch.image) - batch.image).square().mean())

    def theirs() -> Callable[[], None]:
        network = ViTMAEForPreTraining(
            ViTMAEConfig(
                hidden_size=width,
                num_hidden_layers=depth,
                num_attention_heads=heads,
                intermediate_size=4 * width,
                image_size=settings.size,
                patch_size=settings.patch,
                num_channels=BANDS,
                decoder_hidden_size=decoder_width,
                decoder_num_hidden_layers=decoder_depth,
                decoder_num_attention_heads=decoder_heads,
                decoder_intermediate_size=4 * decoder_width,
                norm_pix_loss=True,
            )
        )
        return update_of(network, lambda: network(batch.image).loss)

    return {
        "mae": ours(),
        "mae, cross decoder": ours(decoder="cross"),
        "nothing hidden": whole(),
        "transformers": theirs(),
    }


def quartiles(took: list[float], ours: list[float]) -> list[float]:
    """Return the quartiles of the ratios within rounds."""
    ratios = [a / b for a, b in zip(took, ours, strict=True)]
    return [round(q, 3) for q in statistics.quantiles(ratios, n=4)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="tiny")
    for name, default in (("size", 112), ("patch", 8), ("micro", 8), ("rounds", 5), ("threads", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    settings = parser.parse_args()
    torch.set_num_threads(settings.threads)
    torch.manual_seed(0)
    updates = ways(settings)
    seconds: dict[str, list[float]] = {name: [] for name in updates}
    busy: dict[str, list[float]] = {name: [] for name in updates}
    for round_ in range(settings.rounds + 1):
        for name in list(updates)[:: 1 if round_ % 2 else -1]:
            began, worked = time.perf_counter(), time.process_time()
            updates[name]()
            if round_:  # the first one warms up
                busy[name].append(time.process_time() - worked)
                seconds[name].append(time.perf_counter() - began)
    told = {
        name: {
            "seconds": round(statistics.median(took), 4),
            "cpu_seconds": round(statistics.median(busy[name]), 4),
            "samples_per_second": round(settings.micro / statistics.median(took), 2),
            "times_mae": quartiles(took, seconds["mae"]),
            "times_mae_cpu": quartiles(busy[name], busy["mae"]),
        }
        for name, took in seconds.items()
    }
    print(json.dumps({**vars(settings), "torch": torch.__version__, "ways": told}, indent=1))


if __name__ == "__main__":
    main()
