"""A map of a whole scene in bounded memory: windows in, strips of rows out.

The scene is read once, from north to south. Each row of windows goes through the model, its
answers are blended, and the rows that no later window touches are written and ticked off in a
ledger; interrupted, the map goes on with the strips that are not. At any time there are in memory
the pixels and the sums of two rows of windows, and on a processor what the model makes of a window
for each core, whatever the height of the scene.

Several ranks have strips of their own and write them into one file. The windows that reach from the
strips of one into those of the next are computed by both, so that nothing has to be sent.

The map is a function of model, scene, settings and arithmetic alone: not of the number of windows
in one pass, of their order, of ranks and cores, or of where it was interrupted. Arithmetic is the
precision, the kind of device, and whether the model is compiled; a map begun with another is begun
anew, so that no map is half the one, half the other. The precision is that of training, by the same
means (parameters in its type, matrix products in bfloat16 for bf16), so that a map and a run's own
score are made alike.
"""

from __future__ import annotations

import logging
import pathlib
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from swath.config import ConfigError, plain
from swath.data.imagery import Scene
from swath.geo.window import Window
from swath.lock import lock
from swath.parallel.world import World
from swath.predict.blend import Blend
from swath.predict.files import Files
from swath.predict.forward import Forward
from swath.predict.layers import Layer, layers_of, pixels_of
from swath.predict.ledger import checksum
from swath.predict.settings import FREE, Predict, stem
from swath.predict.tiles import Rows, Tiling, deal, tiling
from swath.predict.together import check_alike, meet, patient
from swath.train.export import LoadedModel, fingerprint
from swath.train.precision import DTYPES, arithmetic
from swath.train.settings import Compute
from swath.version import VERSION

log = logging.getLogger("swath")

Group = list[tuple[int, int, np.ndarray]]
"""Windows (c, tile, tile), each with its row of windows and the column it begins at."""

Progress = Callable[[int, int], None]
"""Told the strips done and the strips in all: those of this rank and those that were there."""


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
    world: World | None = None,
) -> dict[str, pathlib.Path]:
    """Map ``scene`` and return the files written below ``folder``, by what they hold.

    "classes" (or "values", or "flags") is <scene's name>.tif; "probabilities" and "uncertainty",
    if asked for, stand beside it. All have the scene's grid and no-data where no band was
    observed. A map begun before with the same model, scene and settings is gone on with.

    precision: as in train.precision; give the one that the model was trained in.
    compute: its threads and compile are used.
    world: the ranks, each of which has a device; None: those that the launcher started.

    Raises ConfigError if the scene lacks a band of the model, settings do not fit the model,
    ranks would make different maps, or another process maps this scene there.
    """
    if world is None:
        with World.start("cpu") as world:
            return predict(
                model,
                scene,
                settings,
                folder,
                device=device,
                precision=precision,
                compute=compute,
                progress=progress,
                world=world,
            )
    folder = pathlib.Path(folder)
    with ExitStack() as held, arithmetic(precision, compute), patient(world) as ranks:
        file = folder / f".{stem(scene.name)}.lock"
        ranks.first_does(lambda: held.enter_context(lock(file, "swath predict")))
        where, threads = torch.device(device), torch.get_num_threads()
        abreast = 1
        if where.type == "cpu":
            # Kernels add up otherwise with other numbers of threads. So each window has one, and
            # as many windows go side by side: the map is the same on any number of cores.
            torch.set_num_threads(1)
            abreast = threads
        mapping = Mapping(model, scene, settings, where, precision, compute.compile, abreast)
        layers = layers_of(model.label, settings)
        files = Files(
            layers, folder, scene, mapping.fingerprint, mapping.tiling, mapping.plan(layers)
        )
        _write(mapping, files, progress, ranks)
        return files.paths


def _write(mapping: Mapping, files: Files, progress: Progress, world: World) -> None:
    """Make the strips that are not there, this rank its own, and the files of all of them."""
    check_alike(world, {key: part for key, part in files.plan.items() if key != "files"})
    done = torch.zeros(len(mapping.tiling.rows), dtype=torch.int64)

    def begin() -> None:
        done[files.begin()] = 1

    world.first_does(begin)
    world.share([done])
    missing = (done == 0).nonzero().flatten().tolist()
    mine = deal(mapping.tiling, missing, world.ranks)[world.rank]
    there = len(done) - len(missing)
    told = there + sum(map(len, mine))
    progress(there, told)
    ledger = files.ledger(world.rank)
    with files.joined() as write:
        for strip, means, observed in (strip for run in mine for strip in mapping.strips(run)):
            pixels = [pixels_of(layer, means, observed) for layer in files.layers]
            write(strip, pixels)
            ledger.add(strip, checksum(pixels))
            there += 1
            progress(there, told)
    meet(world)
    world.first_does(files.finish)


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
        # The scene's own no-data value and scale count, which may be others than in training.
        self._normalize = model.normalize.of([scene.sensor] * len(self._bands))
        self._begun = False
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

    def strips(self, run: range) -> Iterator[tuple[int, Tensor, np.ndarray]]:
        """Yield the strips of ``run``: number, means (k, rows, width), observed (rows, width).

        Rows may be none; where not observed the means say nothing.
        """
        first, count = run.start, run.stop
        begin = self.tiling.needed_from(first)
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
            across = slice(col - self.tiling.cols[0], col - self.tiling.cols[0] + self.tiling.tile)
            yield col, pixels[:, :, across], bool(seen[:, across].any())

    def _answers(self, group: Group) -> list[tuple[int, int, Tensor]]:
        windows = torch.from_numpy(np.stack([window for _, _, window in group])).to(self.device)
        image, _ = self._normalize(windows)
        answers = self._forward(image)
        return [(s, c, answer) for (s, c, _), answer in zip(group, answers, strict=True)]

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


def _at_once(tile: int, device: str) -> int:
    """Return the windows that go through together: enough to be busy, few enough for memory."""
    return max(1, (2**16 if device == "cpu" else 2**20) // tile**2)
