"""The learning rate over a run, as a factor of its peak.

Everything is counted in samples, so a run that changes its batch size, or its number of ranks,
keeps its schedule. The factor is a pure function of how many samples were seen: a resumed run
asks again and needs no state.

Sources: cosine, Loshchilov & Hutter 2017, arXiv:1608.03983 (one cycle, without restarts);
warm-up, Goyal et al. 2017, arXiv:1706.02677.
"""

import math
from dataclasses import dataclass
from typing import Literal

from swath.config import ConfigError


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How the learning rate rises, and how it falls."""

    kind: Literal["cosine", "linear", "constant", "step", "inverse"] = "cosine"
    """After the warm-up: fall to ``end`` along a cosine or a line, stay, drop at ``steps``, or
    fall as 1 / (1 + rate * samples)."""
    warmup: int = 0
    """Samples over which the rate rises from 0 to its peak, along a line."""
    end: float = 0.0
    """Factor at the end of the run, 0..1 (cosine and linear)."""
    steps: tuple[int, ...] = ()
    """Where the rate drops, in samples from the start of the run, ascending (step)."""
    drop: float = 0.1
    """What each drop multiplies the rate by, 0..1 (step)."""
    rate: float = 0.0
    """Speed of the fall per sample (inverse): the rate is halved 1 / rate samples after warm-up."""

    def __post_init__(self) -> None:
        belongs = {
            "end": (self.end != 0, ("cosine", "linear")),
            "steps": (bool(self.steps), ("step",)),
            "drop": (self.drop != 0.1, ("step",)),
            "rate": (self.rate != 0, ("inverse",)),
        }
        for field, (given, kinds) in belongs.items():
            if given and self.kind not in kinds:
                raise ConfigError(
                    f"{field} has no effect with kind={self.kind}; it belongs to"
                    f" kind={' and '.join(kinds)}"
                )
        if self.warmup < 0:
            raise ConfigError(f"warmup={self.warmup} samples must not be negative")
        if not (0 <= self.end <= 1 and 0 < self.drop < 1):
            raise ConfigError(f"end={self.end} must be in 0..1, drop={self.drop} between 0 and 1")
        if self.kind == "step" and not self.steps:
            raise ConfigError("kind=step needs steps: the samples at which the rate drops")
        if list(self.steps) != sorted({s for s in self.steps if s > self.warmup}):
            raise ConfigError(
                f"steps={list(self.steps)} must ascend and lie after warmup={self.warmup}"
            )
        if self.kind == "inverse" and self.rate <= 0:
            raise ConfigError(f"kind=inverse needs a positive rate, not {self.rate}")

    def check(self, total: int) -> None:
        """Raise ConfigError if a part of the schedule lies beyond a run of ``total`` samples."""
        if self.warmup > total:
            raise ConfigError(
                f"warmup={self.warmup} is longer than the run of {total} samples: the peak rate"
                " would never be reached"
            )
        if self.steps and self.steps[-1] >= total:
            raise ConfigError(
                f"steps: the drop at {self.steps[-1]} has no effect in a run of {total} samples"
            )

    def factor(self, samples_seen: int, total: int) -> float:
        """Return what the peak rate is multiplied by (0..1) in the update that follows
        ``samples_seen`` samples of a run of ``total``.

        With a warm-up the first update has factor 0: it fills the optimiser's moments and leaves
        the parameters alone. Beyond ``total`` the last value holds.
        """
        self.check(total)
        if samples_seen < self.warmup:
            return samples_seen / self.warmup
        after = min(samples_seen, total) - self.warmup
        if self.kind == "constant":
            return 1.0
        if self.kind == "step":
            return self.drop ** sum(samples_seen >= step for step in self.steps)
        if self.kind == "inverse":
            return 1 / (1 + self.rate * after)
        done = after / (total - self.warmup) if total > self.warmup else 1.0
        left = (1 + math.cos(math.pi * done)) / 2 if self.kind == "cosine" else 1 - done
        return self.end + (1 - self.end) * left
