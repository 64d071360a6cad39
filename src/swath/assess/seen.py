"""Whether given weights have seen the places that they are tested on, as images if not as labels.

Pretraining without labels may take in the very ground of the test part, and a comparison has to be
read with that. Weights say of which stores and parts they were learned, by content; the settings
beside them, where these stores lie; and a store, where on the Earth its samples are. A test window
is seen if images of the training part cover over 1 % of it, at whatever date: where CRSs differ,
windows that merely meet overlap by rounding.
"""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from swath.config import ConfigError, build
from swath.data.split import Selection, select
from swath.data.store import Store
from swath.train.given import about_weights
from swath.train.init import Init, checksum
from swath.train.job import SETTINGS, settings_of

LEAST = 0.01
"""Of a window's area, that is seen more of."""


class Unknown(Exception):
    """Whether places were seen cannot be said; the message says why."""


def sentence(task: str, model: str, test: Selection, weights: Sequence[Init]) -> str:
    """Return what there is to know of ``model``, which may have weights of its own for each seed,
    and the test part of ``task``."""
    try:
        parts = [learned_from(init.file) for init in weights]
        shares = [share_seen(test, part) for part in parts]
    except Unknown as unknown:
        return (
            f"{task}: whether {model} has learned from images of the test places is not known:"
            f" {unknown}."
        )
    if not max(shares):
        return f"{task}: {model} has learned from no image of the test places."
    blind = all(about_weights(init.file).task.labels is None for init in weights)  # type: ignore[union-attr]
    how = "without their labels" if blind else "with labels of its own training"
    most = "up to " if min(shares) < max(shares) else ""
    return (
        f"{task}: of {most}{max(shares):.0%} of the test windows {model} has learned from images of"
        f" the same place, {how}."
    )


def learned_from(file: pathlib.Path) -> list[Selection]:
    """Return the parts of stores that the weights in ``file`` were learned from, and of those that
    they began with; raises Unknown."""
    about = about_weights(file)
    settings: dict[str, Any] | None = None
    if about is not None:
        settings = settings_of(file.parent)
    if about is None or settings is None:
        lacking = "model.json" if about is None else SETTINGS
        raise Unknown(f"there is no {lacking} of a run beside {file}")
    data, found = settings["data"], []
    for path in (data["store"], *(one["store"] for one in data.get("also") or ())):
        try:
            store = Store.open(path)
        except ConfigError:
            raise Unknown(f"its store {path} is not there") from None
        trained = about.trained.of(store.fingerprint)
        if trained is None:
            raise Unknown(f"{path} is another store than it was then")
        found.append(select(store, trained.split, "train"))
    if settings.get("init"):
        before = build(Init, settings["init"], "init")
        try:
            same = checksum(before.file) == before.sha256
        except ConfigError:
            same = False
        if not same:
            raise Unknown(f"it began with {before.from_}, which is not there any more")
        found += learned_from(before.file)
    return found


def share_seen(test: Selection, parts: Sequence[Selection]) -> float:
    """Return the share of the windows of ``test`` of which an image of ``parts`` shows some; raises
    Unknown."""
    covered, windows = np.zeros(0), 0
    for frame, places in _windows(test).items():
        import shapely

        tree, area = shapely.STRtree(places), np.zeros(len(places))
        for part in parts:
            for other, images in _windows(part).items():
                moved = _moved(images, other, frame)
                image, window = tree.query(moved, predicate="intersects")
                shared = shapely.area(shapely.intersection(moved[image], places[window]))
                area += np.bincount(window, shared, len(places))
        covered = np.append(covered, area / shapely.area(places))
        windows += len(places)
    return float((covered > LEAST).sum() / windows) if windows else 0.0


Frame = str | tuple[str, int]
"""A CRS; or a store's fingerprint and the number of a ground that lies nowhere on the Earth."""


def _windows(part: Selection) -> dict[Frame, np.ndarray]:
    """Return the windows of ``part`` as polygons, by what their coordinates are in; raises Unknown
    if some have no place."""
    import shapely

    store = part.store
    found: dict[Frame, np.ndarray] = {}
    where = store.column("where")[part.indices].astype(np.float64)
    if lost := int((where[:, 0] < 0).sum()):
        raise Unknown(f"{lost} of {len(where)} samples of {store.path} have no place")
    for number in np.unique(where[:, 0]).astype(int).tolist():
        ground = store.contents.grounds[number]
        frame: Frame = (store.fingerprint, number)
        if ground.crs is not None and ground.transform is not None:
            frame = ground.crs
        _, top, left, height, width = where[where[:, 0] == number].T
        cols = np.stack([left, left + width, left + width, left], 1)
        rows = np.stack([top, top, top + height, top + height], 1)
        a, b, c, d, e, f = ground.transform or (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
        corners = np.stack([a * cols + b * rows + c, d * cols + e * rows + f], 2)
        polygons = shapely.polygons(corners)
        found[frame] = np.append(found.get(frame, np.zeros(0, object)), polygons)
    return found


def _moved(polygons: np.ndarray, frame: Frame, to: Frame) -> np.ndarray:
    """Return ``polygons`` in another frame; raises Unknown if these have nothing in common."""
    import pyproj
    import shapely

    if frame == to:
        return polygons
    if isinstance(frame, tuple) or isinstance(to, tuple):
        raise Unknown("not all stores say where on the Earth they lie")
    move = pyproj.Transformer.from_crs(frame, to, always_xy=True)
    corners = shapely.get_coordinates(polygons).reshape(len(polygons), 5, 2)
    x, y = move.transform(corners[..., 0], corners[..., 1])
    moved = np.stack([x, y], 2)
    return shapely.polygons(moved[np.isfinite(moved).all((1, 2))])
