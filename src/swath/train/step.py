"""One update, from microbatches to changed parameters."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch

from swath.data.chip import Batch
from swath.nn.settle import Update, forget
from swath.parallel.couples import Couples
from swath.parallel.replica import Loss, Replica
from swath.span import span
from swath.train.settings import TrainSettings
from swath.train.state import TrainState


class Diverged(ArithmeticError):
    """A gradient is not finite; the message says at which update and in which parameter."""


def train_step(
    state: TrainState,
    batches: Iterable[Batch],
    loss_of: Loss | Couples,
    replica: Replica,
    settings: TrainSettings,
    samples: int,
    rate: float,
) -> dict[str, float]:
    """Advance ``state`` by one update of ``samples`` samples; all ranks call it together.

    batches: this rank's microbatches of the update. rate: what the peak learning rate is
    multiplied by. Returns loss, grad_norm and skipped (0 or 1), equal on every rank. Raises
    Diverged, with parameters untouched, if the gradient is not finite and no more updates may be
    skipped.
    """
    progress = state.progress
    loss, weight = replica.gradients(batches, loss_of, samples)
    norm = replica.norm()
    # The one wait for the device.
    mean, length = torch.stack([loss / weight, norm.double()]).tolist()
    figures = {"loss": mean, "grad_norm": length, "skipped": 0}
    progress.update += 1
    progress.samples += samples

    # A NaN on any rank is in the sum, so it is in the norm on every rank: all take the same way
    # here and none is left waiting for the others.
    if not math.isfinite(length):
        forget(state.model)
        progress.skipped += 1
        if progress.skipped > settings.skip_nonfinite:
            raise Diverged(_what_happened(state, replica, figures, samples, settings))
        return {**figures, "skipped": 1}
    with span("optimiser"):
        if settings.clip is not None:
            replica.clip(norm, settings.clip)
        for group in state.optimizer.param_groups:
            group["lr"] = group.setdefault("initial_lr", group["lr"]) * rate
        state.optimizer.step()
        replica.settle(Update(samples, progress.samples))
        if state.average is not None:
            state.average.update(state.model, samples)
    return figures


def _what_happened(
    state: TrainState, replica: Replica, figures: dict, samples: int, settings: TrainSettings
) -> str:
    bad = replica.not_finite()
    end = state.progress.samples
    allowed = settings.skip_nonfinite
    return (
        f"update {state.progress.update} (samples {end - samples} to {end - 1}): gradient norm is"
        f" {figures['grad_norm']:.3g}, loss {figures['loss']:.4g}; first in"
        f" {bad[0] if bad else 'the norm itself: it overflows'} ({len(bad)} parameters in all)."
        f" {allowed} such updates may be skipped. Parameters are as before this update. Lower the"
        " learning rate, lengthen the warm-up, look at these samples, or set train.skip_nonfinite"
    )
