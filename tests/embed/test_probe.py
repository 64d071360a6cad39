"""Scores of frozen features: those of scikit-learn, and few labels drawn alike of each class."""

import csv

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors

from swath.config import ConfigError
from swath.embed import probe as probes
from swath.embed.neighbours import nearest, unit, vote
from swath.embed.probe import few, probe, write
from swath.embed.settings import Probe
from swath.embed.table import Table

DRAW = np.random.default_rng(0)
CENTRES = DRAW.normal(size=(3, 8))


def cloud(n, seed):
    draw = np.random.default_rng(seed)
    y = draw.integers(0, 3, n)
    return (CENTRES[y] + 1.2 * draw.normal(size=(n, 8))).astype(np.float32), y


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """300 vectors of three classes, two in three of them to learn from."""
    x, y = cloud(300, 1)
    plan = {"classes": ["a", "b", "c"], "label": "class", "layer": "norm", "pool": "token"}
    columns = {"lon": np.zeros(300), "lat": np.zeros(300), "name": np.array(["é"] * 300)}
    path = tmp_path_factory.mktemp("table") / "t.zarr"
    table = Table.begin(path, plan, 300, (), 8, columns)
    part = np.where(np.arange(300) % 3 < 2, 0, 2).astype(np.uint8)
    table.write(0, embedding=x, part=part, label=y.astype(np.int32))
    table.finish()
    return Table.open(path)


def halves():
    x, y = cloud(300, 1)
    mine = np.arange(300) % 3 < 2
    return x[mine], y[mine], x[~mine], y[~mine]


def test_neighbours_are_those_of_scikit_learn_in_blocks_of_any_size():
    x, _ = cloud(500, 2)
    asked, _ = cloud(40, 3)
    known = NearestNeighbors(n_neighbors=9, metric="cosine", algorithm="brute").fit(x)
    distance, numbers = known.kneighbors(asked)
    for size in (500, 7, 120):
        found, cosine = nearest(asked, ((i, x[i : i + size]) for i in range(0, 500, size)), 9)
        np.testing.assert_array_equal(found, numbers)
        np.testing.assert_allclose(1 - cosine, distance, atol=1e-6)


def test_of_equal_cosines_the_smaller_number_comes_first():
    """Also where more of them are equal than are asked for, whatever the blocks."""
    x = np.tile(np.eye(4, dtype=np.float32), (25, 1))
    for size in (100, 30, 4):
        found, _ = nearest(x[:4], ((i, x[i : i + size]) for i in range(0, 100, size)), 3)
        np.testing.assert_array_equal(found, np.arange(4)[:, None] + [0, 4, 8])
    assert unit(np.zeros((1, 4))).tolist() == [[0, 0, 0, 0]]


def test_the_vote_is_that_of_scikit_learn():
    x, y, asked, _ = halves()
    weighted = KNeighborsClassifier(
        15, metric="cosine", weights=lambda d: np.exp((1 - d) / 0.07), algorithm="brute"
    ).fit(x, y)
    found, cosine = nearest(asked, [(0, x)], 15)
    np.testing.assert_array_equal(vote(cosine, y[found], 3, 0.07), weighted.predict(asked))
    plain = KNeighborsClassifier(1, metric="cosine", algorithm="brute").fit(x, y)
    np.testing.assert_array_equal(
        vote(cosine[:, :1], y[found[:, :1]], 3, 0.07), plain.predict(asked)
    )


def test_the_scores_are_those_of_scikit_learn(table):
    x, y, asked, truth = halves()
    rows = {row.method: row for row in probe(table, Probe(shares=(1.0,), neighbours=15))}
    weighted = KNeighborsClassifier(
        15, metric="cosine", weights=lambda d: np.exp((1 - d) / 0.07), algorithm="brute"
    ).fit(x, y)
    assert rows["knn"].mean["oa"] == pytest.approx(weighted.score(asked, truth))
    mean, deviation = x.mean(0), x.std(0)
    line = LogisticRegression(C=1, max_iter=1000).fit((x - mean) / deviation, y)
    answers = line.predict((asked - mean) / deviation)
    expected = balanced_accuracy_score(truth, answers)
    assert rows["linear"].mean["balanced"] == pytest.approx(expected)
    assert rows["linear"].draws == 1 and rows["linear"].labels == 200


