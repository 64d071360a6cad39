"""Vision transformer: an output for each image or for every pixel, from one sensor or several."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from swath.config import ConfigError
from swath.models import Inputs, Model, Outputs

if TYPE_CHECKING:
    from torch import nn

SIZES = {
    "tiny": (192, 12, 3),
    "small": (384, 12, 6),
    "base": (768, 12, 12),
    "large": (1024, 24, 16),
}
"""Preset -> width, depth and heads."""


@dataclass(frozen=True, kw_only=True)
class ViT(Model):
    """Transformer over patches of the image."""

    preset: Literal["tiny", "small", "base", "large"] | None = None
    """Usual sizes: 5.3, 21, 85 or 302 M parameters in the blocks; None: small. Width, depth and
    heads may be given in its place, all three or some."""
    width: int | None = None
    """Numbers in a token; None: the preset's (192, 384, 768 or 1024)."""
    depth: int | None = None
    """Blocks; None: the preset's (12, 12, 12 or 24)."""
    heads: int | None = None
    """Heads of attention, which divide the width; None: the preset's (3, 6, 12 or 16)."""
    patch: int = 8
    """Side of a patch in pixels. Half of it makes four times the tokens: finer, and slower by
    four times or more."""
    embed: Literal["bands", "wavelengths"] = "bands"
    """bands: weights of its own for every band, in the order of the bands. wavelengths: weights
    made from a band's wavelength, so that the network also takes other sensors: from Python, by
    its argument ``wavelengths``. ``swath predict`` asks for the bands of training, by name."""
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
        own = [n for n in ("width", "depth", "heads") if getattr(self, n) is not None]
        if self.preset is not None and own:
            raise ConfigError(
                f"preset={self.preset} has a {own[0]} of its own; leave out preset or"
                f" {', '.join(own)}. Without a preset, what is not given is that of small"
            )
        width, depth, heads = self.shape
        if min(width, depth, heads, self.patch) < 1 or width % heads:
            raise ConfigError(
                f"width={width} must be a multiple of heads={heads}, depth={depth} and"
                f" patch={self.patch} at least 1"
            )
        if self.positions == "waves" and width % 4:
            raise ConfigError(f"positions=waves needs a width that 4 divides, not {width}")
        if not 0 <= self.drop_path < 1:
            raise ConfigError(f"drop_path={self.drop_path} must be at least 0 and below 1")

    @property
    def shape(self) -> tuple[int, int, int]:
        """Width, depth and heads, from the preset where they are not given."""
        width, depth, heads = SIZES[self.preset or "small"]
        return (
            width if self.width is None else self.width,
            depth if self.depth is None else self.depth,
            heads if self.heads is None else self.heads,
        )

    def build(self, inputs: Inputs, outputs: Outputs) -> nn.Module:
        from swath.nn.patch import PatchEmbed, SpectralPatchEmbed
        from swath.nn.vit import ViT

        if outputs.dense and self.pool is not None:
            raise ConfigError(
                f"pool={self.pool} has no effect: the task wants an output at every pixel"
            )
        if self.patch > inputs.size:
            raise ConfigError(
                f"patch={self.patch} is larger than the samples ({inputs.size} px);"
                f" make it {inputs.size} or less"
            )
        width, depth, heads = self.shape
        bands = tuple(band.name for band in inputs.bands)
        embed: PatchEmbed | SpectralPatchEmbed
        if self.embed == "bands":
            embed = PatchEmbed(bands, self.patch, width)
        else:
            known = tuple(b.wavelength_nm for b in inputs.bands if b.wavelength_nm is not None)
            if len(known) < len(bands):
                without = [b.name for b in inputs.bands if b.wavelength_nm is None]
                raise ConfigError(
                    f"embed=wavelengths: {', '.join(without)} have no wavelength; leave these"
                    " bands out (data.bands) or set model.embed=bands"
                )
            embed = SpectralPatchEmbed(bands, known, self.patch, width)
        return ViT(
            embed,
            outputs.channels,
            size=inputs.size,
            patch=self.patch,
            width=width,
            depth=depth,
            heads=heads,
            pool=None if outputs.dense else self.pool or "token",
            positions=self.positions,
            drop_path=self.drop_path,
        )
