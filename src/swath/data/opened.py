"""A store as a run sees it: its bands, its parts, and what is read of each sample."""

from __future__ import annotations

import functools
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from swath.data.augment import Augment
from swath.data.bands import Channel, image_grid
from swath.data.chip import Known
from swath.data.few import fewer
from swath.data.loader import Loader
from swath.data.mix import Mixed
from swath.data.normalize import Normalizer
from swath.data.places import gsd_m, middles, times
from swath.data.seasons import check_seasons
from swath.data.sensor import Band
from swath.data.split import Part, Selection, select
from swath.data.stage import Staging
from swath.data.views import Views

if TYPE_CHECKING:
    import torch

    from swath.data.settings import DataSettings
    from swath.data.store import Store

log = logging.getLogger(__name__)


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
