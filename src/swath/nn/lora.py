"""A linear layer with a low-rank change beside it, and the plain layer that the two are.

Source: Hu et al. 2021, arXiv:2106.09685.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class Lora(nn.Linear):
    """``linear``, frozen or not, plus ``scale * b @ a`` of rank ``rank``; b begins at 0.

    Weight and bias keep their names.
    """

    def __init__(self, linear: nn.Linear, rank: int, scale: float) -> None:
        has_bias = linear.bias is not None
        super().__init__(linear.in_features, linear.out_features, has_bias, device="meta")
        self.weight, self.bias, self.scale = linear.weight, linear.bias, scale
        self.lora_a = nn.Parameter(torch.empty(rank, linear.in_features))
        self.lora_b = nn.Parameter(torch.zeros(linear.out_features, rank))
        nn.init.kaiming_uniform_(self.lora_a, a=math.sqrt(5))

    def forward(self, x: Float[Tensor, "... i"]) -> Float[Tensor, "... o"]:
        change = F.linear(F.linear(x, self.lora_a), self.lora_b)
        return F.linear(x, self.weight, self.bias) + change * self.scale


@dataclass(frozen=True)
class Merged:
    """The weight of the plain layer, made when it is read; its parts lie on disk."""

    weight: Any
    a: Any
    b: Any
    scale: float

    @property
    def dtype(self) -> torch.dtype:
        return self.weight.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        return self.weight.shape

    def read(self) -> Tensor:
        """Return the weight with the product added, summed in float64."""
        change = self.b.read().double() @ self.a.read().double()
        return (self.weight.read().double() + self.scale * change).to(self.dtype)
