"""Held-out samples as they are, as a masked autoencoder was shown them, and filled in by it."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from swath.config import ConfigError
from swath.data.loader import Data, DataSettings
from swath.data.picture import colour_bands, stretched
from swath.report.images import png
from swath.tasks.pretrain import FillObjective
from swath.train.export import LoadedModel
from swath.train.precision import AUTOCAST, DTYPES, arithmetic
from swath.train.settings import Compute

MOST = 6


def filled_in(
    model: LoadedModel, settings: DataSettings, precision: str, compute: Compute
) -> dict[str, Any] | None:
    """Return pictures of test samples: all of it, what was shown, and what was made of it; those
    of :func:`swath.report.examples.examples` for a model that fills in patches.

    None if there is no test part, or the task is not ``pretrain``.
    """
    import torch

    objective = model.objective
    data = dataclasses.replace(settings.alone().open(labels=False), normalize=model.normalize)
    indices = data.select("test").indices
    if not len(indices) or not isinstance(objective, FillObjective):
        return None
    chosen = indices[np.linspace(0, len(indices) - 1, min(MOST, len(indices))).astype(int)]
    rgb, found = colours(data), []
    model.network.to(dtype=DTYPES[precision])
    narrow = AUTOCAST.get(precision)
    with torch.inference_mode(), arithmetic(precision, compute):
        for batch in data.loader("test", micro=1).sweep(indices=chosen):
            batch.image = batch.image.to(DTYPES[precision])
            with torch.autocast("cpu", dtype=narrow, enabled=narrow is not None):
                image, hidden = objective.filled(model.network, batch)
            figures = objective.score(model.network, batch).finish()
            whole, filled = (each[0, rgb].float().numpy() for each in (batch.image, image))
            pictures = _pictures(whole, filled, hidden[0].numpy(), batch.valid[0].numpy())
            caption = f"loss {figures['loss']:.3f}" if "loss" in figures else "nothing observed"
            found.append({"pictures": pictures, "caption": caption, "tone": ""})
    about = (
        f"{len(found)} of {len(indices)} samples of the test part, spread over it evenly, the "
        "patches hidden that are hidden when it is scored. Patches that were shown stand as they "
        "are among those filled in."
    )
    if objective.normalise:
        about += (
            " The network tells patches apart from their own mean and contrast"
            " (task.normalise=true); these are lent by the sample."
        )
    return {"about": about, "shown": found}


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


def _pictures(
    image: np.ndarray, filled: np.ndarray, hidden: np.ndarray, valid: np.ndarray
) -> list[dict[str, str]]:
    """Return the three pictures of (3, h, w) normalised values, all stretched as the first."""
    seen = image[:, valid] if valid.any() else image.reshape(3, -1)
    limits = np.percentile(seen, (2, 98), axis=1).T

    def picture(values: np.ndarray, there: np.ndarray) -> str:
        return png((255 * stretched(values, there, limits)).astype(np.uint8))

    return [
        {"uri": picture(image, valid), "name": "image"},
        {"uri": picture(image, valid & ~hidden), "name": "shown"},
        {"uri": picture(filled, valid | hidden), "name": "filled in"},
    ]
