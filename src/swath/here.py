"""Where this process runs, as its launcher says: the only reader of environment variables."""

from __future__ import annotations

import os
import pathlib

from swath.config import ConfigError


def rank() -> int:
    """Return this process's number in the job, from 0: what torchrun or srun set, else 0."""
    return _number(("RANK", "SLURM_PROCID"), 0) if ranks() > 1 else 0


def ranks() -> int:
    """Return how many processes the launcher started: torchrun, or srun with a meeting point."""
    met = "MASTER_ADDR" in os.environ  # a lone process inside an allocation has no one to meet
    return _number(("WORLD_SIZE", "SLURM_NTASKS"), 1) if met else 1


def processes() -> int:
    """Return how many processes run side by side: ranks, or tasks of srun that cannot meet."""
    return max(ranks(), _number(("SLURM_STEP_NUM_TASKS",), 1))


def local_rank() -> int:
    """Return this process's number on its node, from 0."""
    return _number(("LOCAL_RANK", "SLURM_LOCALID"), 0)


def cores() -> int:
    """Return how many CPU cores this process may use: its affinity, or the container's share, or
    what SLURM gave a task, whichever is least."""
    least = len(os.sched_getaffinity(0))
    share = _container_cores()
    if share is not None:
        least = min(least, share)
    return max(1, min(least, _number(("SLURM_CPUS_PER_TASK",), least)))


def _container_cores(file: str = "/sys/fs/cgroup/cpu.max") -> int | None:
    """Return the whole cores that a container's quota allows; None if there is no quota."""
    try:
        quota, period = pathlib.Path(file).read_text().split()
    except (OSError, ValueError):
        return None
    return None if quota == "max" else max(1, int(quota) // int(period))


def _number(names: tuple[str, ...], otherwise: int) -> int:
    name = next((n for n in names if n in os.environ), None)
    if name is None:
        return otherwise
    try:
        return int(os.environ[name])
    except ValueError as error:
        raise ConfigError(
            f"environment variable {name}={os.environ[name]!r} is not a number; unset it, or start "
            "through torchrun or srun, which set it"
        ) from error
