"""What is learned from: the settings of a run's data, and how they are opened."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from swath.config import ConfigError
from swath.data.bands import find_bands
from swath.data.few import Few
from swath.data.mix import Also, check_alike
from swath.data.normalize import Normalize, normalizer
from swath.data.opened import Data
from swath.data.split import Split, select
from swath.data.stage import Stage
from swath.fields import free

if TYPE_CHECKING:
    from swath.data.store import Store


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
    chooses the best weights; those of further stores that have one are scored too, as val@NAME."""
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
        _check_different([store, *(one.store for one in also)])
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
        one = self._same()
        if one is not None:
            return self._other(one, any_bands)
        return dataclasses.replace(self, also=(), weight=1.0)

    @property
    def is_further(self) -> bool:
        """Whether ``store`` is one of ``also``, as in other words than at training."""
        return self._same() is not None

    def _same(self) -> Also | None:
        """Return which of ``also`` is ``store``."""
        own = self.store.rstrip("/")
        return next((one for one in self.also if one.store.rstrip("/") == own), None)

    def _other(self, one: Also, any_bands: bool) -> DataSettings:
        """Return what is read of a further store."""
        bands = self.bands if one.bands is None and not any_bands else one.bands
        return dataclasses.replace(
            self, store=one.store, bands=bands, split=one.split, also=(), weight=1.0
        )


def _check_different(stores: Sequence[Store]) -> None:
    """Raise ConfigError if two of ``stores`` hold the same: then what is held out of the one may
    be trained on in the other."""
    seen: dict[str, Store] = {}
    for store in stores:
        other = seen.setdefault(store.fingerprint, store)
        if other is not store:
            raise ConfigError(
                f"also: {store.path} and {other.path} hold the same samples, be it one store by two"
                " names or a copy; leave one of them out"
            )
