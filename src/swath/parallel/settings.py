"""How one model is spread over ranks: ``parallel:`` in a settings file.

The degrees multiply to the number of ranks. ``replicate`` and ``shard`` share out the samples;
``context`` and ``spatial`` share out one sample, its tokens or its rows; ``tensor`` and
``pipeline`` share out the model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from swath.config import ConfigError

AUTO: Final = "auto"


@dataclass(frozen=True, kw_only=True)
class Parallel:
    """How the model is spread over ranks; nothing of it changes the result."""

    replicate: int | Literal["auto"] = AUTO
    """Copies of the model, or of a group of ranks that hold it together. auto: what is left."""
    shard: int | Literal["auto"] = 1
    """Ranks that share parameters, gradients and the optimiser's memory (FSDP2), each with samples
    of its own. auto: what is left; then replicate must be a number."""
    tensor: int = 1
    """Ranks that share each matrix of a transformer block; keep it inside a node."""
    context: int = 1
    """Ranks that share the tokens of one sample."""
    pipeline: int = 1
    """Ranks that hold some of the layers each, and hand microbatches on."""
    spatial: int = 1
    """Ranks that share the rows of one image in a network of convolutions."""

    attention: Literal["gather", "ring", "ulysses", "lss"] = "gather"
    """How tokens on other ranks are asked, with context above 1."""
    sequence: bool = False
    """With tensor above 1: norms and residuals hold only their share of the tokens."""
    schedule: Literal["gpipe", "1f1b", "interleaved"] = "1f1b"
    """Order in which a pipeline works through its microbatches."""
    stages: int = 1
    """Pieces of the model on each pipeline rank; more than 1 with schedule=interleaved."""
    wrap: Literal["block", "matrix"] = "block"
    """What is gathered at once under shard: a block of layers, or a single layer (Hybrid-STOP)."""
    reshard: bool = True
    """Under shard: let gathered parameters go after the forward pass and gather them again for the
    backward one; false holds them, for fewer bytes on the wire."""
    recompute: Literal["none", "selective", "full"] = "none"
    """What the backward pass computes again instead of keeping: nothing, all but matrix products
    and attention, or whole blocks."""
    offload: bool = False
    """Under shard on a GPU: keep parameters, gradients and optimiser in the CPU's memory."""
    bucket: int = 25
    """MiB of gradients exchanged at a time among replicas, while the backward pass goes on."""

    start_seconds: float = 300.0
    """Within which all ranks have to come and be connected; else those that came end."""
    lost: Literal["end", "resize"] = "end"
    """What the others do when a rank is lost. end: all end, with exit code 76; the same command
    goes on from the last checkpoint. resize: as many of those that are left as the degrees allow
    go on from it by themselves; with --ranks, which starts them anew."""
    lost_seconds: float = 60.0
    """Without a sign of life of its process for so long, a rank is lost. An exchange that breaks
    tells sooner."""

    def __post_init__(self) -> None:
        for name in DEGREES:
            degree = getattr(self, name)
            if degree != AUTO and degree < 1:
                raise ConfigError(f"parallel.{name}={degree} must be at least 1")
        if self.replicate == AUTO and self.shard == AUTO:
            raise ConfigError(
                "parallel: only one of replicate and shard can be auto; set replicate=1 to shard "
                "over all ranks"
            )
        if self.context > 1 and self.spatial > 1:
            raise ConfigError(
                f"parallel: context={self.context} shares tokens and spatial={self.spatial} rows "
                "of an image; a model has one or the other"
            )
        if self.stages < 1:
            raise ConfigError(f"parallel.stages={self.stages} must be at least 1")
        if self.stages > 1 and self.schedule != "interleaved":
            raise ConfigError(
                f"parallel.stages={self.stages} needs schedule=interleaved, it is {self.schedule}"
            )
        if self.schedule == "interleaved" and self.pipeline > 1 and self.stages == 1:
            raise ConfigError("parallel.schedule=interleaved needs stages=2 or more on each rank")
        if self.schedule != "1f1b" and self.pipeline == 1:
            raise ConfigError(
                f"parallel.schedule={self.schedule} has no effect with pipeline=1; set pipeline=2,"
                " or leave it out"
            )
        if self.sequence and self.tensor == 1:
            raise ConfigError(
                "parallel.sequence=true has no effect with tensor=1; set tensor=2 or leave it out"
            )
        if self.attention != "gather" and self.context == 1:
            raise ConfigError(
                f"parallel.attention={self.attention} has no effect with context=1; set context=2 "
                "or leave it out"
            )
        if self.wrap == "matrix" and self.recompute == "selective":
            raise ConfigError(
                "parallel: recompute=selective keeps some results within a block, and torch loses"
                " count of them where wrap=matrix gathers; set recompute=full, or wrap=block"
            )
        if self.bucket < 1:
            raise ConfigError(f"parallel.bucket={self.bucket} MiB must be at least 1")
        for name in ("start_seconds", "lost_seconds"):
            if getattr(self, name) < 1:
                raise ConfigError(f"parallel.{name}={getattr(self, name):g} must be at least 1")

    @property
    def fixed(self) -> int:
        """The product of the degrees that are numbers."""
        product = 1
        for name in DEGREES:
            degree = getattr(self, name)
            product *= 1 if degree == AUTO else degree
        return product

    def over(self, ranks: int) -> Degrees:
        """Return all degrees for ``ranks`` ranks; ConfigError, with a suggestion, if none fit."""
        fixed = self.fixed
        unknown = [name for name in DEGREES if getattr(self, name) == AUTO]
        asked = " x ".join(f"{name} {getattr(self, name)}" for name in DEGREES if self._set(name))
        if ranks % fixed or (not unknown and fixed != ranks):
            raise ConfigError(
                f"parallel: {asked or 'one rank'} needs "
                f"{'a multiple of ' if unknown else ''}{fixed} ranks and there are {ranks}; "
                f"start {self.most(ranks) or fixed} ranks, or change a degree"
            )
        left = ranks // fixed
        return Degrees(
            **{n: left if getattr(self, n) == AUTO else getattr(self, n) for n in DEGREES}
        )

    def most(self, ranks: int) -> int:
        """Return how many of ``ranks`` ranks the degrees can use; 0: too few for any."""
        if AUTO in (self.replicate, self.shard):
            return ranks - ranks % self.fixed
        return self.fixed if self.fixed <= ranks else 0

    def _set(self, name: str) -> bool:
        return getattr(self, name) not in (1, AUTO)


