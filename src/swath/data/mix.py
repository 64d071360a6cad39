"""Several stores in one run: which of them each microbatch comes from, and which samples of it.

Every microbatch is of one store. They are dealt out in rounds of a fixed length: in each round a
store gets its share of the microbatches, in an order drawn anew from the seed and the number of
the round. So for any microbatch of the endless run it is known, without what came before, which
store it is of and how many of that store came before it; and a store's own samples follow each
other in its own order, each once in an epoch of that store, whoever reads them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from swath.config import ConfigError
from swath.data import draw
from swath.data.chip import Batch
from swath.data.order import Order
from swath.data.sensor import check_light
from swath.data.split import Split

if TYPE_CHECKING:
    from swath.data.loader import Loader, Wanted
    from swath.data.opened import Data

ROUND = 100
"""Microbatches of a round: shares are kept to a hundredth, exactly, in each."""


@dataclass(frozen=True, kw_only=True)
class Also:
    """A further store that is trained on."""

    store: str
    """Folder or address of the store."""
    bands: tuple[str, ...] | None = None
    """Its bands, as data.bands. None: those of data.bands; with model.embed=wavelengths all of
    the store's own."""
    weight: float = 1.0
    """Its share of the microbatches, relative to ``data.weight`` and to the other stores'."""
    split: Split | None = None
    """Which of its samples are trained on; None: as it was built."""

    def __post_init__(self) -> None:
        if not self.weight > 0:
            raise ConfigError(f"weight={self.weight:g} must be above 0")
        if self.bands is not None and not self.bands:
            raise ConfigError("bands is empty; name some, or leave it out")


class Shares:
    """Which of several stores each microbatch of a run is of."""

    def __init__(self, weights: Sequence[float], seed: int) -> None:
        """weights: relative, one for each store."""
        exact = np.asarray(weights, np.float64) / sum(weights) * ROUND
        counts = np.floor(exact).astype(np.int64)
        over = np.argsort(counts - exact, kind="stable")[: ROUND - counts.sum()]
        counts[over] += 1  # the largest remainders
        if (counts < 1).any():
            raise ConfigError(
                f"weights {', '.join(f'{w:g}' for w in weights)}: each store needs at least one "
                f"microbatch in {ROUND}; give the smallest more weight, or leave that store out"
            )
        self.counts = counts
        """Microbatches of each store in a round."""
        self._of = np.repeat(np.arange(len(counts)), counts)
        self._order = Order(ROUND, draw.key(seed, 0, "stores"))

    def of(self, number: int) -> tuple[int, int]:
        """Return which store microbatch ``number`` of the run is of, and how many of that store
        came before it."""
        turn, place = divmod(number, ROUND)
        stores = self._of[self._order.index(np.arange(turn * ROUND, turn * ROUND + place + 1))]
        store = int(stores[-1])
        return store, turn * int(self.counts[store]) + int((stores[:-1] == store).sum())


class Mixed:
    """Training microbatches of several stores; like a :class:`swath.data.loader.Loader`."""

    def __init__(self, loaders: Sequence[Loader], weights: Sequence[float]) -> None:
        """loaders: of the same seed and microbatch."""
        self.loaders = tuple(loaders)
        for number, loader in enumerate(loaders):
            loader.number = number
        self.micro, self.seed = loaders[0].micro, loaders[0].seed
        self.shares = Shares(weights, self.seed)

    @property
    def waited(self) -> float:
        """Seconds from asking for microbatches to having them, summed."""
        return sum(loader.waited for loader in self.loaders)

    def stream(
        self, start: int, batch: int, rank: int = 0, ranks: int = 1, *, even: bool = False
    ) -> Iterator[Batch]:
        """Yield, without end, the training microbatches of part ``rank`` of ``ranks``, as
        :meth:`swath.data.loader.Loader.stream` does."""
        if start % self.micro:
            raise ConfigError(f"start={start} is not a multiple of micro={self.micro}")

        def dealt() -> Iterator[tuple[int, int, int, bool]]:
            """Yield the store, how many of it came before, the first position, and whether it
            counts, of each microbatch of this part."""
            for position, counts in self.loaders[0].turns(start, batch, rank, ranks, even):
                yield *self.shares.of(position // self.micro), position, counts

        def wanted(store: int) -> Iterator[Wanted]:
            order, indices = self.loaders[store].order, self.loaders[store].selection.indices
            within = np.arange(self.micro)
            for which, before, position, counts in dealt():
                if which == store:
                    found = order.index(before * self.micro + within)
                    yield position + within, indices[found], counts

        streams = [loader.augmented(wanted(i)) for i, loader in enumerate(self.loaders)]
        return (next(streams[which]) for which, *_ in dealt())


def check_alike(every: Sequence[Data], *, any_bands: bool = False) -> None:
    """Raise ConfigError if stores of one run cannot be handed to the same model and task.

    any_bands: the model takes any bands, and samples of any size.
    """
    first, *others = every
    for data in others:
        one, wanted = _kinds(data), _kinds(first)
        for what in ("labels of kind",) if any_bands else one:
            if one[what] != wanted[what]:
                hint = "" if what == "labels of kind" else _ANY
                raise ConfigError(
                    f"data.also: {data.settings.store} has {what} {one[what]}, and data.store "
                    f"{first.settings.store} {wanted[what]}; the stores of a run are alike in that"
                    f"{hint}"
                )
        if not any_bands:
            check_light(first.bands, data.bands, f"data.also: {data.settings.store}: ")


_ANY = ", unless the model makes its weights from wavelengths: a vit or mae with"
_ANY += " model.embed=wavelengths"


def _kinds(data: Data) -> dict[str, str]:
    label = data.store.contents.label
    told = f"{label.kind} {', '.join(label.classes)}".strip() if data.labelled else "none"
    height, width = data.grid
    return {
        "bands": ", ".join(band.name for band in data.bands),
        "samples of": f"{height} x {width} px",
        "labels of kind": told,
    }
