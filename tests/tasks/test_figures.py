"""Names of figures have one home: everything that computes or explains one agrees with it."""

import pathlib
import typing

import numpy as np
import pytest

from swath.config import find, kinds
from swath.data.chip import Label
from swath.data.sensor import Band
from swath.models import Inputs
from swath.tasks import Task
from swath.tasks._figures import FIGURES, larger_is_better
from swath.tasks._pairs import Pairs
from swath.tasks._tally import Confusion, Flags, Moments
from swath.tasks.contrast import ContrastObjective
from swath.tasks.dino import Distinct
from swath.tasks.pretrain import Filled

PAGE = pathlib.Path(__file__).parents[2] / "docs/howto/scores.md"
TALLIES = (
    Confusion.of(np.eye(2), ("a", "b"), 1.0, 1.0),
    Flags.count(np.eye(2), np.eye(2) - 0.5, ("a", "b")),
    Moments.of(np.eye(2), np.ones((2, 2)), ("a", "b")),
    Filled.of(
        {
            "count": np.array(2.0),
            "squared": np.ones(2),
            "target": np.ones(2),
            "target_squared": np.ones(2),
        },
        ("a", "b"),
    ),
    Pairs(
        {"index": np.arange(2), "alike": np.arange(2), "vectors": np.ones((2, 2, 1))},
        0.2,
        ContrastObjective.sides,
    ),
    Distinct.of(
        {
            "count": np.array(1.0),
            "shares": np.ones(2) / 2,
            "entropy": np.array(0.5),
            "vectors": np.ones(1),
        },
        1.0,
        1.0,
    ),
)
INPUTS = Inputs(bands=(Band(name="a"), Band(name="b")), size=8)


@pytest.mark.parametrize("tally", TALLIES, ids=lambda tally: type(tally).__name__)
def test_every_figure_of_a_tally_has_a_name_in_words(tally):
    figures = [name for name in tally.finish() if "/" not in name]
    assert figures and not set(figures) - FIGURES.keys()


def test_every_name_is_a_figure_of_some_tally_and_explained_to_the_reader():
    made = {name for tally in TALLIES for name in tally.finish()}
    assert made >= FIGURES.keys()
    explained = [line.split("|")[1] for line in PAGE.read_text().splitlines() if line[:1] == "|"]
    assert not [name for name in FIGURES if not any(f"`{name}`" in cell for cell in explained)]


LABELS = {
    "class": Label(kind="class", classes=("a", "b")),
    "mask": Label(kind="mask", classes=("a", "b")),
    "flags": Label(kind="flags", classes=("a", "b")),
    "value": Label(kind="value", classes=("height",)),
    "raster": Label(kind="raster", classes=("height",)),
}


@pytest.mark.parametrize("kind", kinds(Task))
def test_every_figure_that_may_choose_the_best_checkpoint_has_a_direction(kind):
    """The objective judges by it as the tables do; of a task's own figure these know none."""
    task = find(Task, kind)
    label = next(label for name, label in LABELS.items() if name in (task.labels or LABELS))
    for best in typing.get_args(typing.get_type_hints(task)["best"]):
        objective = task(best=best).bind(label, np.ones(2), INPUTS)
        assert objective.best == best
        if best in FIGURES:
            assert objective.larger_is_better == larger_is_better(best)
            assert larger_is_better(best) == (best not in ("loss", "rmse", "mae"))


def test_figures_are_said_with_their_units():
    assert FIGURES["oa"].said(0.6314) == "63.1 %"
    assert FIGURES["miou"].said(0.5) == "0.500"
    assert FIGURES["rmse"].said(4.3121, "m") == "4.31 m" and FIGURES["mae"].said(2.0) == "2"
    assert FIGURES["kappa"].said(None) == "–"


def test_the_best_bias_is_the_nearest_to_none():
    assert FIGURES["bias"].best_of([-3.0, 0.5, 2.0]) == 0.5
    assert FIGURES["rmse"].best_of([3.0, 0.5]) == 0.5 and FIGURES["r2"].best_of([-1, 0.5]) == 0.5
