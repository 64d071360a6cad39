"""The model beside its baselines: tiles, the page's table and the terminal's."""

import json

import pytest

from swath.config import ConfigError
from swath.report.compare import compared, comparison, headline, table
from swath.run.training import BY_CHIP

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


def test_the_best_of_each_column_is_marked_whoever_it_is():
    made = comparison(ROWS, 0, "")
    assert made["titles"] == ["Overall accuracy", "Balanced accuracy", "fitted on", "scored on"]
    assert [[c["best"] for c in row["cells"][:2]] for row in made["rows"]] == [
        [True, False],
        [False, True],
    ]
    assert made["rows"][0]["ours"] and made["rows"][1]["cells"][2]["text"] == "200 000"
    assert made["rows"][0]["cells"][2]["text"] == "–"
    assert comparison(ROWS[:1], 0, "") is None


def test_smaller_errors_are_better_and_a_bias_on_either_side_is_worse():
    rows = [
        {"name": "vit", "rmse": 3.0, "bias": -2.0, "r2": 0.7},
        {"name": "persistence", "rmse": 2.0, "bias": 0.5, "r2": 0.8},
    ]
    rmse, bias, r2 = comparison(rows, 0, "K")["rows"][1]["cells"][:3]
    assert rmse["best"] and rmse["text"] == "2 K" and rmse["bar"] is None and r2["best"]
    assert bias["best"] and bias["text"] == "0.5 K"
    tiles = headline(rows[0], rows[1:], "K")
    assert tiles[0] == {"name": "RMSE", "value": "3 K", "note": "best baseline 2 K"}
    assert tiles[-1] == {"name": "Bias", "value": "-2 K", "note": "best baseline 0.5 K"}


@pytest.mark.parametrize(
    ("share", "said", "meaning"),
    [
        (1.0, "100 %", "These windows also hold ground that was trained on: their labels are new"),
        (0.14, "14 %", "so expect less of it on a scene that it has never seen."),
        (0.0, "0 %", "No window that is scored holds a pixel that was trained on."),
    ],
)
def test_touching_windows_are_said_at_the_top_with_what_they_mean(share, said, meaning):
    """A reader does not know what "100 %" does to the figures beside it."""
    tiles = headline({**ROWS[0], "share_touching": share, "split": "random"}, ROWS[1:], "")
    assert tiles[-1]["value"] == said
    assert tiles[-1]["note"].startswith("split by random. ") and meaning in tiles[-1]["note"]
    assert len(headline(ROWS[0], ROWS[1:], "")) == len(tiles) - 1  # where nobody knows
    row = {**ROWS[0], "share_touching": share, "share_same_object": 0.254}
    cut = headline(row, ROWS[1:], "")[-1]["note"]
    assert meaning in cut and "25 % of the windows show a polygon or region of which another" in cut
    whole = headline({**row, "share_same_object": 0.0}, ROWS[1:], "")[-1]["note"]
    assert meaning in whole and "another piece" not in whole


def test_the_table_of_a_terminal():
    """Overall accuracy and F1 over all are one number where each pixel has one class."""
    lines = table([{**ROWS[0], "share_touching": 1.0}, {"name": "majority", "oa": 0.5}]).split("\n")
    assert [line.split() for line in lines[:3]] == [
        ["oa", "balanced"],
        ["unet", "0.634", "0.530"],
        ["majority", "0.500", "-"],
    ]
    assert lines[3:] == ["100% of the test windows touch training pixels"]
    cut = table([{**ROWS[0], "share_touching": 0.0, "share_same_object": 0.25}]).split("\n")
    assert cut[-1] == "25% show a polygon or region of which another piece was trained on"
    assert table([{"name": "vit", "f1_micro": 0.5, "map": 0.25}]).split("\n")[0].split() == [
        "f1_micro",
        "map",
    ]
    assert table([]).strip() == ""


def test_a_figure_of_a_task_of_ones_own_is_shown_by_its_bare_name():
    """It chose the best checkpoint; which way is better only the task knows, so none is marked."""
    beside = {"samples": 9, "share_touching": 0.0, "share_same_object": 0.1, "other_store": True}
    row = {"name": "net", "loss": 0.02, "psnr": 27.5, "psnr/red": 26.0, **beside}
    rows = [row, {"name": "smoothing", "psnr": 25.0, "train": 9, "fitted": 9, "scored": 9}]
    assert [line.split() for line in table(rows).split("\n")[:3]] == [
        ["psnr"],
        ["net", "27.500"],
        ["smoothing", "25.000"],
    ]
    assert headline(row, rows[1:], "")[0] == {"name": "psnr", "value": "27.500", "note": ""}
    made = comparison(rows, 0, "")
    assert made["titles"] == ["psnr", "fitted on", "scored on"]
    assert [r["cells"][0]["text"] for r in made["rows"]] == ["27.500", "25.000"]
    assert not any(r["cells"][0]["best"] for r in made["rows"])
    long = table([{"name": "net", "oa": 0.5, "peak_signal_to_noise": 27.5}]).split("\n")
    assert long[0].split() == ["oa", "peak_signal_to_noise"] and len(long[0]) == len(long[1])


def test_it_is_said_whether_a_pixel_counts_once():
    """The model's own score and its map's differ; each says what it counts."""
    told = {**ROWS[0], "counting": BY_CHIP}
    about = comparison([told, *ROWS[1:]], 0, "")["about"]
    assert "by its answers, sample by sample (a pixel counts in every chip that shows it)." in about
    assert "unet: a pixel counts in every chip that shows it" in table([told, *ROWS[1:]])
    assert "counts" not in table(ROWS)


def test_a_model_is_compared_by_its_map_if_there_is_one(tmp_path):
    assert compared(tmp_path, "unet") == []
    (tmp_path / "baselines.json").write_text('[{"name": "forest", "oa": 0.4}]')
    (tmp_path / "scores.json").write_text('{"model": {"oa": 0.5}}')
    assert [row["oa"] for row in compared(tmp_path, "unet")] == [0.5, 0.4]
    (tmp_path / "scores.json").write_text('{"model": {"oa": 0.5}, "map": {"oa": 0.6}}')
    assert compared(tmp_path, "unet")[0] == {"name": "unet", "oa": 0.6}
    assert compared(tmp_path, None) == [{"name": "forest", "oa": 0.4}]
    (tmp_path / "baselines.json").write_text(json.dumps({"name": "forest"}))
    with pytest.raises(ConfigError, match=r"baselines.json: is damaged; swath baseline writes it"):
        compared(tmp_path, "unet")
