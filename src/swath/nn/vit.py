"""Vision transformer: patches become tokens, blocks mix them, a linear head reads them out.

For one output an image the head reads a class token or the mean of the tokens. For one at every
pixel it writes each token's whole patch; or it says one thing for each token, and pixels between
the tokens' middles are told bilinearly (``linear``); or a decoder of convolutions comes before it
(``upernet``, :mod:`swath.nn.upernet`). What comes before: :mod:`swath.nn.encoder`.

Sources: Dosovitskiy et al. 2021, arXiv:2010.11929; the linear decoder, Strudel et al. 2021,
arXiv:2105.05633 (Segmenter), and Oquab et al. 2023, arXiv:2304.07193 (DINOv2).
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from swath.data.chip import Known
from swath.nn.block import Tap
from swath.nn.chain import Link, row
from swath.nn.channels import ChannelEmbed
from swath.nn.encoder import BEGINNING, Encoder
from swath.nn.patch import PatchEmbed, SpectralPatchEmbed
from swath.nn.projector import head
from swath.nn.resize import enlarged
from swath.nn.upernet import UPerNet


class ViT(Encoder):
    """Transformer over the patches of an image; any image size, padded inside.

    pool: what the head reads; None: the output is dense.
    decoder: of a dense output. decoder_width, reads: of upernet, its channels, and the numbers of
    the four blocks whose tokens it reads, finest first; the last of them is the last block.
    taps: at the other blocks that are read.
    readout: parts that a pretrained encoder comes without.
    hidden: widths of the head's layers before its last one.
    encoder: the rest, as of :class:`swath.nn.encoder.Encoder`.
    trunk: lists of layers that hand tokens on from one to the next, all of the same shape.
    """

    trunk: ClassVar = ("blocks",)
    readout: ClassVar = ("decoder",)

    def __init__(
        self,
        patch_embed: PatchEmbed | SpectralPatchEmbed | ChannelEmbed,
        channels: int,
        *,
        patch: int,
        width: int,
        pool: Literal["token", "mean"] | None,
        hidden: Sequence[int] = (),
        decoder: Literal["patch", "linear", "upernet"] = "patch",
        decoder_width: int = 64,
        reads: Sequence[int] = (),
        **encoder: Any,
    ) -> None:
        super().__init__(
            patch_embed, patch=patch, width=width, class_token=pool == "token", **encoder
        )
        self.channels, self.pool = channels, pool
        self.reads, self.writes = tuple(reads), pool is None and decoder == "patch"
        self.taps = nn.ModuleDict({str(n): Tap() for n in sorted({*reads})[:-1]})
        self.decoder: UPerNet | None = None
        if decoder == "upernet":
            finest = next(n for n in (4, 2, 1) if n <= patch)
            self.decoder = UPerNet(width, decoder_width, finest)
            self.head: nn.Module = nn.Conv2d(decoder_width, channels, 1)
        else:
            self.head = head(width, channels * (patch * patch if self.writes else 1), hidden)
        self._start()

    def _start(self) -> None:
        for module in (*self.blocks.modules(), *self.head.modules()):
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        if self.pos_embed is not None:
            nn.init.trunc_normal_(self.pos_embed, std=0.02)
        if self.cls_token is not None:
            nn.init.trunc_normal_(self.cls_token, std=0.02)

    def chain(self) -> list[Link]:
        """Return the links from an image, of the model's own bands, to the output."""
        depth = len(self.blocks)  # of the whole network, not of a piece

        def read(x: Tensor, image: Tensor, *_: Any, **__: Any) -> Tensor:
            return self._read(*self._apart(x, image, depth), image)

        return [
            Link(lambda x, _, *more, **told: self.embedded(x, *more, **told), BEGINNING),
            *self._carried(row(self, "blocks")),
            Link(read, ("norm", "decoder", "head")),
        ]

    def _carried(self, links: list[Link]) -> list[Link]:
        """Return the links of the blocks, which hand on beside their tokens those that were read
        so far, as further tokens."""
        if not self.taps:
            return links

        def run(number: int, x: Tensor, image: Tensor, *_: Any, **__: Any) -> Tensor:
            now, before = self._apart(x, image, number)
            now = self.blocks._modules[str(number)](now)
            if str(number) in self.taps:
                before = [*before, self.taps[str(number)](now)]
            return torch.cat([now, *before], 1)

        return [replace(link, run=partial(run, number)) for number, link in enumerate(links)]

    def _apart(self, x: Tensor, image: Tensor, number: int) -> tuple[Tensor, list[Tensor]]:
        """Return the tokens on their way to block ``number``, of which a rank may have some, and
        those read before, which are whole."""
        rows, cols = self.grid_of(image)
        read = [rows * cols for before in self.taps if int(before) < number]
        now, *before = x.split([x.shape[1] - sum(read), *read], 1)
        return now.contiguous(), before

    def forward(
        self, image: Float[Tensor, "b c h w"], known: Known | None = None
    ) -> Float[Tensor, "b k"] | Float[Tensor, "b k h w"]:
        """Return a vector for each image, or for each pixel.

        known: the bands of a sensor other than the one it was built for, and what else it heeds.
        """
        x, read = self.embedded(image, known), []
        for number, block in enumerate(self.blocks):
            x = block(x)
            if str(number) in self.taps:
                read.append(self.taps[str(number)](x))
        return self._read(x, read, image)

    def _read(
        self, x: Float[Tensor, "b t d"], before: Sequence[Tensor], image: Float[Tensor, "b c h w"]
    ) -> Float[Tensor, "b k"] | Float[Tensor, "b k h w"]:
        """Return the output from the tokens after the last block, and those at the taps."""
        tokens = self.norm(x)
        if self.pool == "token":
            return self.head(tokens[:, 0])
        if self.pool == "mean":
            return self.head(tokens.mean(1))
        (height, width), (rows, cols) = image.shape[-2:], self.grid_of(image)
        if self.writes:
            patches = self.head(tokens).unflatten(2, (self.channels, self.patch, self.patch))
            patches = patches.unflatten(1, (rows, cols)).permute(0, 3, 1, 4, 2, 5)
            return patches.flatten(4, 5).flatten(2, 3)[..., :height, :width]
        if self.decoder is None:
            cells = self.head(tokens).mT.unflatten(2, (rows, cols))
        else:
            normed = dict(
                zip(sorted({*self.reads}), [*map(self.norm, before), tokens], strict=True)
            )
            maps = [normed[number].mT.unflatten(2, (rows, cols)) for number in self.reads]
            cells = self.head(self.decoder(maps))
        return enlarged(cells, (rows * self.patch, cols * self.patch))[..., :height, :width]
