"""Self-attention: each token asks all tokens.

Source: Vaswani et al. 2017, arXiv:1706.03762. Names as in timm.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class QKV(nn.Linear):
    """Queries, keys and values of each token, one after the other; the keys' bias never learns.

    It adds the same to all of a query's scores, and softmax drops it. So its gradient is rounding
    noise, which Adam would blow up to full steps; detached it is 0.
    """

    def forward(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n e"]:
        of_q, of_k, of_v = self.bias.chunk(3)
        return F.linear(x, self.weight, torch.cat([of_q, of_k.detach(), of_v]))


class Attention(nn.Module):
    """Multi-head self-attention by torch's fused kernel."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        assert width % heads == 0, f"width {width} is not a multiple of {heads} heads"
        self.head_width = width // heads
        self.qkv = QKV(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        # As many heads as the layer gives: it may hold only some of them, others another rank.
        qkv = self.qkv(x).unflatten(2, (3, -1, self.head_width))
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        out = F.scaled_dot_product_attention(q, k, v)
        return self.proj(out.transpose(1, 2).flatten(2))
