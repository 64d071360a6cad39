"""The accuracy of each class, as the page and the terminal show it."""

import numpy as np
import pytest

from swath.data.chip import IGNORE, Label
from swath.predict.evaluate import figures_of
from swath.report.classes import accuracy, table
from swath.report.words import area_unit, percent, whole
from tests.predict.test_accuracy import COUNTS, MAPPED

LABEL = Label(kind="mask", classes=("water", "forest", "farm"))
TRUTH = np.array([[0, 0, 0, 0, 1, 1, 255, 2]], np.uint8)
FOUND = np.array([[0, 0, 0, 1, 1, 1, 1, 2]], np.uint8)


def test_confusion_shows_shares_of_the_truth():
    figures = figures_of(FOUND, TRUTH, LABEL.classes, 0.01)
    shown = accuracy({**figures, "split": "block"}, LABEL)
    first = shown["confusion"]["rows"][0]
    assert [cell["text"] for cell in first["cells"]] == ["75", "25", ""]
    assert first["count"] == "4" and first["cells"][1]["title"] == "1 px of water mapped as forest"
    assert shown["areas"]["unit"] == "ha" and len(shown["table"]["rows"]) == 3
    assert accuracy({"oa": 0.5}, LABEL) is None


@pytest.fixture(scope="module")
def paper():
    """The scores of the map of Olofsson et al. 2014, pixel by pixel, 0.09 ha each."""
    found = np.repeat(np.arange(4, dtype=np.uint8), MAPPED)
    truth = np.full(len(found), IGNORE, np.uint8)
    for first, row in zip(np.cumsum(MAPPED) - MAPPED, COUNTS, strict=True):
        truth[first : first + row.sum()] = np.repeat(np.arange(4, dtype=np.uint8), row)
    classes = ("deforestation", "forest gain", "stable forest", "stable non-forest")
    return figures_of(found, truth, classes, 0.09)


def test_the_table_of_a_terminal_is_that_of_olofsson_2014(paper):
    """Accuracies and areas as the paper prints them; its +- is 1.96 of our standard errors."""
    lines = table(paper).split("\n")
    assert lines[0] == "by class; overall accuracy, area-adjusted: 94.7 ± 0.9 %"
    titles, *rows = (line.replace(" ± ", "±").split("  ") for line in lines[1:6])
    assert [title.strip() for title in titles if title] == [
        "Class",
        "User's acc.",
        "Producer's acc.",
        "IoU",
        "Producer's, adjusted",
        "Mapped km²",
        "Adjusted km²",
    ]
    first = [cell.strip() for cell in rows[0] if cell]
    assert first[:2] == ["deforestation", "88.0±3.8 %"]  # 0.88 +- 0.07
    assert first[2] == f"{100 * 66 / 69:.1f} %"  # as counted: 66 of the 69 reference pixels
    assert first[4] == "74.9±10.9 %"  # 0.75 +- 0.21
    assert first[5:] == ["180.0", "211.6±31.4"]  # 21 158 +- 6 158 ha
    users = [[cell.strip() for cell in row if cell][1].split("±")[0] for row in rows]
    assert users == ["88.0", "73.3", "92.7", "96.3"]


def test_the_confusion_of_a_terminal_is_compact(paper):
    lines = table(paper).split("\n")
    at = next(i for i, line in enumerate(lines) if line.startswith("confusion: rows are the truth"))
    assert lines[at + 1].split() == ["1", "2", "3", "4", "pixels"]
    assert lines[at + 2].split() == ["1", "deforestation", "96", ".", "1", "3", "69"]
    assert lines[at + 3].split() == ["2", "forest", "gain", ".", "98", ".", "2", "56"]
    assert max(map(len, lines)) <= 110
    assert "Olofsson et al. 2014" in lines[-2] and "lower bounds" in lines[-1]


def test_a_class_that_nobody_knows_is_a_dash_and_areas_without_metres_are_pixels():
    lines = table(figures_of(FOUND, np.where(TRUTH == 2, 255, TRUTH), LABEL.classes, None))
    (farm,) = (line for line in lines.split("\n") if line.startswith("farm "))
    assert farm.split() == ["farm", "–", "–", "–", "–", "1", "–"]
    assert "Mapped px" in lines


def test_numbers_in_words():
    assert whole(1234567) == "1 234 567" and whole(None) == "–"
    assert percent(0.5, 0.0123) == "50.0 ± 1.2 %" and percent(0.5) == "50.0 %"
    assert percent(None, 0.1) == "–"
    unit = area_unit("ha", 5)
    assert (unit.name, unit.said(4.25), unit.said(None)) == ("ha", "4.2", "–")
    assert area_unit("ha", 1e5).said(123_456) == "1 234.6"
    assert area_unit("px", 1e9).said(123_456, 20) == "123 456 ± 20"
