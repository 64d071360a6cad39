"""A whole map: the same however it is made, in place, with no-data, resumable, without seams."""

import dataclasses
import pathlib

import numpy as np
import pytest
import rasterio
import torch

from swath.config import ConfigError
from swath.data.chip import Batch, Label
from swath.data.imagery import Imagery
from swath.data.sensor import FOLDER as SENSORS
from swath.data.sensor import load_sensor
from swath.geo.channel import File
from swath.models import Outputs
from swath.models.unet import UNet
from swath.models.vit import ViT
from swath.parallel.replica import Replica
from swath.parallel.world import World
from swath.predict.layers import check_mappable
from swath.predict.ledger import Ledger
from swath.predict.map import predict
from swath.predict.mapping import Mapping
from swath.predict.settings import Predict
from swath.tasks.multilabel import Multilabel
from swath.tasks.regress import Regress
from swath.tasks.segment import Segment
from swath.train.precision import AUTOCAST
from swath.train.settings import Compute
from tests.predict.small import LAND, untrained, write_scene

ALL = Predict(probabilities=True, uncertainty=True, overlap=0.5)


def read(path):
    with rasterio.open(path) as raster:
        return raster.read()


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    with write_scene(tmp_path_factory.mktemp("scene")).open() as scene:
        yield scene


@pytest.fixture(scope="module")
def model():
    return untrained()


@pytest.fixture(scope="module")
def whole(scene, model, tmp_path_factory):
    """The map that the others are compared with."""
    return predict(model, scene, ALL, tmp_path_factory.mktemp("map"))


def test_the_map_lies_on_the_scene(scene, whole):
    with rasterio.open(whole["classes"]) as raster:
        assert (raster.height, raster.width) == (scene.height, scene.width)
        assert raster.crs == rasterio.CRS.from_epsg(32633)
        assert tuple(raster.transform)[:6] == scene.ground.transform
        assert raster.nodata == 255 and raster.colormap(1)[0][2] > raster.colormap(1)[0][0]
        assert raster.tags(ns="IMAGE_STRUCTURE").get("LAYOUT") == "COG"
    for name in ("probabilities", "uncertainty"):
        with rasterio.open(whole[name]) as raster:
            assert np.isnan(raster.nodata) and raster.transform.c == 330000
    with rasterio.open(whole["probabilities"]) as raster:
        assert raster.descriptions == LAND.classes


def test_no_data_stays_no_data(scene, whole):
    """Where no band was observed, and nowhere else: one missing band is no hole."""
    seen = scene.observed(scene.read()).any(0)
    assert 0 < (~seen).sum() < seen.size
    np.testing.assert_array_equal(read(whole["classes"])[0] == 255, ~seen)
    for name in ("probabilities", "uncertainty"):
        np.testing.assert_array_equal(np.isnan(read(whole[name])[0]), ~seen)


def test_classes_are_the_most_probable(whole):
    classes, p = read(whole["classes"])[0], read(whole["probabilities"])
    seen = classes != 255
    np.testing.assert_array_equal(p.argmax(0)[seen], classes[seen])
    np.testing.assert_allclose(p.sum(0)[seen], 1, atol=2e-4)
    entropy = -(p * np.log(p)).sum(0)[seen] / np.log(3)
    np.testing.assert_allclose(read(whole["uncertainty"])[0][seen], entropy, atol=2e-3)


@pytest.mark.parametrize("at_once", [1, 3, 16])
def test_windows_at_once_change_no_bit(scene, model, whole, tmp_path, at_once):
    again = predict(model, scene, dataclasses.replace(ALL, windows_at_once=at_once), tmp_path)
    for name, path in whole.items():
        np.testing.assert_array_equal(read(path), read(again[name]))


@pytest.mark.parametrize("threads", [2, 5])
@pytest.mark.parametrize("at_once", [None, 3])
def test_cores_change_no_bit(scene, tmp_path, threads, at_once):
    """Kernels add up otherwise with other numbers of threads, 1x1 convolutions and norms among
    them; two ranks on a computer have half of its cores each."""
    maps = []
    for number in (1, threads):
        settings = dataclasses.replace(ALL, tile=64, windows_at_once=at_once)
        wide = untrained(model=UNet(width=32), size=64)
        compute = Compute(threads=number)
        maps.append(predict(wide, scene, settings, tmp_path / str(number), compute=compute))
    for name, path in maps[0].items():
        np.testing.assert_array_equal(read(path), read(maps[1][name]))
    assert torch.get_num_threads() == 1  # as it was


