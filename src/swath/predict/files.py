"""The files of a map on their way: raw pixels, written by all ranks, and what of them is done."""

from __future__ import annotations

import contextlib
import logging
import pathlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from swath.config import ConfigError
from swath.data.chip import IGNORE
from swath.data.imagery import Scene
from swath.geo.cog import CogWriter
from swath.geo.window import Window
from swath.predict.layers import Layer
from swath.predict.ledger import Ledger, checksum
from swath.predict.origin import Origin, remove_stale
from swath.predict.tiles import Tiling
from swath.version import VERSION

log = logging.getLogger(__name__)

Write = Callable[[int, Sequence[np.ndarray]], None]
"""Is given a strip's number and the pixels (count, rows, width) of each layer."""


@dataclass(frozen=True)
class Files:
    """A map's ``layers`` below ``folder``, and the ledgers beside them while it is made.

    name: what they are called. plan: everything that the pixels depend on, as JSON.
    """

    layers: list[Layer]
    folder: pathlib.Path
    name: str
    scene: Scene
    origin: Origin
    tiling: Tiling
    plan: dict[str, Any]
    unit: int = 1
    """Pixels of the scene to a side of the map's."""

    @property
    def paths(self) -> dict[str, pathlib.Path]:
        """The files, by what they hold."""
        names = {layer.name: f"{self.name}{layer.suffix}.tif" for layer in self.layers}
        return {layer: self.folder / file for layer, file in names.items()}

    def ledger(self, rank: int = 0) -> Ledger:
        """Return the ledger of ``rank``; rank 0's knows what all ranks have written."""
        return Ledger(self.folder / f".{self.name}.ledger", self.plan, rank)

    def begin(self) -> list[int]:
        """Make the files, or take up those of an interrupted map; return the strips they hold."""
        ledger = self.ledger()
        if ledger.differs:
            log.warning("the unfinished map in %s is begun anew: %s", self.folder, ledger.differs)
        with self._open(resume=bool(ledger.sums)) as writers:
            damaged = self._damaged(ledger, writers)
        for strip in sorted(damaged):
            log.warning("strip %d of the unfinished map is damaged; it is made again", strip)
        ledger.keep(ledger.sums.keys() - damaged)
        done, strips = list(ledger.sums), len(self.tiling.rows)
        if done:
            log.info("going on with the map: %d of its %d strips are there", len(done), strips)
        return done

    @contextlib.contextmanager
    def joined(self) -> Iterator[Write]:
        """Give a function that writes strips into the files that were begun, safe on the disk."""
        with self._open(join=True) as writers:

            def write(strip: int, pixels: Sequence[np.ndarray]) -> None:
                window = self._window(strip)
                for writer, values in zip(writers, pixels, strict=True):
                    if window.height:
                        writer.write(window, values)
                        writer.sync()

            yield write

    def finish(self) -> None:
        """Turn the raw pixels, which are whole now, into the map; ConfigError if they are not."""
        ledger, strips = self.ledger(), range(len(self.tiling.rows))
        with self._open(join=True) as writers:
            lost = {*strips} - ledger.sums.keys() | self._damaged(ledger, writers)
            if lost:
                raise ConfigError(
                    f"{self.folder}: {len(lost)} of the map's {len(strips)} strips are not as they "
                    f"were written, the first is {min(lost)}; ranks that make a map together must "
                    "write into one folder that all see. The same command makes them again"
                )
            for writer in writers:
                writer.finish()
        remove_stale(self.folder, self.name, self.origin.plan)
        ledger.remove()

    def _damaged(self, ledger: Ledger, writers: list[CogWriter]) -> set[int]:
        """Return the finished strips that do not hold what the ledger says."""
        return {
            strip
            for strip, written in ledger.sums.items()
            if checksum(writer.read(self._window(strip)) for writer in writers) != written
        }

    def _window(self, strip: int) -> Window:
        first, end = self.tiling.finished(strip)
        return Window(first, 0, end - first, self.tiling.width)

    @contextlib.contextmanager
    def _open(self, **how: bool) -> Iterator[list[CogWriter]]:
        writers: list[CogWriter] = []
        try:
            for layer in self.layers:
                writers.append(self._writer(layer, **how))
            yield writers
        finally:
            for writer in writers:
                writer.close()

    def _transform(self) -> tuple[float, ...] | None:
        whole = self.scene.ground.transform
        if whole is None:
            return None
        a, b, c, d, e, f = tuple(whole)[:6]
        unit = self.unit
        return a * unit, b * unit, c, d * unit, e * unit, f

    def _writer(self, layer: Layer, **how: bool) -> CogWriter:
        scene = self.scene
        return CogWriter(
            self.paths[layer.name],
            count=layer.count,
            height=self.tiling.height,
            width=self.tiling.width,
            dtype=layer.dtype,
            transform=self._transform(),
            crs=scene.ground.crs,
            nodata=IGNORE if layer.dtype == "uint8" else float("nan"),
            descriptions=layer.descriptions,
            colours=layer.colours,
            classes=layer.classes,
            tags={
                "SOFTWARE": f"Swath {VERSION}",
                **self.origin.tags(layer.name),
                **({"TIFFTAG_DATETIME": f"{scene.when:%Y:%m:%d %H:%M:%S}"} if scene.when else {}),
            },
            **how,
        )
