"""The maps of a run as layers over their imagery: classes, reference, uncertainty, legend."""

from __future__ import annotations

import logging
import pathlib
from typing import Any

import numpy as np

from swath.data.chip import IGNORE, Label
from swath.data.imagery import Imagery, Scene
from swath.data.palette import class_colours, rgb
from swath.data.split import Split, select
from swath.data.store import Store
from swath.data.stretch import colour_bands, shown, stretched
from swath.geo.raster import open_raster
from swath.geo.window import Window
from swath.predict.evaluate import pixel_hectares, reference
from swath.predict.origin import Origin, grounds_of, maps_in, read_origin, same_scene
from swath.report.images import class_png, jpeg, pick, shade_png, thinned
from swath.report.words import area_unit, whole

log = logging.getLogger(__name__)

ROWS = 256  # read at a time


def map_sections(
    folder: pathlib.Path,
    label: Label,
    model: str,
    imagery: Imagery | None,
    store: Store | None,
    split: Split | None,
) -> list[dict[str, Any]]:
    """Return what the page shows of each class map in ``folder`` that ``model``, a fingerprint,
    made; maps of values are left out."""
    found = []
    for path, origin in maps_in(folder).items() if folder.exists() else ():
        if origin.model != model:
            log.warning("%s: is left out: another model made this map; run swath predict", path)
        elif origin.layer == "classes":
            with open_raster(path) as raster:
                found.append(_section(path, origin, raster, label, imagery, store, split))
    return found


def _section(
    path: pathlib.Path,
    origin: Origin,
    raster: Any,
    label: Label,
    imagery: Imagery | None,
    store: Store | None,
    split: Split | None,
) -> dict[str, Any]:
    size = thinned(raster.height, raster.width)
    classes, counts = _read_classes(raster, size)
    hectares = pixel_hectares(tuple(raster.transform)[:6], raster.crs)
    seen = counts[: len(label.classes)]
    colours = class_colours(label)
    legend = [
        {"name": name, "colour": colour, "area": f"{_area(n, hectares)} · {n / seen.sum():.1%}"}
        for name, colour, n in zip(label.classes, colours, seen.tolist(), strict=False)
        if n
    ]
    place = next(iter(grounds_of(origin, raster, store)), None) if store else None
    sides = f"{whole(raster.width)} x {whole(raster.height)} px"
    metre = f" of {abs(raster.transform.a):g} m" if hectares is not None else ""
    return {
        "title": "The map",
        "about": f"{path.name}: {sides}{metre}, {_crs(raster)}; {_area(int(seen.sum()), hectares)}"
        " mapped. A Cloud-Optimised GeoTIFF with class names and colours: open it in QGIS.",
        "classes": class_png(classes, label),
        "imagery": jpeg(_imagery(imagery, origin, store, place, size)),
        "uncertainty": _uncertainty(path, origin, size),
        "reference": _reference(store, split, place, label, size),
        "legend": legend,
        "data": {
            "width": raster.width,
            "height": raster.height,
            "transform": tuple(raster.transform)[:6],
            "crs": _crs(raster),
            "degrees": bool(raster.crs and raster.crs.is_geographic),
            "classes": [
                {"name": name, "rgb": rgb(colour)}
                for name, colour in zip(label.classes, colours, strict=False)
            ],
        },
    }


def _read_classes(raster: Any, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return the class ids thinned to ``size``, and the count (256,) of each in the whole map."""
    rows = ((np.arange(size[0]) + 0.5) * raster.height / size[0]).astype(int)
    cols = ((np.arange(size[1]) + 0.5) * raster.width / size[1]).astype(int)
    out, counts = np.full(size, IGNORE, np.uint8), np.zeros(256, np.int64)
    for first in range(0, raster.height, ROWS):
        end = min(first + ROWS, raster.height)
        strip = raster.read(1, window=((first, end), (0, raster.width)))
        counts += np.bincount(strip.ravel(), minlength=256)
        mine = (rows >= first) & (rows < end)
        out[mine] = strip[rows[mine] - first][:, cols]
    return out, counts


def _imagery(
    imagery: Imagery | None, origin: Origin, store: Store | None, place: int | None, size: Any
) -> np.ndarray:
    """Return the scene in visible colours, (h, w, 3) uint8 of ``size``; grey if it is unknown."""
    if imagery is not None:
        with imagery.open() as scene:
            if same_scene(scene.content, origin.content):
                return _of_scene(scene, size)
    if store is not None and place is not None:
        from swath.data.mosaic import mosaic

        modality = max(store.contents.modalities, key=lambda m: m.height)
        return _bytes(shown(pick(mosaic(store, place, modality.name), size), modality))
    return np.full((*size, 3), 128, np.uint8)


def _of_scene(scene: Scene, size: tuple[int, int]) -> np.ndarray:
    bands = [scene.sensor.names.index(name) for name in colour_bands(scene.sensor)]
    rows = ((np.arange(size[0]) + 0.5) * scene.height / size[0]).astype(int)
    cols = ((np.arange(size[1]) + 0.5) * scene.width / size[1]).astype(int)
    pixels = np.zeros((len(bands), *size), scene.dtype)
    observed = np.zeros(size, bool)
    for first in range(0, scene.height, ROWS):
        end = min(first + ROWS, scene.height)
        strip = scene.read(Window(first, 0, end - first, scene.width))
        mine = (rows >= first) & (rows < end)
        thin = strip[:, rows[mine] - first][:, :, cols]
        observed[mine] = scene.observed(thin)[bands].all(0)
        pixels[:, mine] = thin[bands]
    return _bytes(stretched(pixels, observed))


def _bytes(picture: np.ndarray) -> np.ndarray:
    """Return a picture in 0..1 as uint8."""
    return (255 * picture).round().astype(np.uint8)


def _uncertainty(path: pathlib.Path, origin: Origin, size: tuple[int, int]) -> str | None:
    file = path.with_name(f"{path.stem}_uncertainty.tif")
    beside = read_origin(file) if file.exists() else None
    if beside is None or beside.plan != origin.plan:
        return None
    with open_raster(file) as raster:
        return shade_png(raster.read(1, out_shape=size))


def _reference(
    store: Store | None, split: Split | None, place: int | None, label: Label, size: Any
) -> str | None:
    """Return the held-out labels; None if the store has none on this ground."""
    if store is None or place is None or store.contents.label.kind not in ("mask", "class"):
        return None
    truth = reference(select(store, split, "test"), place)
    if truth.dtype != np.uint8 or (truth == IGNORE).all():
        return None
    return class_png(pick(truth, size), label)


def _area(pixels: int, hectares: float | None) -> str:
    area = pixels * (hectares or 1.0)
    unit = area_unit("px" if hectares is None else "ha", area)
    return f"{unit.said(area)} {unit.name}"


def _crs(raster: Any) -> str:
    if raster.crs is None:
        return "no CRS"
    code = raster.crs.to_epsg()
    return f"EPSG:{code}" if code else "own CRS"
