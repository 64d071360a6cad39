"""A mask image: the class of every pixel as a number, or painted as a colour."""

from __future__ import annotations

import re

import numpy as np

from swath.config import ConfigError
from swath.data.chip import IGNORE, Ground
from swath.geo.channel import Channel, File
from swath.geo.window import Window


def mask_value(text: str) -> int:
    """Return the number that "3" or, as 24 bits, "#ff0000" stands for; ConfigError if none."""
    if not re.fullmatch(r"-?\d+|#[0-9a-fA-F]{6}", text):
        raise ConfigError(f"classes: {text!r} is neither a whole number nor a colour '#rrggbb'")
    return int(text[1:], 16) if text.startswith("#") else int(text)


def read_mask(
    path: str, window: Window, image: Ground, classes: dict[str, str], others: str
) -> np.ndarray:
    """Return class ids (h, w) uint8 under ``window`` of the mask ``path``, IGNORE where unknown.

    image: the ground that the mask belongs to. classes: value -> class name. others: "ignore", or
    "error" for values that ``classes`` does not name.
    Raises ConfigError for these, and for a mask of another size or kind.
    """
    painted = next(iter(classes)).startswith("#")
    names = list(dict.fromkeys(classes.values()))
    file = File(path)
    if (file.height, file.width) != (image.height, image.width):
        raise ConfigError(
            f"{path}: the mask has {file.height} x {file.width} px, its image {image.name} "
            f"{image.height} x {image.width}"
        )
    if painted and file.count < 3:
        raise ConfigError(f"{path}: classes are colours, but the mask has {file.count} channel")
    values, observed = Channel(file, 1).pixels(window)
    if painted:
        green, blue = (Channel(file, n).pixels(window)[0].astype(np.int64) for n in (2, 3))
        values = values.astype(np.int64) << 16 | green << 8 | blue
    file.close()
    label = np.full(values.shape, IGNORE, np.uint8)
    known = np.zeros(values.shape, bool)
    for text, name in classes.items():
        here = (values == mask_value(text)) & observed
        label[here] = names.index(name)
        known |= here
    strange = np.unique(values[observed & ~known])
    if len(strange) and others == "error":
        form = "#{:06x}" if painted else "{}"
        shown = ", ".join(form.format(value) for value in strange[:12].tolist())
        raise ConfigError(
            f"{path}: values outside the class map: {shown}; add them to classes or, if they mean "
            "that the class is not known, set others: ignore"
        )
    return label
