"""The most memory that this process used since it was last asked."""

from __future__ import annotations

import contextlib
import pathlib
import resource

import torch

_STATUS = pathlib.Path("/proc/self/status")
_CLEAR = pathlib.Path("/proc/self/clear_refs")


def peak_bytes(device: torch.device) -> int:
    """Return the most bytes in use since the last call, and begin anew.

    On a GPU what torch's allocator had handed out; on a CPU what was resident of the process, its
    programs included. Where Linux does not let a process begin anew (and elsewhere), since the
    process began.
    """
    if device.type == "cuda":
        most = torch.cuda.max_memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        return most
    most = _most_resident()
    with contextlib.suppress(OSError):
        _CLEAR.write_text("5")  # proc(5): the peak becomes what is resident now
    return most


def _most_resident() -> int:
    try:
        lines = _STATUS.read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
