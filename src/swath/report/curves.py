"""The course of training: curves from ``metrics.jsonl`` and what they add up to."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from swath import units
from swath.report.charts import Line, chart, smooth, thin
from swath.tasks import FIGURES, figure

Record = Mapping[str, Any]


def curves(records: Sequence[Record]) -> list[dict[str, str]]:
    """Return charts with titles: loss, validation figures, learning rate and gradient, speed
    and waits."""
    updates = [r for r in records if r.get("loss") is not None]
    if not updates:
        return []
    scored = [r for r in records if any(name.startswith("val/") for name in r)]
    kept = thin(updates)
    x = [updates[i]["samples"] for i in kept]

    def of(name: str) -> list[float]:
        return [_number(update.get(name)) for update in updates]

    loss = of("loss")
    lines = [_line("training", x, loss, kept)]
    if any("val/loss" in r for r in scored):
        lines.append(_scores("validation", scored, "val/loss"))
    charts = [("Loss, smoothed; single updates faint", chart(lines, x_name="samples"))]
    names = {name.removeprefix("val/") for r in scored for name in r if name.count("/") == 1}
    figures = [*sorted(names - FIGURES.keys()), *(n for n in FIGURES if n in names - {"loss"})][:4]
    if figures and len(scored) > 1:
        lines = [_scores(figure(name).title, scored, f"val/{name}") for name in figures]
        charts.append(("Validation", chart(lines, x_name="samples")))
    if any("lr" in update for update in updates):
        lr = of("lr")
        line = Line("learning rate", x, [lr[i] for i in kept])
        charts.append(("Learning rate", chart([line], x_name="samples")))
    norm = of("grad_norm")
    if any(math.isfinite(value) for value in norm):
        lines = [_line("norm", x, norm, kept)]
        charts.append(
            ("Gradient norm, smoothed; logarithmic", chart(lines, x_name="samples", log=True))
        )
    speed = of("samples_per_s")
    if any(math.isfinite(value) for value in speed):
        lines = [_line("samples/s", x, speed, kept)]
        charts.append(("Speed, samples/s", chart(lines, x_name="samples")))
    used = [100 * value for value in of("mfu")]
    if any(math.isfinite(value) for value in used):
        lines = [_line("MFU, %", x, used, kept)]
        charts.append(("Model FLOP/s utilisation, %", chart(lines, x_name="samples")))
    waits = {"data": of("data_wait"), "exchanges": of("exchange_wait")}
    lines = [_line(what, x, values, kept) for what, values in waits.items() if any(values)]
    if any(math.isfinite(value) for line in lines for value in line.y):
        charts.append(("Waiting, share of the time", chart(lines, x_name="samples")))
    return [{"title": title, "svg": svg} for title, svg in charts if svg]


def course(records: Sequence[Record]) -> str:
    """Return a sentence on how long training took and how fast it was."""
    updates = [r for r in records if r.get("loss") is not None]
    if not updates:
        return ""
    last = updates[-1]
    words = [f"{units.count(last['samples'])} samples in {units.count(last['update'])} updates"]
    spent = [u["seconds"] for u in updates if u.get("seconds") is not None]
    if spent:
        words.append(units.seconds(max(spent[-1], max(spent))))
    speeds = sorted(u["samples_per_s"] for u in updates if u.get("samples_per_s"))
    if speeds:
        words.append(f"{speeds[len(speeds) // 2]:.3g} samples/s (median)")
    waits = [_number(u.get("data_wait")) for u in updates]
    waits = [w for w in waits if math.isfinite(w)]
    if waits and max(waits) <= 1:
        words.append(f"{sum(waits) / len(waits):.0%} of the time waiting for data")
    return "; ".join(words) + ". All curves by samples seen."


def _line(name: str, x: list[float], values: list[float], kept: list[int]) -> Line:
    smoothed = smooth(values)
    return Line(name, x, [smoothed[i] for i in kept], [values[i] for i in kept])


def _scores(name: str, scored: Sequence[Record], key: str) -> Line:
    here = [r for r in scored if r.get(key) is not None]
    return Line(name, [r["samples"] for r in here], [_number(r[key]) for r in here])


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else math.nan