DEGREES = ("pipeline", "replicate", "context", "spatial", "shard", "tensor")
"""From the slowest link to the fastest: ranks next to each other share a tensor."""


@dataclass(frozen=True, kw_only=True)
class Degrees:
    """How many ranks lie along each axis."""

    pipeline: int = 1
    replicate: int = 1
    context: int = 1
    spatial: int = 1
    shard: int = 1
    tensor: int = 1

    @property
    def ranks(self) -> int:
        return self.data_ranks * self.pieces * self.tensor * self.pipeline

    @property
    def sharing(self) -> str:
        """The axes along which the model, or its work on one sample, is shared, as ``shard=2``."""
        axes = (axis for axis in DEGREES if axis != "replicate")
        return " x ".join(f"{n}={getattr(self, n)}" for n in axes if getattr(self, n) > 1)

    def __str__(self) -> str:
        copies = f"replicate={self.replicate}"
        if not self.sharing:
            return copies
        return self.sharing if self.replicate == 1 else f"{copies} x {self.sharing}"

    @property
    def data_ranks(self) -> int:
        """Shares of an update's samples."""
        return self.replicate * self.shard

    @property
    def pieces(self) -> int:
        """Shares of one sample."""
        return self.context * self.spatial

    @property
    def copies(self) -> int:
        """Ranks that hold the same of the model, and see other samples or pieces of one."""
        return self.replicate * self.pieces
