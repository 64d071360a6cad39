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
import logging
import time
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from swath.config import ConfigError
from swath.data import draw
from swath.data.augment import Augment
from swath.data.balance import repeats
from swath.data.bands import Channel, find_bands, image_grid
from swath.data.chip import Batch, Known, Modality
from swath.data.few import Few, fewer
from swath.data.mix import Also, Mixed, check_alike
from swath.data.normalize import Normalize, Normalizer, normalizer
from swath.data.order import Order
from swath.data.places import gsd_m, middles, times
from swath.data.resample import resized
from swath.data.seasons import Partners, check_seasons
from swath.data.sensor import Band
from swath.data.split import Part, Selection, Split, select
from swath.data.stage import Stage, Staging
from swath.data.views import Viewer, Views
from swath.fields import free
from swath.span import span

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from swath.data.store import Store


log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class DataSettings:
    """What is learned from: a store, its bands, its parts."""

    store: str = free()
    """Folder of the store, made by `swath data build`; or an s3:// or gs:// address. What is in it
    counts, not where it lies."""
    bands: tuple[str, ...] | None = None
    """Bands in the order the model sees them, as B02, or s2/B02 if several images have one.
    None: all of them."""
    split: Split | None = None
    """Which samples are trained, validated and tested on; None: as the store was built."""
    labels: Few | None = None
    """Only some of the training part's labels, as labels: {share: 0.01}; None: all of them."""
    balance: float = 0.0
    """0 shows every training sample as often, 1 every class; between: in part."""
    normalize: Normalize = field(default_factory=Normalize)
    """How pixel values become inputs."""
    resample: Literal["nearest", "bilinear"] = "bilinear"
    """How coarse bands are brought to the pixels of the finest; matters for several resolutions."""
    also: tuple[Also, ...] = ()
    """Further stores that are trained on, with the same labels, if any are read, and the same bands
    and size of samples; with model.embed=wavelengths also with others. Each microbatch is of one
    store, and normalised by that store's statistics; the validation part of ``store`` alone
    chooses the best weights, and it alone is scored on."""
    weight: float = 1.0
    """The share of ``store`` in the microbatches, relative to the weights in ``also``."""
    stage: Stage | None = free(None)
    """Copies of shards on a disk of each node; None: every node reads the store itself."""

    def __post_init__(self) -> None:
        if not 0 <= self.balance <= 1:
            raise ConfigError(f"balance={self.balance} must be in 0..1")
        if self.bands is not None and not self.bands:
            raise ConfigError("bands is empty; name some, or leave it out for all of them")
        if not self.weight > 0:
            raise ConfigError(f"weight={self.weight:g} must be above 0")
        if not self.also and self.weight != 1:
            raise ConfigError(f"weight={self.weight:g} has no effect without also; leave it out")

    def open(self, labels: bool = True, asks: Collection[str] = ()) -> Data:
        """Return the data these settings mean; ConfigError if the store does not have it.

        labels: whether the store's labels are read. asks: what beside images the model and the
        task heed (``swath.data.chip.ASKS``); where bands are heeded, further stores may have
        others, and samples of another size.
        """
        from swath.data.store import Store

        stores = [self.store, *(one.store for one in self.also)]
        if len(set(stores)) < len(stores):
            raise ConfigError(f"also: a store is there twice, of {', '.join(stores)}")
        store = Store.open(self.store)
        channels = find_bands(store.contents, self.bands, self.store)
        train = select(store, self.split, "train")
        stats = None
        if self.normalize.kind == "standardize":
            from swath.data.stats import statistics

            known = statistics(store, train)
            stats = [known[m.name][i] for m, i in channels]
        normalize = normalizer(self.normalize, [(m.sensor, i) for m, i in channels], stats)
        labelled = labels and store.contents.label.kind != "none"
        any_bands = "bands" in asks
        also = tuple(self._other(one, any_bands).open(labels, asks) for one in self.also)
        found = Data(self, store, tuple(channels), normalize, labelled, also, frozenset(asks))
        check_alike((found, *also), any_bands=any_bands)
        if "gsd_m" in asks and found.known.gsd_m is None:
            raise ConfigError(
                f"{self.store}: does not say how large its pixels are, and the model counts places "
                "in metres; give its sensor a gsd_m, or set model.positions=waves"
            )
        return found

    def alone(self, any_bands: bool = False) -> DataSettings:
        """Return the settings of ``store`` alone: for what only looks at it. If it is one of
        ``also``, as in other words than at training, those that it has there.

        any_bands: whether the model takes any.
        """
        for one in self.also:
            if one.store.rstrip("/") == self.store.rstrip("/"):
                return self._other(one, any_bands)
        return dataclasses.replace(self, also=(), weight=1.0)

    def _other(self, one: Also, any_bands: bool) -> DataSettings:
        """Return what is read of a further store."""
        bands = self.bands if one.bands is None and not any_bands else one.bands
        return dataclasses.replace(
            self, store=one.store, bands=bands, split=one.split, also=(), weight=1.0
        )


