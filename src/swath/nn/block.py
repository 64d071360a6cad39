"""The transformer block, with norms before its two branches.

Sources: Vaswani et al. 2017, arXiv:1706.03762; norm first, Xiong et al. 2020, arXiv:2002.04745;
drop path, Huang et al. 2016, arXiv:1603.09382; gated, Shazeer 2020, arXiv:2002.05202 (SwiGLU).
Names as in timm.
"""

from typing import ClassVar

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from swath.nn.attention import Attention
from swath.nn.random import DropPath


class Mlp(nn.Module):
    """Two linear layers with GELU between, on each token alone."""

    split: ClassVar = {"fc1": "columns", "fc2": "rows"}

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        return self.fc2(F.gelu(self.fc1(x)))


class GatedMlp(nn.Module):
    """Two linear layers, their product (one of them through SiLU), and one back, on each token."""

    split: ClassVar = {"fc1_g": "columns", "fc1_x": "columns", "fc2": "rows"}

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1_g = nn.Linear(width, hidden)
        self.fc1_x = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        return self.fc2(F.silu(self.fc1_g(x)) * self.fc1_x(x))


class Block(nn.Module):
    """Attention among tokens, then a network on each; both add to what was there."""

    unit = True

    def __init__(
        self, width: int, heads: int, hidden: int, gated: bool = False, drop_path: float = 0.0
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = GatedMlp(width, hidden) if gated else Mlp(width, hidden)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Float[Tensor, "b n d"], first: int = 0) -> Float[Tensor, "b m d"]:
        """Return the tokens from number ``first`` on, as of a slice; of all, where ranks share
        them."""
        x = x[:, first:] + self.drop_path(self.attn(self.norm1(x), first=first))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class Tap(nn.Identity):
    """A place at which tokens are read between two blocks; see :func:`taps`."""


def taps(network: nn.Module, blocks: nn.ModuleList) -> list[nn.Module]:
    """Return the taps of ``network`` among ``blocks``, one of its trunks: ``taps`` of the module
    that has the trunk, by the numbers of the blocks. What follows the last block is no longer
    among them."""
    inside = list(blocks._modules)[:-1]
    return [
        tap
        for module in network.modules()
        if any(getattr(module, name) is blocks for name in getattr(module, "trunk", ()))
        for number, tap in getattr(module, "taps", {}).items()
        if number in inside
    ]


def trunks(network: nn.Module) -> list[nn.ModuleList]:
    """Return the lists of blocks in ``network`` that hand tokens on, as its modules say in
    ``trunk``; a piece of a pipeline may have an empty one."""
    return [getattr(m, name) for m in network.modules() for name in getattr(m, "trunk", ())]
