"""Draws made where the tensors are: a pure function of a key, the same on every device.

For what is too large to draw with numpy and send (noise on every pixel), or belongs into a compiled
network (dropout). A key is a tensor, so that compiled code takes it as an input.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

_WORD = 2**32 - 1


def uniform(key: Tensor, shape: Sequence[int]) -> Tensor:
    """Return draws from [0, 1), float32 on a lattice of 2^-24, in ``shape``, which the 63 bits of
    ``key`` (int64, 0-d) determine; the same on every device.

    The number of the draw and the halves of the key, scrambled one after the other.
    """
    word = _words(key, torch.arange(math.prod(shape), device=key.device).view(*shape))
    return (word >> 8).to(torch.float32) * 2.0**-24


def each(keys: Tensor, number: int) -> Tensor:
    """Return a draw from [0, 1), float32 on a lattice of 2^-24, for each of ``keys`` (b,): (b,).

    number: tells draws by the same keys apart.
    """
    return (_words(keys, torch.full_like(keys, number)) >> 8).to(torch.float32) * 2.0**-24


def orders(keys: Tensor, count: int) -> Tensor:
    """Return the numbers below ``count`` in a random order for each of ``keys`` (b,): (b, count).

    Of two that draw alike, one in 10^7 pairs or fewer, the smaller number comes first.
    """
    words = _words(keys[:, None], torch.arange(count, device=keys.device))
    return words.argsort(dim=1, stable=True)


def normal(key: Tensor, shape: Sequence[int]) -> Tensor:
    """Return draws of mean 0 and standard deviation 1, float32, in ``shape``, by Box and Muller."""
    first, second = uniform(key, (2, *shape))
    # 1 - u is in (0, 1], so never log 0.
    return (-2 * torch.log1p(-first)).sqrt() * torch.cos(2 * math.pi * second)


def _words(key: Tensor, number: Tensor) -> Tensor:
    """Return 32 random bits, in int64, for each ``number`` of a draw with ``key``."""
    word = _scrambled((number ^ key) & _WORD)
    return _scrambled((word + (key >> 32)) & _WORD)


def _scrambled(word: Tensor) -> Tensor:
    """Return numbers of 32 bits, in int64, scrambled one to one; no product exceeds 63 bits.

    Source of the constants: hash-prospector (C. Wellons, public domain), the pair of least bias
    below 2^31.
    """
    word = ((word ^ (word >> 16)) * 0x21F0AAAD) & _WORD
    word = ((word ^ (word >> 15)) * 0x735A2D97) & _WORD
    return word ^ (word >> 15)
