"""Learning from images without labels: patches are hidden, and the network fills them in.

Which patches are hidden is drawn for each sample by the run's seed and the sample's position, in
evaluation by its index: never by a rank, nor by the sample's place in a microbatch. So a score is
the same each time, and two models of equal patches are asked the same.

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


@dataclass(frozen=True, kw_only=True)
class Pretrain(Task):
    """Fill in hidden patches; no labels are read. Wants ``model.kind=mae``, which says how much is
    hidden."""

    labels: ClassVar[tuple[str, ...] | None] = None

    normalise: bool = True
    """Whether each hidden patch is to be told apart from its own mean, in units of its own standard
    deviation (over its observed pixels and all bands): the paper's better features. Else it is to
    be told as the network sees images."""

    best: Literal["loss", "r2"] = "loss"
    """Figure on the validation part that chooses the best checkpoint."""

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
        error, _, observed = self._errors(model, batch)
        return (error**2).sum() / error.shape[3], observed.double().sum()

    def score(self, model: nn.Module, batch: Batch) -> Filled:
        error, target, observed = (t.double() for t in self._errors(model, batch))
        sums = {
            "count": observed.sum(),
            "squared": (error**2).sum((0, 1, 2)),
            "target": target.sum((0, 1, 2)),
            "target_squared": (target**2).sum((0, 1, 2)),
        }
        found = {name: value.cpu().numpy() for name, value in sums.items()}
        return Filled.of(found, self.bands)

    def empty(self) -> Filled:
        zero, none = np.zeros(()), np.zeros(len(self.bands))
        sums = {"count": zero, "squared": none, "target": none, "target_squared": none}
        return Filled.of(sums, self.bands)

    def predict(self, model: nn.Module, image: Tensor) -> Tensor:
        """Return what the network makes of images (b, c, h, w) that are shown to it whole."""
        import torch

        observed = torch.ones_like(image[:, 0], dtype=torch.bool)
        return self._in_units(full(model(image)), image, observed, model)

    def filled(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the images (b, c, h, w) with all hidden patches filled in, and which pixels were
        hidden (b, h, w); with ``normalise``, of a patch's own mean and deviation."""
        from swath.data.draw_tensor import orders
        from swath.nn.mae import joined

        patches, count, _ = model.numbers(*batch.image.shape[-2:])  # type: ignore[operator]
        shown, hidden = orders(self._keys(batch), patches).tensor_split([count], 1)
        bands = batch.image.shape[1]
        found = full(model(batch.image, shown, hidden, **batch.told(model)))
        found = found.unflatten(2, (-1, bands))
        every, observed = _cut(full(batch.image), batch.valid, model)
        places = hidden[:, :, None, None].expand_as(found)
        if self.normalise:
            mean, deviation = moments(every, observed)
            here = hidden[:, :, None, None]
            found = found * deviation.gather(1, here) + mean.gather(1, here)
        where = observed.new_zeros(observed.shape).scatter(1, places[..., 0], True)
        (height, width), grid = batch.image.shape[-2:], model.grid_of(batch.image)  # type: ignore[operator]
        image = joined(every.scatter(1, places, found.to(every)).flatten(2), grid, bands)
        return image[..., :height, :width], joined(where, grid, 1)[:, 0, :height, :width]

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
        """Return errors and targets (b, m, p², c) of the patches asked for, 0 where not observed,
        and where they were observed (b, m, p²)."""
        shown, asked = self.drawn(model, batch)
        bands = batch.image.shape[1]
        found = full(model(batch.image, shown, asked, **batch.told(model)))
        found = found.unflatten(2, (-1, bands))
        target, observed = _cut(full(batch.image), batch.valid, model)
        rows = asked[:, :, None].expand(-1, -1, observed.shape[2])
        observed = observed.gather(1, rows)
        target = target.gather(1, rows[..., None].expand(-1, -1, -1, bands))
        if self.normalise:
            mean, deviation = moments(target, observed)
            target = (target - mean) / deviation
        there = observed[..., None]
        target = target.where(there, 0.0)
        return (found - target).where(there, 0.0), target, observed

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
        """Return the tally of ``count`` pixels, and ``squared`` errors, ``target`` and
        ``target_squared`` (c,) of each band."""
        loss = float(sums["squared"].sum()) / len(bands)
        return cls({**sums, **loss_sums(loss, float(sums["count"]))}, bands)

    def finish(self) -> dict[str, float]:
        """Return loss, the mean over pixels and bands of the squared error; r2, the share of what
        was to be filled in that was, its mean over bands and of each, r2/<band>."""
        sums = self.sums
        with np.errstate(divide="ignore", invalid="ignore"):
            spread = sums["target_squared"] - sums["target"] ** 2 / sums["count"]
            r2 = 1 - sums["squared"] / spread
        each = {f"r2/{name}": float(value) for name, value in zip(self.bands, r2, strict=True)}
        return {**self._loss(), "r2": float(r2.mean()), **(each if len(r2) > 1 else {})}
