"""Vision transformer: an output for each image or for every pixel, from one sensor or several."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from swath.config import ConfigError, plain
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
    positions: Literal["learned", "waves", "metres"] = "learned"
    """learned: a vector for each place, stretched to images of another size. waves: fixed sines
    and cosines, continued to images of another size. metres: waves that count places on the
    ground, in steps of 10 m a pixel, so that the network is told how large pixels are."""
    decoder: Literal["patch", "linear", "upernet"] | None = None
    """Only for an output at every pixel. patch: each token writes its patch (None means that).
    linear: each token says one value or class, and pixels between tokens are told bilinearly;
    little to learn. upernet: convolutions on the tokens of four blocks, at four sizes; most to
    learn, and the slowest."""
    decoder_width: int | None = None
    """Only for decoder=upernet: its channels; None: 64. Time grows with its square."""
    reads: tuple[int, ...] | None = None
    """Only for decoder=upernet: the four blocks whose tokens it reads, counted from 0, the finest
    level's first, the last block last; None: at a quarter, half, three quarters and the end."""
    drop_path: float = 0.0
    """Share of samples for which the last block is skipped in training, 0..1; earlier blocks
    less, the first never."""

    def __post_init__(self) -> None:
        super().__post_init__()
        width = self.shape[0]
        if self.positions != "learned" and width % 4:
            raise ConfigError(
                f"positions={self.positions} needs a width that 4 divides, not {width}"
            )
        if not 0 <= self.drop_path < 1:
            raise ConfigError(f"drop_path={self.drop_path} must be at least 0 and below 1")
        for name in ("decoder_width", "reads"):
            if getattr(self, name) is not None and self.decoder != "upernet":
                raise ConfigError(
                    f"{name}={plain(getattr(self, name))} has no effect with decoder="
                    f"{self.decoder or 'patch'}; leave it out or set decoder=upernet"
                )
        if self.decoder_width is not None and self.decoder_width < 2:
            raise ConfigError(f"decoder_width={self.decoder_width} must be at least 2")
        if self.reads is not None:
            rising = list(self.reads) == sorted(self.reads) and min(self.reads, default=-1) >= 0
            if len(self.reads) != 4 or not rising or self.reads[-1] != self.shape[1] - 1:
                raise ConfigError(
                    f"reads={list(self.reads)} must be four blocks in rising order, counted from 0,"
                    f" of which the last is {self.shape[1] - 1}, as {list(self._quarters)}"
                )

    @property
    def _quarters(self) -> tuple[int, ...]:
        depth = self.shape[1]
        return tuple(max(1, depth * n // 4) - 1 for n in (1, 2, 3, 4))

    def build(self, inputs: Inputs, outputs: Outputs) -> nn.Module:
        from swath.nn.vit import ViT

        check_outputs(self, outputs)
        if outputs.dense and self.pool is not None:
            raise ConfigError(
                f"pool={self.pool} has no effect: the task wants an output at every pixel"
            )
        if not outputs.dense and self.decoder is not None:
            raise ConfigError(
                f"decoder={self.decoder} has no effect: the task wants one output for each image"
            )
        upernet = self.decoder == "upernet"
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
            positions="learned" if self.positions == "learned" else "waves",
            drop_path=self.drop_path,
            hidden=outputs.hidden,
            decoder=self.decoder or "patch",
            decoder_width=64 if self.decoder_width is None else self.decoder_width,
            reads=(self.reads or self._quarters) if upernet else (),
            **self.further(inputs),
        )
