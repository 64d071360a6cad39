"""Masked autoencoder: learns images without labels, by filling in patches that are hidden."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from swath.config import ConfigError
from swath.data.sensor import groups_of
from swath.models import Inputs, Outputs, check_outputs
from swath.models._transformer import Transformer

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class MAE(Transformer):
    """Transformer over the patches shown, and a small one that fills in the others; its encoder is
    a ``vit`` of the same settings."""

    dense: ClassVar[bool | None] = True
    masked: ClassVar[bool] = True

    mask_ratio: float = 0.75
    """Share of the patches that is hidden, 0..1. How many are shown is rounded: to the nearest
    multiple of 16, else of 8, if that is off by an eighth at most (48 of 196, 16 of 64, 8 of 36),
    else to a whole number (6 of 25). Ranks that share tokens, and GPUs, like such numbers."""
    mask: Literal["spatial", "spectral", "both"] = "spatial"
    """spatial: whole patches are hidden. spectral: all patches are shown, without some of their
    bands, others in each sample, which are asked for. both: the patches that are shown lack some
    bands as well."""
    band_ratio: float | None = None
    """Only where bands are hidden: their share, above 0 and below 1; None: half. At least one is
    hidden and one shown."""
    band_groups: bool = False
    """Only where bands are hidden: whether those of one pixel size and region of the spectrum are
    hidden as one (of Sentinel-2 10 m, red edge, short-wave, 60 m), so that none can be told from
    its neighbours; ``band_ratio`` is then a share of the groups. Of a sensor whose bands are all of
    one group, each is hidden alone."""
    positions: Literal["learned", "waves", "metres"] = "waves"
    """waves: fixed sines and cosines, continued to images of another size. metres: waves that count
    places on the ground, in steps of 10 m a pixel, so that the network is told how large pixels
    are. learned: a vector for each place, stretched to images of another size."""
    class_token: bool = False
    """Whether a token of no place goes along, as in the paper, for a ``vit`` that is to read its
    output from one."""
    decoder: Literal["full", "cross"] = "full"
    """full: all tokens attend to all, and all hidden patches are filled in. cross: each hidden
    patch attends to those shown, and a part of the hidden ones is filled in: much less work."""
    predicted: float | None = None
    """Only for decoder=cross: the share of the hidden patches that is filled in, above 0, up to 1;
    None means a third. Others in every sample, and in every epoch."""
    decoder_width: int | None = None
    """Numbers in a token of the decoder; None: 512, or as in the encoder if that has less."""
    decoder_depth: int = 8
    """Blocks of the decoder. With eight it is most of the work for small encoders; two are less
    than a third of that."""
    decoder_heads: int | None = None
    """Heads of attention in the decoder, which divide its width; None: one for each 32 numbers."""

    def __post_init__(self) -> None:
        super().__post_init__()
        width, depth, heads = self.decoder_shape
        if min(width, depth, heads) < 1 or width % heads:
            raise ConfigError(
                f"decoder_width={width} must be a multiple of decoder_heads={heads}, and"
                f" decoder_depth={depth} at least 1"
            )
        for name, each in (("width", self.shape[0]), ("decoder_width", width)):
            if self.positions != "learned" and each % 4:
                raise ConfigError(
                    f"positions={self.positions} needs a {name} that 4 divides, not {each}"
                )
        if self.band_ratio is not None and self.mask == "spatial":
            raise ConfigError(
                f"band_ratio={self.band_ratio} has no effect with mask=spatial, which hides whole"
                " patches; leave it out or set mask=both"
            )
        if self.band_ratio is not None and not 0 < self.band_ratio < 1:
            raise ConfigError(f"band_ratio={self.band_ratio} must be above 0 and below 1")
        if self.band_groups and self.mask == "spatial":
            raise ConfigError(
                "band_groups=true has no effect with mask=spatial, which hides whole patches; leave"
                " it out or set mask=both"
            )
        if not 0 < self.mask_ratio < 1:
            raise ConfigError(f"mask_ratio={self.mask_ratio} must be above 0 and below 1")
        if self.predicted is not None and self.decoder != "cross":
            raise ConfigError(
                f"predicted={self.predicted} has no effect with decoder={self.decoder}, which fills"
                " in all hidden patches; leave it out or set decoder=cross"
            )
        if self.predicted is not None and not 0 < self.predicted <= 1:
            raise ConfigError(f"predicted={self.predicted} must be above 0 and at most 1")

    @property
    def decoder_shape(self) -> tuple[int, int, int]:
        """Width, depth and heads of the decoder."""
        width = min(512, self.shape[0]) if self.decoder_width is None else self.decoder_width
        heads = max(1, width // 32) if self.decoder_heads is None else self.decoder_heads
        return width, self.decoder_depth, heads

    def build(self, inputs: Inputs, outputs: Outputs) -> nn.Module:
        from swath.nn.mae import MaskedAutoencoder
        from swath.nn.patch import SpectralHead

        check_outputs(self, outputs)
        if -(-inputs.size // self.patch) == 1:
            raise ConfigError(
                f"patch={self.patch} makes one patch of samples of {inputs.size} px, and nothing "
                f"could be hidden; make it {max(1, inputs.size // 4)} or less"
            )
        if self.mask != "spatial" and len(inputs.bands) == 1:
            raise ConfigError(
                f"mask={self.mask} hides some bands and shows others, and the samples have one;"
                " set mask=spatial"
            )
        groups = groups_of(inputs.bands) if self.band_groups else ()
        if self.band_groups and self.embed == "bands" and len(set(groups)) == len(groups):
            raise ConfigError(
                f"band_groups=true has no effect on {', '.join(b.name for b in inputs.bands)}: they"
                " are all of one pixel size and region of the spectrum, or no two are; leave it out"
            )
        share = 1.0 if self.decoder == "full" else self.predicted or 1 / 3
        width, depth, heads = self.shape
        decoder_width, decoder_depth, decoder_heads = self.decoder_shape
        prediction = None
        if self.embed == "wavelengths":
            prediction = SpectralHead(inputs.bands, self.patch, decoder_width)
        return MaskedAutoencoder(
            self.embedding(inputs),
            outputs.channels,
            size=inputs.size,
            patch=self.patch,
            width=width,
            depth=depth,
            heads=heads,
            mlp=self.mlp,
            class_token=self.class_token,
            positions="learned" if self.positions == "learned" else "waves",
            mask_ratio=0.0 if self.mask == "spectral" else self.mask_ratio,
            band_ratio=0.0 if self.mask == "spatial" else self.band_ratio or 0.5,
            band_groups=groups,
            decoder=self.decoder,
            decoder_width=decoder_width,
            decoder_depth=decoder_depth,
            decoder_heads=decoder_heads,
            predicted=share,
            prediction=prediction,
            **self.further(inputs),
        )
