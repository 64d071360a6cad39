"""What a comparison found: mean and deviation over seeds, as text, CSV, JSON and Markdown."""

from __future__ import annotations

import csv
import io
import itertools
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from swath import units
from swath.assess.cells import read
from swath.assess.plan import Plan
from swath.assess.ways import BASELINE, title
from swath.files import write_file, write_json
from swath.tasks import figure


@dataclass(frozen=True)
class Row:
    """What one model reaches in one way with one share of labels."""

    task: str
    way: str
    model: str
    share: float
    labels: float
    """Samples, or places where the split divides pixels, that were learned from; of baselines on
    pixels, pixels. Mean over seeds."""
    values: dict[int, dict[str, float]]
    """Figures by seed."""
    touching: float | None = None
    """Share of the test windows that touch training pixels, the largest of any seed; None: not
    measured, as of features."""

    def mean(self, name: str) -> float:
        """Return the mean of a figure over seeds."""
        return statistics.fmean(one[name] for one in self.values.values())

    def deviation(self, name: str) -> float:
        """Return the standard deviation of a figure over seeds; 0 for a single one."""
        return units.deviation([one[name] for one in self.values.values()])

    def said(self, name: str) -> str:
        """Return mean and deviation of a figure in words."""
        return units.spread([one[name] for one in self.values.values()])

    def alike(self, name: str) -> bool:
        """Return whether several seeds gave the very same figure."""
        return len(self.values) > 1 and self.deviation(name) < units.ALIKE


def rows(plan: Plan) -> list[Row]:
    """Return a row for each task, way, model and share that has records, in the order of cells."""
    found: dict[tuple[str, str, str, float], dict[int, dict[str, Any]]] = {}
    for cell in plan.cells:
        if (record := read(cell, plan.folder)) is not None:
            key = (cell.task, cell.way, cell.model, cell.share)
            found.setdefault(key, {})[cell.seed] = record
    return [
        Row(
            *key,
            labels=statistics.fmean(one["labels"] for one in records.values()),
            values={seed: one["figures"] for seed, one in records.items()},
            touching=max(
                (one["share_touching"] for one in records.values() if "share_touching" in one),
                default=None,
            ),
        )
        for key, records in found.items()
    ]


def gains(row: Row, other: Row, name: str) -> list[float]:
    """Return by how much ``row`` is above ``other``, seed by seed."""
    seeds = [seed for seed in row.values if seed in other.values]
    return [row.values[seed][name] - other.values[seed][name] for seed in seeds]


def gain(row: Row, other: Row, name: str) -> str:
    """Return mean and deviation of :func:`gains` in words."""
    every = gains(row, other, name)
    return units.spread(every, "+") if every else "–"


def verdicts(plan: Plan, found: Sequence[Row]) -> list[str]:
    """Return sentences for each task and model: in how many ways and shares it is clearly ahead of
    random weights, or behind; then by how much, way by way. Nothing without random weights."""
    scratch = [model for model, init in plan.settings.models.items() if init is None][:1]
    said = []
    for task, model in itertools.product(plan.settings.tasks, plan.settings.models):
        mine = [r for r in found if r.task == task and r.model == model and r.way != BASELINE]
        name = plan.figure(task)
        other = {(r.way, r.share): r for r in found if r.task == task and [r.model] == scratch}
        pairs = [(r, other[r.way, r.share]) for r in mine if (r.way, r.share) in other]
        every = {(r.way, r.share): some for r, o in pairs if (some := gains(r, o, name))}
        if not every or [model] == scratch:
            continue
        sign = -1 if figure(name).best == "smallest" else 1
        told = [sign * _clear(some) for some in every.values()]
        mean = statistics.fmean(statistics.fmean(some) for some in every.values())
        said.append(
            f"{task}: {model} is ahead of {scratch[0]} in {told.count(1)} of {len(told)}"
            f" comparisons, behind in {told.count(-1)}, and {told.count(0)} cannot be told apart"
            f" (95 %, Student's t over seeds); by {figure(name).title.lower()} it is {mean:+.3f} on"
            " average."
        )
        for way in dict.fromkeys(way for way, _ in every):
            by = {share: some for (w, share), some in every.items() if w == way}
            parts = [f"{_gained(some, sign)} with {_percent(share)}" for share, some in by.items()]
            said.append(f"{task}, {title(way)}: {model} - {scratch[0]} is {', '.join(parts)}.")
    return said


