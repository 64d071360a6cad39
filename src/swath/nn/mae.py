"""Masked autoencoder: shown some patches of an image, it fills in others.

Only the patches that are shown are encoded. A smaller decoder then gets them and, for each patch
asked for, one and the same learned token with the place of that patch. ``Decoder``: all tokens
attend to all. ``CrossDecoder``: those asked for attend to the ones shown, and to nothing else; so
each is filled in alone, and a part of them may be asked for.

Tokens are kept in the order shown, then asked: attention knows no order but that of the places
added to them, and no token has to be moved back into its row. Which patches are shown is for the
caller to say.

The encoder is :mod:`swath.nn.encoder`'s; the decoder's layers are named as in the paper's code, and
``decoder_pred`` writes a patch as there: row by row, all bands of a pixel together.

Sources: He et al. 2022, arXiv:2111.06377; the other decoder, Fu et al. 2024, arXiv:2401.14391
(CrossMAE), here without its learned mixture of the encoder's layers: the decoder reads the last.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn

from swath.data.chip import Known
from swath.data.sensor import Band, groups_of
from swath.nn.attention import CrossAttention
from swath.nn.block import Block, Mlp
from swath.nn.chain import Link, row
from swath.nn.channels import ChannelEmbed
from swath.nn.encoder import BEGINNING, Encoder, through
from swath.nn.patch import PatchEmbed, SpectralHead, SpectralPatchEmbed

_OWN_START = ("patch_embed", "situation", "decoder_pred.")
"""Layers that begin as they say themselves."""


class MaskedAutoencoder(Encoder):
    """Encoder of the patches shown, and decoder of those asked for.

    mask_ratio: share of the patches that is hidden; 0: none. band_ratio: share of the bands of the
    patches shown that is hidden, or of the groups of bands if ``band_groups`` has a number for each
    band. predicted: share of the hidden patches that is asked for. They
    only answer :meth:`numbers` and :meth:`bands_hidden`. prediction: the last layer, if it is to
    fill in any bands. encoder: the rest, as of :class:`swath.nn.encoder.Encoder`.
    """

    wide: ClassVar = ("decoder_pred",)

    def __init__(
        self,
        patch_embed: PatchEmbed | SpectralPatchEmbed | ChannelEmbed,
        channels: int,
        *,
        patch: int,
        width: int,
        mask_ratio: float,
        decoder: Literal["full", "cross"],
        decoder_width: int,
        decoder_depth: int,
        decoder_heads: int,
        predicted: float,
        band_ratio: float = 0.0,
        band_groups: tuple[int, ...] = (),
        prediction: SpectralHead | None = None,
        **encoder: Any,
    ) -> None:
        super().__init__(patch_embed, patch=patch, width=width, **encoder)
        self.channels = channels
        self.band_ratio, self.band_groups = band_ratio, band_groups
        self.mask_ratio, self.predicted, self.cross = mask_ratio, predicted, decoder == "cross"
        # Tokens of the cross decoder look at others than themselves: they cannot be shared out.
        self.trunk = ("blocks",) if self.cross else ("blocks", "decoder_blocks")

        self.decoder_embed = nn.Linear(width, decoder_width)
        self.mask_token = nn.Parameter(torch.empty(decoder_width))
        learned = self.pos_embed is not None
        self.decoder_pos_embed = self.positions(decoder_width) if learned else None
        kind = CrossBlock if self.cross else Block
        self.decoder_blocks = nn.ModuleList(
            kind(decoder_width, decoder_heads, 4 * decoder_width) for _ in range(decoder_depth)
        )
        self.decoder_norm = nn.LayerNorm(decoder_width, eps=1e-6)
        self.decoder_pred = prediction or nn.Linear(decoder_width, patch * patch * channels)
        self._start()

    def _start(self) -> None:
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear) and not name.startswith(_OWN_START):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        for token in (self.cls_token, self.mask_token, self.pos_embed, self.decoder_pos_embed):
            if token is not None:
                nn.init.normal_(token, std=0.02)

    def numbers(self, height: int, width: int) -> tuple[int, int, int]:
        """Return how many patches an image has, how many of them training shows, and how many it
        asks for."""
        patches = -(-height // self.patch) * -(-width // self.patch)
        if not self.mask_ratio:
            return patches, patches, 0
        shown = shown_of(patches, self.mask_ratio)
        return patches, shown, max(1, round(self.predicted * (patches - shown)))

    def bands_hidden(
        self, count: int, bands: Sequence[Band] | None = None
    ) -> tuple[tuple[int, ...], int]:
        """Return for each of ``count`` bands the number of the group that is hidden as one, and how
        many groups the patches shown lack in training. bands: None: those of training."""
        groups = tuple(range(count))
        if self.band_groups:
            groups = self.band_groups if bands is None else groups_of(bands)
        number = max(groups) + 1
        if not self.band_ratio or number == 1:
            return groups, 0
        return groups, min(max(round(self.band_ratio * number), 1), number - 1)

    def usual(self, image: Float[Tensor, "b c h w"]) -> tuple[Tensor, Tensor, Tensor]:
        """Return the arguments of a forward pass in training, with some patches of each image."""
        patches, shown, asked = self.numbers(*image.shape[-2:])
        order = torch.arange(patches, device=image.device).expand(len(image), -1)
        return image, order[:, :shown], order[:, shown : shown + asked]

    def forward(
        self,
        image: Float[Tensor, "b c h w"],
        shown: Int[Tensor, "b k"] | None = None,
        asked: Int[Tensor, "b m"] | None = None,
        *,
        both: bool = False,
        known: Known | None = None,
    ) -> Float[Tensor, "b n q"] | Float[Tensor, "b c2 h w"]:
        """Return the n patches ``asked`` for, of q = patch² * c numbers each.

        shown, asked: numbers of patches, row by row; of the decoder ``full`` asked are all that are
        not shown. Without them the whole image is shown, and a whole image comes back. both: return
        the patches shown as well, before those asked for, as bands of them may be hidden.
        """
        x = through(self.blocks, self.embedded(image, known, shown))
        given = (image, shown, asked)
        seen, hidden = self._entered(x, *given, both=both, known=known)
        if self.cross:
            for block in self.decoder_blocks:
                hidden = block(hidden, seen)
            return self._read(hidden, image, asked, known)
        *blocks, last = self.decoder_blocks
        first = self._first(*given, both=both)
        every = last(through(blocks, torch.cat([seen, hidden], 1)), first)
        return self._read(every[:, first:], image, asked, known)

    def chain(self) -> list[Link]:
        """Return the links from an image, and the numbers of its patches, to the output.

        In the decoder those asked for come after those seen; without ``asked``, the seen are what
        comes before the patches.
        """

        def embed(
            x: Tensor, _: Tensor, shown: Tensor | None = None, *__: Tensor, **told: Any
        ) -> Tensor:
            return self.embedded(x, told.get("known"), shown)

        def enter(x: Tensor, *given: Tensor, **told: Any) -> Tensor:
            return torch.cat(self._entered(x, *given, **told), 1)

        def cross(block: nn.Module, x: Tensor, *given: Tensor, **_: Any) -> Tensor:
            seen, hidden = x.tensor_split([self._seen(*given)], 1)
            return torch.cat([seen, block(hidden, seen)], 1)

        def first_read(*given: Tensor, **told: Any) -> int:
            return self._first(*given, both=told.get("both", False))

        def finish(block: nn.Module, x: Tensor, *given: Tensor, **told: Any) -> Tensor:
            return block(x, first_read(*given, **told))

        def read(x: Tensor, image: Tensor, *numbers: Tensor, **told: Any) -> Tensor:
            first = first_read(image, *numbers, **told)
            asked = numbers[1] if len(numbers) > 1 else None
            return self._read(x[:, first:], image, asked, told.get("known"))

        decoder = row(self, "decoder_blocks")
        if self.cross:
            pairs = zip(decoder, self.decoder_blocks, strict=True)
            decoder = [replace(link, run=partial(cross, block)) for link, block in pairs]
        else:
            decoder[-1] = replace(decoder[-1], run=partial(finish, self.decoder_blocks[-1]))
        return [
            Link(embed, BEGINNING),
            *row(self, "blocks"),
            Link(enter, ("norm", "decoder_embed", "mask_token", "decoder_pos_embed")),
            *decoder,
            Link(read, ("decoder_norm", "decoder_pred")),
        ]

    def _entered(
        self,
        x: Tensor,
        image: Tensor,
        shown: Tensor | None = None,
        asked: Tensor | None = None,
        *,
        both: bool = False,
        known: Known | None = None,
    ) -> tuple[Float[Tensor, "b k e"], Float[Tensor, "b n e"]]:
        """Return the decoder's tokens before its first block: those seen, and those asked for.
        Without ``asked`` the latter are all patches, which the decoder ``full`` sees itself."""
        x = self.decoder_embed(self.norm(x))
        own, places = self.places(self.decoder_pos_embed, self.grid_of(image), x, known)
        first, x = x.split([self.ahead, x.shape[1] - self.ahead], 1)
        x, first = x + (places if shown is None else places[shown]), first + own
        if not self.cross and asked is None:
            return first, x
        if self.cross and both:
            assert shown is not None and asked is not None, "both are patches of which some are"
            asked = torch.cat([shown, asked], 1)
        seen = torch.cat([first, x], 1) if self.ahead else x
        asked_for = places.expand(len(x), -1, -1) if asked is None else places[asked]
        return seen, self.mask_token.to(x.dtype) + asked_for

    def _seen(self, image: Tensor, shown: Tensor | None = None, *_: Tensor) -> int:
        """Return how many tokens of the cross decoder are seen, before those asked for."""
        rows, cols = self.grid_of(image)
        return self.ahead + (rows * cols if shown is None else shown.shape[1])

    def _first(
        self,
        image: Tensor,
        shown: Tensor | None = None,
        asked: Tensor | None = None,
        *,
        both: bool = False,
    ) -> int:
        """Return the number, from the end and so negative, of the decoder's first token that is
        read."""
        if asked is None:
            rows, cols = self.grid_of(image)
            return -rows * cols
        return -asked.shape[1] - (shown.shape[1] if both and shown is not None else 0)

    def _read(
        self,
        x: Float[Tensor, "b m e"],
        image: Tensor,
        asked: Tensor | None = None,
        known: Known | None = None,
    ) -> Float[Tensor, "b m q"] | Float[Tensor, "b k h w"]:
        told = (known,) if isinstance(self.decoder_pred, SpectralHead) else ()
        found = self.decoder_pred(self.decoder_norm(x), *told)
        if asked is not None:
            return found
        height, width = image.shape[-2:]
        channels = found.shape[2] // self.patch**2
        return joined(found, self.grid_of(image), channels)[..., :height, :width]


class CrossBlock(nn.Module):
    """Tokens that ask those known, then a network on each; both add to what was there."""

    unit = True

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.cross_attn = CrossAttention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = Mlp(width, hidden)

    def forward(
        self, x: Float[Tensor, "b m d"], known: Float[Tensor, "b k d"]
    ) -> Float[Tensor, "b m d"]:
        """Return the tokens ``x`` after they have asked those ``known``, which stay as they are."""
        x = x + self.cross_attn(self.norm1(x), known)
        return x + self.mlp(self.norm2(x))


def shown_of(patches: int, mask_ratio: float) -> int:
    """Return how many of so many patches are shown: (1 - mask_ratio) of them, brought to the
    nearest multiple of 16, else of 8, if one is within an eighth of that; at least 1, and not all.
    """
    wanted = patches * (1 - mask_ratio)
    near = (step * round(wanted / step) for step in (16, 8))
    found = next((n for n in near if abs(n - wanted) <= wanted / 8), round(wanted))
    return min(max(found, 1), max(patches - 1, 1))


def patches_of(image: Shaped[Tensor, "b c h w"], patch: int) -> Shaped[Tensor, "b n q"]:
    """Return the patches of an image whose sides are multiples of ``patch``, row by row; in each
    its pixels row by row, all bands of a pixel together: q = patch² * c."""
    cut = image.unflatten(3, (-1, patch)).unflatten(2, (-1, patch))
    return cut.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)


def joined(
    patches: Shaped[Tensor, "b n q"], grid: tuple[int, int], channels: int
) -> Shaped[Tensor, "b c h w"]:
    """Return the image whose patches :func:`patches_of` would return."""
    side = round((patches.shape[2] // channels) ** 0.5)
    cut = patches.unflatten(2, (side, side, channels)).unflatten(1, grid)
    return cut.permute(0, 5, 1, 3, 2, 4).flatten(4).flatten(2, 3)
