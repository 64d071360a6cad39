"""What transformers over patches share: sizes by name, and how bands become tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from swath.config import ConfigError
from swath.models import Inputs, Model

if TYPE_CHECKING:
    from swath.nn.patch import PatchEmbed, SpectralPatchEmbed

Preset = Literal["tiny", "small", "base", "large", "huge", "1b", "3b", "15b"]

SIZES = {
    "tiny": (192, 12, 3),
    "small": (384, 12, 6),
    "base": (768, 12, 12),
    "large": (1024, 24, 16),
    "huge": (1280, 32, 16),
    "1b": (1536, 32, 16),
    "3b": (2816, 32, 32),
    "15b": (5040, 48, 48),
}
"""Preset -> width, depth and heads. Blocks have 12 * depth * width² weights.

To large: Touvron et al. 2021, arXiv:2012.12877, and Dosovitskiy et al. 2021, arXiv:2010.11929, as
is huge. From there on the series that was trained on geospatial imagery, Tsaris et al. 2024,
arXiv:2404.11706 (to 3b also Dias et al. 2024, arXiv:2410.19965); of it was checked that the formula
gives the number of parameters in the name. Its 5 B model is left out: width 1792, depth 56 and a
hidden layer of 15360 make 3.8 B, and 5.3 B only if that layer is gated, as none is here.
"""


@dataclass(frozen=True, kw_only=True)
class Transformer(Model):
    """Settings of a transformer over patches of the image."""

    preset: Preset | None = None
    """Usual sizes: 5.3, 21, 85, 302 or 629 M parameters in the blocks, then 0.9, 3 or 15 B; None:
    small. Width, depth and heads may be given in its place, all three or some."""
    width: int | None = None
    """Numbers in a token; None: the preset's (192, 384, 768, 1024 ...)."""
    depth: int | None = None
    """Blocks; None: the preset's (12, 12, 12, 24 ...)."""
    heads: int | None = None
    """Heads of attention, which divide the width; None: the preset's (3, 6, 12, 16 ...)."""
    patch: int = 8
    """Side of a patch in pixels. Half of it makes four times the tokens: finer, and slower by
    four times or more."""
    embed: Literal["bands", "wavelengths"] = "bands"
    """bands: weights of its own for every band, in the order of the bands. wavelengths: weights
    made from a band's wavelength, so that the network also takes other sensors: from Python, by
    its argument ``wavelengths``. ``swath predict`` asks for the bands of training, by name."""

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

    @property
    def shape(self) -> tuple[int, int, int]:
        """Width, depth and heads, from the preset where they are not given."""
        width, depth, heads = SIZES[self.preset or "small"]
        return (
            width if self.width is None else self.width,
            depth if self.depth is None else self.depth,
            heads if self.heads is None else self.heads,
        )

    def embedding(self, inputs: Inputs) -> PatchEmbed | SpectralPatchEmbed:
        """Return the layer that makes tokens of patches; ConfigError if ``inputs`` do not fit."""
        from swath.nn.patch import PatchEmbed, SpectralPatchEmbed

        if self.patch > inputs.size:
            raise ConfigError(
                f"patch={self.patch} is larger than the samples ({inputs.size} px);"
                f" make it {inputs.size} or less"
            )
        width, bands = self.shape[0], tuple(band.name for band in inputs.bands)
        if self.embed == "bands":
            return PatchEmbed(bands, self.patch, width)
        known = tuple(b.wavelength_nm for b in inputs.bands if b.wavelength_nm is not None)
        if len(known) < len(bands):
            without = [b.name for b in inputs.bands if b.wavelength_nm is None]
            raise ConfigError(
                f"embed=wavelengths: {', '.join(without)} have no wavelength; leave these"
                " bands out (data.bands) or set model.embed=bands"
            )
        return SpectralPatchEmbed(bands, known, self.patch, width)
