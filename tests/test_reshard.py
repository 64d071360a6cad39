"""What ranks saved in one layout, ranks in any other go on with, as if nothing had happened.

One run is broken off in mid-epoch in each layout and goes on in four: itself and the three that
come next, so that each layout reads what itself and three others wrote. Loss, gradient norm,
weights, moving average and the optimiser's memory are those of one process that never stopped.
"""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from swath.data.chip import Batch
from swath.data.order import Order
from swath.files import write_file
from swath.optimizers.adamw import AdamW
from swath.parallel.apply import spread
from swath.parallel.mesh import Mesh
from swath.parallel.replica import Replica
from swath.parallel.settings import Parallel
from swath.parallel.world import World
from swath.train.checkpoint import Checkpoints
from swath.train.ema import Average
from swath.train.export import weights_of
from swath.train.settings import TrainSettings
from swath.train.state import TrainState
from swath.train.step import train_step
from swath.train.tensors import pack
from tests.layouts.following import dealt, whole
from tests.layouts.subjects import BATCH, SUBJECTS, TWO

LAYOUTS: dict[str, tuple[int, dict[str, Any]]] = {
    "one": (1, {}),
    "replicate-2": (2, {"replicate": 2}),
    "shard-2": (2, {"shard": 2}),
    "replicate-2-shard-2": (4, {"replicate": 2, "shard": 2}),
    "tensor-2": (2, {"tensor": 2}),
    "shard-2-tensor-2": (4, {"shard": 2, "tensor": 2}),
    "pipeline-2": (2, {"pipeline": 2}),
}
STOP, END = 2, 3  # updates
NAME = "vit" + TWO
SETTINGS = TrainSettings(samples=BATCH.samples * END, clip=0.5)
ORDER = Order(20, seed=4)  # two updates are an epoch and a part of the next


@dataclasses.dataclass(frozen=True)
class Epochs:
    """A subject of the test of layouts, whose samples come again in another order."""

    name: str

    def batch(self, first: int, counts: bool = True) -> Batch:
        subject = SUBJECTS[self.name]
        shown = ORDER.index(np.arange(first, first + BATCH.micro))
        images, targets = [], []
        for index in shown.tolist():
            sample = subject.batch(index)  # of two, whose first has no label
            images.append(sample.image[1:])
            targets.append(sample.target[1:] if index % 5 else sample.target[:1])
        at = torch.arange(first, first + BATCH.micro)
        return dataclasses.replace(
            subject.batch(first, counts),
            image=torch.cat(images),
            target=torch.cat(targets),
            positions=at,
            indices=torch.from_numpy(shown),
        )


class Run:
    """A run in one layout."""

    def __init__(self, parallel: Parallel, name: str = NAME, seed: int = 1) -> None:
        self.mesh = Mesh.of(World.start("cpu") if parallel.fixed > 1 else World.alone(), parallel)
        model = SUBJECTS[name].network(torch.float64)
        if seed != 1:  # other weights, which a checkpoint has to replace
            torch.manual_seed(seed)
            with torch.no_grad():
                for tensor in model.state_dict().values():
                    tensor.copy_(torch.rand_like(tensor) if tensor.is_floating_point() else tensor)
        self.replica = Replica(spread(model, self.mesh, parallel), self.mesh, bucket=100_000)
        model = self.replica.model
        self.state = TrainState(model, AdamW(lr=1e-2).build(model), Average(model, 24))
        self.epochs = Epochs(name)
        self.objective = SUBJECTS[name].objective()

    def to(self, update: int) -> list[tuple[float, float]]:
        """Learn until after ``update``; return losses and gradient norms."""
        told = []
        while self.state.progress.update < update:
            first = self.state.progress.samples
            batches = dealt(self.epochs, first, self.mesh, self.replica.in_step)
            rate = 1 - first / SETTINGS.samples / 2
            found = train_step(
                self.state, batches, self.objective.loss, self.replica, SETTINGS, 12, rate
            )
            told.append((found["loss"], found["grad_norm"]))
        return told

    def checkpoints(self, folder: pathlib.Path) -> Checkpoints:
        return Checkpoints(folder, 2, self.mesh.world, behind=True)


def begin(parallel: Parallel, folder: pathlib.Path, name: str = NAME) -> None:
    """Run until STOP and save; learn on while it is written, as a run does."""
    run = Run(parallel, name)
    run.to(STOP)
    checkpoints = run.checkpoints(folder)
    checkpoints.save(run.state)
    run.to(STOP + 1)
    checkpoints.finish()


def go_on(parallel: Parallel, folders: list[pathlib.Path], name: str = NAME) -> list[dict]:
    """Return for each of ``folders`` how the run goes on from there."""
    outcomes = []
    for folder in folders:
        run = Run(parallel, name, seed=2)
        assert run.checkpoints(folder).restore(run.state)
        assert run.state.progress.samples == STOP * BATCH.samples
        outcomes.append({"curve": run.to(END), **tensors(run)})
    return outcomes


