"""What frozen features are worth: k nearest neighbours and a linear layer, with few labels or all.

Both learn from the training part's embeddings and are scored on the test part's; the network stays
as it is. Of each class the same share of labels is used, at least one, drawn by (seed, number of
the vector): of one seed, what is drawn at a smaller share is among what is drawn at a larger.
"""

from __future__ import annotations

import csv
import io
import itertools
import logging
import pathlib
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from swath import units
from swath.baselines import Problem
from swath.baselines.linear import Linear
from swath.config import ConfigError
from swath.data.draw import uniform
from swath.data.split import PARTS, Selection
from swath.embed.neighbours import nearest, vote
from swath.embed.settings import Probe
from swath.embed.table import Table
from swath.files import write_file
from swath.tasks import Confusion, figure
from swath.train.heldout import Trained, held_out

log = logging.getLogger(__name__)

SHOWN = ("oa", "balanced", "f1_macro")
METHODS = {"knn": "k-NN", "linear": "linear"}
MANY = 5000
"""Vectors, of which a linear layer takes its time."""
KINDS = ("class", "mask")
"""Of labels that are classes."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """The score of one method at one share of the labels."""

    method: str
    share: float
    labels: int
    """Vectors learned from."""
    draws: int
    mean: dict[str, float]
    deviation: dict[str, float]
    """Over the draws; 0 for a single one."""


def check_classes(kind: str, what: object) -> None:
    """Raise ConfigError, with what can be done, unless labels of ``kind`` are classes; what: whose
    labels they are."""
    if kind in KINDS:
        return
    if kind == "none":
        raise ConfigError(
            f"{what}: its samples have no labels, and swath probe scores features by how well they"
            " tell classes apart. Name a store with classes beside the run (swath probe RUN STORE);"
            " swath embed, similar and anomalies need no labels"
        )
    raise ConfigError(
        f"{what}: the store's labels are of kind {kind}; swath probe tells classes apart, of "
        "samples or of pixels. Train from this model on them (init.from=RUN adapt.kind=probe)"
    )


def probe(
    table: Table,
    settings: Probe,
    seed: int = 0,
    threads: int = 1,
    progress: Callable[[int, int], None] = lambda done, labels: None,
) -> list[Row]:
    """Return the scores of k-NN and of a linear layer on the embeddings of ``table``.

    progress: told the labels learned from so far and those in all, over methods, shares and draws.
    ConfigError if its labels are no classes, a part has none, or there are fewer training vectors
    than neighbours.
    """
    classes = tuple(table.plan["classes"])
    check_classes(table.plan["label"], table.path)
    label = table.column("label")
    train, test = (_of_part(table, label, part, settings.most, seed) for part in ("train", "test"))
    if settings.neighbours > len(train):
        raise ConfigError(
            f"probe.neighbours={settings.neighbours}: the training part of {table.path} has "
            f"{len(train)} labelled vectors; set it to {len(train)} or less"
        )
    x, y = table.vectors(train), label[train]
    asked, truth = table.vectors(test), label[test]
    log.info(
        "%d vectors of %d numbers to learn from, %d to score on%s",
        *(len(train), table.width, len(test)),
        "; a linear layer may take minutes (fewer: probe.most)" if len(train) > MANY else "",
    )
    drawn = {
        share: [few(train, y, share, seed + i) for i in range(settings.draws if share < 1 else 1)]
        for share in sorted(settings.shares)
    }
    total = len(METHODS) * sum(len(some) for every in drawn.values() for some in every)
    rows: list[Row] = []
    done = 0
    progress(done, total)
    for (share, every), method in itertools.product(drawn.items(), METHODS):
        found, began = [], time.perf_counter()
        for some in every:
            found.append(answer(method, x[some], y[some], asked, classes, settings, seed, threads))
            done += len(some)
            progress(done, total)
        row = _scored(method, share, every, found, truth, classes)
        rows.append(row)
        told = f"{figure('oa').title.lower()} {row.mean['oa']:.3f}"
        took = units.seconds(time.perf_counter() - began)
        log.info("%s, %d labels: %s  (%s)", METHODS[method], row.labels, told, took)
    return rows


def few(numbers: np.ndarray, classes: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Return places, ascending, of ``share`` of each class, at least one, drawn by number."""
    luck = uniform(seed, numbers, "probe labels")[:, 0]
    chosen = []
    for one in np.unique(classes):
        mine = np.flatnonzero(classes == one)
        count = max(1, round(share * len(mine)))
        chosen.append(mine[np.argsort(luck[mine], kind="stable")[:count]])
    return np.sort(np.concatenate(chosen))


def _of_part(table: Table, label: np.ndarray, part: str, most: int, seed: int) -> np.ndarray:
    mine = choose(table.column("part"), label, PARTS[part], most, seed)
    if not len(mine):
        raise ConfigError(
            f"{table.path}: no vector of the {part} part has a class; swath probe learns from the "
            "training part and scores on the test part: see data.split, or build.split"
        )
    return mine


