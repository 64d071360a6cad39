"""Places unlike all others: scores by hand and by scikit-learn's neighbours and covariance."""

import numpy as np
import pytest
from sklearn.covariance import LedoitWolf
from sklearn.neighbors import NearestNeighbors

from swath.config import ConfigError
from swath.embed.anomaly import anomalies
from swath.embed.settings import Anomaly
from swath.embed.table import Table


@pytest.fixture
def table(tmp_path):
    """Eighty vectors, the first fifty of the training part; the last one is far from all."""
    vectors = np.random.default_rng(0).normal(5, [1, 1, 1, 2, 3, 4], (80, 6))
    vectors[79] = 5
    vectors[79, 0] = 35
    plan = {"classes": ["a"], "label": "class", "store": "", "unit": 0}
    names = {"lon": np.zeros(80), "lat": np.zeros(80), "name": np.arange(80).astype(str)}
    made = Table.begin(tmp_path / "t.zarr", plan, 80, (), 6, names)
    part = np.repeat([0, 2], [50, 30]).astype(np.uint8)
    for file in made.missing():
        rows = made.rows(file)
        label = np.zeros(len(rows), np.int32)
        made.write(file, embedding=vectors[rows].astype(np.float32), part=part[rows], label=label)
    made.finish()
    return Table.open(made.path)


def test_the_distance_to_the_kth_neighbour_is_scikit_learns(table):
    """Training vectors leave themselves out, as its kneighbors() without queries does."""
    every = table.vectors(np.arange(80)).astype(np.float64)
    every -= every[:50].mean(0)
    fitted = NearestNeighbors(n_neighbors=5, metric="cosine", algorithm="brute").fit(every[:50])
    own, others = fitted.kneighbors()[0][:, 4], fitted.kneighbors(every[50:])[0][:, 4]
    found = anomalies(table, Anomaly(neighbours=5))
    np.testing.assert_allclose(found, np.concatenate([own, others]), atol=2e-6)


def test_the_distance_from_the_mean_is_in_units_of_the_spread(table):
    every = table.vectors(np.arange(80)).astype(np.float64)
    fitted = LedoitWolf().fit(every[:50])
    away = every - every[:50].mean(0)
    by_hand = np.sqrt(np.einsum("nd,de,ne->n", away, np.linalg.inv(fitted.covariance_), away))
    found = anomalies(table, Anomaly(kind="mahalanobis"))
    np.testing.assert_allclose(found, by_hand, rtol=1e-5)
    assert found.argmax() == 79


def test_fewer_training_vectors_are_drawn_by_number(table):
    """The same ones each time, others for another seed; no test vector is among them."""
    few = Anomaly(kind="mahalanobis", most=20)
    first, again, other = (anomalies(table, few, seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other)


def test_too_few_training_vectors_are_told(table):
    with pytest.raises(ConfigError, match=r"50 vectors are of the training part, .* wants 51"):
        anomalies(table, Anomaly(neighbours=50))