def _gained(every: Sequence[float], sign: int) -> str:
    """Return a mean gain, and whether it is clear; sign: -1 if smaller is better."""
    clear = {1: "clearly ahead", -1: "clearly behind", 0: "not clear"}[sign * _clear(every)]
    if len(every) == 1:
        clear = "one seed tells nothing of chance"
    elif statistics.stdev(every) < units.ALIKE:
        clear = "the same for all seeds, which tells nothing of chance"
    return f"{statistics.fmean(every):+.3f} ({clear})"


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def _clear(every: Sequence[float]) -> int:
    """Return 1 or -1 if 0 is below or above the 95 % confidence interval of the mean, by Student's
    t; else 0, as for a single seed, or seeds that change nothing and so tell of no deviation."""
    from scipy.stats import t

    if len(every) < 2 or statistics.stdev(every) < units.ALIKE:
        return 0
    mean, error = statistics.fmean(every), statistics.stdev(every) / len(every) ** 0.5
    far = float(t.ppf(0.975, len(every) - 1)) * error
    return 0 if abs(mean) <= far else (1 if mean > 0 else -1)


@dataclass(frozen=True)
class Block:
    """The table of one task: a line for each way and model, a column for each share."""

    task: str
    figure: str
    titles: list[str]
    lines: list[list[str]]


def blocks(plan: Plan, found: Sequence[Row]) -> list[Block]:
    """Return a table for each task; below the models what each gains on random weights."""
    return [
        _block(plan, task, [r for r in found if r.task == task]) for task in plan.settings.tasks
    ]


def _block(plan: Plan, task: str, found: Sequence[Row]) -> Block:
    name = plan.figure(task)
    shares = sorted(plan.settings.shares)
    by = {(r.way, r.model, r.share): r for r in found}
    scratch = [model for model, init in plan.settings.models.items() if init is None]
    lines = []
    for way, model in dict.fromkeys((r.way, r.model) for r in found):
        mine = [by.get((way, model, share)) for share in shares]
        lines.append([way, model, *(row.said(name) if row else "–" for row in mine)])
    for way, model in dict.fromkeys((r.way, r.model) for r in found):
        if not scratch or model in scratch or way == BASELINE:
            continue
        pairs = [(by.get((way, model, s)), by.get((way, scratch[0], s))) for s in shares]
        if any(other for _, other in pairs):
            cells = [gain(one, other, name) if one and other else "–" for one, other in pairs]
            lines.append([way, f"{model} - {scratch[0]}", *cells])
    return Block(task, name, ["way", "model", *(_share(found, share) for share in shares)], lines)


def _share(found: Sequence[Row], share: float) -> str:
    labels = next((r.labels for r in found if r.share == share and r.way != BASELINE), None)
    return _percent(share) + ("" if labels is None else f" ({labels:.4g})")


def text(every: Sequence[Block]) -> str:
    """Return the tables for a terminal."""
    return "\n\n".join(_text(block) for block in every)


