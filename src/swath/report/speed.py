"""How well the machine was used, and where the time of profiled updates went."""

from __future__ import annotations

import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from swath import units
from swath.train.profile import FOLDER
from swath.train.trace import Row, Times

MOST = 4  # profiles shown


def use(records: Sequence[Mapping[str, Any]], starts: Sequence[Mapping[str, Any]]) -> str:
    """Return sentences on utilisation, memory and exchanges; "" if nothing of it was recorded."""
    words = []
    if told := _by_start(records, starts, "mfu"):
        start, mfu = told[0]  # the newest: others' may be shares of another peak
        since = f" since update {start['update']}" if len(told) > 1 else ""
        words.append(
            f"Model FLOP/s utilisation {_median(mfu):.2g} (median{since}) of"
            f" {start['peak_flops_per_s'] / 1e12:.3g} TFLOP/s a rank, {start['peak_from']}."
        )
    if memory := _known(records, "memory_bytes"):
        words.append(f"At most {units.bytes_(max(memory))} of memory on a rank.")
    ranks = max((start["ranks"] for start in starts), default=1)
    if ranks > 1 and (sent := _known(records, "sent_bytes")):
        waits = _known(records, "exchange_wait")
        words.append(
            f"{ranks} ranks, each sent {units.bytes_(sent[-1])} an update and waited for exchanges"
            f" {sum(waits) / len(waits):.0%} of the time."
        )
    return " ".join(words)


def profiles(folder: pathlib.Path) -> list[dict[str, Any]]:
    """Return a table for each of the first profiles in a run folder: title, titles and rows."""
    found = []
    for path in (folder / FOLDER).glob("rank*.json"):
        try:
            found.append(Times.from_json(path.read_text()))
        except (ValueError, TypeError, KeyError):
            continue  # damaged: the trace beside it tells more anyway
    found.sort(key=lambda times: (times.update, times.rank))
    return [_table(times) for times in found[:MOST]]


def _table(times: Times) -> dict[str, Any]:
    gpu = times.gpu_busy is not None
    title = f"Update {times.update} on rank {times.rank}: {units.seconds(times.seconds)}"
    if times.gpu_busy is not None and times.exposed is not None:
        title += (
            f"; the GPU at work {times.gpu_busy / times.seconds:.0%} of it, only exchanging"
            f" {times.exposed / times.seconds:.0%}"
        )
    return {
        "title": title,
        "titles": ["range", "times", "seconds", "share", *(["GPU, s"] if gpu else [])],
        "rows": [_row(row, times.seconds, gpu) for row in times.ranges],
    }


def _row(row: Row, whole: float, gpu: bool) -> dict[str, Any]:
    share = row.seconds / whole
    cells = [row.name, str(row.times or ""), f"{row.seconds:.4f}", f"{share:.1%}"]
    cells += [f"{row.gpu_seconds:.4f}"] if gpu else []
    return {"cells": cells, "bar": round(100 * share, 1)}


def _by_start(
    records: Sequence[Mapping[str, Any]], starts: Sequence[Mapping[str, Any]], name: str
) -> list[tuple[Mapping[str, Any], list[float]]]:
    """Return the starts that recorded ``name``, newest first, each with its values. A later one has
    cut off what it made again."""
    found, end = [], math.inf
    for start in reversed(starts):
        own = [r for r in records if start["update"] < r["update"] <= end]
        if values := _known(own, name):
            found.append((start, values))
        end = min(end, start["update"])
    return found


def _known(records: Sequence[Mapping[str, Any]], name: str) -> list[float]:
    return [r[name] for r in records if r.get(name) is not None]


def _median(values: Sequence[float]) -> float:
    return sorted(values)[len(values) // 2]
