"""A model on the windows of a scene: strips of blended answers, from north to south.

The scene is read once. Each row of windows goes through the model while the next is read, and its
answers are blended; what no later window touches is a finished strip. Nothing is written here.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from swath.config import ConfigError, plain
from swath.data.chip import Known
from swath.data.imagery import Scene
from swath.data.plausible import suspicions, unlike
from swath.fields import free_fields
from swath.geo.window import Window
from swath.predict.blend import Blend
from swath.predict.forward import Forward
from swath.predict.handed import handed, situated
from swath.predict.layers import Layer
from swath.predict.settings import Predict
from swath.predict.tiles import Rows, Tiling, tiling
from swath.train.export import LoadedModel, fingerprint
from swath.train.precision import DTYPES
from swath.version import VERSION

log = logging.getLogger(__name__)

Group = list[tuple[int, int, np.ndarray]]
"""Windows (c, tile, tile), each with its row of windows and the column of vectors it begins at."""


@dataclass
class Mapping:
    """A model, a scene and how windows lie on it: what strips of answers are made from."""

    model: LoadedModel
    scene: Scene
    settings: Predict
    device: torch.device
    precision: str = "fp32"
    compile: bool = False
    abreast: int = 1
    """Groups of windows that go through the model side by side, each in a thread of its own."""
    unit: int = 1
    """Pixels of the scene to a side of what the model answers for: 8 for a vector per 8 x 8 px."""

    def __post_init__(self) -> None:
        model, scene, settings = self.model, self.scene, self.settings
        self._bands, self._made, self._known = handed(model, scene)
        tile, unit = settings.tile or model.inputs.size, self.unit
        if tile % unit or settings.edge % unit:
            raise ConfigError(
                f"windows of {tile} px (predict.tile) and predict.edge={settings.edge} must be "
                f"multiples of {unit} px, of which each vector is; set predict.tile="
                f"{max(tile // unit, 1) * unit}"
            )
        self.tiling: Tiling = tiling(
            -(-scene.height // unit),
            -(-scene.width // unit),
            tile // unit,
            settings.overlap,
            settings.edge // unit,
            model.outputs.dense,
        )
        self._pixels = self.tiling.times(unit)
        self.values = model.label.has_quantities
        # The scene's own no-data value and scale count, which may be others than in training.
        self._normalize = self._made.of([scene.sensor] * len(self._bands))
        self._warn()
        self._begun = False
        self._at_once = settings.windows_at_once or at_once(tile, self.device.type)
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

    def _warn(self) -> None:
        """Say what of the scene is hardly ever so, or unlike what the model was trained on."""
        scene, made = self.scene, self._made
        seen = scene.levels[self._bands]
        told = [*suspicions(scene.sensor.select(made.bands), seen)]
        far = unlike(made, self._normalize, seen[:, 1])
        for sentence in [*told, *([far] if far else [])]:
            log.warning("%s: %s", scene.imagery.path, sentence)

    def plan(self, layers: list[Layer]) -> dict:
        """Return everything that the pixels of the map depend on, as JSON."""
        made_of = plain(self.settings)
        for name in ("scene", *free_fields(Predict)):  # of a scene its grid and content count
            del made_of[name]
        return {
            "swath": VERSION,
            "model": self.fingerprint,
            "scene": plain(self.scene.imagery),
            "files": self.scene.state(),
            "content": self.scene.content,
            "ground": plain(self.scene.ground),
            "layers": [layer.name for layer in layers],
            "arithmetic": [self.precision, self.device.type, self.compile],
            **made_of,
        }

    def strips(self, run: range) -> Iterator[tuple[int, Tensor, np.ndarray]]:
        """Yield the strips of ``run``: number, means (k, rows, width), observed (rows, width).

        Rows may be none; where not observed the means say nothing.
        """
        first, count = run.start, run.stop
        begin = self.tiling.needed_from(first)
        rows = Rows(self._read, self._pixels)
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

        for strip, col, answer in self._answered(self._groups(rows, range(begin, count), observed)):
            yield from finished(strip)
            blend.add(answer, col)
        yield from finished(count)

    def _groups(
        self, rows: Rows, strips: range, observed: dict[int, np.ndarray]
    ) -> Iterator[Group]:
        """Yield the windows of ``strips``, as many as go at once; note what was observed."""
        group: Group = []
        with ThreadPoolExecutor(1) as reader:
            ahead = reader.submit(rows.take, strips.start) if strips else None
            for strip in strips:
                assert ahead is not None, "a strip was not asked for"
                pixels = ahead.result()
                ahead = reader.submit(rows.take, strip + 1) if strip + 1 < strips.stop else None
                seen = np.logical_or.reduce(self.scene.observed(pixels))
                observed[strip] = self._of_scene(seen, strip)
                for col, window, known in self._windows(pixels, seen):
                    if known:  # windows without any data are not worth a look
                        group.append((strip, col, window))
                    if len(group) == self._at_once:
                        yield group
                        group = []
        if group:
            yield group

    def _answered(self, groups: Iterator[Group]) -> Iterator[tuple[int, int, Tensor]]:
        """Yield (strip, col, answer) for each window of ``groups``, in their order."""
        if self.abreast == 1:
            for group in groups:
                yield from self._answers(group)
            return
        pool = ThreadPoolExecutor(self.abreast, initializer=torch.set_num_threads, initargs=(1,))
        waiting: deque[Future] = deque()
        try:
            for group in groups:
                waiting.append(pool.submit(self._answers, group))
                # The first alone: it may find that windows have to go one at a time, and compiles.
                while len(waiting) > (self.abreast if self._begun else 0):
                    yield from waiting.popleft().result()
                    self._begun = True
            while waiting:
                yield from waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)

    def _windows(
        self, pixels: np.ndarray, seen: np.ndarray
    ) -> Iterator[tuple[int, np.ndarray, bool]]:
        for col in self.tiling.cols:
            left = (col - self.tiling.cols[0]) * self.unit
            across = slice(left, left + self._pixels.tile)
            yield col, pixels[:, :, across], bool(seen[:, across].any())

    def _answers(self, group: Group) -> list[tuple[int, int, Tensor]]:
        windows = torch.from_numpy(np.stack([window for _, _, window in group])).to(self.device)
        image, _ = self._normalize(windows)
        answers = self._forward(image, self._told(group))
        return [(s, c, answer) for (s, c, _), answer in zip(group, answers, strict=True)]

    def _told(self, group: Group) -> Known | None:
        """Return what is known of the windows of ``group``."""
        if self._known is None:
            return None
        asks: frozenset[str] = getattr(self.model.network, "asks", frozenset())
        half = self._pixels.tile / 2
        strips, cols, _ = zip(*group, strict=True)
        rows = np.array(self._pixels.rows)[list(strips)] + half
        middles = self.unit * np.array(cols) + half
        return situated(self._known, asks, self.scene, rows, middles, self.device)

    def _answer(self, image: Tensor, known: Known | None = None) -> Tensor:
        return self.model.answer(image, self.precision, known)

    def _read(self, first: int, end: int) -> np.ndarray:
        height, width = self.scene.height, self.scene.width
        low = min(first, height - 1)
        pixels = self.scene.read(Window(low, 0, min(end, height) - low, width))
        below, beside = end - low - pixels.shape[1], self._pixels.width - width
        if below or beside:  # the last vectors reach beyond the scene, by less than a unit
            pixels = np.pad(pixels, ((0, 0), (0, below), (0, beside)), mode="edge")
            pixels = pixels[:, first - low :]
        every = self._bands == list(range(len(pixels)))
        return pixels if every else pixels[self._bands]

    def _of_scene(self, padded: np.ndarray, strip: int) -> np.ndarray:
        """Return the part of a strip (tile, padded width) that it finishes, without padding, in the
        map's own pixels: observed where one of the scene's is."""
        if self.unit > 1:
            tall, wide = (side // self.unit for side in padded.shape)
            cells = padded.reshape(tall, self.unit, wide, self.unit)
            padded = np.logical_or.reduce(cells, (1, 3))
        first, end = self.tiling.finished(strip)
        top, left = self.tiling.rows[strip], self.tiling.cols[0]
        return padded[first - top : end - top, -left : -left + self.tiling.width]


def at_once(tile: int, device: str) -> int:
    """Return the windows that go through together: enough to be busy, few enough for memory."""
    return max(1, (2**16 if device == "cpu" else 2**20) // tile**2)
