"""Draws inside a network, keyed by the microbatch and the place in the network.

A draw belongs to (seed of the microbatch, name of the module, number of the draw), not to a
generator that all share: so it is the same whichever rank computes it, in whatever order, on
whatever device, and again when a backward pass recomputes it. Without a key (in a notebook) torch's
own generator is used.

A key is a tensor, so that a compiled network takes it as an input and not as a constant.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from swath.data.draw import mix
from swath.data.draw_tensor import uniform


class Random(nn.Module):
    """A module that draws; :class:`Draws` hands it keys."""

    key: Tensor | None = None
    """63 random bits, int64 and 0-d; None: torch's own generator draws."""

    def kept(self, shape: Sequence[int], share: float, like: Tensor) -> Tensor:
        """Return 0 and 1/(1 - share), in ``shape`` and of the type of ``like``; 0 with
        probability ``share``."""
        if self.key is None:
            drawn = torch.rand(*shape, device=like.device)
        else:
            drawn = uniform(self.key, shape)
        return (drawn >= share).to(like.dtype) / (1 - share)


class Draws:
    """The modules of ``model`` that draw, each with the name by which it does so."""

    def __init__(self, model: nn.Module) -> None:
        named = [(n, m) for n, m in model.named_modules() if isinstance(m, Random)]
        self.modules = [module for _, module in named]
        words = b"".join(hashlib.sha256(name.encode()).digest()[:8] for name, _ in named)
        self._streams = np.frombuffer(words, "<u8")

    @contextlib.contextmanager
    def keyed(self, seed: int, device: str | torch.device = "cpu") -> Iterator[None]:
        """Key what they draw on ``device`` inside the block by ``seed``, 0 to 2**63 - 1."""
        bits = mix(self._streams ^ mix(np.array([seed], np.uint64))) >> np.uint64(1)
        with given(self.modules, torch.from_numpy(bits.astype(np.int64)).to(device).unbind()):
            yield


@contextlib.contextmanager
def given(modules: Sequence[Random], keys: Sequence[Tensor | None]) -> Iterator[None]:
    """Let each of ``modules`` draw by its own of ``keys`` inside the block."""
    before = [module.key for module in modules]
    for module, key in zip(modules, keys, strict=True):
        module.key = key
    try:
        yield
    finally:
        for module, key in zip(modules, before, strict=True):
            module.key = key


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
