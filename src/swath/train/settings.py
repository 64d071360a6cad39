"""How long a run is, what is kept of it, and what its machine may choose.

``TrainSettings`` belongs to the result; ``Compute`` only decides how fast it comes.
"""

from dataclasses import dataclass
from typing import Literal

from swath.config import ConfigError
from swath.fields import free
from swath.machine import load_machine


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """The course of a run, counted in samples."""

    samples: int = 100_000
    """Length of the run: samples shown in all, repeats counted. A last update that would pass it
    is not begun."""
    clip: float | None = 1.0
    """Largest norm of an update's gradient; a longer one is shortened to it. None: never."""
    ema: int | None = None
    """Samples over which a moving average of the weights forgets. The average is what is scored
    and exported. None: no average, the weights themselves."""
    evaluate_every: int | None = None
    """Samples between evaluations on the validation part; None: only at the end."""
    select: Literal["best", "last"] | None = None
    """Weights that are exported: of the best evaluation, or of the end of the run. Without a
    validation part: of the end. None: best; last for tasks with a teacher (dino, moco), whose
    figures do not tell what features are worth."""
    patience: int | None = None
    """Evaluations without a better one after which the run ends early; None: never."""
    precision: Literal["fp32", "tf32", "bf16", "fp64"] = "fp32"
    """Of the arithmetic. tf32: float32 whose matrix products may be done in fewer bits (on CPUs
    with bfloat16 units too). bf16: matrix products in bfloat16, weights in float32."""
    skip_nonfinite: int = 0
    """Updates of the run that may be left out because their gradient is not finite; one more stops
    it."""
    checkpoint_every: int | None = free(None)
    """Samples between checkpoints; None: by time only. The end and a signal always save."""
    checkpoint_seconds: float | None = free(600.0)
    """Seconds of training between checkpoints; None: by samples only."""
    checkpoint_async: bool = free(True)
    """Write checkpoints while training goes on, from a copy in the CPU's memory, which has to have
    room for it. false: training waits until they are on disk."""
    keep: int = free(2)
    """Newest checkpoints kept; the best one is kept besides."""
    record_every: int = free(0)
    """Samples between lines in metrics.jsonl; 0: every update. The last update always has one."""

    def __post_init__(self) -> None:
        for name in ("samples", "ema", "evaluate_every", "patience", "checkpoint_every", "keep"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name}={value} must be at least 1")
        for name in ("clip", "checkpoint_seconds"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ConfigError(f"{name}={value} must be positive, or null for none")
        if self.skip_nonfinite < 0 or self.record_every < 0:
            raise ConfigError("skip_nonfinite and record_every must not be negative")
        if self.patience is not None and self.evaluate_every is None:
            raise ConfigError(
                f"patience={self.patience} has no effect: it counts evaluations, and there are none"
                " before the end; set evaluate_every"
            )
        if self.evaluate_every is not None and self.evaluate_every > self.samples:
            raise ConfigError(
                f"evaluate_every={self.evaluate_every} has no effect in a run of {self.samples}"
                " samples; leave it out to evaluate at the end"
            )


@dataclass(frozen=True, kw_only=True)
class Compute:
    """What the machine chooses. None of it changes the result beyond rounding."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto: a GPU if there is one."""
    threads: int | None = None
    """Threads of torch in this process; None: torch's own choice."""
    prefetch: int = 4
    """Microbatches read ahead of the one in work."""
    compile: bool = False
    """Compile the model with torch.compile: minutes at the start, faster afterwards."""
    machine: str | None = None
    """This computer: a name of `swath show --machines`, or a YAML file of your own. Its peak rate
    is what mfu in the record is a share of; None: the rate of a matrix product at the start."""

    def __post_init__(self) -> None:
        if (self.threads is not None and self.threads < 1) or self.prefetch < 1:
            raise ConfigError(
                f"threads={self.threads} and prefetch={self.prefetch} must be at least 1"
            )
        if self.machine is not None:
            load_machine(self.machine)  # raises if there is none
