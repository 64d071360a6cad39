"""What of a tensor lies on this rank."""

from __future__ import annotations

from torch import Tensor
from torch.distributed.tensor import DTensor


def local(tensor: Tensor) -> Tensor:
    """Return this rank's part of ``tensor``, which ranks may share; all of it, if they do not."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
