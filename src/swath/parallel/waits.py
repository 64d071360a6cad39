"""How long computing waits for exchanges: what of them no work hides.

On a CPU an exchange runs on threads of gloo's, and whoever needs its result waits where it says so:
those seconds are summed. On a GPU the host only queues; there two events around each wait, on the
stream that computes, tell how long that stream stood still.

Torch's own sharding, tensor and pipeline layers wait by the same calls as we do: ``Work.wait``,
``wait_tensor`` and, on GPUs, ``Stream.wait_event``. So these are what is timed, while the block
lasts. Not seen are exchanges that a compiled block contains and, on GPUs, those that torch queues
on the computing stream itself (asked for without ``async_op``), which a profile shows.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.distributed import _functional_collectives as functional

from swath.span import span

_PAIRS = 1000  # of events kept


class Waits:
    """Seconds that computing on ``device`` has waited for exchanges.

    compiled: whether parts of the model are compiled; what they call must then stay as it is.
    """

    def __init__(self, device: torch.device, *, compiled: bool = False) -> None:
        self.device, self.compiled = device, compiled
        self._seconds = 0.0
        self._pairs: deque[tuple[Any, Any]] = deque()
        """Of a GPU: events before and after waits that have not been added yet."""

    @property
    def seconds(self) -> float:
        """Seconds so far; of a GPU, of waits that are over."""
        while self._pairs and self._pairs[0][1].query():
            before, after = self._pairs.popleft()
            self._seconds += before.elapsed_time(after) / 1000
        return self._seconds

    @contextlib.contextmanager
    def timed(self) -> Iterator[None]:
        """Time what is waited for inside the block; for the main thread."""
        if not torch.distributed.is_available():
            yield
            return
        places: list[tuple[Any, str]] = [(torch.distributed.Work, "wait")]
        if not self.compiled:
            places.append((functional, "wait_tensor"))
        if self.device.type == "cuda":
            places.append((torch.cuda.Stream, "wait_event"))
        before = [getattr(owner, name) for owner, name in places]
        clock = self._on_gpu() if self.device.type == "cuda" else self._on_host
        for (owner, name), wait in zip(places, before, strict=True):
            setattr(owner, name, clock(wait))
        try:
            yield
        finally:
            for (owner, name), wait in zip(places, before, strict=True):
                setattr(owner, name, wait)

    def _on_host(self, wait: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **options: Any) -> Any:
            began = time.perf_counter()
            try:
                with span("waiting"):
                    return wait(*args, **options)
            finally:
                self._seconds += time.perf_counter() - began

        return timed

    def _on_gpu(self) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        computing = torch.cuda.current_stream(self.device)

        def clock(wait: Callable[..., Any]) -> Callable[..., Any]:
            def timed(*args: Any, **options: Any) -> Any:
                # A stream of torch's own may wait as long as it likes.
                waits = args[0] if isinstance(args[0], torch.cuda.Stream) else None
                if (waits or torch.cuda.current_stream(self.device)) != computing:
                    return wait(*args, **options)
                events = [torch.cuda.Event(enable_timing=True) for _ in range(2)]
                events[0].record(computing)
                with span("waiting"):
                    found = wait(*args, **options)
                events[1].record(computing)
                self._pairs.append((events[0], events[1]))
                if len(self._pairs) > _PAIRS:
                    _ = self.seconds  # adds up those that are over
                return found

            return timed

        return clock
