"""Examples show what the run's own score is made from."""

import numpy as np
import pytest
import torch

from swath.data.build import build
from swath.data.settings import DataSettings
from swath.data.split import Split
from swath.datasets.synthetic import Synthetic
from swath.models.unet import UNet
from swath.parallel.replica import Replica
from swath.parallel.world import World
from swath.report import examples as module
from swath.report.examples import examples
from swath.tasks.segment import Segment
from swath.train.export import load_model
from swath.train.job import TrainJob
from swath.train.precision import AUTOCAST, DTYPES
from swath.train.settings import Compute, TrainSettings
from swath.train.setup import train

COMPUTE = Compute(device="cpu", threads=1)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder and the data of a short run in bf16."""
    folder = tmp_path_factory.mktemp("examples")
    build(Synthetic(samples=40, size=16), folder / "store", Split(by="random"), progress=False)
    data = DataSettings(store=str(folder / "store"))
    settings = TrainSettings(samples=64, precision="bf16")
    job = TrainJob(
        folder=str(folder / "run"),
        data=data,
        model=UNet(width=4, depth=1),
        task=Segment(),
        train=settings,
        compute=COMPUTE,
    )
    train(job, world=World.alone())
    return folder / "run", data


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp64"])
def test_answers_are_those_of_the_runs_own_score(run, precision, monkeypatch):
    """Computed in fp32 for a run in bf16, a picture could show another class than was scored."""
    folder, data = run
    shown = []
    monkeypatch.setattr(module, "_example", lambda i, t, answer, label: shown.append(answer) or {})
    found = examples(load_model(folder), data, precision, COMPUTE)
    assert len(found["shown"]) == len(shown) == 8

    model = load_model(folder)
    network = model.network.to(DTYPES[precision])
    replica = Replica(network, World.alone(), autocast=AUTOCAST.get(precision))
    sweep = data.open().loader("test", micro=1).sweep
    with torch.inference_mode():
        scored = [
            replica.call(lambda m, b: model.objective.predict(m, b.image), batch)[0].float()
            for batch in sweep()
        ]
        simple = load_model(folder)
        plain = [simple.objective.predict(simple.network, batch.image)[0] for batch in sweep()]
    np.testing.assert_array_equal(np.stack(shown), torch.stack(scored).numpy())
    assert np.array_equal(np.stack(shown), torch.stack(plain).numpy()) == (precision == "fp32")
