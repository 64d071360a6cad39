"""A map of a whole scene in bounded memory: windows in, strips of rows out.

The scene is read once, from north to south. Each row of windows goes through the model, its
answers are blended, and the rows that no later window touches are written and ticked off in a
ledger; interrupted, the map goes on after the last row ticked. At any time there are in memory the
pixels and the sums of two rows of windows, whatever the height of the scene.

The map is a function of model, scene, settings and arithmetic alone: not of the number of windows
in one pass, of their order, or of where it was interrupted. Arithmetic is the precision, the kind
of device, and whether the model is compiled; a map begun with another is begun anew, so that no map
is half the one, half the other. The precision is that of training, by the same means (parameters in
its type, matrix products in bfloat16 for bf16), so that a map and a run's own score are made alike.
"""

from __future__ import annotations

import dataclasses
import logging
import pathlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from swath.config import ConfigError, plain
from swath.data.chip import IGNORE
from swath.data.imagery import Scene
from swath.geo.cog import CogWriter
from swath.geo.window import Window
from swath.lock import lock
from swath.predict.blend import Blend
from swath.predict.forward import Forward
from swath.predict.layers import Layer, layers_of, pixels_of
from swath.predict.ledger import Ledger, checksum
from swath.predict.settings import FREE, MODEL, Predict, stem
from swath.predict.tiles import Rows, Tiling, tiling
from swath.train.export import LoadedModel, fingerprint
from swath.train.precision import DTYPES, arithmetic
from swath.train.settings import Compute
from swath.version import VERSION

log = logging.getLogger("swath")

Progress = Callable[[int, int], None]
"""Told the strips done and the strips in all."""


def predict(
    model: LoadedModel,
    scene: Scene,
    settings: Predict,
    folder: str | pathlib.Path,
    *,
    device: str | torch.device = "cpu",
    precision: str = "fp32",
    compute: Compute = Compute(),  # noqa: B008  (frozen)
    progress: Progress = lambda done, strips: None,
) -> dict[str, pathlib.Path]:
    """Map ``scene`` and return the files written below ``folder``, by what they hold.

    "classes" (or "values", or "flags") is <scene's name>.tif; "probabilities" and "uncertainty",
    if asked for, stand beside it. All have the scene's grid and no-data where no band was
    observed. A map begun before with the same model, scene and settings is gone on with.

    precision: as in train.precision; give the one that the model was trained in.
    compute: its threads and compile are used.

    Raises ConfigError if the scene lacks a band of the model, settings do not fit the model, or
    another process maps this scene there.
    """
    alone = lock(pathlib.Path(folder) / f".{stem(scene.name)}.lock", "swath predict")
    with alone, arithmetic(precision, compute):
        mapping = Mapping(model, scene, settings, torch.device(device), precision, compute.compile)
        return _write(mapping, layers_of(model.label, settings), pathlib.Path(folder), progress)


def _write(
    mapping: Mapping, layers: list[Layer], folder: pathlib.Path, progress: Progress
) -> dict[str, pathlib.Path]:
    name = stem(mapping.scene.name)
    paths: dict[str, pathlib.Path] = {
        layer.name: folder / f"{name}{layer.suffix}.tif" for layer in layers
    }
    ledger = Ledger(folder / f".{name}.ledger", mapping.plan(layers))
    if ledger.differs:
        log.warning("the unfinished map in %s is begun anew: %s", folder, ledger.differs)
    writers = [
        _writer(paths[layer.name], layer, mapping, resume=bool(ledger.sums)) for layer in layers
    ]
    ledger.keep(_intact(ledger, writers, mapping.tiling))
    if ledger.sums:
        log.info("going on with the map after %d of its strips", len(ledger.sums))
    strips = len(mapping.tiling.rows)
    progress(len(ledger.sums), strips)
    try:
        for strip, means, observed in mapping.strips(len(ledger.sums)):
            window = _window(mapping.tiling, strip)
            pixels = [pixels_of(layer, means, observed) for layer in layers]
            if window.height:
                for writer, values in zip(writers, pixels, strict=True):
                    writer.write(window, values)
                    writer.sync()
            ledger.add(checksum(pixels))
            progress(strip + 1, strips)
    finally:
        for writer in writers:
            writer.close()
    for layer in layers:
        _writer(paths[layer.name], layer, mapping, resume=True).finish()
    ledger.remove()
    return paths


