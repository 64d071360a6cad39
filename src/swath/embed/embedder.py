"""A trained model that answers with features: a vector for an image, or for each patch of it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from swath.config import ConfigError
from swath.data.chip import Known, Label
from swath.embed.settings import Embed, Pool
from swath.models import Outputs
from swath.nn.features import cells, layers_of
from swath.train.export import LoadedModel
from swath.train.precision import AUTOCAST


@dataclass(frozen=True)
class Embedder(LoadedModel):
    """A model of which only the features are asked; see :meth:`of`."""

    layer: str
    pool: Pool
    unit: int
    """Side in pixels of what a vector is of; 0: of the whole image."""
    width: int
    """Numbers in a vector."""

    @classmethod
    def of(cls, model: LoadedModel, settings: Embed, pool: Pool | None = None) -> Embedder:
        """Return ``model`` as one that answers with the features that ``settings`` ask for.

        pool: in place of that of the settings. ConfigError if the model has no such layer, or the
        layer no such features.
        """
        layer = settings.layer or getattr(model.network, "embeds", None)
        if layer is None:
            some = ", ".join(layers_of(model)[:8]) or "one of its named_modules()"
            raise ConfigError(
                f"{type(model.network).__name__} does not say which layer its embedding is after; "
                f"set embed.layer, such as {some}"
            )
        bands, size = len(model.inputs.bands), model.inputs.size
        weight = next(model.network.parameters())
        blank = torch.zeros(1, bands, size, size, dtype=weight.dtype, device=weight.device)
        found = cells(model, blank, layer)
        pool = pool or settings.pool or ("mean" if found.token is None else "token")
        if pool == "token" and found.token is None:
            raise ConfigError(
                f"embed.pool=token: layer {layer!r} has no class token; set embed.pool=mean"
            )
        if pool != "token" and found.map is None:
            raise ConfigError(
                f"embed.pool={pool}: layer {layer!r} has one vector for an image; leave pool out"
            )
        width = found.map.shape[1] if found.map is not None else found.token.shape[1]  # type: ignore[union-attr]
        unit = found.unit if pool == "patches" else 0
        return cls(model.network, model.objective, model.about, layer, pool, unit, width)

    def answer(self, image: Tensor, precision: str, known: Known | None = None) -> Tensor:
        """Return the features of normalised images, (b, width, gh, gw); 1 x 1 of whole images."""
        narrow = AUTOCAST.get(precision)
        image = image.to(next(self.network.parameters()).dtype)
        with torch.autocast(image.device.type, dtype=narrow, enabled=narrow is not None):
            found = cells(self.network, image, self.layer, known)
        if self.pool == "token":
            assert found.token is not None, "of() has looked"
            return found.token.float()[:, :, None, None]
        assert found.map is not None, "of() has looked"
        every = found.map.float()
        return every.mean((2, 3), keepdim=True) if self.pool == "mean" else every

    @property
    def outputs(self) -> Outputs:
        return Outputs(channels=self.width, dense=True)

    @property
    def label(self) -> Label:
        """Features are quantities."""
        names = tuple(f"{self.layer} {i}" for i in range(self.width))
        return Label(kind="raster", classes=names)