def choose(parts: np.ndarray, labels: np.ndarray, part: int, most: int, seed: int) -> np.ndarray:
    """Return the numbers, ascending, of at most ``most`` vectors that have a label and are of
    ``part``, drawn with equal luck."""
    mine = np.flatnonzero((parts == part) & (labels >= 0))
    name = next(name for name, number in PARTS.items() if number == part)
    luck = uniform(seed, mine, f"probe {name}")[:, 0]
    return np.sort(mine[np.argsort(luck, kind="stable")[:most]])


def answer(
    method: str,
    x: np.ndarray,
    y: np.ndarray,
    asked: np.ndarray,
    classes: tuple[str, ...],
    settings: Probe,
    seed: int,
    threads: int,
) -> np.ndarray:
    """Return the classes (m,) that ``method`` ("knn" or "linear") tells of vectors ``asked``; it
    learns from vectors ``x`` (n, width) of classes ``y`` (n,)."""
    if method == "knn":
        k = min(settings.neighbours, len(x))  # a small share of the labels may be fewer
        found, cosine = nearest(asked, [(0, x)], k)
        return vote(cosine, y[found], len(classes), settings.temperature)
    problem = Problem("class", classes, tuple(f"feature {i}" for i in range(x.shape[1])))
    return Linear(penalty=settings.penalty).fit(x, y, problem, seed, threads)(asked)


def _scored(
    method: str,
    share: float,
    drawn: Sequence[np.ndarray],
    answers: Sequence[np.ndarray],
    truth: np.ndarray,
    classes: tuple[str, ...],
) -> Row:
    figures = [Confusion.count(truth, found, classes).finish() for found in answers]
    values = {name: [one[name] for one in figures] for name in SHOWN}
    return Row(
        method=method,
        share=share,
        labels=len(drawn[0]),
        draws=len(drawn),
        mean={name: statistics.fmean(some) for name, some in values.items()},
        deviation={name: units.deviation(some) for name, some in values.items()},
    )


def markdown(rows: Sequence[Row]) -> str:
    """Return the rows as a table, mean and standard deviation over the draws."""
    titles = ["Features", "Share of labels", "Labels", "Draws"]
    titles += [figure(name).title for name in SHOWN]
    lines = []
    for row in rows:
        cells = [METHODS[row.method], f"{row.share:.3g}", str(row.labels), str(row.draws)]
        for name in SHOWN:
            said = f"{row.mean[name]:.3f}"
            cells.append(f"{said} ± {row.deviation[name]:.3f}" if row.draws > 1 else said)
        lines.append(cells)
    return units.markdown(titles, lines, 1)


def notes(test: Selection, trained: Trained) -> list[str]:
    """Return, in words, what scores on ``test`` have to be read with; ConfigError if the network
    was trained on some of it."""
    known = held_out(test, trained)
    said = []
    if known.get("share_touching") is not None:
        said.append(f"{known['share_touching']:.0%} of the test windows touch training pixels")
    if known.get("share_same_object"):
        said.append(
            f"{known['share_same_object']:.0%} show a polygon or region of which another piece was"
            " trained on"
        )
    if known.get("other_store"):
        said.append("the network was trained on another store")
    return said


def write(table: Table, rows: Sequence[Row], notes: Sequence[str]) -> list[pathlib.Path]:
    """Write the rows beside ``table`` as csv, md and png; return the files."""
    beside = table.path.with_name(f"{table.path.stem}-probe")
    files = [beside.with_name(f"{beside.name}.{kind}") for kind in ("csv", "md", "png")]
    text = io.StringIO()
    deviations = [f"{name}_sd" for name in SHOWN]
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["method", "share", "labels", "draws", *SHOWN, *deviations])
    for row in rows:
        numbers = [row.mean[name] for name in SHOWN] + [row.deviation[name] for name in SHOWN]
        kept = [f"{number:.6f}" for number in numbers]
        writer.writerow([row.method, row.share, row.labels, row.draws, *kept])
    write_file(files[0], text.getvalue().encode())
    write_file(files[1], "\n\n".join([markdown(rows), *notes, ""]).encode())
    _draw(rows, files[2], table)
    return files


def _draw(rows: Sequence[Row], path: pathlib.Path, table: Table) -> None:
    from matplotlib.figure import Figure

    picture = Figure(figsize=(7.5, 3.4), layout="constrained")
    axes = picture.subplots(1, 2, sharey=True)
    for axis, name in zip(axes, ("oa", "balanced"), strict=True):
        for method, colour, marker in (("knn", "#2f6fb0", "o"), ("linear", "#c0504d", "s")):
            mine = [row for row in rows if row.method == method]
            axis.errorbar(
                [row.labels for row in mine],
                [row.mean[name] for row in mine],
                [row.deviation[name] for row in mine],
                color=colour,
                marker=marker,
                capsize=3,
                label=METHODS[method],
            )
        _axis(axis, figure(name).title)
    axes[0].legend(frameon=False)
    layer, pool = table.plan["layer"], table.plan["pool"]
    picture.suptitle(f"Frozen features: {layer}, {pool}; mean and deviation of draws", fontsize=9)
    picture.savefig(path, dpi=130)


def _axis(axis: Any, title: str) -> None:
    axis.set_xscale("log")
    axis.set_xlabel("labels of the training part", fontsize=8)
    axis.set_title(title, fontsize=9)
    axis.set_ylim(0, 1)
    axis.grid(alpha=0.3)
    axis.tick_params(labelsize=8)
