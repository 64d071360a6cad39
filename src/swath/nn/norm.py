"""Normalisation inside networks."""

from torch import nn


def group_norm(channels: int) -> nn.GroupNorm:
    """Return a norm over 8 groups of channels, or over as many as divide ``channels``."""
    return nn.GroupNorm(next(n for n in (8, 4, 2, 1) if channels % n == 0), channels)
