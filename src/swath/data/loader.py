"""From a store to microbatches on a device, in an order that is part of the settings.

Update ``k`` of a run consumes the positions [P, P + batch); its microbatch ``i`` is
[P + i micro, P + (i + 1) micro), whatever number of replicas share the work. Samples are read
ahead on the store's threads; there are no worker processes, nothing is pickled. Normalising,
resampling and augmenting happen for a microbatch at once, on the device.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from swath.config import ConfigError
from swath.data import draw
from swath.data.augment import Augment
from swath.data.balance import repeats
from swath.data.chip import Batch, Known, Modality
from swath.data.normalize import Normalizer
from swath.data.order import Order
from swath.data.resample import resized
from swath.data.seasons import Partners
from swath.data.split import Selection
from swath.data.views import Viewer, Views
from swath.span import span

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from swath.data.opened import Data

Wanted: TypeAlias = "tuple[np.ndarray, np.ndarray, bool]"
"""Positions and indices of a microbatch's samples, and whether it counts."""


class Loader:
    """Microbatches of one part of a store, endlessly in a drawn order, or once in the store's."""

    def __init__(
        self,
        data: Data,
        selection: Selection,
        *,
        micro: int,
        seed: int,
        augment: Augment,
        views: Views | None,
        prefetch: int,
        device: str | torch.device,
    ) -> None:
        """micro: samples of a microbatch. views: of each sample, varied by ``augment``, in training
        and in sweeps; None: training samples themselves are varied. prefetch: microbatches read
        ahead; changes no result."""
        self.data, self.selection, self.device = data, selection, device
        self.micro, self.seed, self.augment, self.prefetch = micro, seed, augment, prefetch
        self.waited = 0.0
        """Seconds from asking for microbatches to having them, summed."""
        self.number = 0
        """Of the store, among those that are trained on."""
        self.viewer = None if views is None else Viewer(views, augment)
        self.partners = None
        if views is not None and views.seasons:
            self.partners = Partners(selection)
        if views is None:
            augment.size(*data.grid)  # raises if the samples cannot be varied so
        self._modalities = tuple(dict.fromkeys(m.name for m, _ in data.channels))
        self._runs: list[tuple[Modality, list[int], Normalizer]] = []
        numbered = enumerate(data.channels)
        for name, some in itertools.groupby(numbered, key=lambda item: item[1][0].name):
            run = list(some)
            part = data.normalize.only([number for number, _ in run])
            self._runs.append((data.store.modality(name), [i for _, (_, i) in run], part))

    def stream(
        self, start: int, batch: int, rank: int = 0, ranks: int = 1, *, even: bool = False
    ) -> Iterator[Batch]:
        """Yield, without end, the training microbatches of part ``rank`` of ``ranks``.

        start: position at which an update begins. batch: samples of an update. Microbatch ``i`` of
        every update belongs to part ``i % ranks``. even: every part gets as many in each update;
        what is too much is the update's first microbatch again, and does not count.
        """
        order = self.order

        def wanted() -> Iterator[Wanted]:
            for first, counts in self.turns(start, batch, rank, ranks, even):
                positions = np.arange(first, first + self.micro)
                yield positions, self.selection.indices[order.index(positions)], counts

        return self.augmented(wanted())

    @functools.cached_property
    def order(self) -> Order:
        """The order in which training samples are shown."""
        return Order(len(self.selection.indices), self.seed, self._repeats())

    def turns(
        self, start: int, batch: int, rank: int, ranks: int, even: bool
    ) -> Iterator[tuple[int, bool]]:
        """Yield, without end, the first position of each microbatch of part ``rank``, and whether
        it counts; see :meth:`stream`."""
        if batch % self.micro:
            raise ConfigError(f"batch={batch} is not a multiple of micro={self.micro}")
        for update in itertools.count(start, batch):
            for first, counts in _dealt(batch, self.micro, rank, ranks, even):
                yield update + first, counts

    def augmented(self, wanted: Iterable[Wanted]) -> Iterator[Batch]:
        """Yield the microbatches that are ``wanted``, augmented, read ahead."""
        return self._batches(wanted, self.augment)

    def sweep(
        self,
        rank: int = 0,
        ranks: int = 1,
        indices: Sequence[int] | np.ndarray | None = None,
        *,
        even: bool = False,
    ) -> Iterator[Batch]:
        """Yield every sample of the part (or ``indices``) once, in order, not augmented.

        Microbatch ``i`` belongs to part ``i % ranks``; the last one may be short. Positions are
        the samples' indices. even: as in :meth:`stream`.
        """
        chosen = self.selection.indices if indices is None else np.asarray(indices, np.int64)
        dealt = _dealt(len(chosen), self.micro, rank, ranks, even)
        pieces = ((chosen[first : first + self.micro], counts) for first, counts in dealt)
        return self._batches(((piece, piece, counts) for piece, counts in pieces), None)

    def _repeats(self) -> np.ndarray | None:
        balance, label = self.data.settings.balance, self.data.store.contents.label
        if not balance:
            return None
        if not label.has_classes:
            raise ConfigError(
                f"balance={balance} has no effect: labels of kind {label.kind} have no "
                f"classes to balance; leave it out"
            )
        return repeats(self.selection.sample_counts(), balance)

    def _batches(self, wanted: Iterable[Wanted], augment: Augment | None) -> Iterator[Batch]:
        selection = self.selection
        by_pixel = selection.grouping if selection.part != "all" else None
        groups = () if by_pixel is None else (by_pixel,)
        source = iter(wanted)
        ahead: deque = deque()
        while True:
            asked = time.perf_counter()
            with span("data"):
                for one in itertools.islice(source, self.prefetch + 1 - len(ahead)):
                    reading = self.data.store.read(
                        self._rows(one), self._modalities, label=self.data.labelled, groups=groups
                    )
                    ahead.append((one, reading))
                if not ahead:
                    return
                one, reading = ahead.popleft()
                batch = self._batch(one, reading.result(), augment)
            self.waited += time.perf_counter() - asked
            yield batch

    def _batch(
        self, wanted: Wanted, found: dict[str, np.ndarray], augment: Augment | None
    ) -> Batch:
        positions, indices, counts = wanted
        views: tuple[Tensor, ...] = ()
        seen: tuple[Tensor, ...] = ()
        if self.viewer is None:
            image, observed = self._image(found)
        else:
            second = None
            if self.partners is not None:
                second = self._image({n: v[len(indices) :] for n, v in found.items()})
                found = {n: v[: len(indices)] for n, v in found.items()}
            image, observed = self._image(found)
            views, seen = self.viewer(image, observed, positions, self.seed, second)
        other = None
        if self.partners is not None:
            other = self._known(self._rows(wanted)[len(indices) :], positions)
        target = self._target(found)
        groups = found.get(f"groups/{self.selection.grouping}")
        if target is None and groups is not None:  # pixels of other parts are seen, and no target
            observed &= self._tensor(self.selection.member(groups))[:, None]
        if self.viewer is None and augment is not None:
            image, observed, target = augment(image, observed, target, positions, self.seed)
        return Batch(
            image=image,
            valid=_in_every_band(observed),
            target=target,
            positions=self._tensor(positions),
            indices=self._tensor(indices),
            seed=draw.key(self.seed, int(positions[0]), "model"),
            keys=self._tensor(draw.keys(self.seed, positions, "task")),
            views=views,
            seen=tuple(map(_in_every_band, seen)),
            places=None if self.viewer is None else self._tensor(self._places(indices)),
            counts=counts,
            known=self._known(indices, positions),
            other=other,
        )

    def _rows(self, wanted: Wanted) -> np.ndarray:
        """Return the samples to be read; those of another date, if views are of two, come last."""
        positions, indices, _ = wanted
        if self.partners is None:
            return indices
        return np.concatenate([indices, self.partners.of(indices, positions, self.seed)])

    def _places(self, indices: np.ndarray) -> np.ndarray:
        """Return a number for each sample that no other has, but one that shows the same."""
        alike = indices if self.partners is None else self.partners.places[indices]
        return alike + (self.number << 40)

    def _known(self, indices: np.ndarray, positions: np.ndarray) -> Known:
        """Return what is known of samples beside their pixels, at their positions."""
        placed: dict[str, Any] = {
            name: self._tensor(each[indices]) for name, each in self.data.placed.items()
        }
        if not placed:
            return self.data.known
        keys = self._tensor(draw.keys(self.seed, positions, "known"))
        return dataclasses.replace(self.data.known, keys=keys, **placed)

    def _image(self, found: dict[str, np.ndarray]) -> tuple[Tensor, Tensor]:
        """Return all bands on one grid, (b, c, h, w) float32, and which pixels were observed."""
        import torch

        images, observed = [], []
        for modality, places, normalize in self._runs:
            raw = found[modality.name]
            every = places == list(range(raw.shape[1]))
            image, seen = normalize(self._tensor(raw if every else raw[:, places]))
            image, seen = resized(image, seen, self.data.grid, self.data.settings.resample)
            images.append(image)
            observed.append(seen)
        if len(images) == 1:
            return images[0], observed[0]
        return torch.cat(images, 1), torch.cat(observed, 1)

    def _target(self, found: dict[str, np.ndarray]) -> Tensor | None:
        if "label" not in found:
            return None
        groups = found.get(f"groups/{self.selection.grouping}")
        label = self.selection.restrict(found["label"], groups)
        return self._tensor(label) if label.dtype.kind == "f" else self._tensor(label).long()

    def _tensor(self, values: np.ndarray) -> Tensor:
        import torch

        tensor = torch.from_numpy(np.ascontiguousarray(values))
        if torch.device(self.device).type == "cuda":
            return tensor.pin_memory().to(self.device, non_blocking=True)
        return tensor.to(self.device)


def _in_every_band(observed: Tensor) -> Tensor:
    import torch

    return observed.view(torch.uint8).amin(1).bool()  # all(1), many times faster


def _dealt(
    samples: int, micro: int, rank: int, ranks: int, even: bool
) -> Iterator[tuple[int, bool]]:
    """Yield the first sample of each microbatch of part ``rank``, and whether it counts."""
    step = ranks * micro
    for start in range(0, samples, step):
        first = start + rank * micro
        if first < samples:
            yield first, True
        elif even:
            yield 0, False
