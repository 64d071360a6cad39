"""Some held-out samples beside what is known of them and what the model says."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from swath.data.chip import IGNORE, Label
from swath.data.opened import Data
from swath.data.settings import DataSettings
from swath.data.split import Selection
from swath.data.stretch import limits_of, shown, stretch
from swath.report.images import class_png, evenly, png, shade_png
from swath.report.parts import HELD_OUT, first_of, told
from swath.train.export import LoadedModel
from swath.train.precision import DTYPES, arithmetic
from swath.train.settings import Compute

MOST = 9


def examples(
    model: LoadedModel, settings: DataSettings, precision: str, compute: Compute
) -> dict[str, Any] | None:
    """Return pictures of test samples with their labels and the model's answers; of the validation
    part if there is no test part.

    precision: as in train.precision; that of the run, so that answers are those that are scored.

    None if there is neither, or the store has no labels, or the model learned none.
    """
    import torch

    data = settings.alone().open()
    data = dataclasses.replace(data, normalize=model.normalize)
    label = data.store.contents.label
    selection = first_of(data, HELD_OUT)
    chosen = _chosen(selection, label)
    if not len(chosen) or label.kind == "none" or model.about.task.labels is None:
        return None
    loader = data.loader(selection.part, micro=1)
    images = _pictures(data, chosen)
    found = []
    model.network.to(dtype=DTYPES[precision])
    with torch.inference_mode(), arithmetic(precision, compute):
        for image, batch in zip(images, loader.sweep(indices=chosen), strict=True):
            answer = model.answer(batch.image, precision)[0].float().numpy()
            assert batch.target is not None, "a store with labels gives targets"
            found.append(_example(image, batch.target[0].numpy(), answer, label))
    return {
        "about": f"{told(len(found), [selection])}, {stretch(data.store)}."
        + (" Only its own pixels have a label." if label.kind == "mask" else ""),
        "shown": found,
    }


def _chosen(selection: Selection, label: Label) -> np.ndarray:
    """Return samples spread evenly; of those with labelled pixels, the better labelled half."""
    indices = selection.indices
    if label.kind == "mask" and len(indices) > 2 * MOST:
        counts = selection.sample_counts().sum(1)
        indices = indices[counts >= np.median(counts)]
    return evenly(indices, MOST)


def _pictures(data: Data, chosen: np.ndarray) -> list[np.ndarray]:
    store = data.store
    modality = max(store.contents.modalities, key=lambda m: (m.height, len(m.sensor.bands)))
    read = store.read(chosen, (modality.name,), label=False).result()[modality.name]
    limits = limits_of(store, modality, chosen)
    pairs = zip(read, limits, strict=True)
    return [(255 * shown(one, modality, between)).astype(np.uint8) for one, between in pairs]


def _example(
    image: np.ndarray, target: np.ndarray, answer: np.ndarray, label: Label
) -> dict[str, Any]:
    pictures = [{"uri": png(image), "name": "image"}]
    caption, tone = "", ""
    if label.kind == "mask":
        known = (target >= 0) & (target != IGNORE)
        found = answer.argmax(0)
        pictures += [
            {
                "uri": class_png(np.where(known, target, IGNORE).astype(np.uint8), label),
                "name": "reference",
            },
            {"uri": class_png(found.astype(np.uint8), label), "name": "model"},
        ]
        if known.any():
            caption = (
                f"{(found == target)[known].mean():.0%} of {known.sum()} labelled pixels right"
            )
    elif label.kind == "class":
        best = int(answer.argmax())
        true = label.classes[int(target)] if target >= 0 else "unknown"
        caption, tone = f"{true}", "right"
        if best != int(target):
            caption, tone = f"{true}, taken for {label.classes[best]}", "wrong"
        caption += f" ({answer.max():.0%})"
    elif label.kind == "flags":
        named = [label.classes[i] for i in np.flatnonzero(target > 0)]
        said = [label.classes[i] for i in np.flatnonzero(answer > 0.5)]
        tone = "right" if named == said else "wrong"
        caption = f"true: {', '.join(named) or 'none'}. Model: {', '.join(said) or 'none'}"
    elif label.kind == "value":
        caption = "; ".join(
            f"{name}: {true:.3g}, model {value:.3g} {label.unit}"
            for name, true, value in zip(label.classes, target, answer, strict=True)
        )
    else:
        low, high = np.nanpercentile(
            np.concatenate([target[0].ravel(), answer[0].ravel()]), (2, 98)
        )
        span = max(high - low, 1e-9)
        for name, values in (("reference", target[0]), ("model", answer[0])):
            pictures.append({"uri": shade_png((values - low) / span), "name": name})
        caption = f"{label.classes[0]} from {low:.3g} (dark) to {high:.3g} {label.unit} (bright)"
    return {"pictures": pictures, "caption": caption, "tone": tone}