def test_it_is_told_how_far_a_probe_is(table, monkeypatch):
    """In labels, of which the linear layer's time depends: 2 draws of 6 of each class, and all."""
    told, lines = [], []
    monkeypatch.setattr(probes.log, "info", lambda text, *given: lines.append(text % given))
    settings = Probe(shares=(0.1, 1.0), draws=2, neighbours=5)
    rows = probe(table, settings, progress=lambda done, total: told.append((done, total)))
    few = rows[0].labels
    assert [done for done, _ in told] == [
        0,
        few,
        2 * few,
        3 * few,
        4 * few,
        4 * few + 200,
        told[0][1],
    ]
    assert {total for _, total in told} == {4 * few + 400}
    assert lines[0] == "200 vectors of 8 numbers to learn from, 100 to score on"
    accuracy = f"overall accuracy {rows[-1].mean['oa']:.3f}  ("
    assert len(lines) == 5 and lines[-1].startswith(f"linear, 200 labels: {accuracy}")


def test_few_labels_are_drawn_by_number_and_alike_of_each_class():
    """A vector's luck does not depend on which others there are, and small draws nest in larger."""
    numbers, classes = np.arange(1000), np.repeat([0, 1, 2], [900, 95, 5])
    for seed in (0, 1):
        one, ten = (set(few(numbers, classes, s, seed).tolist()) for s in (0.01, 0.1))
        assert one < ten and np.bincount(classes[[*ten]]).tolist() == [90, 10, 1]
    assert set(few(numbers, classes, 0.1, 0)) != set(few(numbers, classes, 0.1, 1))
    half = numbers[::2]
    among = set(half[few(half, classes[::2], 0.01, 0)]) & set(few(numbers, classes, 0.01, 0))
    assert among
    assert few(numbers, classes, 1.0, 0).tolist() == numbers.tolist()


def test_a_table_and_a_picture_are_left(table):
    rows = probe(table, Probe(shares=(0.05, 1), draws=2))
    made = write(table, rows, ["a note"])
    assert [p.name for p in made] == ["t-probe.csv", "t-probe.md", "t-probe.png"]
    found = list(csv.DictReader(made[0].open()))
    assert [(r["method"], float(r["share"]), int(r["draws"])) for r in found] == [
        ("knn", 0.05, 2), ("linear", 0.05, 2), ("knn", 1.0, 1), ("linear", 1.0, 1)
    ]  # fmt: skip
    assert float(found[2]["oa"]) > float(found[0]["oa"]) - 0.1 and float(found[0]["oa_sd"]) >= 0
    assert "| k-NN | 0.05 | 10 | 2 | 0." in made[1].read_text()
    assert made[2].read_bytes().startswith(b"\x89PNG")


def test_what_cannot_be_probed_is_told(table, tmp_path):
    with pytest.raises(ConfigError, match=r"neighbours=999: .* 200 labelled vectors; set it to"):
        probe(table, Probe(neighbours=999))
    with pytest.raises(ConfigError, match="9 neighbours were asked for, and there are 4 vectors"):
        nearest(np.eye(4), [(0, np.eye(4))], 9)
    with pytest.raises(ConfigError, match="nothing to look for"):
        nearest(np.zeros((0, 4)), [(0, np.eye(4))], 1)
    with pytest.raises(ConfigError, match=r"shares=\[2.0\] must be shares"):
        Probe(shares=(2.0,))
    columns = {"lon": np.zeros(4), "lat": np.zeros(4), "name": np.array(["x"] * 4)}
    plan = {"classes": ["a"], "label": "class"}
    empty = Table.begin(tmp_path / "e.zarr", plan, 4, (), 2, columns)
    blank = {"part": np.full(4, 0, np.uint8), "label": np.zeros(4, np.int32)}
    empty.write(0, embedding=np.ones((4, 2), np.float32), **blank)
    with pytest.raises(ConfigError, match="no vector of the test part has a class"):
        probe(empty, Probe(neighbours=1))
    flags = Table.begin(tmp_path / "f.zarr", {**plan, "label": "flags"}, 4, (), 2, columns)
    with pytest.raises(ConfigError, match="labels are of kind flags; swath probe tells classes"):
        probe(flags, Probe())
