"""What transformers over patches share: tokens of patches, what is added to them, and blocks.

Names of layers are timm's, so that its weights load where the bands fit; but positions are stored
as (n, d) and the class token as (d,), without the leading 1 that sharded training would pad to the
number of ranks.

Source: Dosovitskiy et al. 2021, arXiv:2010.11929.
"""

from collections.abc import Collection, Iterable
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from swath.data.chip import Known
from swath.nn.block import Block
from swath.nn.channels import ChannelEmbed
from swath.nn.patch import PatchEmbed, SpectralPatchEmbed, side_by_side
from swath.nn.position import kept_waves, resized, step_of
from swath.nn.resize import pad_to_multiple
from swath.nn.situation import Situation

BEGINNING = ("patch_embed", "cls_token", "pos_embed", "situation")
"""What :meth:`Encoder.embedded` goes by."""


class Encoder(nn.Module):
    """Tokens of the patches of an image, of any size, and the blocks that mix them.

    size: height and width in pixels of a training sample; fixes the grid of learned positions.
    mlp: numbers in the hidden layer of a block, and whether it is gated.
    class_token: whether a token comes before those of the patches.
    drop_path: share of the samples for which the last block is skipped in training; earlier ones
    less often, the first never.
    gsd_m: metres a pixel of a training sample, if waves count places on the ground; else None.
    asks: what it heeds of what is known of images.
    embeds: the layer whose features stand for an image.
    """

    embeds: ClassVar = "norm"

    def __init__(
        self,
        patch_embed: PatchEmbed | SpectralPatchEmbed | ChannelEmbed,
        *,
        size: int,
        patch: int,
        width: int,
        depth: int,
        heads: int,
        mlp: tuple[int, bool],
        class_token: bool,
        positions: Literal["learned", "waves"],
        drop_path: float = 0.0,
        gsd_m: float | None = None,
        situation: Situation | None = None,
        asks: Collection[str] = (),
    ) -> None:
        super().__init__()
        self.patch, self.gsd_m, self.asks = patch, gsd_m, frozenset(asks)
        side = -(-size // patch)
        self.grid = (side, side)
        self.ahead = int(class_token)
        self.patch_embed = patch_embed
        self.cls_token = nn.Parameter(torch.empty(width)) if class_token else None
        self.pos_embed = self.positions(width) if positions == "learned" else None
        shares = [drop_path * i / max(depth - 1, 1) for i in range(depth)]
        self.blocks = nn.ModuleList(Block(width, heads, *mlp, share) for share in shares)
        self.situation = situation
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.register_load_state_dict_pre_hook(without_leading_ones)

    def positions(self, width: int) -> nn.Parameter:
        """Return learned positions of the class token and of the patches, not filled yet."""
        return nn.Parameter(torch.empty(self.ahead + self.grid[0] * self.grid[1], width))

    def tokens(
        self, image: Float[Tensor, "b c h w"], known: Known | None = None
    ) -> tuple[Float[Tensor, "b t d"], tuple[int, int]]:
        """Return the tokens after the last norm (the class token first) and the patches' grid."""
        return self.norm(through(self.blocks, self.embedded(image, known))), self.grid_of(image)

    def grid_of(self, image: Tensor) -> tuple[int, int]:
        """Return rows and columns of the patches of ``image``."""
        return -(-image.shape[-2] // self.patch), -(-image.shape[-1] // self.patch)

    def embedded(
        self,
        image: Float[Tensor, "b c h w"],
        known: Known | None = None,
        shown: Int[Tensor, "b k"] | None = None,
    ) -> Float[Tensor, "b t d"]:
        """Return the tokens before the first block of the patches ``shown``; None: of all."""
        image, grid = pad_to_multiple(image, self.patch), self.grid_of(image)
        if shown is not None:
            image = side_by_side(image, shown, self.patch)
        # Laid out anew once, or every norm of every block would do so.
        x = self.patch_embed(image, known).flatten(2).mT.contiguous()
        own, places = self.places(self.pos_embed, grid, x, known)
        x = x + (places if shown is None else places[shown])
        if self.cls_token is not None:
            first = (self.cls_token + own).expand(len(x), 1, -1)
            x = torch.cat([first.to(x.dtype), x], 1)
        return x if self.situation is None else self.situation(x, known)

    def places(
        self, learned: Tensor | None, grid: tuple[int, int], like: Tensor, known: Known | None
    ) -> tuple[Tensor | float, Float[Tensor, "n d"]]:
        """Return what is added to the class token, and to the patches of ``grid``: ``learned``
        positions, stretched, or without them waves of the width of ``like``."""
        if learned is None:
            step = step_of(known, self.gsd_m)
            return 0.0, kept_waves(*grid, like.shape[-1], like.dtype, like.device, step)
        own, places = learned.split([self.ahead, len(learned) - self.ahead])
        return own if self.ahead else 0.0, resized(places, self.grid, grid)


def through(blocks: Iterable[nn.Module], x: Tensor) -> Tensor:
    """Return ``x`` after all ``blocks``."""
    for block in blocks:
        x = block(x)
    return x


def without_leading_ones(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Take tokens and positions that are stored as (1, 1, d) and (1, n, d), as timm's are."""
    for name, own in module.named_parameters(recurse=False):
        stored = state.get(prefix + name)
        if stored is not None and stored.shape == (1, 1, *own.shape)[-3:]:
            state[prefix + name] = stored.reshape(own.shape)
