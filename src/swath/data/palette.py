"""A colour for each class, the same in maps, legends and pictures.

Where a label brings no colours of its own, classes whose names say what they are (water, forest,
urban) get the colours that land-cover maps have trained our eyes to; the others get colours that
stay apart from these and from each other, also for most colour-blind readers.
"""

from __future__ import annotations

import re

import numpy as np

from swath.data.chip import Label

_NAMED = (
    # The first of these that begins a word of the class name decides.
    ("cloud", "#e8ecef"),
    ("snow", "#dff1f7"),
    ("ice", "#dff1f7"),
    ("wetland", "#4fa3a0"),
    ("marsh", "#4fa3a0"),
    ("water", "#2f6fb3"),
    ("river", "#3f86c9"),
    ("lake", "#2f6fb3"),
    ("ocean", "#1f4e8c"),
    ("marine", "#1f4e8c"),
    ("residential", "#c8423b"),
    ("urban", "#c8423b"),
    ("built", "#c8423b"),
    ("industrial", "#8e4a8c"),
    ("highway", "#5d5d66"),
    ("road", "#5d5d66"),
    ("forest", "#1e6b3a"),
    ("tree", "#1e6b3a"),
    ("wood", "#3f7f4a"),
    ("scrub", "#9a8f3c"),
    ("shrub", "#9a8f3c"),
    ("meadow", "#a3cf62"),
    ("pasture", "#a3cf62"),
    ("grass", "#6fbf5b"),
    ("vegetation", "#5a9e4b"),
    ("herbaceous", "#8fbf6a"),
    ("farm", "#e8c35a"),
    ("crop", "#e8c35a"),
    ("arable", "#e8c35a"),
    ("orchard", "#c98f4e"),
    ("vineyard", "#a5527a"),
    ("bare", "#b9a288"),
    ("soil", "#b9a288"),
    ("sand", "#e3d3a3"),
)
_OTHERS = (
    "#4477aa", "#ee7733", "#228866", "#cc3377", "#ddbb33", "#66ccee", "#994455", "#7755aa",
    "#99cc66", "#775533", "#ee99aa", "#335577", "#aaaa33", "#bb88cc", "#44bb99", "#884400",
)  # fmt: skip


def _fitting(name: str) -> str | None:
    """Return the colour that a class name calls for."""
    words = name.casefold()
    return next((c for word, c in _NAMED if re.search(rf"\b{word}", words)), None)


def _near(one: str, other: str) -> bool:
    """Whether two colours are hard to tell apart beside each other on a map."""
    distance = np.subtract(rgb(one), rgb(other), dtype=np.float64)
    return float(np.linalg.norm(distance)) < 60


def class_colours(label: Label) -> tuple[str, ...]:
    """Return "#rrggbb" for each class of ``label``, no two alike up to some 40 classes."""
    if label.colours:
        return label.colours
    fitting = [_fitting(name) for name in label.classes]
    kept = [colour for colour in fitting if colour]
    taken: list[str] = []
    for own in fitting:
        free = [c for c in (*_OTHERS, *(c for _, c in _NAMED)) if c not in taken]
        if own and own not in taken:
            free = [own]
        # Those that look like a colour in use, or meant for a later class, come last.
        free.sort(key=lambda c: any(_near(c, other) for other in (*kept, *taken)))
        taken.append(free[0] if free else _OTHERS[len(taken) % len(_OTHERS)])
    return tuple(taken)


def rgb(colour: str) -> tuple[int, int, int]:
    """Return "#rrggbb" as three numbers 0..255."""
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def coloured(classes: np.ndarray, label: Label) -> np.ndarray:
    """Return class ids (h, w) as RGBA uint8 (h, w, 4); what is no class is transparent."""
    table = np.zeros((256, 4), np.uint8)
    for i, colour in enumerate(class_colours(label)[:255]):
        table[i] = (*rgb(colour), 255)
    return table[classes]