@dataclass
class Mapping:
    """A model, a scene and how windows lie on it: what strips of answers are made from."""

    model: LoadedModel
    scene: Scene
    settings: Predict
    device: torch.device
    precision: str = "fp32"
    compile: bool = False

    def __post_init__(self) -> None:
        model, scene, settings = self.model, self.scene, self.settings
        self._bands = _places(model, scene)
        self.tiling: Tiling = tiling(
            scene.height,
            scene.width,
            settings.tile or model.inputs.size,
            settings.overlap,
            settings.edge,
            model.outputs.dense,
        )
        self.values = model.label.kind in ("value", "raster")
        # The scene's own no-data value counts, which may be another than the training data's.
        self._normalize = dataclasses.replace(
            model.normalize, nodata=(_number(scene.sensor.nodata),) * len(self._bands)
        )
        self._at_once = settings.windows_at_once or _at_once(self.tiling.tile, self.device.type)
        self._forward = Forward(
            self._answer,
            at_once=self._at_once,
            symmetries=settings.symmetries,
            values=self.values,
            tell=log.info,
        )
        self.fingerprint = fingerprint(model)
        """Of the weights and of all that says what they mean."""
        model.network.to(self.device, DTYPES[self.precision]).eval()
        if self.compile:
            model.network.compile()

    def plan(self, layers: list[Layer]) -> dict:
        """Return everything that the pixels of the map depend on, as JSON."""
        made_of = plain(self.settings)
        for free in FREE:
            del made_of[free]
        return {
            "swath": VERSION,
            "model": self.fingerprint,
            "scene": plain(self.scene.imagery),
            "files": self.scene.state(),
            "ground": plain(self.scene.ground),
            "layers": [layer.name for layer in layers],
            "arithmetic": [self.precision, self.device.type, self.compile],
            **made_of,
        }

    def strips(self, first: int) -> Iterator[tuple[int, Tensor, np.ndarray]]:
        """Yield strips from ``first`` on: number, means (k, rows, width), observed (rows, width).

        Rows may be none; where not observed the means say nothing.
        """
        begin, count = self.tiling.needed_from(first), len(self.tiling.rows)
        rows = Rows(self._read, self.tiling)
        blend = Blend(
            self.tiling, self.model.outputs.channels, begin, self.device, values=self.values
        )
        observed: dict[int, np.ndarray] = {}

        def finished(until: int) -> Iterator[tuple[int, Tensor, np.ndarray]]:
            while blend.strip < until:
                strip = blend.strip
                means = blend.finish()
                seen = observed.pop(strip)
                if strip >= first:
                    yield strip, means, seen

        group: list[tuple[int, int, np.ndarray]] = []
        with ThreadPoolExecutor(1) as reader:
            ahead = reader.submit(rows.take, begin) if begin < count else None
            for strip in range(begin, count):
                assert ahead is not None, "a strip was not asked for"
                pixels = ahead.result()
                ahead = reader.submit(rows.take, strip + 1) if strip + 1 < count else None
                seen = np.logical_or.reduce(self.scene.observed(pixels))
                observed[strip] = self._of_scene(seen, strip)
                for col, window, known in self._windows(pixels, seen):
                    if known:  # windows without any data are not worth a look
                        group.append((strip, col, window))
                    if len(group) == self._at_once:
                        for s, c, answer in self._answers(group):
                            yield from finished(s)
                            blend.add(answer, c)
                        group = []
            if group:
                for s, c, answer in self._answers(group):
                    yield from finished(s)
                    blend.add(answer, c)
            yield from finished(count)

    def _windows(
        self, pixels: np.ndarray, seen: np.ndarray
    ) -> Iterator[tuple[int, np.ndarray, bool]]:
        for col in self.tiling.cols:
            across = slice(col - self.tiling.cols[0], col - self.tiling.cols[0] + self.tiling.tile)
            yield col, pixels[:, :, across], bool(seen[:, across].any())

    def _answers(
        self, group: list[tuple[int, int, np.ndarray]]
    ) -> Iterator[tuple[int, int, Tensor]]:
        windows = torch.from_numpy(np.stack([window for _, _, window in group])).to(self.device)
        image, _ = self._normalize(windows)
        for (strip, col, _), answer in zip(group, self._forward(image), strict=True):
            yield strip, col, answer

    def _answer(self, image: Tensor) -> Tensor:
        return self.model.answer(image, self.precision)

    def _read(self, first: int, end: int) -> np.ndarray:
        pixels = self.scene.read(Window(first, 0, end - first, self.scene.width))
        every = self._bands == list(range(len(pixels)))
        return pixels if every else pixels[self._bands]

    def _of_scene(self, padded: np.ndarray, strip: int) -> np.ndarray:
        """Return the part of a strip (tile, padded width) that it finishes, without padding."""
        first, end = self.tiling.finished(strip)
        top, left = self.tiling.rows[strip], self.tiling.cols[0]
        return padded[first - top : end - top, -left : -left + self.scene.width]


