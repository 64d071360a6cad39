"""Held-out samples as they are, and the views of them that a task compares."""

from __future__ import annotations

from typing import Any

from swath.data.augment import Augment
from swath.data.settings import DataSettings
from swath.report.filled import colours
from swath.report.images import limits_of, stretched_png
from swath.report.parts import of_each_store, told
from swath.train.export import LoadedModel


def viewed(model: LoadedModel, settings: DataSettings, augment: Augment) -> dict[str, Any] | None:
    """Return pictures of samples of every store and of their views, as they are when they are
    scored; those of :func:`swath.report.examples.examples` for a model that compares views. Of a
    store without a test part they are of the next best one.

    augment: of the run's settings. None if the task compares none.
    """
    wants = model.about.task.wants
    if wants is None:
        return None
    stores, found = of_each_store(model, settings), []
    large = wants.global_.number
    for shown in stores:
        rgb = colours(shown.data)
        loader = shown.data.loader(shown.selection.part, micro=1, augment=augment, views=wants)
        for batch in loader.sweep(indices=shown.indices):
            image, valid = batch.image[0, rgb].numpy(), batch.valid[0].numpy()
            limits = limits_of(image, valid)
            every = [("image", image, valid)]
            for number, (view, there) in enumerate(zip(batch.views, batch.seen, strict=True)):
                kind = f"view {number + 1}" if number < large else f"local {number + 1 - large}"
                every.append((kind, view[0, rgb].numpy(), there[0].numpy()))
            pictures = [
                {"uri": stretched_png(each, there, limits), "name": name}
                for name, each, there in every
            ]
            found.append({"pictures": pictures, "caption": shown.captioned(""), "tone": ""})
    about = (
        f"{told(len(found), [shown.selection for shown in stores])}, and their views as they are"
        " compared when the part is scored: pieces of them, varied as augment says, in the colours"
        " of the sample."
    )
    if wants.seasons:
        about += " Every second view is of another date of the same place, where there is one."
    return {"about": about, "shown": found}
