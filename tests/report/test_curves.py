"""Curves as the page shows them: to scale, smoothed, made from what training records."""

import json
import math
import re
import xml.etree.ElementTree as ElementTree

import pytest

from swath.report.charts import Line, chart, smooth, thin
from swath.report.curves import course, curves


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


def test_smoothing_keeps_a_constant_and_gaps():
    assert smooth([2.0] * 100) == pytest.approx([2.0] * 100)
    assert smooth([1.0, math.nan, 1.0]) == pytest.approx([1.0, math.nan, 1.0], nan_ok=True)
    assert thin(range(5000))[-1] == 4999 and len(thin(range(5000))) <= 800


def test_what_was_not_recorded_is_not_drawn():
    """A resumed run may have no share of the peak for a while; a value alone is a dot."""
    records = [{"update": i, "samples": 10 * i, "loss": 1.0} for i in range(1, 51)]
    records[0]["mfu"] = records[40]["mfu"] = records[41]["mfu"] = 0.2
    (used,) = [chart["svg"] for chart in curves(records) if "utilisation" in chart["title"]]
    *_, path = re.findall(r'<path class="s0" d="([^"]*)"', used)
    assert re.fullmatch(r"M46\.0 [\d.]+h0M[\d. ]+h0L[\d. ]+", path)


def test_a_figure_of_a_task_of_ones_own_has_its_curve():
    scores = {"val/psnr": 20.0, "val/psnr/red": 19.0, "val/oa": 0.5}
    records = [
        {"update": i, "samples": 10 * i, "loss": 1.0, "val/loss": 1.0, **scores} for i in (1, 2)
    ]
    (validation,) = [chart["svg"] for chart in curves(records) if chart["title"] == "Validation"]
    assert 'aria-label="psnr, Overall accuracy by samples"' in validation


def test_curves_come_from_the_records_that_training_writes():
    records = [
        {
            "update": i,
            "samples": 8 * i,
            "loss": 2.0 / i,
            "lr": 1e-3,
            "grad_norm": 1.0,
            "samples_per_s": 100.0,
            "mfu": 0.4,
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
        "Model FLOP/s utilisation",
        "Waiting",
    ]
    assert re.match(r"392 samples in 49 updates; 3\.9 s; 100 samples/s", course(records))
    assert curves([]) == [] and course([]) == ""
