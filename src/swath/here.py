"""Where this process runs, as its launcher says: the only reader of environment variables.

torchrun (and ``swath train --ranks``) says RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT. srun
numbers its tasks and names their nodes: the first node is where they meet, at a port that follows
from the job's number. A process that neither of them started is alone.
"""

from __future__ import annotations

import itertools
import os
import pathlib
import re
import zlib
from dataclasses import dataclass

from swath.config import ConfigError


def rank() -> int:
    """Return this process's number in the job, from 0: what torchrun or srun set, else 0.

    ConfigError if there are several and nothing says which this is.
    """
    count = ranks()
    if count == 1:
        return 0
    number = _number(("RANK", "SLURM_PROCID"), -1)
    if not 0 <= number < count:
        raise ConfigError(
            f"{count} processes were started, and neither RANK nor SLURM_PROCID says which of 0 to "
            f"{count - 1} this one is; start through torchrun or srun, which set it"
        )
    return number


def ranks() -> int:
    """Return how many processes the launcher started: torchrun, or srun in this step."""
    if "MASTER_ADDR" in os.environ and "WORLD_SIZE" in os.environ:
        return _number(("WORLD_SIZE",), 1)
    # Not SLURM_NTASKS, which a lone process in a job script sees too.
    return _number(("SLURM_STEP_NUM_TASKS",), 1)


def processes() -> int:
    """Return how many processes run side by side: ranks, or launchers of ranks under srun."""
    return max(ranks(), _number(("SLURM_STEP_NUM_TASKS",), 1))


def local_rank() -> int:
    """Return this process's number on its node, from 0."""
    return _number(("LOCAL_RANK", "SLURM_LOCALID"), 0)


@dataclass(frozen=True)
class MeetingPoint:
    """Where the ranks of a job find one another."""

    host: str
    port: int
    kept: bool
    """Whether the launcher holds the port open; else rank 0 has to."""
    job: str
    """A word that another job's ranks, at the same port by mistake, do not say."""


def meeting_point() -> MeetingPoint:
    """Return where the ranks meet; ConfigError if the launcher does not say."""
    host = os.environ.get("MASTER_ADDR")
    if host is None:
        names = ("SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST", "SLURM_NODELIST")
        text = next((os.environ[name] for name in names if name in os.environ), None)
        if text is None:
            raise ConfigError(
                f"{ranks()} tasks of srun cannot find one another: neither SLURM_STEP_NODELIST nor "
                "MASTER_ADDR is set; export MASTER_ADDR=the first node"
            )
        host = nodes(text)[0]
    # Below the ports that Linux gives to whoever asks for any; two steps seldom share one.
    port = 10_000 + zlib.crc32(job().encode()) % 20_000 if job() != "job" else 29_500
    kept = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    return MeetingPoint(host=host, port=_number(("MASTER_PORT",), port), kept=kept, job=job())


def job() -> str:
    """Return a word that the ranks of this job say, and no others; "job" if there is none."""
    names = ("SLURM_JOB_ID", "SLURM_STEP_ID", "TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT")
    return "/".join(os.environ[name] for name in names if name in os.environ) or "job"


_NODE = r"(?:[\w.-]|\[\d+(?:-\d+)?(?:,\d+(?:-\d+)?)*\])+"


def nodes(text: str) -> list[str]:
    """Return the names in a node list of SLURM, as ``node[01-04,07],login1``, in its order."""
    if not re.fullmatch(rf"{_NODE}(?:,{_NODE})*", text):
        raise ConfigError(f"{text!r} is no list of nodes, such as node[01-04,07]")
    found: list[str] = []
    for name in re.findall(_NODE, text):
        pieces = re.split(r"(\[[^\]]*\])", name)
        found += map("".join, itertools.product(*map(_numbers, pieces)))
    return found


def _numbers(piece: str) -> list[str]:
    """Return what a piece of a node's name stands for: ``[01-03,7]`` for four numbers."""
    if not piece.startswith("["):
        return [piece]
    found: list[str] = []
    for part in piece[1:-1].split(","):
        first, _, last = part.partition("-")
        found += [f"{n:0{len(first)}}" for n in range(int(first), int(last or first) + 1)]
    return found


def cores() -> int:
    """Return how many CPU cores this process may use: its affinity, or the container's share, or
    what SLURM gave a task, whichever is least."""
    least = len(os.sched_getaffinity(0))
    share = _container_cores()
    if share is not None:
        least = min(least, share)
    return max(1, min(least, _number(("SLURM_CPUS_PER_TASK",), least)))


def expanded(text: str) -> str:
    """Return ``text`` with environment variables, as $TMPDIR or ${TMPDIR}, and a first ~ replaced;
    ConfigError if one is not set."""
    found = os.path.expanduser(os.path.expandvars(text))
    if unset := re.search(r"\$(\w+|\{\w+\})", found):
        raise ConfigError(
            f"{text}: environment variable {unset[0]} is not set here; set it, or write the folder"
        )
    return found


def secret(name: str) -> str | None:
    """Return the environment variable ``name``, a token say; None if it is not there, or empty."""
    return os.environ.get(name) or None


def quiet_profiler() -> None:
    """Let torch's profiler not tell that it starts and stops, unless the user wants to hear it."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # above all levels at which it speaks


def child(rank: int, ranks: int, port: int) -> dict[str, str]:
    """Return the environment of local rank ``rank`` of ``ranks`` that this process starts; it
    holds ``port`` open for them."""
    told = {
        "RANK": rank,
        "LOCAL_RANK": rank,
        "WORLD_SIZE": ranks,
        "LOCAL_WORLD_SIZE": ranks,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
        "TORCHELASTIC_USE_AGENT_STORE": True,
    }
    shared = {
        "OMP_NUM_THREADS": str(max(1, cores() // ranks)),  # or each would take all cores
        "TORCH_CPP_LOG_LEVEL": "ERROR",  # or pages of C++ hide the line that says who was lost
    }
    return {**shared, **os.environ, **{name: str(value) for name, value in told.items()}}


def sharing(processes: int) -> dict[str, str]:
    """Return the environment of each of ``processes`` that share this machine's cores."""
    return {"OMP_NUM_THREADS": str(max(1, cores() // processes)), **os.environ}


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