def test_the_map_is_the_mean_of_the_models_answers(scene, model):
    """Against plain torch: each window alone, weighted in float64, on the padded scene."""
    mapping = Mapping(model, scene, ALL, torch.device("cpu"))
    plan = mapping.tiling
    pixels = np.pad(scene.read(), ((0, 0), (40, 40), (40, 40)), mode="reflect").astype(np.float32)
    weight = np.outer(plan.profile, plan.profile).astype(float)
    sums, total = np.zeros((3, *pixels.shape[1:])), np.zeros(pixels.shape[1:])
    for row in plan.rows:
        for col in plan.cols:
            at = (slice(row + 40, row + 40 + 32), slice(col + 40, col + 40 + 32))
            window = torch.from_numpy(pixels[(slice(None), *at)])[None]
            image = ((window - 1500) / 400).masked_fill(window == 0, 0)
            with torch.no_grad():
                p = model.network(image)[0].softmax(0).double().numpy()
            sums[(slice(None), *at)] += p * weight
            total[at] += weight
    want = sums[:, 40:-40, 40:-40] / total[40:-40, 40:-40]
    strips = [means.numpy() for _, means, _ in mapping.strips(range(len(plan.rows)))]
    seen = scene.observed(scene.read()).any(0)
    found = np.concatenate(strips, axis=1)
    np.testing.assert_allclose(found[:, seen], want[:, seen], atol=1e-4)


@pytest.mark.parametrize("stop", [1, 3])
def test_an_interrupted_map_goes_on_where_it_stopped(scene, model, whole, tmp_path, stop):
    made = []

    def interrupt(done, strips):
        if done == stop:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predict(model, scene, ALL, tmp_path, progress=interrupt)
    assert not (tmp_path / "scene.tif").exists()  # finished or absent
    again = predict(model, scene, ALL, tmp_path, progress=lambda done, strips: made.append(done))
    assert made[0] == stop
    for name, path in whole.items():
        np.testing.assert_array_equal(read(path), read(again[name]))
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(
        ["scene.tif", "scene.tif.aux.xml", "scene_probabilities.tif", "scene_uncertainty.tif"]
    )


def interrupted(model, scene, folder, settings=ALL, after=3):
    def stop(done, strips):
        if done == after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predict(model, scene, settings, folder, progress=stop)


def test_a_damaged_strip_is_found_and_made_again(scene, model, whole, tmp_path, caplog):
    interrupted(model, scene, tmp_path)
    part = tmp_path / ".scene.tif.part"
    content = bytearray(part.read_bytes())
    content[20 * 90 + 5] ^= 1  # in the second strip
    part.write_bytes(content)
    again = predict(model, scene, ALL, tmp_path)
    assert "strip 1 of the unfinished map is damaged" in caplog.text
    np.testing.assert_array_equal(read(whole["classes"]), read(again["classes"]))


def test_a_map_of_another_model_is_not_gone_on_with(scene, model, tmp_path, caplog):
    """Half a map of one model and half of another would be worth nothing."""
    interrupted(model, scene, tmp_path)
    other = untrained(seed=1)
    mixed = predict(other, scene, ALL, tmp_path)
    assert "begun anew: it was made with other model" in caplog.text
    clean = predict(other, scene, ALL, tmp_path / "clean")
    np.testing.assert_array_equal(read(mixed["classes"]), read(clean["classes"]))


def test_a_map_of_a_scene_that_changed_is_begun_anew(model, tmp_path, caplog):
    """The file has its old name and other pixels."""
    folder = tmp_path / "map"
    interrupted(model, write_scene(tmp_path).open(), folder)
    changed = write_scene(tmp_path, seed=1).open()
    mixed = predict(model, changed, ALL, folder)
    assert "begun anew: it was made with other files" in caplog.text
    clean = predict(model, changed, ALL, tmp_path / "clean")
    np.testing.assert_array_equal(read(mixed["classes"]), read(clean["classes"]))


def test_pixels_of_files_that_are_not_on_disk_are_looked_at(tmp_path):
    """Of an address GDAL tells neither size nor time of change."""
    states = []
    for seed in (0, 0, 1):
        content = pathlib.Path(write_scene(tmp_path, seed=seed).path).read_bytes()
        with rasterio.MemoryFile(content, filename=f"a{len(states)}.tif") as file:
            states.append(File(file.name).state()[0][1:])
    assert states[0] == states[1] != states[2]


def test_a_damaged_ledger_is_said(tmp_path):
    (tmp_path / "ledger").write_text('{"plan": {')
    assert Ledger(tmp_path / "ledger", {}).differs == "its ledger is damaged"
    Ledger(tmp_path / "other", {"tile": 8}).add(0, 77)
    assert Ledger(tmp_path / "other", {"tile": 8}).sums == {0: 77}
    assert Ledger(tmp_path / "other", {"tile": 9}).differs == "it was made with other tile"


