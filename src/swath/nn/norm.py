"""Normalisation inside networks, equal on any number of ranks.

Group norm sees one sample and is so by nature. Batch norm here normalises by the statistics of
its microbatch, as usual, but only adds them up; when an update ends, :func:`settle` sums them over
ranks and folds their mean into the running statistics once. Folding at every forward pass, as
torch does, would give each rank running statistics of its own, and others when microbatches are
dealt out anew.

Source of batch norm: Ioffe & Szegedy 2015, arXiv:1502.03167.
"""

import contextlib
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from swath.config import ConfigError


def group_norm(channels: int) -> nn.GroupNorm:
    """Return a norm over 8 groups of channels, or over as many as divide ``channels``."""
    return nn.GroupNorm(next(n for n in (8, 4, 2, 1) if channels % n == 0), channels)


class BatchNorm2d(nn.Module):
    """Batch norm whose running statistics move once an update, by :func:`settle`.

    Its parameters and saved buffers have the names of ``torch.nn.BatchNorm2d``, so that public
    weights load. The sums since the last update are not saved: a checkpoint is taken when they
    are zero.

    momentum: share of an update's statistics in the new running ones.
    """

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


def settle(model: nn.Module, sum_: Callable[[Tensor], Tensor]) -> None:
    """Fold the batch statistics gathered since the last call into the running ones; forget them.

    sum_: returns its argument summed over ranks; called once, by all ranks together, and not at
    all for a model without batch norm. Microbatches count alike, whichever rank had them.
    """
    norms = _norms(model)
    if not norms:
        return
    with torch.no_grad():
        flat = torch.cat([t for n in norms for t in (n.sum_mean, n.sum_var, n.passes)])
        total = sum_(flat)
        for norm in norms:
            channels = norm.sum_mean.numel()
            mean, var, passes, total = total.split(
                [channels, channels, 1, total.numel() - 2 * channels - 1]
            )
            # A norm that was not used stays as it is. The truth value is made a number first:
            # times a Python float it would become float32, in a float64 model too.
            share = (passes > 0).to(mean.dtype) * norm.momentum
            norm.running_mean.lerp_(mean / passes.clamp(min=1), share)
            norm.running_var.lerp_(var / passes.clamp(min=1), share)
            norm.num_batches_tracked += passes.round().long().squeeze()
    forget(model)


def forget(model: nn.Module) -> None:
    """Drop the batch statistics gathered since the last :func:`settle`: the update was skipped."""
    for norm in _norms(model):
        for gathered in (norm.sum_mean, norm.sum_var, norm.passes):
            gathered.zero_()


@contextlib.contextmanager
def unrecorded(model: nn.Module) -> Iterator[None]:
    """Leave out the batch statistics of what passes through ``model`` inside the block."""
    gathered = [t for n in _norms(model) for t in (n.sum_mean, n.sum_var, n.passes)]
    before = [t.clone() for t in gathered]
    try:
        yield
    finally:  # recomputing ends by an exception
        for tensor, value in zip(gathered, before, strict=True):
            tensor.copy_(value)


def _norms(model: nn.Module) -> list[BatchNorm2d]:
    return [module for module in model.modules() if isinstance(module, BatchNorm2d)]
