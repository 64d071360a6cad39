"""A map against what is known of the ground: all figures of it, ready for ``scores.json``.

The reference is the labels of a store, put back on the ground, of one part of the split. Other
references (a label raster, an array) go through :func:`figures_of` directly.
"""

from __future__ import annotations

import json
import logging
import math
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from swath.config import ConfigError
from swath.data.chip import IGNORE
from swath.data.mosaic import mosaic
from swath.data.split import Part, Selection, Split, select
from swath.data.store import Store
from swath.files import write_json
from swath.geo.raster import open_raster
from swath.geo.raster import read as read_band
from swath.predict.accuracy import area_adjusted, confusion, users_and_producers
from swath.predict.origin import grounds_of, maps_in, on_ground, read_origin
from swath.predict.settings import SCORES, stem

log = logging.getLogger(__name__)


def score_maps(
    paths: Sequence[str | pathlib.Path],
    store: Store,
    split: Split | None = None,
    part: Part = "test",
) -> dict[str, Any]:
    """Return the figures of class maps on the labelled pixels of ``part``, over all maps.

    Areas are in pixels if those of one map are, or if the maps' pixels differ in size.

    Raises ConfigError if a map lies on no ground of the store or holds other classes, or if none
    shares a labelled pixel with the part.
    """
    selection = select(store, split, part)
    found, truth, sizes = [], [], set()
    for path in paths:
        pixels, ground = _read(path, store)
        found.append(pixels.ravel())
        truth.append(reference(selection, ground).ravel())
        here = store.contents.grounds[ground]
        sizes.add(pixel_hectares(here.transform, here.crs))
    classes = store.contents.label.classes
    hectares = sizes.pop() if len(sizes) == 1 else None
    return {
        "file": ", ".join(pathlib.Path(path).name for path in paths),
        "part": part,
        "split": selection.split.by,
        **figures_of(np.concatenate(found), np.concatenate(truth), classes, hectares),
        **selection.nearness(),
    }


def reference(selection: Selection, ground: int) -> np.ndarray:
    """Return the class ids (H, W) of a part's labelled pixels on a ground; IGNORE elsewhere."""
    label = mosaic(selection.store, ground, "label", selection.indices)
    if selection.grouping is None or selection.part == "all":
        return label
    groups = mosaic(selection.store, ground, selection.grouping, selection.indices, grouping=True)
    return np.where(selection.member(groups), label, np.uint8(IGNORE))


def figures_of(
    found: np.ndarray, truth: np.ndarray, classes: Sequence[str], hectares: float | None
) -> dict[str, Any]:
    """Return figures, confusion, per-class accuracies and areas of a map, both arrays of class ids.

    hectares: area of a pixel; None: areas are in pixels.
    """
    classes = tuple(classes)
    tally = confusion(found, truth, classes)
    counts = tally.sums["confusion"]
    mapped = np.bincount(found.ravel(), minlength=256)[: len(classes)].astype(np.float64)
    areas = area_adjusted(counts, mapped)
    users, producers = users_and_producers(counts)
    unit = hectares or 1.0
    whole = mapped[counts.sum(0) > 0].sum() * unit
    return figures_plain(
        {
            **tally.finish(),
            "scored": int(counts.sum()),
            "classes": classes,
            "confusion": counts.astype(np.int64),
            "users": users,
            "producers": producers,
            "area": {
                "unit": "px" if hectares is None else "ha",
                "mapped": mapped * unit,
                "estimated": areas.share * whole,
                "estimated_se": areas.share_se * whole,
                "oa": areas.overall,
                "oa_se": areas.overall_se,
                "users": areas.users,
                "users_se": areas.users_se,
                "producers": areas.producers,
                "producers_se": areas.producers_se,
            },
        }
    )


