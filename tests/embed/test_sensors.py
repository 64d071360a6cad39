"""A model that makes its weights from wavelengths, on stores of other sensors than the first."""

import dataclasses

import numpy as np
import pytest
import torch

import swath
from swath.config import ConfigError
from swath.data.chip import Known
from swath.data.split import Split, select
from swath.data.store import Store
from swath.nn.features import cells
from swath.train.export import load_model, read_about
from swath.train.heldout import held_out
from tests.several import made, three

RECIPE = """\
name: sensors
data: {store: s2, also: [{store: l8}, {store: s1}], normalize: {clip: 4}}
model: {kind: mae, patch: 4, width: 16, depth: 1, heads: 2, decoder_depth: 1,
        embed: wavelengths, positions: metres, time: true, place: true}
task: {kind: pretrain}
batch: {samples: 8, micro: 4}
train: {samples: 16, evaluate_every: 16}
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a run over three sensors, with a store of a fourth beside it."""
    folder = tmp_path_factory.mktemp("sensors")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        three(folder)
        made(folder / "l7", "landsat7_etm", "B1 B3 B5", size=12, gsd=20.0, seed=4)
        (folder / "recipe.yaml").write_text(RECIPE)
        swath.train(swath.load("recipe.yaml"))
        yield folder


@pytest.mark.parametrize("store", ["s2", "l8", "s1", "l7"])
def test_any_store_is_embedded_as_its_own_sensor_saw_it(run, store):
    """Against its pixels standardised here by hand, and told one by one of their bands, pixel size,
    place and time."""
    table = swath.embed(swath.load("runs/sensors", f"data.store={store}", "embed.pool=mean"))
    model = load_model("runs/sensors")
    data = swath.load(f"data.store={store}").data.open(labels=False, asks=model.network.asks)
    (batch,) = data.loader("all", micro=30).sweep(indices=np.arange(30))
    train = data.select("train").indices
    raw = torch.from_numpy(
        data.store.read(np.arange(30), [data.channels[0][0].name]).result()[
            data.channels[0][0].name
        ]
    ).double()
    mean, std = raw[train].mean((0, 2, 3)), raw[train].std((0, 2, 3), correction=0)
    image = ((raw - mean[:, None, None]) / std[:, None, None]).clamp(-4, 4).float()
    known = Known(bands=data.bands, gsd_m=data.known.gsd_m, where=batch.where, when=batch.when)
    assert known.gsd_m == {"l8": 30.0, "l7": 20.0}.get(store, 10.0)
    want = cells(model, image, "norm", known).map.mean((2, 3))
    np.testing.assert_allclose(table.vectors(np.arange(30)), want, atol=2e-5)
    blind = dataclasses.replace(known, where=None)
    assert not torch.allclose(cells(model, image, "norm", blind).map.mean((2, 3)), want, atol=1e-3)


def test_scores_tell_the_bands_and_what_was_trained_on(run, caplog):
    """An also store is the run's own; one of a sensor that the run never saw is said to be."""
    scores = swath.evaluate(swath.load("runs/sensors", "data.store=l8"))["model"]
    assert {"r2/B4", "r2/B3", "r2/B6"} <= scores.keys() and "other_store" not in scores
    assert not caplog.records
    caplog.set_level("INFO")
    scores = swath.evaluate(swath.load("runs/sensors", "data.store=l7"))["model"]
    assert scores["other_store"] and {"r2/B1", "r2/B3", "r2/B5"} <= scores.keys()
    assert "l7: of another sensor than the run's, bands B1, B3, B5" in caplog.text
    other = Split(by="random", seed=3, val=0.2, test=0.5)
    with pytest.raises(ConfigError, match=r"the model was trained on \d+ of the \d+ samples"):
        held_out(select(Store.open("l8"), other, "test"), read_about("runs/sensors").trained)


def test_what_tells_nothing_of_a_band_is_refused(run):
    made(run / "hh", "sentinel1_grd", "VV VH", size=16, dtype="float32", seed=5, renamed="HH HV")
    with pytest.raises(
        ConfigError,
        match=r"^hh: no wavelength is known of HH, HV, and .* but on B02, .* VV, VH: .*data.bands",
    ):
        swath.embed(swath.load("runs/sensors", "data.store=hh"))
    made(run / "nowhere", "landsat7_etm", "B1 B3", size=8, gsd=None, seed=6)
    with pytest.raises(
        ConfigError, match=r"^nowhere: does not say how large its pixels are, .*gsd_m"
    ):
        swath.embed(swath.load("runs/sensors", "data.store=nowhere"))
