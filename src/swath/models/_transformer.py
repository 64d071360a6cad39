"""What transformers over patches share: sizes by name, and how bands become tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from swath.config import ConfigError
from swath.models import Inputs, Model
from swath.models._channels import Channels

if TYPE_CHECKING:
    from swath.nn.channels import ChannelEmbed
    from swath.nn.patch import PatchEmbed, SpectralPatchEmbed

    Embedding = PatchEmbed | SpectralPatchEmbed | ChannelEmbed

GSD_M = 10.0
"""Metres a pixel of the training samples of a network that does not say."""

Preset = Literal["tiny", "small", "base", "large", "huge", "1b", "3b", "5b", "15b"]


class Size(NamedTuple):
    """Width, depth and heads; numbers in the hidden layer of a block (None: 4 * width), and whether
    it is gated."""

    width: int
    depth: int
    heads: int
    hidden: int | None = None
    gated: bool = False


SIZES = {
    "tiny": Size(192, 12, 3),
    "small": Size(384, 12, 6),
    "base": Size(768, 12, 12),
    "large": Size(1024, 24, 16),
    "huge": Size(1280, 32, 16),
    "1b": Size(1536, 32, 16),
    "3b": Size(2816, 32, 32),
    "5b": Size(1792, 56, 16, hidden=15360, gated=True),
    "15b": Size(5040, 48, 48),
}
"""Preset -> size. Blocks have depth * (4 * width² + 2 * width * hidden) weights, or three times
width * hidden where they are gated.

