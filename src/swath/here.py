"""Where this process runs, as its launcher says: the only reader of environment variables."""

from __future__ import annotations

import os


def rank() -> int:
    """Return this process's number in the job, from 0: what torchrun or srun set, else 0."""
    return _number(("RANK", "SLURM_PROCID"), 0) if ranks() > 1 else 0


def ranks() -> int:
    """Return how many processes the launcher started: torchrun, or srun with a meeting point."""
    met = "MASTER_ADDR" in os.environ  # a lone process inside an allocation has no one to meet
    return _number(("WORLD_SIZE", "SLURM_NTASKS"), 1) if met else 1


def local_rank() -> int:
    """Return this process's number on its node, from 0."""
    return _number(("LOCAL_RANK", "SLURM_LOCALID"), 0)


def _number(names: tuple[str, ...], otherwise: int) -> int:
    return next((int(os.environ[n]) for n in names if n in os.environ), otherwise)
