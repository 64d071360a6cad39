"""Held-out samples as they are, as a masked autoencoder was shown them, and filled in by it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from swath.config import ConfigError
from swath.data.opened import Data
from swath.data.picture import colour_bands
from swath.data.sensor import Band
from swath.data.settings import DataSettings
from swath.data.store import Store
from swath.report.images import evenly, limits_of, stretched_png
from swath.tasks.pretrain import FillObjective
from swath.train.export import LoadedModel
from swath.train.precision import AUTOCAST, DTYPES, arithmetic
from swath.train.settings import Compute

MOST, FEWEST = 6, 2
"""Samples shown of all stores together, about, and of each."""
_NAMED = 12
"""Bands that a caption names, at most."""


def filled_in(
    model: LoadedModel, settings: DataSettings, precision: str, compute: Compute
) -> dict[str, Any] | None:
    """Return pictures of test samples of every store of the run: all of it, what was shown, and
    what was made of it; those of :func:`swath.report.examples.examples` for a model that fills in
    patches. A further store that is not there any more is left out.

    None if there is no test part, or the task is not ``pretrain``.
    """
    if not isinstance(model.objective, FillObjective):
        return None
    there = tuple(one for one in settings.also if Store.exists(one.store))
    settings = dataclasses.replace(settings, also=there, weight=settings.weight if there else 1.0)
    data = settings.open(labels=False, asks=model.about.model.asks)
    stores = [dataclasses.replace(data, normalize=model.normalize), *data.also]
    tests = [len(one.select("test").indices) for one in stores]
    if not any(tests):
        return None
    each = max(FEWEST, MOST // sum(map(bool, tests)))
    model.network.to(dtype=DTYPES[precision])
    found = [one for store in stores for one in _of_store(model, store, each, precision, compute)]
    if len(stores) > 1:
        for one, name in zip(found, _names(stores, tests, each), strict=True):
            one["caption"] = f"{name}: {one['caption']}"
    about = (
        f"{len(found)} of {sum(tests)} samples of the test part, spread over it evenly, the "
        "patches hidden that are hidden when it is scored. Patches that were shown stand as they "
        "are among those filled in."
    )
    if any("; without " in one["caption"] for one in found):
        about += " Bands that a sample was shown without are named, and stand at their mean."
    if model.objective.normalise:
        about += (
            " The network tells patches apart from their own mean and contrast"
            " (task.normalise=true); these are lent by the sample."
        )
    return {"about": about, "shown": found}


def _names(stores: list[Data], tests: list[int], each: int) -> list[str]:
    """Return of each picture the name of its store."""
    names = [one.settings.store.rstrip("/").rpartition("/")[2] for one in stores]
    return [name for name, n in zip(names, tests, strict=True) for _ in range(min(each, n))]


def _of_store(
    model: LoadedModel, data: Data, count: int, precision: str, compute: Compute
) -> list[dict[str, Any]]:
    """Return pictures of ``count`` test samples of ``data``, or of all that there are."""
    import torch

    inputs = dataclasses.replace(model.inputs, bands=data.bands)
    objective = dataclasses.replace(model.about, inputs=inputs).bind()
    assert isinstance(objective, FillObjective), "filled_in has looked"
    indices = data.select("test").indices
    chosen = evenly(indices, count)
    rgb, found = colours(data), []
    narrow = AUTOCAST.get(precision)
    with torch.inference_mode(), arithmetic(precision, compute):
        for batch in data.loader("test", micro=1).sweep(indices=chosen):
            batch.image = batch.image.to(DTYPES[precision])
            with torch.autocast("cpu", dtype=narrow, enabled=narrow is not None):
                image, hidden = objective.filled(model.network, batch)
            figures = objective.score(model.network, batch).finish()
            whole, filled = (each[0, rgb].float().numpy() for each in (batch.image, image))
            pictures = _pictures(whole, filled, hidden[0, rgb].numpy(), batch.valid[0].numpy())
            caption = f"loss {figures['loss']:.3f}" if "loss" in figures else "nothing observed"
            kept = objective.kept(model.network, batch)
            if kept is not None:
                caption += f"; without {_lacking(data.bands, kept[0].tolist())}"
            found.append({"pictures": pictures, "caption": caption, "tone": ""})
    return found


def colours(data: Data) -> list[int]:
    """Return the channels that make red, green and blue; the first ones if the sensor has none."""
    modality = max(data.channels, key=lambda channel: len(channel[0].sensor.bands))[0]
    sensor = modality.sensor
    try:
        names = colour_bands(sensor, "true")
        places = [data.channels.index((modality, sensor.names.index(name))) for name in names]
    except (ConfigError, ValueError):
        places = []
    return places if len(places) == 3 else [min(i, len(data.channels) - 1) for i in range(3)]


def _lacking(bands: Sequence[Band], kept: list[bool]) -> str:
    """Return the names of the bands that are not kept; of many the first."""
    names = [band.name for band, there in zip(bands, kept, strict=True) if not there]
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def _pictures(
    image: np.ndarray, filled: np.ndarray, hidden: np.ndarray, valid: np.ndarray
) -> list[dict[str, str]]:
    """Return the three pictures of (3, h, w) normalised values, all stretched as the first.

    hidden: (3, h, w) bool; a band hidden where others are shown stands at its mean, as the network
    is given it.
    """
    limits, all_hidden = limits_of(image, valid), hidden.all(0)
    every = [
        ("image", image, valid),
        ("shown", image * ~hidden, valid & ~all_hidden),
        ("filled in", filled, valid | all_hidden),
    ]
    return [
        {"uri": stretched_png(each, there, limits), "name": name} for name, each, there in every
    ]