def test_a_scene_that_lacks_a_band_is_refused(tmp_path, model):
    imagery = dataclasses.replace(write_scene(tmp_path), bands=("red", "blue"))
    with (
        imagery.open() as scene,
        pytest.raises(
            ConfigError,
            match=r"takes 3 bands \(red, green, blue\) of rgb; the scene scene, of sensor rgb, has "
            r"2 \(red, blue\) and lacks green",
        ),
    ):
        predict(model, scene, Predict(), tmp_path)


def test_other_light_is_told_before_lacking_bands(tmp_path, model):
    """Nobody is sent for files of bands that would be another instrument's all the same."""
    imagery = dataclasses.replace(
        write_scene(tmp_path), sensor="landsat8_oli", order=("B2", "B3", "B4"), offset=0.0
    )
    bands = load_sensor("landsat7_etm").select(("B1", "B2", "B3", "B4", "B5", "B7")).bands
    inputs = dataclasses.replace(model.inputs, bands=bands)
    landsat = dataclasses.replace(model, about=dataclasses.replace(model.about, inputs=inputs))
    with (
        imagery.open() as scene,
        pytest.raises(ConfigError, match=r"of landsat7_etm; here is B2 at 482.04 nm, not 560, B3"),
    ):
        predict(landsat, scene, Predict(), tmp_path)


def test_bands_that_the_model_does_not_take_are_told(tmp_path, model, whole, caplog):
    """A scene may have more; the map is the same."""
    write_scene(tmp_path)
    sensor = tmp_path / "rgbi.yaml"
    sensor.write_text(
        (SENSORS / "rgb.yaml").read_text().replace("bands:", "bands:\n  - {name: nir}")
    )
    with rasterio.open(tmp_path / "scene.tif") as file:
        profile, pixels = file.profile, file.read()
    with rasterio.open(tmp_path / "scene.tif", "w", **(profile | {"count": 4})) as file:
        file.write(np.concatenate([pixels[:1], pixels]))
    order = ("nir", "red", "green", "blue")
    imagery = Imagery(path=str(tmp_path / "scene.tif"), sensor=str(sensor), order=order)
    with imagery.open() as more, caplog.at_level("INFO", logger="swath"):
        again = predict(model, more, ALL, tmp_path / "map")
    assert "scene: the model takes red, green, blue; left out: nir" in caplog.messages
    np.testing.assert_array_equal(read(whole["classes"]), read(again["classes"]))


def test_bands_in_another_order_are_taken_by_name(tmp_path, scene, model, whole):
    imagery = dataclasses.replace(scene.imagery, bands=("blue", "green", "red"))
    with imagery.open() as turned:
        again = predict(model, turned, ALL, tmp_path)
    np.testing.assert_array_equal(read(whole["classes"]), read(again["classes"]))


def test_settings_without_effect_are_refused(scene, tmp_path):
    heights = Label(kind="raster", classes=("height",), unit="m")
    model = untrained(heights, task=Regress(offset=300.0, scale=50.0))
    with pytest.raises(ConfigError, match=r"uncertainty=true has no effect: .* quantities"):
        predict(model, scene, Predict(uncertainty=True), tmp_path)
    flags = untrained(Label(kind="flags", classes=("a", "b")), whole_windows(), Multilabel())
    with pytest.raises(ConfigError, match="uncertainty=true has no effect: flags"):
        predict(flags, scene, Predict(uncertainty=True), tmp_path)
    with pytest.raises(ConfigError, match="overlap=1 is a share"):
        Predict(overlap=1.0)


def whole_windows():
    return ViT(width=24, depth=1, heads=2, patch=8)


class Water:
    """The objective of a task of one's own: how likely a pixel is water, in one channel."""

    outputs = Outputs(channels=1, dense=True)

    def predict(self, model, image):
        return model(image).sigmoid()


class OnlyWater(Segment):
    """As made up by a user: learns mask labels, answers in a way of its own."""

    def bind(self, label, counts, inputs=None):
        return Water()


def test_a_task_whose_answers_are_no_layer_is_refused(scene, tmp_path):
    """One channel would be mapped as class 0 everywhere, without a word."""
    with pytest.raises(ConfigError) as told:
        predict(untrained(task=OnlyWater()), scene, Predict(), tmp_path)
    assert str(told.value).startswith(
        "the model's task gives 1 channel for each pixel; a map of mask labels "
        "(water, forest, farm) is made from 3 channels for each pixel. Let the task's outputs be "
        "Outputs(channels=3, dense=True)"
    )
    assert not list(tmp_path.glob("*.tif"))


