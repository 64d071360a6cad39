"""Where the time of an update went, read from its trace.

The host's time is shared out among named ranges, each without those inside it, and what is in none
is ``other``. On a GPU the same is done for what the host queued: a kernel's time belongs to the
range in which it was queued. There, exchanges are exposed while one runs and nothing else does.
"""

from __future__ import annotations

import dataclasses
import gzip
import json
import pathlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

ORDER = (
    "data", "forward", "backward", "exchange", "waiting", "optimiser", "checkpoint", "validation",
    "other",
)  # fmt: skip
_GPU = ("kernel", "gpu_memcpy", "gpu_memset")
_QUEUED = ("cuda_runtime", "cuda_driver")
_MOST = 10  # operations told of


@dataclass(frozen=True)
class Row:
    """A range, or an operation: how often, and seconds in all without what is inside it."""

    name: str
    times: int
    seconds: float
    gpu_seconds: float = 0.0
    """Of what was queued in it."""


@dataclass(frozen=True)
class Times:
    """Where the time of an update went on one rank."""

    update: int
    rank: int
    seconds: float
    """From its beginning to that of the next one."""
    ranges: tuple[Row, ...]
    operations: tuple[Row, ...]
    """The longest ones: of the GPU if it took part, else of the CPU."""
    gpu_busy: float | None = None
    """Seconds in which the GPU did anything; None: there was none."""
    exposed: float | None = None
    """Seconds in which a GPU did nothing but exchange."""

    def as_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str) -> Times:
        known = json.loads(text)
        for name in ("ranges", "operations"):
            known[name] = tuple(Row(**row) for row in known[name])
        return cls(**known)


def where_time_went(path: pathlib.Path, update: int, rank: int) -> Times:
    """Return where the time of the trace at ``path`` (gzipped JSON) went."""
    with gzip.open(path, "rt") as file:
        return times(json.load(file)["traceEvents"], update, rank)


def times(events: Sequence[dict[str, Any]], update: int, rank: int) -> Times:
    """Return where the time went in ``events``, as Chrome's trace format has them."""
    spans = [e for e in events if e.get("ph") == "X"]
    named = [e for e in spans if e.get("cat") == "user_annotation"]
    (step,) = (e for e in named if e["name"] == f"ProfilerStep#{update}")
    named = [e for e in named if e["name"] in ORDER and e["tid"] == step["tid"]]
    own = own_times([step, *named])
    counts = Counter(e["name"] for e in named)
    seconds: dict[str, float] = defaultdict(float)
    for event, alone in zip([step, *named], own, strict=True):
        seconds["other" if event is step else event["name"]] += alone / 1e6
    queued_in, kernels = _queued(spans, [step, *named])
    ranges = [
        Row(name, counts[name], seconds[name], queued_in[name] / 1e6)
        for name in ORDER
        if name in seconds
    ]
    gpu: dict[str, Any] = {}
    if kernels:
        others = [e for e in kernels if "nccl" not in e["name"].lower()]
        busy = covered(kernels)
        gpu = {"gpu_busy": busy / 1e6, "exposed": (busy - covered(others)) / 1e6}
    return Times(update, rank, step["dur"] / 1e6, tuple(ranges), _operations(spans, kernels), **gpu)


def own_times(events: Sequence[dict[str, Any]]) -> list[float]:
    """Return the microseconds of each of ``events`` without those of the events inside it, of the
    same thread."""
    own = [float(e["dur"]) for e in events]
    order = sorted(range(len(events)), key=lambda i: (events[i]["ts"], -events[i]["dur"]))
    open_: dict[Any, list[int]] = {}
    for i in order:
        stack = open_.setdefault(events[i]["tid"], [])
        while stack and _end(events[stack[-1]]) <= events[i]["ts"]:
            stack.pop()
        if stack:
            own[stack[-1]] -= events[i]["dur"]
        stack.append(i)
    return own


def covered(events: Iterable[dict[str, Any]]) -> float:
    """Return the microseconds in which at least one of ``events`` lasts."""
    total, end = 0.0, float("-inf")
    for event in sorted(events, key=lambda e: e["ts"]):
        total += max(0.0, _end(event) - max(end, event["ts"]))
        end = max(end, _end(event))
    return total


def _queued(
    spans: Sequence[dict[str, Any]], ranges: Sequence[dict[str, Any]]
) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """Return the GPU's microseconds by the range that queued them, and all that the GPU did."""
    kernels = [e for e in spans if e.get("cat") in _GPU]
    when = {
        e["args"]["correlation"]: e["ts"]
        for e in spans
        if e.get("cat") in _QUEUED and "correlation" in e.get("args", {})
    }
    found: dict[str, float] = defaultdict(float)
    for kernel in kernels:
        # The backward pass queues from a thread of its own, so by time, not by thread.
        moment = when.get(kernel.get("args", {}).get("correlation"))
        around = [] if moment is None else [r for r in ranges if r["ts"] <= moment < _end(r)]
        inner = min(around, key=lambda r: r["dur"], default=ranges[0])
        found[inner["name"] if inner is not ranges[0] else "other"] += kernel["dur"]
    return found, kernels


def _operations(
    spans: Sequence[dict[str, Any]], kernels: Sequence[dict[str, Any]]
) -> tuple[Row, ...]:
    chosen = kernels or [e for e in spans if e.get("cat") == "cpu_op"]
    alone = [e["dur"] for e in kernels] if kernels else own_times(chosen)
    seconds: dict[str, float] = defaultdict(float)
    counts = Counter(e["name"] for e in chosen)
    for event, own in zip(chosen, alone, strict=True):
        seconds[event["name"]] += own / 1e6
    longest = sorted(seconds, key=lambda name: -seconds[name])[:_MOST]
    return tuple(Row(name, counts[name], seconds[name]) for name in longest)


def told(found: Times) -> str:
    """Return the table of ``found`` as text."""
    lines = [f"update {found.update}, rank {found.rank}: {found.seconds:.4f} s", ""]
    gpu = found.gpu_busy is not None
    head = f"{'range':<14}{'times':>7}{'seconds':>11}{'share':>9}"
    lines.append(head + (f"{'GPU, s':>11}" if gpu else ""))
    for row in found.ranges:
        times = row.times or ""
        share = row.seconds / found.seconds
        text = f"{row.name:<14}{times:>7}{row.seconds:>11.4f}{share:>9.1%}"
        lines.append(text + (f"{row.gpu_seconds:>11.4f}" if gpu else ""))
    if found.gpu_busy is not None and found.exposed is not None:
        lines += [
            "",
            f"The GPU was busy for {found.gpu_busy:.4f} s ({found.gpu_busy / found.seconds:.1%}),"
            f" with exchanges alone for {found.exposed:.4f} s"
            f" ({found.exposed / found.seconds:.1%}).",
        ]
    lines += ["", f"{'longest operations':<48}{'times':>7}{'seconds':>11}{'share':>9}"]
    for row in found.operations:
        share = row.seconds / found.seconds
        lines.append(f"{row.name[:46]:<48}{row.times:>7}{row.seconds:>11.4f}{share:>9.1%}")
    return "\n".join(lines) + "\n"


def _end(event: dict[str, Any]) -> float:
    return event["ts"] + event["dur"]
