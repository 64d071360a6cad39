"""Time of a forward and backward pass with the tokens of a sample on two ranks, kind by kind.

    python benchmarks/context.py [--sides 128 192 256] [--rounds 5]

A vision transformer (width 256, 4 blocks of 4 heads, patches of 4 pixels, float32) learns from one
square image; a side of 128 pixels is 1,024 tokens. One process alone, on one core and on two, and
two ranks of one core each in the four kinds take turns, so that all of them see the same machine.
Counted are seconds on the clock (of the slower rank) and of the processor (both together), medians
over rounds; on a rank, bytes sent as swath.parallel.count has them, and bytes kept for the backward
pass. Gradients are not exchanged. Prints the table of context.md.
"""

import argparse
import os
import statistics
import tempfile
import time
from multiprocessing.connection import Connection
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor

from swath.data.sensor import load_sensor
from swath.models import Inputs, Outputs
from swath.models.vit import ViT
from swath.nn.random import Draws
from swath.parallel.apply import spread
from swath.parallel.count import counted
from swath.parallel.mesh import Mesh
from swath.parallel.settings import Parallel
from swath.parallel.world import World

KINDS = ("gather", "lss", "ring", "ulysses")
MODEL = ViT(patch=4, width=256, depth=4, heads=4, pool="mean")
WARM = 1


class Pass:
    """A model on the ranks of a mesh, and one image."""

    def __init__(self, side: int, mesh: Mesh, parallel: Parallel) -> None:
        torch.manual_seed(0)
        bands = load_sensor("rgb").bands
        network = MODEL.build(Inputs(bands=bands, size=side), Outputs(channels=10, dense=False))
        self.model = spread(network, mesh, parallel)
        self.draws = Draws(self.model)
        self.image = torch.randn(1, len(bands), side, side)
        self.ranks = mesh.degrees.context

    def forward(self) -> Tensor:
        with self.draws.keyed(1):
            return self.model(self.image).square().sum() / self.ranks

    def seconds(self) -> tuple[float, float]:
        """Return seconds on the clock and of this process's threads."""
        clock, processor = time.perf_counter(), time.process_time()
        self.forward().backward()
        return time.perf_counter() - clock, time.process_time() - processor

    def bytes(self) -> dict[str, float]:
        """Return bytes sent in a pass, and kept between forward and backward (no parameters)."""
        own = {p.untyped_storage().data_ptr() for p in self.model.parameters()}
        kept: dict[int, Any] = {}

        def keep(t: Tensor) -> Tensor:
            kept[t.untyped_storage().data_ptr()] = t.untyped_storage()
            return t

        with counted() as volume:
            with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
                loss = self.forward()
            held = sum(s.nbytes() for place, s in kept.items() if place not in own)
            loss.backward()
        return {"sent": sum(volume.wire.values()), "kept": held}


def rank(number: int, store: str, sides: list[int], pipe: Connection) -> None:
    """Body of one of two ranks: answer what to run until the pipe closes."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", store=dist.FileStore(store, 2), rank=number, world_size=2)
    world = World.start("cpu")
    passes = {}
    for side in sides:
        for kind in KINDS:
            parallel = Parallel(context=2, attention=kind)
            passes[side, kind] = Pass(side, Mesh.of(world, parallel), parallel)
    while True:
        try:
            key, what = pipe.recv()
        except EOFError:
            return
        dist.barrier()
        pipe.send(getattr(passes[key], what)())


def main() -> None:
    words = argparse.ArgumentParser()
    words.add_argument("--sides", type=int, nargs="+", default=[128, 192, 256])
    words.add_argument("--rounds", type=int, default=5)
    options = words.parse_args()

    os.environ["OMP_NUM_THREADS"] = "1"
    context = mp.get_context("spawn")
    store = tempfile.mktemp(prefix="context-")
    pipes = []
    for number in range(2):
        ours, theirs = context.Pipe()
        args = (number, store, options.sides, theirs)
        context.Process(target=rank, args=args, daemon=True).start()
        theirs.close()
        pipes.append(ours)

    def on_ranks(side: int, kind: str, what: str) -> list[Any]:
        for pipe in pipes:
            pipe.send(((side, kind), what))
        return [pipe.recv() for pipe in pipes]

    print("| tokens | | clock, s | spread | processor, s | sent, MB | kept, MB |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for side in options.sides:
        alone = Pass(side, Mesh.of(World.alone()), Parallel())
        seen: dict[str, list[tuple[float, float]]] = {}
        for turn in range(WARM + options.rounds):
            found = {}
            for threads in (1, 2):
                torch.set_num_threads(threads)
                found[f"one process, {threads} core{'s' * (threads - 1)}"] = alone.seconds()
            for kind in KINDS:
                both = on_ranks(side, kind, "seconds")
                # The pass is over when the slower rank is done; processors' seconds add up.
                found[kind] = max(s for s, _ in both), sum(s for _, s in both)
            for name, value in found.items():
                seen.setdefault(name, []).extend([value] if turn >= WARM else [])
        for name, values in seen.items():
            clock = [s for s, _ in values]
            if name in KINDS:
                size = on_ranks(side, name, "bytes")[0]
            else:
                size = alone.bytes()
            print(
                f"| {(side // MODEL.patch) ** 2:,} | {name} | {statistics.median(clock):.3f} "
                f"| {min(clock):.3f} to {max(clock):.3f} "
                f"| {statistics.median(s for _, s in values):.3f} "
                f"| {size['sent'] / 1e6:.1f} | {size['kept'] / 1e6:.1f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