def tensors(run: Run) -> dict[str, dict[str, np.ndarray]]:
    return {part: whole(held) for part, held in run.state.tensors().items()}


@functools.cache
def unbroken(name: str = NAME) -> dict:
    run = Run(Parallel(), name)
    return {"curve": run.to(END)[STOP:], **tensors(run)}


def compare(found: dict, expected: dict) -> None:
    np.testing.assert_allclose(found["curve"], expected["curve"], rtol=1e-9)
    for part in ("model", "average", "optimizer"):
        assert found[part].keys() <= expected[part].keys() and found[part]
        for name, value in found[part].items():
            np.testing.assert_allclose(
                value, expected[part][name], rtol=1e-9, atol=1e-9, err_msg=f"{part} {name}"
            )


@pytest.fixture(scope="module")
def saved(ranks, tmp_path_factory):
    """The folder of a run that was broken off in each of the layouts."""
    folders = {}
    for layout, (number, degrees) in LAYOUTS.items():
        folders[layout] = tmp_path_factory.mktemp(layout)
        ranks(number, begin, Parallel(**degrees), folders[layout])
    return folders


@pytest.mark.parametrize("layout", LAYOUTS)
def test_saved_in_other_layouts_it_goes_on_in_this_one(ranks, saved, layout):
    number, degrees = LAYOUTS[layout]
    at = list(LAYOUTS).index(layout)
    before = [saved[list(LAYOUTS)[at - back]] for back in range(4)]
    answers = ranks(number, go_on, Parallel(**degrees), before)
    for outcomes in zip(*answers, strict=True):  # of all ranks, one layout after the other
        for outcome in outcomes:
            compare(outcome, unbroken())
        for part in ("model", "average", "optimizer"):
            assert set().union(*(o[part] for o in outcomes)) == set(unbroken()[part])
    assert {len(outcomes) for outcomes in answers} == {4}


def test_the_unbroken_run_learns_and_is_stopped_in_mid_epoch():
    """Else all would be equal."""
    curve = np.array(unbroken()["curve"])
    assert curve.shape == (END - STOP, 2) and np.isfinite(curve).all() and (curve > 0).all()
    assert 0 < STOP * BATCH.samples % ORDER.length < ORDER.length - BATCH.samples


@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_layout_becomes_one_file_that_any_reader_opens(saved, layout, tmp_path):
    (checkpoint,) = saved[layout].glob("0*")
    write_file(tmp_path / "weights.safetensors", pack(weights_of(checkpoint), {"format": "pt"}))
    found = load_file(tmp_path / "weights.safetensors")
    run = Run(Parallel())
    run.to(STOP)
    assert run.state.average is not None and found.keys() == run.state.model.state_dict().keys()
    for name, value in run.state.average.tensors.items():
        torch.testing.assert_close(found[name], value, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["dino", "vit-channels"])
def test_teachers_and_groups_of_channels_go_on_in_any_layout(ranks, tmp_path, name):
    """Of a teacher its weights, its centre, and how far it is; saved in two layouts."""
    folders = [tmp_path / layout for layout in ("shard-2", "shard-2-tensor-2")]
    for folder in folders:
        number, degrees = LAYOUTS[folder.name]
        ranks(number, begin, Parallel(**degrees), folder, name)
    for layout in ("one", "tensor-2"):
        number, degrees = LAYOUTS[layout]
        for outcomes in ranks(number, go_on, Parallel(**degrees), folders, name):
            for outcome in outcomes:
                compare(outcome, unbroken(name))
    assert name != "dino" or unbroken("dino")["model"]["centre.value"].any()


def test_another_place_in_the_data_is_another_curve(saved):
    """The comparison can fail."""
    run = Run(Parallel(), seed=2)
    assert run.checkpoints(saved["shard-2"]).restore(run.state)
    run.state.progress.samples += BATCH.samples
    with pytest.raises(AssertionError):
        compare({"curve": run.to(END), **tensors(run)}, unbroken())


def test_each_number_is_written_once(saved):
    """Two ranks that share a model write half of it each; so do two that have it twice."""
    for layout in ("replicate-2", "shard-2", "shard-2-tensor-2"):
        sizes = {}
        (folder,) = saved[layout].glob("0*")
        for file in sorted(folder.glob("model-*.safetensors")):
            with safe_open(file, "pt") as opened:
                sizes[file.name] = sum(opened.get_tensor(key).numel() for key in opened.keys())  # noqa: SIM118
        network = SUBJECTS[NAME].network(torch.float64)
        assert sum(sizes.values()) == sum(p.numel() for p in network.parameters())
        assert len(sizes) == LAYOUTS[layout][0]
        assert max(sizes.values()) < 1.5 * min(sizes.values())
