"""Names for stretches of time: data, forward, backward, exchange, optimiser, ...

    with span("forward"):
        ...

costs a look-up, unless somebody has asked by :func:`marked` to be told of spans: then a trace has a
range of that name. What makes the ranges (torch's profiler, NVTX) is the asker's.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from contextvars import ContextVar

Marker = Callable[[str], AbstractContextManager]
"""Makes a range of that name, which lasts as long as the block."""

_marker: ContextVar[Marker | None] = ContextVar("marker", default=None)
_NOTHING = contextlib.nullcontext()


def span(name: str) -> AbstractContextManager:
    """Return a block that is called ``name`` in a trace, if there is one."""
    marker = _marker.get()
    return _NOTHING if marker is None else marker(name)


@contextlib.contextmanager
def marked(marker: Marker) -> Iterator[None]:
    """Let ``marker`` make a range of every span of this thread until the block ends."""
    before = _marker.get()
    _marker.set(marker)
    try:
        yield
    finally:
        _marker.set(before)
