"""Fit a baseline on the training part of a store and score it on another, as a task would be."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np

from swath.baselines import Baseline, Problem
from swath.baselines._table import Sample, Table, Tables
from swath.config import ConfigError, kind_of
from swath.data.few import Few, fewer
from swath.data.fold import fit
from swath.data.split import Part, Split, select
from swath.data.store import Store
from swath.tasks import Confusion, Flags, Moments, Tally

log = logging.getLogger(__name__)


def fit_and_score(
    baseline: Baseline,
    store: Store,
    split: Split | None,
    *,
    part: Part,
    bands: tuple[str, ...] | None,
    labels: Few | None,
    seed: int,
    threads: int,
) -> dict[str, Any]:
    """See :func:`swath.baselines.fit_and_score`."""
    train, other = select(store, split, "train"), select(store, split, part)
    train = train if labels is None else fewer(train, labels)
    if not len(other.indices):
        raise ConfigError(
            f"{store.path}: the {part} part of the split is empty: {other.why_empty()}"
        )
    tables = Tables(store, baseline.sees, bands)
    things = "pixels" if tables.per_pixel else "samples"
    log.info("%s: reading the training part", baseline.title)
    table, seen = fit(Sample(baseline.at_most, seed), tables.shards(train))
    known = table.y if tables.problem.kind == "value" else np.zeros((len(table.ids), 1))
    whole = ~np.isnan(known).any(1)  # of several quantities some may be unknown
    log.info(
        "%s: fitting on %s of its %s %s, %d features each",
        baseline.title,
        f"{int(whole.sum()):,}",
        f"{seen:,}",
        things,
        table.x.shape[1],
    )
    predict = baseline.fit(table.x[whole], table.y[whole], tables.problem, seed, threads)
    log.info("%s: scoring the %s part", baseline.title, part)
    shift = table.y[whole].mean(0, dtype=np.float64)
    tally, scored, dense = None, 0, store.contents.label.per_pixel
    for shard in tables.shards(other):
        found = _tally(tables.problem, shard, predict(shard.x), shift, dense)
        tally = found if tally is None else tally + found
        scored += len(shard.ids)
    assert tally is not None, "a part with samples has no rows"
    return {
        "name": baseline.title,
        "kind": kind_of(type(baseline)),
        "part": part,
        "split": other.split.by,
        **tally.finish(),
        "train": seen,
        "fitted": int(whole.sum()),
        "scored": scored,
        **other.nearness(),
    }


def _tally(
    problem: Problem, shard: Table, found: np.ndarray, shift: np.ndarray, dense: bool
) -> Tally:
    if problem.kind == "class":
        return Confusion.count(shard.y, found, problem.names, dense=dense)
    if problem.kind == "flags":
        return Flags.count(shard.y, found, problem.names)
    return Moments.of(shard.y, found, problem.names, shift=shift)
