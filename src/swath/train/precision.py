"""How exactly numbers are computed, as settings of torch for the length of a run."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from swath.train.settings import Compute

DTYPES = {
    "fp32": torch.float32,
    "tf32": torch.float32,
    "bf16": torch.float32,
    "fp64": torch.float64,
}
"""Of the parameters."""
AUTOCAST = {"bf16": torch.bfloat16}
"""Of matrix products, where it is not that of the parameters."""


@contextlib.contextmanager
def arithmetic(precision: str, compute: Compute) -> Iterator[None]:
    """Set torch's precision and threads inside the block, and put them and its generator back.

    On a GPU convolutions keep to algorithms that give the same bits every time.
    """
    matmul, threads = torch.get_float32_matmul_precision(), torch.get_num_threads()
    cudnn = torch.backends.cudnn
    deterministic, benchmark, tf32 = cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32
    try:
        with torch.random.fork_rng():
            torch.set_float32_matmul_precision("medium" if precision == "tf32" else "highest")
            cudnn.deterministic, cudnn.benchmark = True, False
            cudnn.allow_tf32 = precision in ("tf32", "bf16")
            if compute.threads is not None:
                torch.set_num_threads(compute.threads)
            yield
    finally:
        torch.set_float32_matmul_precision(matmul)
        torch.set_num_threads(threads)
        cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32 = deterministic, benchmark, tf32
