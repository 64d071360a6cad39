"""Figures in words, comparisons and curves as the page shows them."""

import json
import math
import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from swath.data.chip import Label
from swath.predict.evaluate import figures_of
from swath.report.charts import Line, chart, smooth, thin
from swath.report.curves import course, curves
from swath.report.tables import accuracy, comparison, headline, said

LABEL = Label(kind="mask", classes=("water", "forest", "farm"))
ROWS = [
    {
        "name": "unet",
        "oa": 0.634,
        "balanced": 0.53,
        "f1_micro": 0.634,
        "scored": 1000,
        "part": "test",
    },
    {
        "name": "forest",
        "oa": 0.6,
        "balanced": 0.55,
        "f1_micro": 0.6,
        "fitted": 200_000,
        "scored": 1000,
    },
]


def test_figures_are_said_with_their_units():
    assert said("oa", 0.6314) == "63.1 %"
    assert said("miou", 0.5) == "0.500"
    assert said("rmse", 4.3121, "m") == "4.31 m"
    assert said("kappa", None) == "–"


def test_the_best_of_each_column_is_marked_whoever_it_is():
    table = comparison(ROWS, 0, "")
    assert table["titles"] == ["Overall accuracy", "Balanced accuracy", "fitted on", "scored on"]
    assert [[c["best"] for c in row["cells"][:2]] for row in table["rows"]] == [
        [True, False],
        [False, True],
    ]
    assert table["rows"][0]["ours"] and table["rows"][1]["cells"][2]["text"] == "200 000"
    assert comparison(ROWS[:1], 0, "") is None


def test_smaller_errors_are_better():
    rows = [
        {"name": "vit", "rmse": 3.0, "r2": 0.7},
        {"name": "persistence", "rmse": 2.0, "r2": 0.8},
    ]
    table = comparison(rows, 0, "K")
    rmse, r2 = table["rows"][1]["cells"][:2]
    assert rmse["best"] and rmse["text"] == "2 K" and rmse["bar"] is None and r2["best"]
    tiles = headline(rows[0], rows[1:], "K")
    assert tiles[0] == {"name": "RMSE", "value": "3 K", "note": "best baseline 2 K"}


def test_touching_windows_are_said_at_the_top():
    tiles = headline({**ROWS[0], "share_touching": 1.0, "split": "random"}, ROWS[1:], "")
    assert tiles[-1]["value"] == "100 %" and tiles[-1]["note"] == "split by random"


def test_confusion_shows_shares_of_the_truth():
    truth = np.array([[0, 0, 0, 0, 1, 1, 255, 2]], np.uint8)
    found = np.array([[0, 0, 0, 1, 1, 1, 1, 2]], np.uint8)
    shown = accuracy({**figures_of(found, truth, LABEL.classes, 0.01), "split": "block"}, LABEL)
    first = shown["confusion"]["rows"][0]
    assert [cell["text"] for cell in first["cells"]] == ["75", "25", ""]
    assert first["count"] == "4" and first["cells"][1]["title"] == "1 px of water mapped as forest"
    assert shown["areas"]["unit"] == "ha" and len(shown["table"]["rows"]) == 3
    assert accuracy({"oa": 0.5}, LABEL) is None


def test_a_chart_is_well_formed_and_to_scale():
    svg, _, keys = chart(
        [Line("a<b", [0, 50, 100], [1.0, math.nan, 3.0])], x_name="samples"
    ).partition("</svg>")
    tree = ElementTree.fromstring(svg + "</svg>")
    dots = [(float(c.get("cx")), float(c.get("cy"))) for c in tree.iter("circle")]
    marks = {t.text: float(t.get("y")) - 3.5 for t in tree.iter("text")}
    assert [round(x) for x, _ in dots] == [46, 508]  # NaN is a gap
    assert dots[0][1] == pytest.approx(marks["1"], abs=0.11)
    assert dots[1][1] == pytest.approx(marks["3"], abs=0.11)
    assert "a&lt;b" in keys
    assert json.loads(tree.get("data-lines"))["lines"][0]["said"] == ["1", "nan", "3"]


def test_smoothing_keeps_a_constant_and_forgets_gaps():
    assert smooth([2.0] * 100) == pytest.approx([2.0] * 100)
    assert smooth([1.0, math.nan, 1.0]) == pytest.approx([1.0, 1.0, 1.0])
    assert thin(range(5000))[-1] == 4999 and len(thin(range(5000))) <= 800


def test_curves_come_from_the_records_that_training_writes():
    records = [
        {
            "update": i,
            "samples": 8 * i,
            "loss": 2.0 / i,
            "lr": 1e-3,
            "grad_norm": 1.0,
            "samples_per_s": 100.0,
            "data_wait": 0.02,
            "seconds": 0.08 * i,
        }
        for i in range(1, 50)
    ]
    records += [{"update": i, "samples": 8 * i, "val/oa": 0.5, "val/loss": 1.0} for i in (20, 40)]
    titles = [c["title"] for c in curves(records)]
    assert [t.split(",")[0] for t in titles] == [
        "Loss",
        "Validation",
        "Learning rate",
        "Gradient norm",
        "Speed",
    ]
    assert re.match(r"392 samples in 49 updates; 3\.9 s; 100 samples/s", course(records))
    assert curves([]) == [] and course([]) == ""