@dataclass(frozen=True)
class Data:
    """An open store, as a run sees it."""

    settings: DataSettings
    store: Store
    channels: tuple[Channel, ...]
    """For each band of the model's input: its modality and its place there."""
    normalize: Normalizer
    labelled: bool = True
    """Whether labels are read."""
    also: tuple[Data, ...] = ()
    """Further stores that are trained on."""
    asks: frozenset[str] = frozenset()
    """What beside images is read; see Known."""

    def check_same(self) -> None:
        """Raise ConfigError if a store was replaced since it was opened."""
        for data in (self, *self.also):
            data.store.check_same()

    @property
    def bands(self) -> tuple[Band, ...]:
        """The bands of the model's input, in order."""
        return tuple(m.sensor.bands[i] for m, i in self.channels)

    @property
    def grid(self) -> tuple[int, int]:
        """Height and width of images: of the label if it is a map, else of the finest band."""
        return image_grid(self.store.contents, self.channels)

    @functools.cached_property
    def known(self) -> Known:
        """What is known of all samples of the store alike."""
        gsd = gsd_m(self.store, self.channels) if "gsd_m" in self.asks else None
        return Known(bands=self.bands, gsd_m=gsd)

    @functools.cached_property
    def placed(self) -> dict[str, np.ndarray]:
        """Where and when every sample was seen (n, 2), as far as that is asked for."""
        each = {"where": middles, "when": times}
        return {name: read(self.store) for name, read in each.items() if name in self.asks}

    def stage(self) -> Staging | None:
        """Read from copies near this node from now on, if the settings say so; of mode copy, when
        all are there. ConfigError if the folder cannot be written or has no room."""
        settings = self.settings.stage
        if settings is None:
            return None
        for data in self.also:
            data.stage()
        self.store.staging = Staging(settings, self.store)
        if settings.mode == "copy":
            self.store.staging.fill(self.arrays())
        return self.store.staging

    def arrays(self) -> list[str]:
        """Return the names of the sharded arrays that learning reads."""
        grouping = self.select("train").grouping
        names = [m.name for m, _ in self.channels]
        names += ["label"] if self.labelled else []
        names += [f"groups/{grouping}"] if grouping is not None else []
        return [n for n in dict.fromkeys(names) if not self.store.specs[n].column]

    def select(self, part: Part) -> Selection:
        """Return one part of the store under the run's split; of the training part what its few
        labels are, if so it is set."""
        found = select(self.store, self.settings.split, part)
        few = self.settings.labels
        return found if few is None or part in ("val", "test") else fewer(found, few)

    def loader(
        self,
        part: Part,
        *,
        micro: int,
        seed: int = 0,
        augment: Augment | None = None,
        views: Views | None = None,
        prefetch: int = 4,
        device: str | torch.device = "cpu",
    ) -> Loader:
        """Return a loader of one part of the store; see :class:`Loader`."""
        return Loader(
            self,
            self.select(part),
            micro=micro,
            seed=seed,
            augment=augment or Augment(),
            views=views,
            prefetch=prefetch,
            device=device,
        )

    def training(self, **how: Any) -> Loader | Mixed:
        """Return a loader of what is trained on, of this store and of ``also``; ``how`` is as in
        :meth:`loader`."""
        loaders = [data.loader("train", **how) for data in (self, *self.also)]
        if partners := [one.partners for one in loaders if one.partners is not None]:
            found, samples = sum(p.found for p in partners), sum(p.samples for p in partners)
            check_seasons(found, samples)
            log.info(
                "%d of %d samples have a partner of another date; the others' views are all of one",
                *(found, samples),
            )
        if not self.also:
            return loaders[0]
        weights = [self.settings.weight, *(one.weight for one in self.settings.also)]
        return Mixed(loaders, weights)


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
            other = None
            if self.partners is not None:
                other = self._image({n: v[len(indices) :] for n, v in found.items()})
                found = {n: v[: len(indices)] for n, v in found.items()}
            image, observed = self._image(found)
            views, seen = self.viewer(image, observed, positions, self.seed, other)
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
            known=self._known(indices),
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

    def _known(self, indices: np.ndarray) -> Known:
        """Return what is known of samples beside their pixels."""
        placed: dict[str, Any] = {
            name: self._tensor(each[indices]) for name, each in self.data.placed.items()
        }
        return dataclasses.replace(self.data.known, **placed) if placed else self.data.known

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
