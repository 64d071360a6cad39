"""A model that makes its weights from wavelengths, on stores of other sensors than the first."""

import contextlib
import dataclasses
import re

import numpy as np
import pyproj
import pytest
import rasterio
import torch

import swath
from swath import heed
from swath.config import ConfigError
from swath.data.chip import Known
from swath.data.split import Split, select
from swath.data.store import Store
from swath.embed.scene import embed_scene
from swath.embed.settings import Embed
from swath.nn.features import cells
from swath.parallel.world import World
from swath.predict.settings import Predict
from swath.train.begin import begin
from swath.train.describe import describe, network
from swath.train.export import load_model, read_about, save_model
from swath.train.heldout import held_out
from swath.train.init import settled
from tests.predict.small import write_scene
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
    known = Known(
        bands=data.bands, gsd_m=data.known.gsd_m, where=batch.known.where, when=batch.known.when
    )
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


@pytest.mark.parametrize("word", ["data.bands=[B4]", "data.split={by: random, seed: 3}"])
def test_what_a_further_store_has_of_its_own_is_not_typed(run, word):
    """A store that the run never saw takes both."""
    for store in ("l7", "l8"):
        words = ["runs/sensors", f"data.store={store}", word]
        with contextlib.ExitStack() as stack:
            if store == "l8":
                said = (
                    r"data.(bands|split)\S* has no effect on l8, which is one of data.also and is"
                )
                stack.enter_context(pytest.raises(ConfigError, match=said))
            heed.check("evaluate", words, swath.load(*words))


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


@pytest.mark.parametrize(
    ("sensor", "names", "gsd", "level"),
    [
        ("landsat8_oli", "B4 B3 B6", 30, 9000),  # of a further store of the run
        ("sentinel2_l1c", "B8A B11 B12", 25, 1500),  # of none
    ],
)
def test_a_scene_of_any_sensor_is_embedded_as_that_sensor_saw_it(
    run, caplog, sensor, names, gsd, level
):
    """Against one window, normalised here as in training, or by the whole scene's statistics, and
    told its own place and the scene's time."""
    imagery = write_scene(run, names=names, sensor=sensor, gsd=gsd, level=level)
    model = load_model("runs/sensors")
    with torch.no_grad():  # after two updates time and place hardly tell anything yet
        for told in (model.network.situation.time, model.network.situation.place):
            told.proj.weight.normal_(generator=torch.Generator().manual_seed(0))
    with imagery.open() as scene:
        embed_scene(model, scene, Embed(), Predict(overlap=0), run / f"{sensor}_some_day")
        assert "scene: its time is not known (predict.scene.when, such" in caplog.text
        assert "its place" not in caplog.text
    imagery = dataclasses.replace(imagery, when="2020-12-31T12:00")
    with imagery.open() as scene:
        caplog.clear()
        path = embed_scene(model, scene, Embed(), Predict(overlap=0), run / sensor)
        assert "not known" not in caplog.text
        raw = torch.from_numpy(scene.read().astype(np.float64))
        bands = scene.sensor.bands
    seen = [band[band > 0] for band in raw]
    shift, factor = [b.mean() for b in seen], [b.std(correction=0) for b in seen]
    if sensor == "landsat8_oli":
        made = read_about("runs/sensors").trained.also[0].normalize.of([scene.sensor] * 3)
        shift, factor = made.shift, made.factor
    window = raw[:, :16, 16:32]
    image = torch.stack([(b - s) / f for b, s, f in zip(window, shift, factor, strict=True)])
    image = image.clamp(-4, 4).masked_fill(window == 0, 0)[None].float()
    to = pyproj.Transformer.from_crs("EPSG:32633", "EPSG:4326")
    where = torch.tensor([to.transform(330000 + 24 * gsd, 5822040 - 8 * gsd)], dtype=torch.float64)
    when = torch.tensor([[2020, 366.5]], dtype=torch.float64)
    known = Known(bands=bands, gsd_m=gsd, where=where, when=when)
    want = cells(model, image, "norm", known).map[0]
    for name in ("where", "when"):
        blind = cells(model, image, "norm", dataclasses.replace(known, **{name: None})).map[0]
        assert not torch.allclose(blind, want, atol=1e-3)
    with rasterio.open(path) as raster:
        np.testing.assert_allclose(raster.read()[:, :4, 4:8], want, atol=1e-4)


MODEL = "{kind: vit, patch: 4, width: 16, depth: 1, heads: 2, embed: wavelengths, pool: mean, %s}"


def test_fine_tuning_on_other_bands_loses_nothing_of_the_encoder(run, caplog):
    """From the command line, at a rate of 1e-12: what it began with is what it ends with."""
    caplog.set_level("INFO")
    made(run / "labelled", "landsat7_etm", "B1 B3", size=8, label="class", classes=3, seed=7)
    words = ["data={store: labelled}", "task.kind=classify", "init.from=runs/sensors"]
    words += ["batch={samples: 8, micro: 4}", "train={samples: 8}", "optim={lr: 1.0e-12}"]
    model = MODEL % "positions: metres, time: true, place: true"
    swath.train(swath.load("name=tuned", f"model={model}", *words))
    before, after = (
        load_model(f"runs/{name}").network.state_dict() for name in ("sensors", "tuned")
    )
    encoder = [name for name in before if not name.startswith(("decoder", "mask_token"))]
    assert {*after} - {*encoder} == {"head.weight", "head.bias"}
    for name in encoder:
        torch.testing.assert_close(after[name], before[name], rtol=0, atol=1e-9)
    assert f"taken     {len(encoder)}: patch_embed.proj" in caplog.text
    assert "new       2: head.weight, head.bias" in caplog.text
    assert "adapted " not in caplog.text and "begins at random" not in caplog.text


def test_learned_positions_begin_with_those_counted_in_metres(run, tmp_path):
    """Of the size of pixels that the weights were trained with; then tokens are the same."""
    model = load_model("runs/sensors")
    about = dataclasses.replace(model.about, inputs=dataclasses.replace(model.inputs, gsd_m=30.0))
    save_model(tmp_path, model.network.state_dict(), about)
    words = ["data={store: s2}", "task={kind: contrast, views: {global: {size: 16}}}"]
    words += [f"init.from={tmp_path}", f"model={MODEL % 'time: true, place: true'}"]
    job = swath.load("name=learned", *words).job()
    wanted = describe(job, job.open())
    begun = network(job, wanted).eval()
    begin(settled(job.init, tmp_path / "none", None), wanted, begun, World.alone())
    image = torch.randn(2, 4, 16, 16)
    told = Known(bands=model.inputs.bands, gsd_m=30.0)
    with torch.no_grad():
        torch.testing.assert_close(begun.tokens(image)[0], model.network.tokens(image, told)[0])


def test_the_report_shows_every_store_filled_in(run):
    page = swath.report(swath.load("runs/sensors")).read_text()
    assert [page.count(f"{name}: loss ") for name in ("s2", "l8", "s1")] == [2, 2, 2]
    assert "6 of 18 samples of the test part, spread evenly, the patches hidden that" in page
    assert re.findall("<dt>Further store</dt><dd>(.*?)</dd>", page) == [
        "l8, weight 1",
        "s1, weight 1",
    ]


def test_a_pipeline_is_refused_for_stores_of_several_sensors(run):
    told = r"parallel.pipeline=2: .* microbatches of one shape, and stores of several sensors"
    with pytest.raises(ConfigError, match=told):
        swath.load("recipe.yaml", "parallel.pipeline=2").job()
