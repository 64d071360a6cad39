"""How many samples make one update, and how they are cut into microbatches.

An update consumes ``samples`` places of the endless run. They are cut into microbatches of fixed
size, the atoms of the run: what must be local (batch statistics, drop-out seeds) is local to a
microbatch, never to a rank. How many ranks share the microbatches changes nothing but the time.
"""

from dataclasses import dataclass

from swath.config import ConfigError


@dataclass(frozen=True, kw_only=True)
class BatchSize:
    """Samples of one update and of one forward pass."""

    samples: int = 64
    """Samples per update, over all ranks. The learning rate is tuned for this."""
    micro: int = 16
    """Samples of one microbatch: one forward pass, one set of batch statistics. Memory bounds it.
    A part of the result where the model has batch statistics or drop-out; what is withheld
    from samples (model.withheld), hidden or cut out of them does not depend on it."""

    def __post_init__(self) -> None:
        if self.samples < 1 or self.micro < 1:
            raise ConfigError(
                f"samples={self.samples} and micro={self.micro} must both be at least 1"
            )
        if self.samples % self.micro:
            near = [m for m in range(1, self.samples + 1) if self.samples % m == 0]
            raise ConfigError(
                f"samples={self.samples} is not a multiple of micro={self.micro};"
                f" micro={min(near, key=lambda m: abs(m - self.micro))} would divide it"
            )

    @property
    def passes(self) -> int:
        """Microbatches of one update, over all ranks."""
        return self.samples // self.micro

    def mine(self, rank: int, ranks: int) -> range:
        """Return which of an update's microbatches belong to ``rank``: every ``ranks``-th one.

        The number of ranks need not divide the number of microbatches. ConfigError if some rank
        would have none.
        """
        assert 0 <= rank < ranks, f"rank {rank} of {ranks}"
        if ranks > self.passes:
            fits = [m for m in range(1, self.samples // ranks + 1) if self.samples % m == 0]
            smaller = f"micro to {fits[-1]}, or " if fits else ""
            raise ConfigError(
                f"{ranks} ranks cannot share {self.passes} microbatches (samples={self.samples},"
                f" micro={self.micro}); start at most {self.passes} ranks, or set {smaller}samples"
                f" to at least {ranks * self.micro}; either changes the result"
            )
        return range(rank, self.passes, ranks)
