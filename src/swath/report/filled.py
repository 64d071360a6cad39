"""Held-out samples as they are, as a masked autoencoder was shown them, and filled in by it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from swath.config import ConfigError
from swath.data.opened import Data
from swath.data.sensor import Band
from swath.data.settings import DataSettings
from swath.data.stretch import colour_bands
from swath.report.images import limits_of, stretched_png
from swath.report.parts import Shown, of_each_store, told
from swath.train.export import LoadedModel
from swath.train.precision import AUTOCAST, DTYPES, arithmetic
from swath.train.settings import Compute

_NAMED = 12
"""Bands that a caption names, at most."""


def filled_in(
    model: LoadedModel, settings: DataSettings, precision: str, compute: Compute
) -> dict[str, Any]:
    """Return pictures of samples of every store of the run: all of it, what was shown, and what was
    made of it; those of :func:`swath.report.examples.examples` for a task that fills in patches. Of
    a store without a test part they are of the next best one.
    """
    model.network.to(dtype=DTYPES[precision])
    stores = of_each_store(model, settings)
    found = [one for shown in stores for one in _of_store(model, shown, precision, compute)]
    about = (
        f"{told(len(found), [shown.selection for shown in stores])}, the "
        "patches hidden that are hidden when it is scored. Patches that were shown stand as they "
        "are among those filled in."
    )
    if any("; without " in one["caption"] for one in found):
        about += " Bands that a sample was shown without are named, and stand at their mean."
    if getattr(model.objective, "normalise", False):
        about += (
            " The network tells patches apart from their own mean and contrast"
            " (task.normalise=true); these are lent by the sample."
        )
    return {"about": about, "shown": found}


def _of_store(
    model: LoadedModel, shown: Shown, precision: str, compute: Compute
) -> list[dict[str, Any]]:
    """Return pictures of the samples of one store."""
    import torch

    data = shown.data
    inputs = dataclasses.replace(model.inputs, bands=data.bands)
    objective: Any = dataclasses.replace(model.about, inputs=inputs).bind()
    rgb, found = colours(data), []
    narrow = AUTOCAST.get(precision)
    loader = data.loader(shown.selection.part, micro=1)
    with torch.inference_mode(), arithmetic(precision, compute):
        for batch in loader.sweep(indices=shown.indices):
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
            caption = shown.captioned(caption)
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
