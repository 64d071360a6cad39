"""Self-attention: each token asks all tokens.

Source: Vaswani et al. 2017, arXiv:1706.03762. Names as in timm.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class Attention(nn.Module):
    """Multi-head self-attention by torch's fused kernel."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        assert width % heads == 0, f"width {width} is not a multiple of {heads} heads"
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        samples, tokens, width = x.shape
        # A bias of the keys adds the same to all of a query's scores, and softmax drops it. Its
        # gradient is rounding noise, which Adam would blow up to full steps; detached it is 0.
        of_q, of_k, of_v = self.qkv.bias.chunk(3)
        qkv = F.linear(x, self.qkv.weight, torch.cat([of_q, of_k.detach(), of_v]))
        q, k, v = qkv.view(samples, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        out = F.scaled_dot_product_attention(q, k, v)
        return self.proj(out.transpose(1, 2).reshape(samples, tokens, width))
