"""Vision transformer: an output for each image or for every pixel, from one sensor or several."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from swath.config import ConfigError
from swath.models import Inputs, Outputs, check_outputs
from swath.models._transformer import Transformer

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class ViT(Transformer):
    """Transformer over patches of the image."""

    pool: Literal["token", "mean"] | None = None
    """What one output for each image is read from: a class token (None means that) or the mean
    of all tokens. Has no meaning for an output at every pixel."""
    positions: Literal["learned", "waves"] = "learned"
    """learned: a vector for each place, stretched to images of another size. waves: fixed sines
    and cosines, continued to images of another size."""
    drop_path: float = 0.0
    """Share of samples for which the last block is skipped in training, 0..1; earlier blocks
    less, the first never."""

    def __post_init__(self) -> None:
        super().__post_init__()
        width = self.shape[0]
        if self.positions == "waves" and width % 4:
            raise ConfigError(f"positions=waves needs a width that 4 divides, not {width}")
        if not 0 <= self.drop_path < 1:
            raise ConfigError(f"drop_path={self.drop_path} must be at least 0 and below 1")

    def build(self, inputs: Inputs, outputs: Outputs) -> nn.Module:
        from swath.nn.vit import ViT

        check_outputs(self, outputs)
        if outputs.dense and self.pool is not None:
            raise ConfigError(
                f"pool={self.pool} has no effect: the task wants an output at every pixel"
            )
        width, depth, heads = self.shape
        return ViT(
            self.embedding(inputs),
            outputs.channels,
            size=inputs.size,
            patch=self.patch,
            width=width,
            depth=depth,
            heads=heads,
            mlp=self.mlp,
            pool=None if outputs.dense else self.pool or "token",
            positions=self.positions,
            drop_path=self.drop_path,
            hidden=outputs.hidden,
        )
