"""Held-out samples as they are, and the views of them that a task compares."""

from __future__ import annotations

import dataclasses
from typing import Any

from swath.data.augment import Augment
from swath.data.settings import DataSettings
from swath.report.filled import MOST, colours
from swath.report.images import evenly, limits_of, stretched_png
from swath.train.export import LoadedModel


def viewed(model: LoadedModel, settings: DataSettings, augment: Augment) -> dict[str, Any] | None:
    """Return pictures of test samples and of their views, as they are when they are scored; those
    of :func:`swath.report.examples.examples` for a model that compares views.

    augment: of the run's settings. None if there is no test part.
    """
    wants = model.about.task.wants
    data = dataclasses.replace(settings.alone().open(labels=False), normalize=model.normalize)
    indices = data.select("test").indices
    if not len(indices) or wants is None:
        return None
    chosen = evenly(indices, MOST)
    rgb, found = colours(data), []
    loader = data.loader("test", micro=1, augment=augment, views=wants)
    large = wants.global_.number
    for batch in loader.sweep(indices=chosen):
        image, valid = batch.image[0, rgb].numpy(), batch.valid[0].numpy()
        limits = limits_of(image, valid)
        every = [("image", image, valid)]
        for number, (view, there) in enumerate(zip(batch.views, batch.seen, strict=True)):
            kind = f"view {number + 1}" if number < large else f"local {number + 1 - large}"
            every.append((kind, view[0, rgb].numpy(), there[0].numpy()))
        pictures = [
            {"uri": stretched_png(each, there, limits), "name": name} for name, each, there in every
        ]
        found.append({"pictures": pictures, "caption": "", "tone": ""})
    about = (
        f"{len(found)} of {len(indices)} samples of the test part, spread over it evenly, and their"
        " views as they are compared when the part is scored: pieces of them, varied as augment"
        " says, in the colours of the sample."
    )
    if wants.seasons:
        about += " Every second view is of another date of the same place, where there is one."
    return {"about": about, "shown": found}
