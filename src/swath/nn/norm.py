"""Normalisation inside networks, equal on any number of ranks.

Group norm sees one sample and is so by nature. Batch norm here normalises by the statistics of
its microbatch, as usual, but only adds them up; when an update ends, their mean over the
microbatches of all ranks is folded into the running statistics once (:mod:`swath.nn.settle`).

Source of batch norm: Ioffe & Szegedy 2015, arXiv:1502.03167.
"""

from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from swath.config import ConfigError
from swath.nn.settle import Settled, Update


def group_norm(channels: int) -> nn.GroupNorm:
    """Return a norm over 8 groups of channels, or over as many as divide ``channels``."""
    return nn.GroupNorm(next(n for n in (8, 4, 2, 1) if channels % n == 0), channels)


class BatchNorm2d(Settled):
    """Batch norm whose running statistics move once an update.

    Its parameters and saved buffers have the names of ``torch.nn.BatchNorm2d``, so that public
    weights load.

    momentum: share of an update's statistics in the new running ones.
    """

    gathers: ClassVar = ("sum_mean", "sum_var", "passes")

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor
    sum_mean: Tensor
    sum_var: Tensor
    passes: Tensor

    def __init__(self, channels: int, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__()
        self.eps, self.momentum = eps, momentum
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))
        self.register_buffer("num_batches_tracked", torch.tensor(0))  # microbatches, all ranks
        self.register_buffer("sum_mean", torch.zeros(channels), persistent=False)
        self.register_buffer("sum_var", torch.zeros(channels), persistent=False)
        self.register_buffer("passes", torch.zeros(1), persistent=False)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Return ``x`` normalised per channel; ConfigError in training on one value a channel."""
        if not self.training:
            return F.batch_norm(
                x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        if x.shape[0] * x.shape[2] * x.shape[3] == 1:
            raise ConfigError(
                "batch statistics need more than one value: the microbatch has one sample and the"
                " feature one pixel; make batch.micro larger, or the chips"
            )
        # With momentum 1 torch leaves the batch's own mean and unbiased variance in these two.
        mean, var = torch.zeros_like(self.sum_mean), torch.zeros_like(self.sum_var)
        out = F.batch_norm(
            x, mean, var, self.weight, self.bias, training=True, momentum=1.0, eps=self.eps
        )
        self.sum_mean += mean
        self.sum_var += var
        self.passes += 1
        return out

    def move(self, update: Update) -> None:
        """Fold the gathered statistics into the running ones; microbatches count alike."""
        # A norm that was not used stays as it is. The truth value is made a number first: times a
        # Python float it would become float32, in a float64 model too.
        share = (self.passes > 0).to(self.sum_mean.dtype) * self.momentum
        self.running_mean.lerp_(self.sum_mean / self.passes.clamp(min=1), share)
        self.running_var.lerp_(self.sum_var / self.passes.clamp(min=1), share)
        self.num_batches_tracked += self.passes.round().long().squeeze()