def _text(block: Block) -> str:
    table = [block.titles, *block.lines]
    widths = [max(len(line[i]) for line in table) for i in range(len(block.titles))]
    lines = ["  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) for line in table]
    head = f"{block.task}: {figure(block.figure).title}, on the held-out part"
    return "\n".join([head, *(line.rstrip() for line in lines)])


def markdown(every: Sequence[Block], notes: Sequence[str]) -> str:
    """Return the tables as Markdown, and below them what they have to be read with."""
    parts = []
    for block in every:
        parts.append(f"## {block.task}: {figure(block.figure).title}")
        parts.append(units.markdown(block.titles, block.lines, 2))
    return "\n\n".join([*parts, *notes]) + "\n"


def notes(plan: Plan, every: Sequence[Row]) -> list[str]:
    """Return what the tables of ``every`` row have to be read with, in sentences."""
    settings = plan.settings
    said = [
        f"Mean ± standard deviation over {len(settings.seeds)} seeds, which draw the labels, first"
        " weights and the order of samples; the split is the same for all. In brackets: labelled"
        " samples, or places where the split divides pixels. A difference is taken seed by seed."
    ]
    said += remarks(plan, every)
    for task in settings.tasks:
        shares = [r.touching for r in every if r.task == task and r.touching is not None]
        if shares:
            said.append(f"{task}: {max(shares):.0%} of the test windows touch training pixels.")
    return [*said, *plan.seen]


def remarks(plan: Plan, every: Sequence[Row]) -> list[str]:
    """Return what a reader may stumble over in the tables, in sentences."""
    said = []
    if any(row.alike(plan.figure(row.task)) for row in every):
        said.append(
            "± 0: all seeds give the very same figure, for nothing there is drawn (as of the"
            " same weights' features with all labels); that does not make it a certain one."
        )
    if len(plan.settings.seeds) == 2 and len(plan.settings.models) > 1:
        said.append(
            "Two seeds tell little apart: a difference is called clear from 9 times its own"
            " deviation over seeds on; with three seeds it would be from 2.5 times on."
        )
    for task in plan.settings.tasks:
        mine = [cell for cell in plan.cells if cell.task == task]
        ways = [plan.way(cell) for cell in mine]
        if any(way.frozen for way in ways) and any(way.kind == "train" for way in ways):
            run = plan.run(mine[0])
            if run.task is not None and getattr(run.task, "dense", False):
                said.append(
                    f"{task}: k-NN and the linear layer tell the class of patches, trained networks"
                    " that of pixels; compare models within a way."
                )
        name = plan.figure(task)
        means = [row.mean(name) for row in every if row.task == task]
        if doubt := figure(name).doubt(min(means, default=None)):
            said.append(f"{task}: {doubt}.")
    return said


def long(found: Sequence[Row]) -> Iterator[dict[str, Any]]:
    """Yield each measured cell with all its figures."""
    for row in found:
        for seed, figures in row.values.items():
            known = {n: v for n, v in figures.items() if "/" not in n}
            key = {"task": row.task, "way": row.way, "model": row.model, "share": row.share}
            yield {**key, "labels": row.labels, "seed": seed, **known}


def write(plan: Plan, found: Sequence[Row]) -> list[Any]:
    """Write the tables beside the records, as results.csv, json and md; return the files."""
    every = list(long(found))
    names = list(dict.fromkeys(name for one in every for name in one))
    out = io.StringIO()
    writer = csv.DictWriter(out, names, lineterminator="\n")
    writer.writeheader()
    for one in every:
        writer.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in one.items()})
    files = [plan.folder / f"results.{kind}" for kind in ("csv", "json", "md")]
    write_file(files[0], out.getvalue().encode())
    summary = [
        {
            **{name: getattr(row, name) for name in ("task", "way", "model", "share", "labels")},
            "seeds": sorted(row.values),
            "mean": {n: row.mean(n) for n in next(iter(row.values.values())) if "/" not in n},
            "sd": {n: row.deviation(n) for n in next(iter(row.values.values())) if "/" not in n},
        }
        for row in found
    ]
    write_json(files[1], _finite(summary))
    said = [*verdicts(plan, found), *notes(plan, found)]
    told = f"# {plan.settings.name}\n\n" + markdown(blocks(plan, found), said)
    write_file(files[2], told.encode())
    return files


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and value != value else value
