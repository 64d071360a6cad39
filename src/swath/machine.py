"""Facts about a computer: nodes, accelerators, rates, links, storage, limits; each with a source.

A machine is a YAML file in ``swath/machines``; a user's own file works the same. What is not known
is left out, and what is written must be in ``sources``, by its name or that of the part it belongs
to. To add a machine, add one file. Units: GB is 10^9 bytes, a rate between two places counts one
direction.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

from swath.config import ConfigError, load, named_file
from swath.text import near

FOLDER = pathlib.Path(__file__).parent / "machines"


@dataclass(frozen=True, kw_only=True)
class Rates:
    """TFLOP/s of dense matrix products, by precision."""

    bf16: float | None = None
    fp16: float | None = None
    tf32: float | None = None
    fp32: float | None = None


@dataclass(frozen=True, kw_only=True)
class Accelerator:
    """What one rank computes on: a GPU, a part of one that the system shows as a GPU, or a CPU."""

    name: str
    memory_gb: float
    memory_gb_per_s: float | None = None
    peak_tflops: Rates = field(default_factory=Rates)
    """As its maker states it."""
    measured_tflops: Rates = field(default_factory=Rates)
    """Best rate that large matrix products reach in practice."""
    watts: float | None = None
    """Most that it draws."""


@dataclass(frozen=True, kw_only=True)
class Links:
    """How accelerators reach one another."""

    inside_gb_per_s: float | None = None
    """From one accelerator to all others of its node together."""
    pair_gb_per_s: float | None = None
    """Between two accelerators of a node; of the slowest pair."""
    cards: int | None = None
    """Network cards of a node."""
    outside_gb_per_s: float | None = None
    """From one accelerator to other nodes, when all of its node send."""
    node_gb_per_s: float | None = None
    """From one node to others."""
    network: str | None = None
    """Kind and shape of the network between nodes."""


@dataclass(frozen=True, kw_only=True)
class Storage:
    """The file system that all nodes share."""

    name: str | None = None
    read_gb_per_s: float | None = None
    """Of all nodes together."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a job may ask for."""

    hours: float | None = None
    """Longest run of a job."""


@dataclass(frozen=True, kw_only=True)
class Scheduler:
    """Who starts jobs."""

    kind: str | None = None
    """As "slurm"; None: there is none, or it is not known."""


@dataclass(frozen=True, kw_only=True)
class Machine:
    """A computer, as far as it is known."""

    HELP: ClassVar[str] = f"; for whole ones see {FOLDER}"
    name: str
    about: str
    """What it is, in a sentence."""
    nodes: int | None = None
    accelerators: int
    """Accelerators of a node."""
    node_memory_gb: float | None = None
    """Of a node's processors, without that of accelerators."""
    accelerator: Accelerator
    links: Links = field(default_factory=Links)
    storage: Storage = field(default_factory=Storage)
    limits: Limits = field(default_factory=Limits)
    scheduler: Scheduler = field(default_factory=Scheduler)
    sources: dict[str, str]
    """Where each fact comes from, by its name (accelerator.memory_gb) or that of the part that it
    belongs to (accelerator)."""

    def __post_init__(self) -> None:
        for name in ("accelerators", "nodes"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ConfigError(f"{self.name}: {name}={value} must be at least 1")
        known = [path for path, _ in self.facts()]
        bare = [path for path in known if not any(_inside(path, s) for s in self.sources)]
        if bare:
            raise ConfigError(
                f"{self.name}: {', '.join(bare)} {'has' if len(bare) == 1 else 'have'} no source; "
                f"say in sources.{bare[0]} where the figure comes from, or leave it out"
            )
        for named, source in self.sources.items():
            if not any(_inside(path, named) for path in known):
                raise ConfigError(
                    f"{self.name}: sources.{named} is of no fact{near(named, known, 0.5)}"
                )
            if not source.strip():
                raise ConfigError(f"{self.name}: sources.{named} is empty")

    def facts(self) -> Iterator[tuple[str, Any]]:
        """Yield the name (``accelerator.memory_gb``) and the value of every fact that is known."""
        yield from _facts(self, "")

    def source(self, path: str) -> str:
        """Return where the fact ``path`` comes from; ConfigError if it is not known."""
        known = [name for name, _ in self.facts()]
        if path not in known:
            raise ConfigError(f"{self.name}: {path} is not known{near(path, known, 0.5)}")
        # The closest one: of the fact itself, else of the smallest part that it is in.
        return self.sources[max((s for s in self.sources if _inside(path, s)), key=len)]


def machines() -> list[str]:
    """Return the names of the machines that ship with Swath."""
    return sorted(file.stem for file in FOLDER.glob("*.yaml"))


def load_machine(name: str | pathlib.Path) -> Machine:
    """Return the machine of that name (see :func:`machines`), or of the user's YAML file."""
    return load(Machine, [named_file(name, FOLDER, "machine", 0.5)])


def _facts(part: Any, path: str) -> Iterator[tuple[str, Any]]:
    for one in dataclasses.fields(part):
        value, below = getattr(part, one.name), f"{path}.{one.name}".lstrip(".")
        if dataclasses.is_dataclass(value):
            yield from _facts(value, below)
        elif value is not None and below not in ("name", "about", "sources"):
            yield below, value


def _inside(path: str, part: str) -> bool:
    return path == part or path.startswith(f"{part}.")