def _places(model: LoadedModel, scene: Scene) -> list[int]:
    """Return where in the scene the model's bands are; ConfigError if one is not there."""
    wanted, there = model.normalize.bands, scene.sensor.names
    missing = [band for band in wanted if band not in there]
    if missing:
        raise ConfigError(
            f"the model takes {len(wanted)} bands ({', '.join(wanted)}); the scene {scene.name} "
            f"has {len(there)} ({', '.join(there)}) and lacks {', '.join(missing)}. Give their "
            "files in predict.scene, or train a model on the bands that there are"
        )
    return [there.index(band) for band in wanted]


def _number(nodata: float | None) -> float | None:
    return None if nodata is None or np.isnan(nodata) else float(nodata)


def _at_once(tile: int, device: str) -> int:
    """Return the windows that go through together: enough to be busy, few enough for memory."""
    return max(1, (2**16 if device == "cpu" else 2**20) // tile**2)


def _window(tiling: Tiling, strip: int) -> Window:
    first, end = tiling.finished(strip)
    return Window(first, 0, end - first, tiling.width)


def _intact(ledger: Ledger, writers: list[CogWriter], tiling: Tiling) -> int:
    """Return how many strips, from the first, hold what the ledger says."""
    for strip, written in enumerate(ledger.sums):
        window = _window(tiling, strip)
        if checksum(writer.read(window) for writer in writers) != written:
            log.warning("strip %d of the unfinished map is damaged; it is made again", strip)
            return strip
    return len(ledger.sums)


def _writer(path: pathlib.Path, layer: Layer, mapping: Mapping, *, resume: bool) -> CogWriter:
    scene = mapping.scene
    return CogWriter(
        path,
        count=layer.count,
        height=scene.height,
        width=scene.width,
        dtype=layer.dtype,
        transform=scene.ground.transform,
        crs=scene.ground.crs,
        nodata=IGNORE if layer.dtype == "uint8" else float("nan"),
        descriptions=layer.descriptions,
        colours=layer.colours,
        classes=layer.classes,
        tags={
            "SOFTWARE": f"Swath {VERSION}",
            MODEL: mapping.fingerprint,
            "SCENE": scene.name,
            **({"TIFFTAG_DATETIME": f"{scene.when:%Y:%m:%d %H:%M:%S}"} if scene.when else {}),
        },
        resume=resume,
    )
