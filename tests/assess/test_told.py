"""What a comparison says in words: what pretraining changed, what is odd, how long it takes yet."""

import types

import pytest
from scipy.stats import t

from swath.assess import table
from swath.assess.cells import Cell, write
from swath.assess.progress import Progress
from swath.assess.table import Row
from swath.assess.ways import Way


def plan(figure="oa", **more):
    settings = types.SimpleNamespace(
        tasks={"land": None}, models={"scratch": None, "mae": 1}, seeds=more.pop("seeds", (0, 1, 2))
    )
    return types.SimpleNamespace(
        **{"settings": settings, "figure": lambda task: figure, "cells": (), **more}
    )


def rows(figure, gains, way="knn"):
    """Random weights and pretrained ones, whose figures by seed differ by the gains of a share."""
    found = []
    for share, every in gains.items():
        for model, more in (("scratch", [0.0] * len(every)), ("mae", every)):
            values = {seed: {figure: 0.5 + seed / 10 + g} for seed, g in enumerate(more)}
            found.append(Row("land", way, model, share, 10, values))
    return found


def test_each_way_is_told_by_what_pretraining_changes():
    """Of .02, .03, .04 the mean is .03, half its 95 % interval 4.303 * .01 / sqrt(3) = .025."""
    knn = rows("oa", {0.01: [0.01, 0.02, 0.03], 0.1: [0.02, 0.03, 0.04], 1: [0.05] * 3})
    full = rows("oa", {0.01: [-0.02, -0.03, -0.04]}, "full") + rows("oa", {1: [0.1]}, "mine")
    first, *ways = table.verdicts(plan(), knn + full)
    assert first.startswith("land: mae is ahead of scratch in 1 of 5 comparisons, behind in 1, and")
    assert ways == [
        "land, k-NN on frozen features: mae - scratch is +0.020 (not clear) with 1 %,"
        " +0.030 (clearly ahead) with 10 %,"
        " +0.050 (the same for all seeds, which tells nothing of chance) with 100 %.",
        "land, fine-tuned whole: mae - scratch is -0.030 (clearly behind) with 1 %.",
        "land, mine: mae - scratch is +0.100 (one seed tells nothing of chance) with 100 %.",
    ]


def test_a_smaller_error_is_ahead():
    found = rows("rmse", {1: [-0.02, -0.03, -0.04]})
    first, way = table.verdicts(plan("rmse"), found)
    assert "ahead of scratch in 1 of 1" in first and "by rmse it is -0.030 on average" in first
    assert way.endswith("mae - scratch is -0.030 (clearly ahead) with 100 %.")


def test_no_deviation_and_figures_below_what_knows_nothing_are_remarked():
    alike = Row("land", "knn", "mae", 1, 10, {0: {"r2": -4.0}, 1: {"r2": -4.0}})
    apart = Row("land", "full", "mae", 1, 10, {0: {"r2": 0.25}, 1: {"r2": 0.75}})
    assert alike.said("r2") == "-4.000 ± 0" and apart.said("r2") == "0.500 ± 0.354"
    zero, below = table.remarks(plan("r2"), [alike, apart])
    assert zero.startswith("± 0: all seeds give the very same figure, for nothing there is drawn")
    assert below == "land: R² below 0: worse than answering the mean everywhere."
    assert table.remarks(plan("r2"), [apart]) == []
    (few,) = table.remarks(plan("r2", seeds=(0, 1)), [apart])
    assert few.startswith("Two seeds tell little apart") and "from 9 times its own" in few
    assert [round(t.ppf(0.975, n - 1) / n**0.5, 1) for n in (2, 3)] == [9.0, 2.5]


def test_time_is_told_of_what_was_timed(tmp_path, caplog):
    """A way that takes minutes is not foretold from one that takes seconds; nor few labels, where
    features are scored, tell of many. Another process that measures as many halves the time."""
    cells = [Cell("land", "knn", "mae", share, seed) for share in (0.1, 1) for seed in (0, 1)]
    cells += [Cell("land", "full", "mae", share, 0) for share in (0.1, 1)]
    ways = {"knn": Way(kind="knn"), "full": Way(kind="train")}
    given = plan(cells=cells, folder=tmp_path, way=lambda cell: ways[cell.way])

    def done(cell, seconds):
        record = {"figures": {"oa": 0.5}, "of": {}, "seconds": seconds}
        write(cell, tmp_path, record)
        return record

    told = []
    progress = Progress(given)
    for cell, seconds in zip(cells, (2, 4, 30, 30, 600), strict=False):
        progress.begins(cell)
        progress.ended(cell, done(cell, seconds))
        told.append(caplog.messages[-1].partition("; ")[2])
    more = "land knn with more labels"
    assert told == [
        f"5 left: about 2.0 s for 1, the others not timed yet ({more}, land full)",
        f"4 left, not timed yet ({more}, land full)",
        "3 left: about 30 s for 1, the others not timed yet (land full)",
        "2 left, not timed yet (land full)",
        "about 10 min left",
    ]
    begun = [line for line in caplog.messages if line.startswith("now ")]
    assert begun == [f"now {cell}" for cell in (cells[0], cells[2], cells[4])]
    beside = Progress(given)  # begun later: what was measured before tells it, too
    assert beside.left(cells[5:]) == "about 10 min left"
    later = [Cell("land", "full", "other", 1, seed) for seed in range(4)]
    given.cells += later
    for cell in later[:2]:
        record = done(cell, 600)
    beside.ended(later[0], record)
    assert caplog.messages[-1].endswith("about 15 min left")  # three cells, two at a time


@pytest.fixture(autouse=True)
def heard(caplog):
    """Let pytest hear what is told."""
    import logging

    log = logging.getLogger("swath")
    before = log.propagate, log.level
    log.propagate = True
    log.setLevel(logging.INFO)
    yield
    log.propagate, level = before
    log.setLevel(level)
