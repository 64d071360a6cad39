"""Learning from images without labels: patches are hidden, and the network fills them in.

Which patches are hidden is drawn for each sample by the run's seed and the sample's position, in
evaluation by its index: never by a rank, nor by the sample's place in a microbatch. So a score is
the same each time, and two models of equal patches are asked the same.

Beside whole patches, bands of the patches that are shown may be hidden and asked for: in each
sample the same ones in all its patches, as if another sensor had seen it (channels left out at
random: Bao et al. 2023, arXiv:2309.16108), one by one or in groups of like bands (Cong et al. 2022,
arXiv:2207.08051). The network is shown 0 in their place, the mean.

What was not observed is never a target: a pixel that lacks a band counts nowhere, and a hidden
patch counts by the pixels that were observed.

Source: He et al. 2022, arXiv:2111.06377.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from swath.config import ConfigError
from swath.data.chip import Batch, Label
from swath.models import Inputs, Outputs
from swath.tasks import Task
from swath.tasks._classes import full
from swath.tasks._figures import larger_is_better
from swath.tasks._tally import Tally, loss_sums

if TYPE_CHECKING:
    from torch import Tensor, nn

_OF_BANDS = 0x5BD1E995
"""Sets draws of bands apart from draws of patches by the same keys."""


@dataclass(frozen=True, kw_only=True)
class Pretrain(Task):
    """Fill in hidden patches; no labels are read. Wants ``model.kind=mae``, which says how much is
    hidden."""

    labels: ClassVar[tuple[str, ...] | None] = None
    learns: ClassVar[str] = "Hidden patches filled in"

    normalise: bool = True
    """Whether each hidden patch is to be told apart from its own mean, in units of its own standard
    deviation (over its observed pixels and all bands): the paper's better features. Else it is to
    be told as the network sees images."""

    best: Literal["loss", "r2"] = "loss"
    """Figure on the validation part that chooses the best checkpoint."""

    @property
    def shows(self) -> Literal["filled"]:
        return "filled"

    def bind(
        self, label: Label, counts: np.ndarray | None, inputs: Inputs | None = None
    ) -> FillObjective:
        if inputs is None:
            raise ConfigError("task pretrain learns the bands themselves: bind() needs inputs")
        return FillObjective(
            outputs=Outputs(channels=len(inputs.bands), dense=True, masked=True),
            bands=tuple(band.name for band in inputs.bands),
            normalise=self.normalise,
            best=self.best,
            larger_is_better=larger_is_better(self.best),
        )


@dataclass(frozen=True, kw_only=True)
class FillObjective:
    """Fill in hidden patches of images (b, c, h, w); see :class:`swath.tasks.Objective`.

    The network is a :class:`swath.nn.mae.MaskedAutoencoder`, or one that is used alike.
    """

    outputs: Outputs
    bands: tuple[str, ...]
    normalise: bool
    best: str
    larger_is_better: bool

    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        error, _, wanted = self._errors(model, batch)
        return (error**2).sum() / error.shape[3], wanted.double().sum() / wanted.shape[3]

    def score(self, model: nn.Module, batch: Batch) -> Filled:
        error, target, wanted = (t.double() for t in self._errors(model, batch))
        sums = {
            "count": wanted.expand_as(error).sum((0, 1, 2)),
            "squared": (error**2).sum((0, 1, 2)),
            "target": target.sum((0, 1, 2)),
            "target_squared": (target**2).sum((0, 1, 2)),
        }
        found = {name: value.cpu().numpy() for name, value in sums.items()}
        return Filled.of(found, self.bands)

    def empty(self) -> Filled:
        none = np.zeros(len(self.bands))
        sums = {"count": none, "squared": none, "target": none, "target_squared": none}
        return Filled.of(sums, self.bands)

    def predict(self, model: nn.Module, image: Tensor) -> Tensor:
        """Return what the network makes of images (b, c, h, w) that are shown to it whole."""
        import torch

        observed = torch.ones_like(image[:, 0], dtype=torch.bool)
        return self._in_units(full(model(image)), image, observed, model)

    def filled(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the images (b, c, h, w) with all that was hidden filled in, and what was hidden
        (b, c, h, w), bool; with ``normalise``, of a patch's own mean and deviation."""
        import torch

        from swath.data.draw_tensor import orders
        from swath.nn.mae import joined

        patches, count, _ = model.numbers(*batch.image.shape[-2:])  # type: ignore[operator]
        shown, hidden = orders(self._keys(batch), patches).tensor_split([count], 1)
        found, places, bands = self._answer(model, batch, shown, hidden)
        every, observed = _cut(full(batch.image), batch.valid, model)
        rows = places[:, :, None, None]
        if self.normalise:
            mean, deviation = moments(every, observed)
            found = found * deviation.gather(1, rows) + mean.gather(1, rows)
        rows = rows.expand_as(found)
        bands = bands.expand_as(found)
        found = torch.where(bands, found.to(every), every.gather(1, rows))
        where = every.new_zeros(every.shape, dtype=torch.bool).scatter(1, rows, bands)
        (height, width), grid = batch.image.shape[-2:], model.grid_of(batch.image)  # type: ignore[operator]
        image, hidden = (
            joined(each.flatten(2), grid, batch.image.shape[1])[..., :height, :width]
            for each in (every.scatter(1, rows, found), where)
        )
        return image, hidden

    def kept(self, model: nn.Module, batch: Batch) -> Tensor | None:
        """Return which bands (b, c) the patches shown have, bool; None: all of them."""
        from swath.data.draw_tensor import orders

        groups, hidden = model.bands_hidden(batch.image.shape[1], batch.bands)  # type: ignore[operator]
        if not hidden:
            return None
        order = orders(self._keys(batch) ^ _OF_BANDS, max(groups) + 1)
        kept = order.new_ones(order.shape).scatter(1, order[:, :hidden], 0)
        return kept.bool()[:, list(groups)]

    def _answer(
        self, model: nn.Module, batch: Batch, shown: Tensor, asked: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return what the network fills in (b, m, p², c), in which patches (b, m), and which of
        their bands (b, m, 1, c) it was not shown; the latter may be of one band for all."""
        import torch

        kept, image, told = self.kept(model, batch), batch.image, batch.told(model)
        bands = torch.ones_like(asked, dtype=torch.bool)[:, :, None, None]
        if kept is None:
            places = asked
        else:
            image, told["both"] = image * kept[:, :, None, None], True
            places = torch.cat([shown, asked], 1)
            lacking = ~kept[:, None, None].expand(-1, shown.shape[1], -1, -1)
            bands = torch.cat([lacking, bands.expand(-1, -1, -1, image.shape[1])], 1)
        found = full(model(image, shown, asked, **told))
        return found.unflatten(2, (-1, batch.image.shape[1])), places, bands

    def drawn(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the numbers of the patches shown (b, k) and asked for (b, m) of each sample."""
        from swath.data.draw_tensor import orders

        patches, shown, asked = model.numbers(*batch.image.shape[-2:])  # type: ignore[operator]
        order = orders(self._keys(batch), patches)
        return order[:, :shown], order[:, shown : shown + asked]

    @staticmethod
    def _keys(batch: Batch) -> Tensor:
        assert batch.keys is not None, "the batch has no keys to draw by"
        return batch.keys

    def _errors(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Return errors and targets (b, m, p², c) of the patches asked for, and which of them are
        targets (b, m, p², c), or (b, m, p², 1) for all bands alike; elsewhere they are 0."""
        found, places, bands = self._answer(model, batch, *self.drawn(model, batch))
        target, observed = _cut(full(batch.image), batch.valid, model)
        rows = places[:, :, None].expand(-1, -1, observed.shape[2])
        observed = observed.gather(1, rows)
        target = target.gather(1, rows[..., None].expand(-1, -1, -1, target.shape[3]))
        if self.normalise:
            mean, deviation = moments(target, observed)
            target = (target - mean) / deviation
        wanted = observed[..., None] & bands
        target = target.where(wanted, 0.0)
        return (found - target).where(wanted, 0.0), target, wanted

    def _in_units(self, found: Tensor, image: Tensor, valid: Tensor, model: nn.Module) -> Tensor:
        """Return an image of the network's outputs as normalised as ``image``."""
        from swath.nn.mae import joined

        if not self.normalise:
            return found
        target, observed = _cut(full(image), valid, model)
        mean, deviation = moments(target, observed)
        patches, _ = _cut(found, valid, model)
        patches = (patches * deviation + mean).flatten(2)
        height, width = image.shape[-2:]
        return joined(patches, model.grid_of(image), image.shape[1])[..., :height, :width]  # type: ignore[operator]


def _cut(image: Tensor, valid: Tensor, model: nn.Module) -> tuple[Tensor, Tensor]:
    """Return all patches (b, n, p², c) of an image, and which of their pixels were observed
    (b, n, p²); what the network adds at the edges was not."""
    from torch.nn.functional import pad

    from swath.nn.mae import patches_of

    patch: int = model.patch  # type: ignore[assignment]
    height, width = image.shape[-2:]
    margin = (0, -width % patch, 0, -height % patch)
    cut = patches_of(pad(image, margin), patch).unflatten(2, (-1, image.shape[1]))
    return cut, patches_of(pad(valid, margin)[:, None], patch)


def moments(patches: Tensor, observed: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation (b, m, 1, 1) of patches (b, m, p², c) over their observed
    pixels (b, m, p²) and all bands; the deviation with a millionth more variance."""
    there = observed[..., None]
    count = observed.sum(2)[..., None, None] * patches.shape[3]
    mean = patches.where(there, 0.0).sum((2, 3), keepdim=True) / count.clamp(min=1)
    squares = ((patches - mean).where(there, 0.0) ** 2).sum((2, 3), keepdim=True)
    return mean, (squares / (count - 1).clamp(min=1) + 1e-6).sqrt()


@dataclass(frozen=True)
class Filled(Tally):
    """Sums over the observed pixels that were to be filled in, for each band."""

    bands: tuple[str, ...]

    @classmethod
    def of(cls, sums: dict[str, np.ndarray], bands: tuple[str, ...]) -> Filled:
        """Return the tally of ``count`` pixels, ``squared`` errors, ``target`` and
        ``target_squared``, (c,) of each band."""
        loss = float(sums["squared"].sum()) / len(bands)
        return cls({**sums, **loss_sums(loss, float(sums["count"].sum() / len(bands)))}, bands)

    def finish(self) -> dict[str, float]:
        """Return loss, the mean over pixels and bands of the squared error; r2, the share of what
        was to be filled in that was, its mean over bands and of each, r2/<band>."""
        sums = self.sums
        with np.errstate(divide="ignore", invalid="ignore"):
            spread = sums["target_squared"] - sums["target"] ** 2 / sums["count"]
            r2 = 1 - sums["squared"] / spread
        known = sums["count"] > 0
        each = {f"r2/{name}": float(value) for name, value in zip(self.bands, r2, strict=True)}
        return {
            **self._loss(),
            "r2": float(r2[known].mean()) if known.any() else float("nan"),
            **(each if len(r2) > 1 else {}),
        }
