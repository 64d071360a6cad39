"""What a sample costs to learn from, and how fast a rank could compute at best.

Model FLOP/s utilisation (MFU) is the share of the peak rate that goes into what the model itself
asks for: forward and backward pass, counted as three forward passes. What is computed twice to save
memory, by replicas of the same work, or for the loss and the optimiser, does not count; a
multiplication and an addition are two. So MFU compares layouts and machines, whatever they repeat.

Source: Chowdhery et al. 2022, arXiv:2204.02311 (PaLM), section 4.1 and appendix B.
"""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from swath import here
from swath.machine import load_machine
from swath.models import Inputs
from swath.nn.block import trunks
from swath.train.precision import DTYPES

log = logging.getLogger(__name__)

_SIDE = {"cpu": 1024, "cuda": 8192}  # of the matrices multiplied: both are near the best rate
_SECONDS = 0.2  # for measuring


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Work of a sample, and the rate at which a rank could do work; None: not known."""

    flops: int | None = None
    """FLOPs of one sample, forward and backward."""
    tokens: int | None = None
    """Tokens of one sample, all of its views, that enter the first block; None too for models
    without."""
    peak: float | None = None
    """FLOP/s of one rank."""
    peak_from: str = ""
    """Where the peak comes from."""


def cost(
    build: Callable[[], nn.Module],
    inputs: Inputs,
    device: torch.device,
    precision: str,
    machine: str | None = None,
    *,
    passes: int = 3,
    sides: Sequence[int] | None = None,
) -> Cost:
    """Return the cost of a sample for the network that ``build`` makes, and the rate of ``device``.

    machine: whose stated peak rate is taken, a name or a file; None: the rate is measured. passes:
    forward passes that forward and backward cost; fewer where parameters are frozen. sides: of the
    views of a sample, in pixels; None: it is seen once, as it is.
    """
    counted = work(build, inputs, passes, sides)
    flops, tokens = counted if counted else (None, None)
    rate, source = peak(device, precision, machine)
    return Cost(flops=flops, tokens=tokens, peak=rate, peak_from=source)


def work(
    build: Callable[[], nn.Module],
    inputs: Inputs,
    passes: int = 3,
    sides: Sequence[int] | None = None,
) -> tuple[int, int | None] | None:
    """Return FLOPs (forward and backward) and tokens of one sample; None if they defy counting.

    The network is built and run on torch's meta device: shapes without values. One that training
    gives more than an image says by ``usual`` what else. Counted are matrix products, convolutions
    and attention, which is all but a hundredth; of a teacher the forward pass alone.
    """
    from torch.utils.flop_counter import FlopCounterMode

    tokens: list[int] = []
    try:
        with torch.device("meta"):
            network = build().eval()
            images = [
                torch.empty(1, len(inputs.bands), side, side) for side in sides or [inputs.size]
            ]
        for layers in trunks(network)[:1]:
            layers[0].register_forward_pre_hook(
                lambda _, args: tokens.append(args[0].shape[0] * args[0].shape[1])
            )
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            for given in [images] if getattr(network, "compares", False) else zip(images):
                network(*getattr(network, "usual", lambda *image: image)(*given))
    except Exception as error:  # of a network that is not ours anything can come
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        log.info("the record has no mfu: this network cannot be run without values (%s)", reason)
        return None
    whole, teacher = counter.get_total_flops(), f"{type(network).__name__}.teacher"
    still = sum(counter.get_flop_counts().get(teacher, {}).values())
    return passes * (whole - still) + still, sum(tokens) or None


def peak(device: torch.device, precision: str, machine: str | None) -> tuple[float, str]:
    """Return the FLOP/s of one rank at best, and where the figure comes from."""
    if machine is not None:
        facts = load_machine(machine)
        rates = facts.accelerator.peak_tflops, facts.accelerator.measured_tflops
        for kind, found in zip(("peak_tflops", "measured_tflops"), rates, strict=True):
            if (rate := getattr(found, precision, None)) is not None:
                source = facts.source(f"accelerator.{kind}.{precision}")
                return rate * 1e12, f"{facts.name}: accelerator.{kind}.{precision} ({source})"
        log.info("%s states no rate in %s; it is measured", facts.name, precision)
    dtype = torch.bfloat16 if precision == "bf16" else DTYPES[precision]
    rate = _measured(device.type, device.index, precision, dtype, torch.get_num_threads())
    side = _SIDE[device.type]
    what = f"{torch.get_num_threads()} of {here.cores()} cores"
    if device.type == "cuda":
        what = torch.cuda.get_device_name(device)
    return rate, f"measured at the start: {side} x {side} matrices in {precision}, {what}"


@functools.cache
def _measured(
    kind: str, index: int | None, precision: str, dtype: torch.dtype, threads: int
) -> float:
    """Return the FLOP/s of the fastest of some matrix products; the arithmetic is set already."""
    side, device = _SIDE[kind], torch.device(kind if index is None else f"{kind}:{index}")
    # Random, as in training: products of equal numbers draw less power and run faster.
    draws = torch.Generator(device).manual_seed(0)
    a, b = (torch.randn(side, side, dtype=dtype, device=device, generator=draws) for _ in range(2))
    best, until = float("inf"), time.perf_counter() + _SECONDS
    while time.perf_counter() < until or best == float("inf"):
        began = time.perf_counter()
        a @ b
        if kind == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - began)
    return 2 * side**3 / best
