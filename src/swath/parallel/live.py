"""Which tensors are in memory, operation by operation, and what the most of them were at once.

    with FakeTensorMode(allow_non_fake_inputs=True), Live() as live:
        ...
    live.at_peak()

A tensor counts from the operation that makes it until nobody holds it any more: Python, the graph
of a backward pass, or an exchange under way. What counts is the memory behind tensors, so views
are free. Meant for fake tensors, which have sizes and no values: nothing is allocated, and the
order of events is that of a real run. Memory that an operation uses and gives back by itself is
not seen.

What a tensor is for can be said while it is alive, by :meth:`Live.name`, and then holds for all of
its life. Where nobody says so, memory that came and went by resizing is that of gathered
parameters (FSDP2 keeps the tensor and takes its memory away), and all else is activations and
their gradients.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor._sharding_prop import ShardingPropagator
from torch.utils._pytree import tree_leaves

from swath.parallel.local import local
from swath.parallel.operations import Operations

GATHERED, OTHER = "gathered", "activations"
_OFTEN = 256  # operations between two looks at what is alive


class Live(Operations):
    """Counts the memory of all tensors that operations in the block make.

    look: called every now and then, to name what can be found only in the middle of things.
    """

    def __init__(self, look: Callable[[], None] | None = None) -> None:
        super().__init__()
        self._look = look
        self._alive: dict[int, tuple[int, int, Any]] = {}
        """By address: number, bytes now, and a reference that tells of the end."""
        self._names: list[str | None] = []
        self._events: list[tuple[int, int]] = []
        """Number of a piece of memory, and by how many bytes it grew."""
        self._operations, self._aside = 0, 0
        self._bytes, self._most, self._when = 0, 0, 0

    def done(self, func: Any, given: tuple[Any, ...], result: Any) -> None:
        if not self._aside:
            self.count(tree_leaves(result))
            self._operations += 1
            if self._look is not None and self._operations % _OFTEN == 0:
                self._look()

    def count(self, values: Iterable[Any]) -> None:
        """Let those of ``values`` that are tensors count from now on."""
        for value in values:
            if isinstance(value, Tensor):
                self._number(value)

    def name(self, name: str, tensors: Iterable[Tensor | None]) -> None:
        """Say what ``tensors`` are for."""
        for tensor in tensors:
            if tensor is not None:
                self._names[self._number(local(tensor))] = name

    def begin(self) -> None:
        """Look for the peak from here on."""
        self._most, self._when = self._bytes, len(self._events)

    @property
    def most(self) -> int:
        """Bytes at the peak."""
        return self._most

    def at_peak(self) -> dict[str, int]:
        """Return bytes by name, as they were at the peak."""
        found: dict[str, int] = {}
        for number, more in self._events[: self._when]:
            name = self._names[number] or OTHER
            found[name] = found.get(name, 0) + more
        return found

    def _number(self, tensor: Tensor) -> int:
        storage = tensor.untyped_storage()
        address = storage._cdata
        if address in self._alive:
            return self._alive[address][0]
        number, size = len(self._names), storage.nbytes()
        self._names.append(None)
        end = weakref.ref(storage, partial(self._ended, address))
        self._alive[address] = number, size, end
        self._grown(number, size)
        return number

    def _ended(self, address: int, _: Any) -> None:
        number, size, _ = self._alive.pop(address)
        self._grown(number, -size)

    def _grown(self, number: int, more: int) -> None:
        self._events.append((number, more))
        self._bytes += more
        if self._bytes > self._most:
            self._most, self._when = self._bytes, len(self._events)

    def _resized(self, storage: Any) -> None:
        known = self._alive.get(storage._cdata)
        if known is not None:
            number, size, end = known
            self._alive[storage._cdata] = number, storage.nbytes(), end
            self._names[number] = self._names[number] or GATHERED
            self._grown(number, storage.nbytes() - size)

    def __enter__(self) -> Live:
        # Memory is resized past the dispatcher. And to find the shape of a result DTensor computes
        # with tensors of the whole shape, that no real run has in memory.
        storage: Any = torch.UntypedStorage
        shapes: Any = ShardingPropagator
        resize, propagate = storage.resize_, shapes._propagate_tensor_meta_non_cached

        def counted(one: Any, size: int) -> Any:
            result = resize(one, size)
            self._resized(one)
            return result

        def aside(*args: Any) -> Any:
            self._aside += 1
            try:
                return propagate(*args)
            finally:
                self._aside -= 1

        def put_back() -> None:
            storage.resize_, shapes._propagate_tensor_meta_non_cached = resize, propagate

        storage.resize_, shapes._propagate_tensor_meta_non_cached = counted, aside
        self._put_back = put_back
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        self._put_back()
        super().__exit__(*error)
