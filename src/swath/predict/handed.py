"""What of a scene a model is handed: which bands, how normalised, and what is known of them.

A model with weights for each band takes its own, wherever they are in the scene. One that makes
them from wavelengths takes those of a sensor that it was trained on, else all that there are; they
are then normalised by statistics of the scene, which is read once more for it.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Collection, Iterator
from typing import Any

import numpy as np
import torch

from swath.config import ConfigError
from swath.data.chip import Known, Modality
from swath.data.fold import fit
from swath.data.imagery import Scene
from swath.data.normalize import Normalize, Normalizer, normalizer
from swath.data.places import calendar, degrees, pixel_m
from swath.data.sensor import Band, check_light, made_for
from swath.data.stats import BandFold
from swath.geo.window import Window
from swath.train.export import LoadedModel
from swath.train.sensed import normalizer_of, sensors_of

log = logging.getLogger(__name__)

ROWS = 512  # of the scene at a time, for its statistics


def handed(model: LoadedModel, scene: Scene) -> tuple[list[int], Normalizer, Known | None]:
    """Return where in ``scene`` the bands are that ``model`` is handed, how they become inputs, and
    what is known of all of it, if the network asks for any; ConfigError if it does not take them.
    What is known of a window: :func:`situated`."""
    known: Known | None = None
    asks: frozenset[str] = getattr(model.network, "asks", frozenset())
    places = _any_places(model, scene) if model.any_bands else _places(model, scene)
    bands = tuple(scene.sensor.bands[i] for i in places)
    if asks:
        known = Known(bands=bands, gsd_m=_gsd_m(scene, bands) if "gsd_m" in asks else None)
    lacks = {
        "when": (scene.when, "time is not known (predict.scene.when, such as 2020-06-01T10:20)"),
        "where": (scene.ground.crs, "place is not known (predict.scene.georeference)"),
    }
    for name, (there, said) in lacks.items():
        if name in asks and there is None:
            log.warning("%s: its %s, so the model is told none", scene.name, said)
    if not model.any_bands:
        return places, model.normalize, known
    made = normalizer_of(model, bands, f"the scene {scene.name}, of sensor {scene.sensor.name}")
    if made is None:
        made = own_normalizer(scene, model.normalize)
    return places, made, known


def situated(
    known: Known,
    asks: Collection[str],
    scene: Scene,
    rows: np.ndarray,
    cols: np.ndarray,
    device: torch.device,
) -> Known:
    """Return ``known`` with where and when windows of ``scene`` were seen, if ``asks`` names it.

    rows, cols: the windows' middles (n,), in pixels. device: for what is told.
    """
    told: dict[str, np.ndarray] = {}
    if "where" in asks:
        told["where"] = degrees(scene.ground, rows, cols)
    if "when" in asks:
        told["when"] = np.full((len(rows), 2), np.nan)
        if scene.when is not None:
            told["when"][:] = calendar(np.array([scene.when.timestamp()], np.int64))
    found: dict[str, Any] = {name: torch.from_numpy(v).to(device) for name, v in told.items()}
    return dataclasses.replace(known, **found)


def own_normalizer(scene: Scene, like: Normalizer) -> Normalizer:
    """Return what does to all bands of ``scene`` as ``like`` does to others, by statistics of all
    that was observed."""
    sensor, stats = scene.sensor, None
    kind = "standardize" if like.from_statistics else "scale"
    if all(factor == 1 for factor in like.factor):
        kind = "none"
    if kind == "standardize":
        modality = Modality(
            name=scene.name,
            sensor=sensor,
            height=scene.height,
            width=scene.width,
            dtype=scene.dtype.name,
        )
        stats = fit(BandFold(modality), _strips(scene))
    settings = Normalize(kind=kind, clip=like.clip)  # type: ignore[arg-type]
    return normalizer(settings, [(sensor, i) for i in range(len(sensor.bands))], stats)


def _strips(scene: Scene) -> Iterator[tuple[np.ndarray, None]]:
    for top in range(0, scene.height, ROWS):
        rows = min(ROWS, scene.height - top)
        yield scene.read(Window(top, 0, rows, scene.width))[None], None


def _gsd_m(scene: Scene, bands: tuple[Band, ...]) -> float:
    told = [band.gsd_m for band in bands if band.gsd_m is not None]
    found = pixel_m(scene.ground) or min(told, default=None)
    if found is None:
        raise ConfigError(
            f"{scene.name}: does not say how large its pixels are, and the model counts places in "
            "metres; give its sensor a gsd_m, or the scene a crs in metres"
        )
    return found


def _any_places(model: LoadedModel, scene: Scene) -> list[int]:
    """Return where in the scene all bands are of a sensor that the model was trained on, the first
    such; else all bands of the scene."""
    there = {(band.name, band.wavelength_nm): i for i, band in enumerate(scene.sensor.bands)}
    for bands, _ in sensors_of(model):
        if all((band.name, band.wavelength_nm) in there for band in bands):
            return [there[band.name, band.wavelength_nm] for band in bands]
    return list(range(len(scene.sensor.bands)))


def _places(model: LoadedModel, scene: Scene) -> list[int]:
    """Return where in the scene the model's bands are; ConfigError if one is not there, or sees
    other light. What the model does not take is said."""
    wanted, there = model.inputs.bands, scene.sensor.names
    check_light(wanted, scene.sensor.bands, f"{scene.name}, of sensor {scene.sensor.name}: ")
    missing = [band.name for band in wanted if band.name not in there]
    if missing:
        raise ConfigError(
            f"{made_for(wanted)}; the scene {scene.name}, of sensor {scene.sensor.name}, has "
            f"{len(there)} ({', '.join(there)}) and lacks {', '.join(missing)}. Give their files "
            "in predict.scene, or, if it is another sensor's, train a model on the bands it has"
        )
    names = [band.name for band in wanted]
    left = [band for band in there if band not in names]
    if left:
        log.info(
            "%s: the model takes %s; left out: %s", scene.name, ", ".join(names), ", ".join(left)
        )
    return [there.index(band) for band in names]
