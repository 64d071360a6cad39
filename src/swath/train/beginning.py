"""What a run says when it begins: what learns, from how many samples of which stores, how often."""

from __future__ import annotations

from swath import units
from swath.data.mix import Mixed
from swath.data.opened import Data
from swath.parallel.replica import Replica
from swath.train.trainer import Trainer


def beginning(trainer: Trainer, data: Data, updates: int) -> list[str]:
    """Return lines on the run of ``trainer``, of so many updates: what learns, from how many
    samples; of several stores how often each is passed over, and which of them is not scored."""
    stores = (data, *data.also)
    found = [len(one.select("train").indices) for one in stores]
    shown = updates * trainer.batch.samples
    first = f"{_parameters(trainer.replica)}{units.count(sum(found))} samples to learn from"
    whole = sum(one.store.samples for one in stores)
    if sum(found) < whole and data.store.contents.label.per_pixel:
        first += f" (those of {units.count(whole)} with a label in the training part)"
    lines = [f"{first}, {units.count(updates)} updates"]
    if not isinstance(trainer.loader, Mixed):
        lines[0] += f", {_passes(shown, found[0])}"
    else:
        shares = trainer.loader.shares.counts / trainer.loader.shares.counts.sum()
        weights = [data.settings.weight, *(one.weight for one in data.settings.also)]
        for one, count, share, weight in zip(stores, found, shares, weights, strict=True):
            said = f"{one.settings.store}: {units.count(count)} samples, weight {weight:g}"
            said += f" ({share:.0%} of the microbatches), {_passes(shown * share, count)}"
            if trainer.validation is not None and not len(one.select("val").indices):
                said += "; not scored: it has no validation part"
            lines.append(said)
        if trainer.validation is None and trainer.others:
            lines.append(
                f"nothing is scored: {stores[0].settings.store}, by which the best weights would be"
                f" chosen, has no validation part; {' and '.join(trainer.others)} has one"
            )
    return lines


def _passes(shown: float, samples: int) -> str:
    return f"{shown / samples:.3g} passes over them"


def _parameters(replica: Replica) -> str:
    """Return how many parameters learn; nothing where a rank knows only its stage of a pipeline."""
    if replica.mesh.degrees.pipeline > 1:
        return ""
    count = sum(p.numel() for p in replica.model.parameters() if p.requires_grad)
    return f"{units.count(count)} parameters, "
