"""The verbs, on a small run: what they print and leave, and what they refuse."""

import pytest
import xarray

from swath.config import ConfigError
from tests.embed.small import small_store
from tests.lab import invoke


def test_from_a_run_to_embeddings_scores_and_places_alike(trained):
    folder = trained / "runs/small/embed"
    layer = "embed.layer=encoder.levels.0"
    told = invoke("embed", "runs/small", layer)
    assert "runs/small/embed/small-encoder.levels.0.zarr: " in told and " x 16 x 16 vec" in told
    told = invoke("probe", "runs/small", layer, "probe.shares=[0.5]", "probe.draws=2")
    assert "| linear | 0.5 | " in told and "of the test windows touch training pixels" in told
    assert (folder / "small-encoder.levels.0-probe.png").exists()
    told = invoke("similar", "runs/small", layer, "--sample", "3", "--count", "2")
    assert "runs/small/embed/small-encoder.levels.0-mean-like-3.geojson" in told
    assert "  cosine  " in told and "\n   2  " in told
    told = invoke("similar", "runs/small", layer, "--sample", "3", "--count", "1", "--away", "0.5")
    assert "embed/small-encoder.levels.0-mean-like-3-0.5km.csv" in told
    told = invoke("anomalies", "runs/small", layer, "--count", "2", "anomaly.neighbours=1")
    assert " anomaly  " in told and "\n   2  " in told
    assert "runs/small/embed/small-encoder.levels.0-mean-anomalies.geojson" in told
    table = xarray.open_zarr(folder / "small-encoder.levels.0-mean.zarr", consolidated=False)
    assert table["anomaly"].dims == ("sample",) and float(table["anomaly"].min()) > 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["similar", "runs/small"], r"like what\? Name one of both"),
        (["similar", "runs/small", "--at", "a,b"], "is no place"),
        (["embed", "runs/small", "batch.micro=1"], r"batch.micro was 2 there and is 1 now"),
        (["probe", "runs/small", "probe.draws=0"], "must be at least 1"),
        (["anomalies", "runs/small", "anomaly.most=1"], "neighbours=10 .* and most=1 at least 2"),
        (["embed", "runs/small", "data.bands=[red]"], "takes bands red, green, blue"),
    ],
)
def test_mistakes_are_told(trained, words, message):
    with pytest.raises(ConfigError, match=message):
        invoke(*words)


def test_a_store_without_labels_is_told_before_it_is_embedded(tmp_path, monkeypatch):
    """Nothing was trained here, and nobody asks for that."""
    monkeypatch.chdir(tmp_path)
    for label, message in (
        ("none", r"store-none: its samples have no labels.*\(swath probe RUN STORE\); swath embed"),
        ("value", r"store-value: the store's labels are of kind value; .*init.from=RUN adapt.kind"),
    ):
        store = small_store(tmp_path, label, samples=8)
        text = f"data: {{store: {store}}}\nmodel: {{kind: mae, patch: 4}}\ntask: {{kind: pretrain}}"
        (tmp_path / "run.yaml").write_text(text)
        with pytest.raises(ConfigError, match=message):
            invoke("probe", "run.yaml")
