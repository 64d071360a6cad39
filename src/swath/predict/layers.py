"""What a map's files hold: classes, probabilities, uncertainty, flags or values.

A layer is one file; ``pixels_of`` turns the blended means of some rows into its pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from swath.config import ConfigError
from swath.data.chip import IGNORE, Label
from swath.data.palette import class_colours
from swath.models import Outputs
from swath.predict.settings import Predict


@dataclass(frozen=True)
class Layer:
    """One file of a map."""

    name: Literal["classes", "flags", "values", "probabilities", "uncertainty", "embedding"]
    count: int
    dtype: Literal["uint8", "float32"]
    descriptions: tuple[str, ...]
    colours: tuple[str, ...] | None = None
    classes: tuple[str, ...] | None = None

    @property
    def suffix(self) -> str:
        """What its file's name ends in; the main layer's in nothing."""
        return f"_{self.name}" if self.name in ("probabilities", "uncertainty") else ""


def layers_of(label: Label, outputs: Outputs, settings: Predict) -> list[Layer]:
    """Return the files that a map of such labels consists of, the main one first.

    Raises ConfigError for a file that cannot be made: values have no probabilities, and no layer
    can be made from other ``outputs`` than one for each class or quantity.
    """
    check_mappable(label, outputs)
    k = len(label.classes)
    if label.has_quantities:
        for name in ("probabilities", "uncertainty"):
            if getattr(settings, name):
                raise ConfigError(
                    f"predict.{name}=true has no effect: the model predicts quantities "
                    f"({', '.join(label.classes) or 'a value'}), not classes; leave it out"
                )
        unit = f" [{label.unit}]" if label.unit else ""
        names = tuple(f"{name}{unit}" for name in label.classes or ("value",))
        return [Layer("values", len(names), "float32", names)]
    if label.kind == "flags":
        if settings.uncertainty:
            raise ConfigError(
                "predict.uncertainty=true has no effect: flags are independent of one another, and "
                "the map holds the probability of each; leave it out"
            )
        return [Layer("flags", k, "float32", label.classes)]
    if k > IGNORE:
        raise ConfigError(f"a map holds at most {IGNORE} classes; the model knows {k}")
    layers = [Layer("classes", 1, "uint8", ("class",), class_colours(label), label.classes)]
    if settings.probabilities:
        layers.append(Layer("probabilities", k, "float32", label.classes))
    if settings.uncertainty:
        layers.append(Layer("uncertainty", 1, "float32", ("entropy, 0..1",)))
    return layers


def check_mappable(label: Label, outputs: Outputs) -> None:
    """Raise ConfigError unless a map of such labels can be made from ``outputs`` of a model.

    What a map holds follows from the labels; a task of one's own may answer in another way.
    """
    if outputs.masked:
        raise ConfigError(
            "the model was trained to fill in hidden patches of images, and there is nothing to map"
            " from that: swath evaluate tells how well it does, swath report shows it. Train a "
            "model that learns labels from it (init.from=THIS_RUN) and map with that; or take its "
            "features of a scene: swath embed --scene"
        )
    if outputs.hidden:
        raise ConfigError(
            "the model was trained to compare views of samples, and there is nothing to map from "
            "that. Train a model that learns labels from it (init.from=THIS_RUN) and map with that;"
            " or take its features: swath embed --scene, swath probe, swath similar"
        )
    if label.kind == "none":
        raise ConfigError("the model learned from no labels, so there is nothing to map")
    wanted = Outputs(channels=len(label.classes) or 1, dense=label.per_pixel)
    if outputs != wanted:
        names = ", ".join(label.classes) or "a value"
        one = "value" if label.has_quantities else "probability"
        raise ConfigError(
            f"the model's task gives {_told(outputs)}; a map of {label.kind} labels ({names}) is "
            f"made from {_told(wanted)}. Let the task's outputs be {wanted}, and its predict() "
            f"give one {one} for each"
        )


def _told(outputs: Outputs) -> str:
    channels = f"{outputs.channels} channel{'s' if outputs.channels > 1 else ''}"
    return f"{channels} for each {'pixel' if outputs.dense else 'image'}"


def pixels_of(layer: Layer, means: Tensor, observed: np.ndarray) -> np.ndarray:
    """Return pixels (count, rows, width) of ``layer`` from means (k, rows, width).

    Where not ``observed`` (rows, width): 255 in classes, NaN in numbers.
    """
    if layer.name == "classes":
        found = _first_largest(means)
        return np.where(observed, found.cpu().numpy(), np.uint8(IGNORE))[None]
    if layer.name == "uncertainty":
        p = means.clamp_min(1e-12)
        numbers = -(means * p.log()).sum(0, keepdim=True) / math.log(len(means))
        numbers = numbers.clamp(0, 1)
    else:
        numbers = means
    return np.where(observed, numbers.to(torch.float32).cpu().numpy(), np.float32(np.nan))


def _first_largest(means: Tensor) -> Tensor:
    """Return which of means (k, rows, width) is largest, of equal ones the first; uint8.

    The same on every device, and seven times faster than argmax along the first axis.
    """
    best = means.amax(0)
    found = torch.zeros(best.shape, dtype=torch.uint8, device=means.device)
    for k in reversed(range(len(means))):
        found = torch.where(means[k] == best, k, found)
    return found
