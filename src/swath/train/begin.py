"""The weights that ``init`` names put into a network that is there already, whole or spread.

Rank 0 reads them, one tensor after the other, and hands each out; so every layout begins alike.
"""

from __future__ import annotations

import dataclasses
import logging

import torch
from torch import Tensor, nn

from swath.config import ConfigError
from swath.nn.position import step_of
from swath.nn.teacher import Teacher
from swath.parallel.fill import hand_out, hollow, shapes
from swath.parallel.world import World
from swath.train.adapted import heads
from swath.train.export import About
from swath.train.given import about_weights, read_weights
from swath.train.init import Init
from swath.train.match import Bands, Match, match
from swath.train.theirs import check_heads, words

log = logging.getLogger(__name__)


def begin(
    init: Init, about: About, model: nn.Module, world: World, *, frozen: bool = False
) -> None:
    """Put the weights of ``init`` into ``model``, what is trained of the network of ``about`` as
    the ranks of ``world`` hold it together; all call it. Says what was taken, adapted, left out and
    new. A teacher begins as its student.

    frozen: whether features are read as the weights give them. ConfigError, on all ranks and with
    ``model`` as it was, if the weights do not fit, or what is read of them would be random.
    """
    found = Match()

    def look() -> None:
        vars(found).update(vars(matched(init, about)))
        if frozen and "cls_token" in found.lacking:
            raise ConfigError(
                f"init.from={init.from_}: these weights have no class token, and a network that"
                " stays as it was begun would be read from a random one; set model.pool=mean"
            )

    world.first_does(look)
    tensors = shapes(hollow(lambda: about.model.build(about.inputs, about.outputs)))
    flags = world.any_of([name in found.values for name, _, _ in tensors])
    inside = about.task.inside
    chosen = [
        (f"{inside}{name}", shape, dtype)
        for (name, shape, dtype), flag in zip(tensors, flags, strict=True)
        if flag
    ]

    def value(name: str) -> Tensor:
        return found.values[name.removeprefix(inside)]()

    hand_out(model, chosen, value, world)
    for module in model.modules():
        if isinstance(module, Teacher):
            module.begin()
    if world.first:
        log.info("begun with the weights of %s", init.from_)
        for line in found.table():
            log.info("%s", line)
        if "pos_embed" in found.left_out:
            log.warning(
                "%s: its learned positions are left out, and the network was not trained with the"
                " sines and cosines that take their place; model.positions=learned takes them",
                init.from_,
            )
        if found.lacking:
            log.warning(
                "%s: the encoder begins at random in part, for which there are no weights: %s",
                *(init.from_, ", ".join(found.lacking)),
            )


def matched(init: Init, about: About) -> Match:
    """Return how the weights of ``init`` become those of ``about``; ConfigError if they do not."""
    given = read_weights(init.file, init.sha256)
    source = about_weights(init.file)
    wanted = {band.name: band.wavelength_nm for band in about.inputs.bands}
    names: dict[str, float | None] | None = None
    if init.bands is not None and source is not None and "bands" in source.model.asks:
        raise ConfigError(
            f"init.bands={list(init.bands)} has no effect: {init.from_} makes its weights from the"
            " wavelengths of whatever bands it is given; leave it out"
        )
    if init.bands is not None:
        names = {name: wanted.get(name) for name in init.bands}
    elif source is not None:
        names = {band.name: band.wavelength_nm for band in source.inputs.bands}
    model = None if source is None else source.model
    theirs = words(model, given, about.model, about.outputs.dense)
    check_heads(model, about.model, theirs)
    return match(
        given,
        hollow(lambda: about.model.build(about.inputs, about.outputs)),
        heads(about.model, about.inputs, about.outputs),
        Bands(names, wanted, init.missing),
        same_heads=source is None or source.label.classes == about.label.classes,
        waves=None if source is None else _step(source),
        theirs=theirs,
    )


def _step(source: About) -> float | None:
    """Return the step of the fixed waves by which a model tells places; None: it has none."""
    positions = getattr(source.model, "positions", None)
    return step_of(None, source.inputs.gsd_m) if positions in ("waves", "metres") else None


def share(init: Init, world: World) -> Init:
    """Return ``init`` with the checksum that rank 0 knows, on every rank of ``world``."""
    mine = bytes.fromhex(init.sha256) if world.first and init.sha256 else bytes(32)
    told = torch.tensor(list(mine), dtype=torch.uint8, device=world.device)
    world.broadcast([told])
    return dataclasses.replace(init, sha256=bytes(told.tolist()).hex())
