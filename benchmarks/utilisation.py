"""ViT-L/16 on one GPU: our update against the same by hand, and what share of the GPU it uses.

    python benchmarks/utilisation.py [--rounds 20] [--samples 128] [--micro 64]

At 224 px, in bfloat16 under autocast, every block compiled, float32 parameters and AdamW. Ours is
what the trainer calls (``train_step``): keyed draws, sums of losses and weights, the norm of the
gradient and whether it is finite. By hand: forward, backward of the mean loss,
``clip_grad_norm_``, AdamW, on the same network. Batches are in memory of the device, the first
updates are not counted, the two take turns, and their losses are compared.

The ceiling is the rate of the matrix products of a block at the same number of tokens, forward and
backward, with nothing between them. Utilisation counts forward and backward pass as three forward
passes (:mod:`swath.train.cost`). ``--device cpu --preset tiny --size 32 --samples 8 --micro 4``
tries the script without a GPU, which shows no more than that it runs. Prints the table of
utilisation.md.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from swath.data.chip import Batch
from swath.data.sensor import Band
from swath.models import Inputs, Outputs
from swath.models.vit import ViT
from swath.optimizers.adamw import AdamW
from swath.parallel.apply import spread
from swath.parallel.mesh import Mesh
from swath.parallel.replica import Replica
from swath.parallel.settings import Parallel
from swath.parallel.world import World
from swath.train.cost import work
from swath.train.precision import arithmetic
from swath.train.settings import Compute, TrainSettings
from swath.train.state import TrainState
from swath.train.step import train_step

CHANNELS, CLASSES, CLIP = 12, 1000, 1.0
WARM = 5  # first updates, not counted: kernels are compiled and chosen, memory is found

Update = Callable[[], float]
"""Does an update and returns the mean loss."""


def batches_of(options: argparse.Namespace) -> list[Batch]:
    """Return the microbatches of an update, on the device."""
    draws = torch.Generator().manual_seed(1)
    side, micro = options.size, options.micro
    made = []
    for first in range(0, options.samples, micro):
        image = torch.randn(micro, CHANNELS, side, side, generator=draws)
        target = torch.randint(CLASSES, (micro,), generator=draws)
        at = torch.arange(first, first + micro)
        made.append(
            Batch(
                image=image.to(options.device),
                valid=torch.ones(micro, side, side, dtype=torch.bool, device=options.device),
                target=target.to(options.device),
                positions=at,
                indices=at,
                seed=first,
            )
        )
    return made


def ours(model: nn.Module, batches: list[Batch], options: argparse.Namespace) -> Update:
    world = World.alone(options.device)
    mesh = Mesh.of(world, Parallel())
    model = spread(model, mesh, Parallel(), compile=True, narrow=torch.bfloat16)
    replica = Replica(model, mesh)
    state = TrainState(model, AdamW(fused=options.fused).build(model))
    settings = TrainSettings(samples=1 << 40, clip=CLIP, precision="bf16")

    def loss_of(model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        with torch.autocast(options.device, torch.bfloat16):
            out = model(batch.image)
        loss = F.cross_entropy(out.float(), batch.target, reduction="sum")
        return loss, torch.tensor(float(len(batch.image)), device=options.device)

    def update() -> float:
        samples = options.samples
        return train_step(state, batches, loss_of, replica, settings, samples, 1.0)["loss"]

    return update


def by_hand(model: nn.Module, batches: list[Batch], options: argparse.Namespace) -> Update:
    optimizer = AdamW(fused=options.fused).build(model)
    blocks = model.blocks
    assert isinstance(blocks, nn.ModuleList)
    for block in blocks:  # as ours: each block by itself
        block.forward = torch.compile(block.forward)

    def update() -> float:
        optimizer.zero_grad()
        total = torch.zeros((), device=options.device)
        for batch in batches:
            with torch.autocast(options.device, torch.bfloat16):
                out = model(batch.image)
            loss = F.cross_entropy(out.float(), batch.target) / len(batches)
            loss.backward()
            total += loss.detach()
        nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        return total.item()

    return update


def ceiling(width: int, tokens: int, device: str, seconds: float) -> float:
    """Return FLOP/s of a block's four matrix products, forward and backward, in bfloat16."""
    shapes = [(width, 3 * width), (width, width), (width, 4 * width), (4 * width, width)]
    weights = [
        torch.randn(shape, dtype=torch.bfloat16, device=device).mul_(0.02).requires_grad_()
        for shape in shapes
    ]
    inputs = [
        torch.randn(tokens, shape[0], dtype=torch.bfloat16, device=device).requires_grad_()
        for shape in shapes
    ]
    grads = [torch.randn(tokens, b, dtype=torch.bfloat16, device=device) for _, b in shapes]

    def products() -> None:
        for x, w, g in zip(inputs, weights, grads, strict=True):
            torch.autograd.grad(x @ w, (x, w), g)

    def timed(times: int) -> float:
        wait(device)
        began = time.perf_counter()
        for _ in range(times):
            products()
        wait(device)
        return time.perf_counter() - began

    timed(3)
    times = max(1, int(seconds / 5 / timed(1)))
    best = min(timed(times) for _ in range(5)) / times
    return sum(6 * tokens * a * b for a, b in shapes) / best


def wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--samples", type=int, default=128, help="of an update")
    parser.add_argument("--micro", type=int, default=64, help="samples of a microbatch")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--preset", default="large")
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--plain", dest="fused", action="store_false", help="AdamW not fused")
    options = parser.parse_args()
    if options.samples % options.micro:
        parser.error(f"--samples {options.samples} must be a multiple of --micro {options.micro}")
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("no GPU here; --device cpu tries the script, with a small model")
    vit = ViT(preset=options.preset, patch=16)
    bands = tuple(Band(name=f"B{n}") for n in range(CHANNELS))
    inputs = Inputs(bands=bands, size=options.size)

    def build() -> nn.Module:
        torch.manual_seed(1)
        return vit.build(inputs, Outputs(channels=CLASSES, dense=False))

    counted = work(build, inputs)
    assert counted is not None
    flops, tokens = counted
    assert tokens is not None
    times: list[list[float]] = [[], []]
    with arithmetic("bf16", Compute()):
        batches = batches_of(options)
        updates = [make(build().to(options.device), batches, options) for make in (ours, by_hand)]
        for turn in range(WARM + options.rounds):
            losses = [0.0, 0.0]
            for which in (0, 1) if turn % 2 else (1, 0):
                wait(options.device)
                began = time.perf_counter()
                losses[which] = updates[which]()
                wait(options.device)
                if turn >= WARM:
                    times[which].append(time.perf_counter() - began)
            assert abs(losses[0] - losses[1]) < 0.02 * abs(losses[1]), f"{losses} differ"
        top = ceiling(vit.shape[0], options.micro * tokens, options.device, 2.0)
    print("| what | update, s | samples/s | tokens/s | TFLOP/s | of the ceiling |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name, spent in zip(("Swath", "by hand"), times, strict=True):
        second = statistics.median(spent)
        rate = options.samples / second
        print(
            f"| {name} | {second:.4f} | {rate:.1f} | {rate * tokens:.0f} |"
            f" {rate * flops / 1e12:.1f} | {rate * flops / top:.1%} |"
        )
    print(f"| matrix products alone | | | | {top / 1e12:.1f} | 100 % |")
    pairs = sorted(b / a for a, b in zip(*times, strict=True))
    quarter = len(pairs) // 4
    print(
        f"\nSamples/s over those by hand: {statistics.median(pairs):.3f}"
        f" (quartiles {pairs[quarter]:.3f} to {pairs[-1 - quarter]:.3f})"
    )


if __name__ == "__main__":
    main()
