"""Seeing every operation that torch does, one after the other: what counting stands on."""

from __future__ import annotations

from typing import Any

from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode


class Operations(TorchDispatchMode):
    """Sees the operations on plain tensors in a ``with`` block, its backward passes included."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if any(issubclass(kind, DTensor) for kind in types):
            return NotImplemented  # it first becomes plain operations, which come here again
        result = func(*args, **(kwargs or {}))
        self.done(func, (*args, *(kwargs or {}).values()), result)
        return result

    def done(self, func: Any, given: tuple[Any, ...], result: Any) -> None:
        """Take note of an operation ``func``, what it was ``given`` and what it returned."""
        raise TypeError(f"{type(self).__name__} has no done()")