@pytest.mark.parametrize(
    ("label", "outputs", "said"),
    [
        (LAND, Outputs(channels=3, dense=False), r"gives 3 channels for each image; .* each pixel"),
        (
            Label(kind="value"),
            Outputs(channels=2, dense=False),
            "value labels .a value. is made",
        ),
        (Label(kind="flags", classes=("a", "b")), Outputs(channels=2, dense=True), "of flags"),
        (Label(kind="none"), Outputs(channels=8, dense=True), "learned from no labels"),
    ],
)
def test_outputs_have_to_be_what_a_map_is_made_from(label, outputs, said):
    with pytest.raises(ConfigError, match=said):
        check_mappable(label, outputs)


def test_values_are_mapped_with_their_unit(scene, tmp_path):
    heights = Label(kind="raster", classes=("height",), unit="m")
    model = untrained(heights, task=Regress(offset=300.0, scale=50.0))
    paths = [
        predict(model, scene, Predict(windows_at_once=n), tmp_path / str(n))["values"]
        for n in (1, 8)
    ]
    first, second = map(read, paths)
    np.testing.assert_array_equal(first, second)
    with rasterio.open(paths[0]) as raster:
        assert raster.descriptions == ("height [m]",) and raster.dtypes == ("float32",)
    assert 200 < np.nanmean(first) < 400 and np.isnan(first[0, -1, -1])


def test_a_model_of_whole_windows_maps_their_middles(scene, tmp_path):
    """Flags of 32-px windows every 8 px: each 8-px block has one answer of its window."""
    label = Label(kind="flags", classes=("a", "b"))
    model = untrained(label, whole_windows(), Multilabel())
    path = predict(model, scene, Predict(overlap=0.75, windows_at_once=4), tmp_path)["flags"]
    found = read(path)
    assert np.nanmax(found) <= 1
    block = found[:, 16:24, 16:24]
    window = torch.from_numpy(scene.read()[None, :, 4:36, 4:36].astype(np.float32))
    image, _ = model.normalize(window)
    with torch.no_grad():
        want = model.objective.predict(model.network, image)[0]
    np.testing.assert_allclose(block, want[:, None, None].expand(2, 8, 8), atol=1e-4)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp64"])
@pytest.mark.parametrize(
    "network",
    [
        None,
        ViT(width=16, depth=1, heads=2, patch=8),
        ViT(width=16, depth=1, heads=2, patch=8, decoder="upernet", decoder_width=8),
    ],
)
def test_a_map_is_computed_in_the_precision_of_training(scene, tmp_path, precision, network):
    """Its answers are, bit for bit, those that the run's own score is taken from, and the map is
    the same whatever number of windows go at once."""
    model = untrained(model=network)
    mapping = Mapping(model, scene, ALL, torch.device("cpu"), precision)
    image = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    none = torch.zeros(3, dtype=torch.int64)
    valid = torch.ones(3, 32, 32, dtype=torch.bool)
    batch = Batch(image=image, valid=valid, target=None, positions=none, indices=none, seed=0)
    replica = Replica(model.network, World.alone(), autocast=AUTOCAST.get(precision))
    with torch.inference_mode():
        scored = replica.call(lambda m, b: model.objective.predict(m, b.image), batch)
        assert torch.equal(mapping._answer(image), scored)
        plain = untrained(model=network)
        simple = plain.objective.predict(plain.network, image)
    assert torch.equal(simple, scored) == (precision == "fp32")
    maps = [
        predict(model, scene, dataclasses.replace(ALL, windows_at_once=n), tmp_path / str(n),
                precision=precision)
        for n in (1, 5)
    ]  # fmt: skip
    for name, path in maps[0].items():
        np.testing.assert_array_equal(read(path), read(maps[1][name]))


def test_a_map_begun_in_another_precision_is_begun_anew(scene, tmp_path, caplog):
    """Else half of its pixels would be rounded otherwise; the weights' checksum stays the same."""
    model = untrained()
    interrupted(model, scene, tmp_path)
    files = predict(model, scene, ALL, tmp_path, precision="bf16")
    assert "begun anew: it was made with other arithmetic" in caplog.text
    whole = predict(model, scene, ALL, tmp_path / "other", precision="bf16")
    np.testing.assert_array_equal(read(files["probabilities"]), read(whole["probabilities"]))


def test_compile_compiles_the_network_of_a_map(scene, monkeypatch):
    """The setting has an effect, which the plan knows; here a compiler that does not rewrite."""
    model = untrained()
    compiled = []
    monkeypatch.setattr(model.network, "compile", lambda: compiled.append(True))
    plain = Mapping(model, scene, ALL, torch.device("cpu")).plan([])
    assert not compiled
    fast = Mapping(model, scene, ALL, torch.device("cpu"), compile=True).plan([])
    assert compiled == [True]
    assert [name for name in plain if plain[name] != fast[name]] == ["arithmetic"]
