"""Bytes that a real process has asked of its memory, for tests that count them.

They come from the C library, which every allocation of torch on a CPU goes through; nothing of
torch is asked. Read after each operation, so the largest reading is the peak but for what an
operation takes and gives back by itself.
"""

import ctypes
from typing import Any

import pytest
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode

_FIELDS = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"


class _Info(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in _FIELDS.split()]


def asked() -> int:
    """Return the bytes that are handed out now, in all threads; skip without the GNU C library."""
    library = ctypes.CDLL(None)
    if not hasattr(library, "mallinfo2"):
        pytest.skip("counts by mallinfo2 of the GNU C library 2.33 or later, which is not here")
    library.mallinfo2.restype = _Info
    info = library.mallinfo2()
    return info.uordblks + info.hblkhd  # from heaps, and mapped one by one


class Peak(TorchDispatchMode):
    """The most bytes handed out after any operation of the block."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if any(issubclass(kind, DTensor) for kind in types):
            return NotImplemented
        result = func(*args, **(kwargs or {}))
        self.bytes = max(self.bytes, asked())
        return result