To large: Touvron et al. 2021, arXiv:2012.12877, and Dosovitskiy et al. 2021, arXiv:2010.11929, as
is huge. From there on the series that was trained on geospatial imagery, Tsaris et al. 2024,
arXiv:2404.11706 (to 3b also Dias et al. 2024, arXiv:2410.19965). Its printed numbers of parameters
are in ``PRINTED``; ours, with patches of 16 x 16 x 3 and 224 px, are less by 1.4 % (base), 0.02 %
(5b) and 0.5 to 0.7 % (the others); why is not known. Widths and depths were recalled, not read in
the papers: these numbers are what speaks for them. The 5 B model comes to its own only if its
hidden layer is gated (3.8 B if not); that it is, is our reading.
"""

PRINTED = {
    "base": 87_000_000,
    "huge": 635_000_000,
    "1b": 914_000_000,
    "3b": 3_067_000_000,
    "5b": 5_349_000_000,
    "15b": 14_720_000_000,
}
"""Preset -> parameters as printed in arXiv:2404.11706."""


@dataclass(frozen=True, kw_only=True)
class Transformer(Model):
    """Settings of a transformer over patches of the image."""

    preset: Preset | None = None
    """Usual sizes: 5.3, 21, 85, 302 or 629 M parameters in the blocks, then 0.9, 3, 5 or 15 B;
    None: small. What it stands for may be given in its place, all of it or some."""
    width: int | None = None
    """Numbers in a token; None: the preset's (192, 384, 768, 1024 ...)."""
    depth: int | None = None
    """Blocks; None: the preset's (12, 12, 12, 24 ...)."""
    heads: int | None = None
    """Heads of attention, which divide the width; None: the preset's (3, 6, 12, 16 ...)."""
    hidden: int | None = None
    """Numbers in the hidden layer of a block; None: four times the width (15360 in 5b)."""
    gated: bool | None = None
    """Whether the hidden layer is multiplied by a second one (SwiGLU), half as many weights again;
    None: the preset's (only in 5b it is)."""
    patch: int = 8
    """Side of a patch in pixels. Half of it makes four times the tokens: finer, and slower by
    four times or more."""
    embed: Literal["bands", "wavelengths"] = "bands"
    """bands: weights of its own for every band, in the order of the bands. wavelengths: weights
    made from a band's wavelength, or where it has none, as radar, from its name: one network for
    several sensors (data.also) and for those to come."""
    channels: Channels | None = None
    """For images of many channels: each becomes a token of its own, and these are aggregated before
    the first block. None: one layer makes a token of all bands at once."""
    time: bool = False
    """Whether it is told the year and the day of the year of a sample; maps are made without."""
    place: bool = False
    """Whether it is told where on the Earth a sample is, to some 1,000 km; maps are made
    without."""
    withheld: float | None = None
    """Share of the samples that are not told their time, or their place, in training, so that the
    network works without, too; None: a fifth. Has no effect without either."""

    def __post_init__(self) -> None:
        own = [n for n in Size._fields if getattr(self, n) is not None]
        if self.preset is not None and own:
            raise ConfigError(
                f"preset={self.preset} has a {own[0]} of its own; leave out preset or"
                f" {', '.join(own)}. Without a preset, what is not given is that of small"
            )
        width, depth, heads = self.shape
        if self.mlp[0] < 1:
            raise ConfigError(f"hidden={self.hidden} must be at least 1")
        if min(width, depth, heads, self.patch) < 1 or width % heads:
            raise ConfigError(
                f"width={width} must be a multiple of heads={heads}, depth={depth} and"
                f" patch={self.patch} at least 1"
            )
        if self.withheld is not None and not (self.time or self.place):
            raise ConfigError(
                f"withheld={self.withheld} has no effect without time or place; leave it out, or "
                "set time=true"
            )
        if self.withheld is not None and not 0 <= self.withheld < 1:
            raise ConfigError(f"withheld={self.withheld} must be at least 0 and below 1")
        if self.channels is None:
            return
        if self.embed != "bands":
            raise ConfigError(
                f"channels makes tokens by weights for each channel, and embed={self.embed} others;"
                " leave one of them out"
            )
        asking = self.channels.heads or heads
        if width % asking:
            raise ConfigError(f"width={width} must be a multiple of channels.heads={asking}")

    @property
    def asks(self) -> frozenset[str]:
        wanted = {
            "bands": self.embed == "wavelengths",
            "gsd_m": getattr(self, "positions", None) == "metres",
            "where": self.place,
            "when": self.time,
        }
        return frozenset(name for name, is_wanted in wanted.items() if is_wanted)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Width, depth and heads, from the preset where they are not given."""
        width, depth, heads, *_ = SIZES[self.preset or "small"]
        return (
            width if self.width is None else self.width,
            depth if self.depth is None else self.depth,
            heads if self.heads is None else self.heads,
        )

    @property
    def mlp(self) -> tuple[int, bool]:
        """Numbers in the hidden layer of a block, and whether it is gated."""
        size = SIZES[self.preset or "small"]
        hidden = size.hidden if self.hidden is None else self.hidden
        return (
            4 * self.shape[0] if hidden is None else hidden,
            size.gated if self.gated is None else self.gated,
        )

    def embedding(self, inputs: Inputs) -> Embedding:
        """Return the layer that makes tokens of patches; ConfigError if ``inputs`` do not fit."""
        from swath.nn.patch import PatchEmbed, SpectralPatchEmbed

        if self.patch > inputs.size:
            raise ConfigError(
                f"patch={self.patch} is larger than the samples ({inputs.size} px);"
                f" make it {inputs.size} or less"
            )
        width, bands = self.shape[0], tuple(band.name for band in inputs.bands)
        if self.channels is not None:
            return self.channels.build(bands, self.patch, width, self.shape[2])
        if self.embed == "bands":
            return PatchEmbed(bands, self.patch, width)
        return SpectralPatchEmbed(inputs.bands, self.patch, width)

    def further(self, inputs: Inputs) -> dict[str, Any]:
        """Return what else the network is built with."""
        from swath.nn.situation import Situation

        situation = None
        if self.time or self.place:
            withheld = 0.2 if self.withheld is None else self.withheld
            width = self.shape[0]
            situation = Situation(width, time=self.time, place=self.place, withheld=withheld)
        gsd_m = (inputs.gsd_m or GSD_M) if "gsd_m" in self.asks else None
        return {"gsd_m": gsd_m, "situation": situation, "asks": self.asks}
