"""The dry run of several sensors plans for the store whose samples need most memory."""

from __future__ import annotations

import gc
import json
import pathlib

import pytest
import torch

from swath.batch.size import BatchSize
from swath.config import ConfigError
from swath.data.chip import Batch, Contents, Known
from swath.data.mix import Also
from swath.data.settings import DataSettings
from swath.models import Inputs
from swath.models.mae import MAE
from swath.optimizers.adamw import AdamW
from swath.parallel.fill import spread_hollow
from swath.parallel.mesh import Mesh
from swath.parallel.replica import Replica
from swath.parallel.world import World
from swath.tasks.pretrain import Pretrain
from swath.train.dry import lay_out
from swath.train.job import TrainJob
from swath.train.settings import Compute, TrainSettings
from swath.train.state import TrainState
from swath.train.step import train_step
from tests.lab import invoke
from tests.parallel.heap import Peak, asked
from tests.several import Sensed, three

MICRO = 8
STORES = (
    Sensed(sensor="landsat8_oli", names=("B4", "B3"), bands=2, size=16, label="none"),
    Sensed(sensor="sentinel2_l1c", names=("B02", "B03", "B04"), bands=3, size=64, label="none"),
    Sensed(sensor="sentinel1_grd", names=("VV", "VH"), bands=2, size=48, label="none"),
)
MODEL = MAE(
    patch=4, width=64, depth=2, heads=2, decoder_depth=2, embed="wavelengths", positions="metres",
    time=True, place=True, mask="both",
)  # fmt: skip
JOB = TrainJob(
    folder="none",
    data=DataSettings(store="0", also=(Also(store="1"), Also(store="2"))),
    model=MODEL,
    task=Pretrain(),
    batch=BatchSize(samples=3 * MICRO, micro=MICRO),
    optim=AdamW(),
    train=TrainSettings(samples=480),
    compute=Compute(device="cpu"),
)


def drawn(contents: Contents) -> Batch:
    """Return a microbatch of samples as a store with ``contents`` has them."""
    (modality,) = contents.modalities
    side, at = modality.height, torch.arange(MICRO)
    told = torch.rand(MICRO, 2, dtype=torch.float64)
    return Batch(
        image=torch.randn(MICRO, len(modality.sensor.bands), side, side),
        valid=torch.ones(MICRO, side, side, dtype=torch.bool),
        target=None, positions=at, indices=at, seed=1, keys=at,
        known=Known(bands=modality.sensor.bands, gsd_m=10.0, where=told, when=told, keys=at),
    )  # fmt: skip


def measured(updates: int) -> int:
    """Return the most bytes that a process has had for a run's second update, of a microbatch of
    each store."""
    every = [store.open().contents for store in STORES]
    mesh = Mesh.of(World.start("cpu"), JOB.parallel)
    inputs = Inputs(bands=every[0].modalities[0].sensor.bands, size=16)
    objective = JOB.task.bind(every[0].label, None, inputs)
    gc.collect()
    before = asked()
    network = spread_hollow(lambda: JOB.model.build(inputs, objective.outputs), mesh, JOB.parallel)
    replica, peak = Replica(network, mesh), Peak()
    state = TrainState(network, JOB.optim.build(network))

    def update() -> None:
        batches = (drawn(contents) for contents in every)
        train_step(state, batches, objective.loss, replica, JOB.train, JOB.batch.samples, 1.0)

    for _ in range(updates - 1):
        update()
    with peak:
        update()
    return peak.bytes - before


def twice() -> int:
    measured(1)  # the first time fills caches of torch's kernels
    return measured(2)


def test_prediction_is_what_a_process_has(ranks):
    """Within 10 % of what the C library handed out; the first store's samples need far less."""
    first, *others = (store.open().contents for store in STORES)
    layout = lay_out(JOB, first, 1, also=others)
    assert (layout.inputs, layout.stores) == ((3, 64, 64), 3)
    (real,) = ranks(1, twice)
    assert layout.largest.memory.total == pytest.approx(real, rel=0.1)
    small = lay_out(JOB, first, 1, also=[first, first])
    assert small.largest.memory.activations < 0.3 * layout.largest.memory.activations


def test_bands_count_as_pixels_do():
    """Of one store with more bands and one with more pixels both are gone through."""
    names = tuple(f"B0{i}" for i in range(1, 9))
    wide = Sensed(sensor="sentinel2_l1c", names=names, bands=8, size=16)
    first, _, radar = (store.open().contents for store in STORES)
    for also in ([wide.open().contents, radar], [radar, wide.open().contents]):
        assert lay_out(JOB, first, 1, also=also).inputs == (2, 48, 48)


def test_the_verb_tells_of_all_stores(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first, second, third = three(tmp_path)
    model = "{kind: mae, patch: 2, width: 16, depth: 1, heads: 2, embed: wavelengths}"
    pathlib.Path("recipe.yaml").write_text(
        f"data: {{store: {second}, also: [{{store: {first}}}, {{store: {third}}}]}}\n"
        f"model: {model}\ntask: {{kind: pretrain}}\nbatch: {{samples: 8, micro: 4}}\n"
    )
    words = ["train", "recipe.yaml", "--dry-run", "--ranks", "2"]
    told = "samples of 4 bands and 16 x 16 px (of 3 stores the one that needs most), each rank"
    assert told in invoke(*words)
    found = json.loads(invoke(*words, "--json"))
    assert (found["inputs"], found["stores"]) == ([4, 16, 16], 3)
    with pytest.raises(ConfigError, match=r"data.also: gone: there is no store; build it first"):
        invoke(*words, "data.also=[{store: gone}]")
