"""Draws inside a network, keyed by the microbatch and the place in the network.

A draw belongs to (seed of the microbatch, name of the module), not to a generator that all share:
so it is the same whichever rank computes it, in whatever order, and again when a backward pass
recomputes it. Without a key (in a notebook) torch's own generator is used.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Sequence
from contextvars import ContextVar

import torch
from torch import Tensor, nn

_seed: ContextVar[int | None] = ContextVar("seed of the microbatch", default=None)


def current() -> int | None:
    """Return the seed that draws are keyed by now; None outside of :func:`keyed`."""
    return _seed.get()


@contextlib.contextmanager
def keyed(seed: int | None) -> Iterator[None]:
    """Key the draws of networks inside the block by ``seed``, 0 to 2**63 - 1."""
    token = _seed.set(seed)
    try:
        yield
    finally:
        _seed.reset(token)


class Random(nn.Module):
    """A module that draws; ``name_draws`` tells it where in its network it stands."""

    stream = 0

    @torch.compiler.disable  # a key differs at every call, and would be compiled in
    def kept(self, shape: Sequence[int], share: float, like: Tensor) -> Tensor:
        """Return 0 and 1/(1 - share), in ``shape`` and of the type of ``like``; 0 with
        probability ``share``."""
        seed, generator = _seed.get(), None
        if seed is not None:
            generator = torch.Generator(like.device)
            generator.manual_seed((seed ^ self.stream) & (2**63 - 1))
        uniform = torch.rand(*shape, generator=generator, device=like.device)
        return (uniform >= share).to(like.dtype) / (1 - share)


def name_draws(model: nn.Module) -> None:
    """Let every module that draws know its name in ``model``."""
    for name, module in model.named_modules():
        if isinstance(module, Random):
            digest = hashlib.sha256(name.encode()).digest()
            module.stream = int.from_bytes(digest[:8], "little") >> 1


class DropPath(Random):
    """In training, silences a branch for some of the samples and makes up for it in the others.

    Source: Huang et al. 2016, arXiv:1603.09382.
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        assert 0 <= share < 1, f"cannot drop a share of {share}"
        self.share = share

    def forward(self, x: Tensor) -> Tensor:
        """x: (b, ...)."""
        if not self.training or not self.share:
            return x
        return x * self.kept([x.shape[0]] + [1] * (x.ndim - 1), self.share, x)


class Dropout(Random):
    """In training, silences some of the values, or of the channels of images; one draw for each
    sample and channel if ``channels``.

    Sources: Srivastava et al. 2014, JMLR 15, 1929; of channels, Tompson et al. 2015,
    arXiv:1411.4280.
    """

    def __init__(self, share: float, channels: bool = False) -> None:
        super().__init__()
        assert 0 <= share < 1, f"cannot drop a share of {share}"
        self.share, self.channels = share, channels

    def forward(self, x: Tensor) -> Tensor:
        """x: (b, c, ...)."""
        if not self.training or not self.share:
            return x
        shape = [*x.shape[:2], *[1] * (x.ndim - 2)] if self.channels else list(x.shape)
        return x * self.kept(shape, self.share, x)
