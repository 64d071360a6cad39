"""Attention: each token asks all tokens, or all of another set.

Queries, keys and values are layers of their own, so that a rank can hold some heads of each; timm
keeps them in one, ``qkv``, and such weights load here too.

Source: Vaswani et al. 2017, arXiv:1706.03762. Other names as in timm.
"""

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

Heads = Float[Tensor, "b m n e"]
Asked = Float[Tensor, "b m k e"]  # as many tokens as heads, or those of other ranks too


class Keys(nn.Linear):
    """Keys of tokens; their bias never learns.

    It adds the same to all of a query's scores, and softmax drops it. So its gradient is rounding
    noise, which Adam would blow up to full steps; it is not asked for.
    """

    def __init__(self, width: int, out: int) -> None:
        super().__init__(width, out)
        self.bias.requires_grad_(False)


class Mix(nn.Module):
    """Softmax attention of m heads, all tokens at hand; by torch's fused kernel."""

    def forward(self, q: Heads, k: Asked, v: Asked) -> Heads:
        return F.scaled_dot_product_attention(q, k, v)


class _Heads(nn.Module):
    """The layers of multi-head attention.

    split: which layers hold some of the heads each where ranks share them.
    """

    split: ClassVar = {"q": "columns", "k": "columns", "v": "columns", "proj": "rows"}

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        assert width % heads == 0, f"width {width} is not a multiple of {heads} heads"
        self.head_width = width // heads
        self.q, self.k, self.v = (
            nn.Linear(width, width),
            Keys(width, width),
            nn.Linear(width, width),
        )
        self.proj = nn.Linear(width, width)

    def _heads(self, x: Tensor, known: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries of ``x`` and keys and values of ``known``: (b, m, n, e)."""
        # As many heads as the layer gives: it may hold only some of them, others another rank.
        q, k, v = (
            layer(tokens).unflatten(2, (-1, self.head_width)).transpose(1, 2)
            for layer, tokens in ((self.q, x), (self.k, known), (self.v, known))
        )
        return q, k, v


class Attention(_Heads):
    """Multi-head self-attention.

    mix: may be replaced where tokens are on several ranks.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__(width, heads)
        self.mix = Mix()
        self.register_load_state_dict_pre_hook(_from_one_layer)

    def forward(self, x: Float[Tensor, "b n d"], *, first: int = 0) -> Float[Tensor, "b m d"]:
        """Return what the tokens from number ``first`` on, as of a slice, learn from all."""
        return self.proj(self.mix(*self._heads(x[:, first:], x)).transpose(1, 2).flatten(2))


class CrossAttention(_Heads):
    """Multi-head attention of tokens that ask others, and not themselves.

    inputs: how many tensors of tokens it takes.
    """

    inputs: ClassVar = 2

    def forward(
        self, x: Float[Tensor, "b m d"], known: Float[Tensor, "b k d"]
    ) -> Float[Tensor, "b m d"]:
        """Return what the tokens ``x`` have read from those ``known``, its heads joined."""
        mixed = F.scaled_dot_product_attention(*self._heads(x, known))
        return self.proj(mixed.transpose(1, 2).flatten(2))


def _from_one_layer(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    for kind in ("weight", "bias"):
        whole = state.pop(f"{prefix}qkv.{kind}", None)
        if whole is not None:
            for name, part in zip("qkv", torch.chunk(whole, 3), strict=True):
                state[f"{prefix}{name}.{kind}"] = part
