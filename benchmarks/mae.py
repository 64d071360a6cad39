"""What an update of a masked autoencoder costs: masked or not, by us or by transformers.

    python benchmarks/mae.py --preset base --micro 4 --ways mae transformers eager --rounds 7

Times forward, loss, backward and optimiser step of one microbatch. In each round all ways take
turns, there and back, as often as --updates says, so that a slow moment of the machine falls on all
of them; prints seconds of the processor and of the clock (medians), and the ratios within rounds
(quartiles) as JSON. All networks have the same shape, class token, precision and optimiser. On
--device cuda the clock waits for the device, and the processor's time tells nothing.
See benchmarks/mae.md.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from functools import partial

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


def microbatch(micro: int, size: int, device: torch.device) -> Batch:
    draws = torch.Generator().manual_seed(0)
    at = torch.arange(micro, device=device)
    return Batch(
        image=torch.randn(micro, BANDS, size, size, generator=draws).to(device),
        valid=torch.ones(micro, size, size, dtype=torch.bool, device=device),
        target=None,
        positions=at,
        indices=at,
        seed=0,
        keys=torch.from_numpy(draw.keys(0, np.arange(micro), "task")).to(device),
    )


def update_of(
    network: nn.Module, loss: Callable[[], torch.Tensor], settings: argparse.Namespace
) -> Callable[[], None]:
    """Return one update of a network, which ends when the device has ended it."""
    optimizer = AdamW(fused=True).build(network)
    narrow = torch.autocast(settings.device, torch.bfloat16, enabled=settings.bf16)

    def update() -> None:
        optimizer.zero_grad()
        with narrow:
            total = loss()
        total.backward()
        optimizer.step()
        if settings.device == "cuda":
            torch.cuda.synchronize()

    return update


def ways(settings: argparse.Namespace) -> dict[str, Callable[[], Callable[[], None]]]:
    """Return what makes an update of each way."""
    device = torch.device(settings.device)
    inputs = Inputs(bands=tuple(Band(name=f"B{i}") for i in range(BANDS)), size=settings.size)
    objective = Pretrain().bind(Label(kind="none"), None, inputs)
    batch = microbatch(settings.micro, settings.size, device)
    base = MAE(preset=settings.preset, patch=settings.patch, class_token=True)
    width, depth, heads = base.shape
    decoder_width, decoder_depth, decoder_heads = base.decoder_shape

    def ours(**other: object) -> Callable[[], None]:
        made = MAE(preset=settings.preset, patch=settings.patch, class_token=True, **other)
        network = made.build(inputs, objective.outputs).to(device)

        def loss() -> torch.Tensor:
            total, weight = objective.loss(network, batch)
            return total / weight

        return update_of(network, loss, settings)

    def whole() -> Callable[[], None]:
        network = base.build(inputs, objective.outputs).to(device)

        def loss() -> torch.Tensor:
            return (network(batch.image).float() - batch.image).square().mean()

        return update_of(network, loss, settings)

    def theirs(attention: str) -> Callable[[], None]:
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
                **{"attn_implementation": attention},
            )
        ).to(device)
        return update_of(network, lambda: network(batch.image).loss, settings)

    return {
        "mae": ours,
        "cross": partial(ours, decoder="cross"),
        "whole": whole,
        "transformers": partial(theirs, "sdpa"),
        "eager": partial(theirs, "eager"),
    }


def quartiles(took: list[float], ours: list[float]) -> list[float]:
    """Return the quartiles of the ratios within rounds."""
    ratios = [a / b for a, b in zip(took, ours, strict=True)]
    return [round(q, 3) for q in statistics.quantiles(ratios, n=4)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--bf16", action="store_true", help="products in bfloat16 (autocast)")
    parser.add_argument("--ways", nargs="+", default=["mae", "cross", "whole", "transformers"])
    for name, default in (("size", 112), ("patch", 8), ("micro", 8), ("threads", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--updates", type=int, default=2, help="of each way in a round")
    settings = parser.parse_args()
    torch.set_num_threads(settings.threads)
    torch.manual_seed(0)
    makes = ways(settings)
    updates = {name: makes[name]() for name in dict.fromkeys(["mae", *settings.ways])}
    for update in updates.values():
        update()  # warms up
    seconds: dict[str, list[float]] = {name: [] for name in updates}
    busy: dict[str, list[float]] = {name: [] for name in updates}
    for _ in range(settings.rounds):
        for each in (*seconds.values(), *busy.values()):
            each.append(0.0)
        for turn in range(settings.updates):
            for name in list(updates)[:: -1 if turn % 2 else 1]:
                began, worked = time.perf_counter(), time.process_time()
                updates[name]()
                busy[name][-1] += (time.process_time() - worked) / settings.updates
                seconds[name][-1] += (time.perf_counter() - began) / settings.updates
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
    print(json.dumps({**vars(settings), "torch": torch.__version__, "told": told}, indent=1))


if __name__ == "__main__":
    main()