def maps_to_score(folder: pathlib.Path, store: Store, model: str) -> list[pathlib.Path]:
    """Return the maps below ``folder`` that ``model``, a fingerprint, made of the scenes that
    ``store`` was built from: one for each ground. Warns of those that could be taken for one."""
    found: dict[int, pathlib.Path] = {}
    for path, origin in maps_in(folder).items():
        with open_raster(path) as raster:
            grounds = grounds_of(origin, raster, store)
            alike = any(on_ground(raster, ground) for ground in store.contents.grounds)
        if not grounds and alike:
            log.warning(
                "%s: is left out: it is the map of another scene (%s) on the same ground; swath "
                "predict maps the one that the store was built from",
                path,
                origin.path,
            )
        elif grounds and origin.model != model:
            log.warning("%s: is left out: another model made this map; run swath predict", path)
        elif grounds:
            number = grounds[0]
            named = stem(store.contents.grounds[number].name)
            if number not in found or path.stem == named:
                found[number] = path
    return list(found.values())


def write_scores(folder: str | pathlib.Path, name: str, scores: dict[str, Any] | None) -> None:
    """Put ``scores`` as ``name`` ("model" or "map") into the run folder's scores.json; None takes
    out what was there."""
    path = pathlib.Path(folder) / SCORES
    try:
        kept = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        kept = {}
    if not isinstance(kept, dict):
        kept = {}
    kept[name] = figures_plain(scores)
    if scores is None:
        del kept[name]
    write_json(path, kept)


def _read(path: str | pathlib.Path, store: Store) -> tuple[np.ndarray, int]:
    """Return the class ids (h, w) of a map and the number of the ground it lies on."""
    known = len(store.contents.label.classes)
    with open_raster(path) as raster:
        ground = _ground_of(raster, store)
        if raster.count != 1 or raster.dtypes[0] != "uint8":
            raise ConfigError(f"{path}: is no map of classes (one channel of uint8)")
        found = read_band(raster, 1)
    beyond = sorted({int(c) for c in np.unique(found) if known <= c != IGNORE})
    if beyond:
        raise ConfigError(f"{path}: holds classes {beyond}; the store knows 0 to {known - 1}")
    return found, ground


def _ground_of(raster: Any, store: Store) -> int:
    """Return the ground that a map lies on: of its scene if it says which, else with its grid; of
    several, as without a place, that of its name."""
    origin = read_origin(raster.name)
    fitting = [n for n, g in enumerate(store.contents.grounds) if on_ground(raster, g)]
    if not fitting:
        there = "; ".join(f"{g.name} {g.height} x {g.width} px" for g in store.contents.grounds)
        raise ConfigError(
            f"{raster.name}: the map ({raster.height} x {raster.width} px) lies on none of the "
            f"grounds that {store.path} has labels for ({there or 'none'}); map the scene that the "
            "store was built from, or build a store of labels for this one"
        )
    if origin is not None:
        ours = grounds_of(origin, raster, store)
        if ours:
            return ours[0]
        if origin.content and any(store.origins[n] for n in fitting):
            raise ConfigError(
                f"{raster.name}: is the map of another scene ({origin.path}) than the one that "
                f"{store.path} was built from; map that one, or build a store of labels for this"
            )
    named = [
        n for n in fitting if stem(store.contents.grounds[n].name) == pathlib.Path(raster.name).stem
    ]
    return (named or fitting)[0]


def pixel_hectares(transform: Sequence[float] | None, crs: Any) -> float | None:
    """Return the area of a pixel; None if the CRS does not count in metres."""
    from pyproj import CRS

    if transform is None or crs is None:
        return None
    crs = CRS.from_user_input(crs)
    if not crs.is_projected:
        return None
    a, b, _, d, e, _ = transform
    metres = crs.axis_info[0].unit_conversion_factor
    return abs(a * e - b * d) * metres**2 / 10_000


def figures_plain(value: Any) -> Any:
    """Return figures as JSON knows it: arrays as lists, what is not a number as None."""
    if isinstance(value, dict):
        return {key: figures_plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | list | tuple):
        return [figures_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
