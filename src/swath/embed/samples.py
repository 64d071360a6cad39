"""Embeddings of all samples of a store, the same on any number of ranks, cores and windows at once.

Samples go through the model in the arithmetic of its training, several at once where that changes
no bit (:mod:`swath.predict.forward`); on a processor each group in one thread, and as many groups
side by side as there are threads. Ranks have files of their own of the table; what is there of an
interrupted one is kept.
"""

from __future__ import annotations

import logging
import pathlib
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch

from swath.config import plain
from swath.data.chip import Batch
from swath.data.opened import Data
from swath.data.places import middles
from swath.data.split import select
from swath.data.store import Store
from swath.embed.embedder import Embedder
from swath.embed.labels import Labels
from swath.embed.settings import Embed
from swath.embed.table import Table
from swath.lock import lock
from swath.parallel.world import World
from swath.predict.forward import Forward
from swath.predict.mapping import at_once
from swath.predict.settings import stem
from swath.predict.together import meet, patient
from swath.train.export import LoadedModel, fingerprint
from swath.train.precision import DTYPES, arithmetic
from swath.train.settings import Compute
from swath.version import VERSION

log = logging.getLogger(__name__)

Progress = Callable[[int, int], None]
"""Told the samples done and those in all, of this rank."""


def embed_samples(
    model: LoadedModel,
    data: Data,
    settings: Embed,
    folder: pathlib.Path,
    *,
    device: str | torch.device = "cpu",
    precision: str = "fp32",
    compute: Compute = Compute(),  # noqa: B008  (frozen)
    windows_at_once: int | None = None,
    progress: Progress = lambda done, samples: None,
    world: World | None = None,
) -> Table:
    """Return the embeddings of all samples of ``data`` as a table below ``folder``, made first, or
    further, if they are not there.

    data: normalised as the model was trained. compute: its threads are used. ConfigError if the
    model has no such features, or another process makes the same.
    """
    if world is None:
        with World.start("cpu") as world:
            return embed_samples(
                model,
                data,
                settings,
                folder,
                device=device,
                precision=precision,
                compute=compute,
                windows_at_once=windows_at_once,
                progress=progress,
                world=world,
            )
    where = torch.device(device)
    pool = settings.pool
    if pool is None and data.store.contents.label.kind == "mask":
        pool = "patches"
    embedder = Embedder.of(model, settings, pool)
    path = folder / name_of(data.store, settings)
    with ExitStack() as held, arithmetic(precision, compute), patient(world) as ranks:
        mark = folder / f".{path.name}.lock"
        ranks.first_does(lambda: held.enter_context(lock(mark, "swath embed")))
        making = Making(embedder, data, where, precision, windows_at_once)
        made: list[Table] = []
        ranks.first_does(lambda: made.append(making.begin(path)))
        table = made[0] if made else making.begin(path)  # which is there now, on all ranks
        files = torch.zeros(-(-table.samples // table.per_file), dtype=torch.int64)
        files[table.missing()] = 1
        ranks.broadcast([files])  # of rank 0: the others may have seen what a rank wrote since
        missing = files.nonzero().flatten().tolist()
        making.write(table, missing[ranks.rank :: ranks.ranks], progress)
        meet(ranks)
        if missing:
            ranks.first_does(table.finish)
        return table


def name_of(store: Store, settings: Embed) -> str:
    """Return what the embeddings of ``store`` are called."""
    parts = [store.path.rstrip("/").rpartition("/")[2]]
    parts += [part for part in (settings.layer, settings.pool) if part is not None]
    return f"{stem('-'.join(parts))}.zarr"


class Making:
    """A model at work on the samples of a store."""

    def __init__(
        self,
        embedder: Embedder,
        data: Data,
        device: torch.device,
        precision: str,
        windows_at_once: int | None,
    ) -> None:
        self.embedder, self.data = embedder, data
        self.device, self.precision = device, precision
        self.fingerprint = fingerprint(embedder)
        embedder.network.to(device, DTYPES[precision]).eval()
        size = max(data.grid)
        self._at_once = windows_at_once or at_once(size, device.type)
        self._forward = Forward(
            lambda image, known=None: embedder.answer(image, precision, known),
            at_once=self._at_once,
            symmetries=1,
            values=True,
            tell=log.info,
        )
        self.grid: tuple[int, ...] = ()
        if embedder.unit:
            self.grid = tuple(-(-side // embedder.unit) for side in data.grid)
        self._every = select(data.store, data.settings.split, "all")

    def begin(self, path: pathlib.Path) -> Table:
        """Return the table at ``path``, as far as it is there."""
        store = self.data.store
        lat, lon = middles(store).T
        columns = {"lon": lon, "lat": lat, "name": store.column("name")}
        return Table.begin(
            path, self._plan(), store.samples, self.grid, self.embedder.width, columns
        )

    def _plan(self) -> dict[str, Any]:
        store = self.data.store
        return {
            "swath": VERSION,
            "model": self.fingerprint,
            "store": store.fingerprint,
            "split": plain(self._every.split),
            "bands": [f"{m.name}/{m.sensor.bands[i].name}" for m, i in self.data.channels],
            "resample": self.data.settings.resample,
            "layer": self.embedder.layer,
            "pool": self.embedder.pool,
            "unit": self.embedder.unit,
            "arithmetic": [self.precision, self.device.type],
            "classes": list(store.contents.label.classes),
            "label": store.contents.label.kind,
        }

    def write(self, table: Table, files: list[int], progress: Progress) -> None:
        """Make ``files`` of ``table``."""
        labels = Labels(self._every, self.grid, self.embedder.unit)
        total, done = sum(len(table.rows(file)) for file in files), 0
        progress(done, total)
        rows = [table.rows(file) for file in files]
        answers = self._answers(np.concatenate(rows) if rows else np.zeros(0, np.int64))
        for file, samples in zip(files, rows, strict=True):
            out = np.empty((len(samples), *self.grid, table.width), np.float32)
            part, label = labels.of(samples)
            for i in range(len(samples)):
                out[i] = next(answers)
                done += 1
            table.write(file, embedding=out, part=part, label=label)
            progress(done, total)

    def _answers(self, samples: np.ndarray) -> Iterator[np.ndarray]:
        """Yield the vectors of ``samples``, in their order: (y, x, width) or (width,)."""
        loader = self.data.loader("all", micro=self._at_once, device=self.device)
        threads = torch.get_num_threads()
        abreast = threads if self.device.type == "cpu" else 1
        if self.device.type == "cpu":
            torch.set_num_threads(1)  # kernels add up otherwise with other numbers of threads
        pool = ThreadPoolExecutor(abreast, initializer=torch.set_num_threads, initargs=(1,))
        waiting: deque[Future] = deque()
        begun = False
        try:
            for batch in loader.sweep(indices=samples):
                waiting.append(pool.submit(self._vectors, batch))
                # The first alone: it may find that samples have to go one at a time.
                while len(waiting) > (abreast if begun else 0):
                    yield from waiting.popleft().result()
                    begun = True
            while waiting:
                yield from waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)
            torch.set_num_threads(threads)

    def _vectors(self, batch: Batch) -> np.ndarray:
        known = batch.known if getattr(self.embedder.network, "asks", ()) else None
        found = self._forward(batch.image, known).float().permute(0, 2, 3, 1)
        return (found if self.grid else found[:, 0, 0]).cpu().numpy()
