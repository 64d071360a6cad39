"""The figures of use in the record are those of closed forms and of other counts."""

from __future__ import annotations

import dataclasses
import mmap
import time
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn

from swath.batch.size import BatchSize
from swath.config import ConfigError
from swath.data.build import build
from swath.data.sensor import load_sensor
from swath.data.settings import DataSettings
from swath.data.split import Split
from swath.datasets.synthetic import Synthetic
from swath.models import Inputs, Outputs
from swath.models.resnet import ResNet
from swath.models.unet import UNet
from swath.models.vit import ViT
from swath.optimizers.adamw import AdamW
from swath.parallel.apply import spread
from swath.parallel.count import counted
from swath.parallel.mesh import Mesh
from swath.parallel.replica import Replica
from swath.parallel.settings import Parallel
from swath.parallel.waits import Waits
from swath.parallel.world import World
from swath.span import marked
from swath.tasks.classify import Classify
from swath.train.cost import peak, work
from swath.train.job import TrainJob
from swath.train.memory import peak_bytes
from swath.train.progress import line
from swath.train.record import read, starts
from swath.train.settings import Compute, TrainSettings
from swath.train.setup import train
from tests.layouts.following import dealt
from tests.layouts.subjects import SUBJECTS

BANDS = load_sensor("sentinel2_l2a").bands
VIT = ViT(width=32, depth=3, heads=4, patch=4)


@pytest.mark.parametrize("pool", ["token", "mean"])
@pytest.mark.parametrize("depth", [1, 3])
def test_flops_of_a_vit_are_the_closed_form(pool, depth):
    """Three times the forward pass: n tokens of width d, blocks with 12 d d weights and two
    products of n n d in attention; a multiplication and an addition are two."""
    width, patch, size, classes = 32, 4, 16, 10
    model = ViT(width=width, depth=depth, heads=4, patch=patch, pool=pool)
    inputs = Inputs(bands=BANDS, size=size)
    patches = (size // patch) ** 2
    tokens = patches + (pool == "token")
    embed = 2 * patches * len(BANDS) * patch**2 * width
    block = 2 * 12 * tokens * width**2 + 2 * 2 * tokens**2 * width
    found = work(lambda: model.build(inputs, Outputs(channels=classes, dense=False)), inputs)
    assert found == (3 * (embed + depth * block + 2 * width * classes), tokens)


def test_flops_of_a_convolution_are_the_closed_form():
    """And a network without tokens has none."""
    inputs = Inputs(bands=BANDS, size=20)
    convolution = 2 * 20 * 20 * len(BANDS) * 9 * 8
    assert work(lambda: nn.Conv2d(len(BANDS), 8, 3, padding=1), inputs) == (3 * convolution, None)
    views = work(lambda: nn.Conv2d(len(BANDS), 8, 3, padding=1), inputs, sides=[20, 20, 10])
    assert views == (3 * convolution * 9 // 4, None)


@pytest.mark.parametrize("model", [UNet(width=8, depth=2), ResNet(depth=18, width=8)])
def test_work_is_counted_without_values_and_without_drawing(model):
    """A network with a billion parameters would not fit; and the run's draws stay what they are."""
    inputs, before = Inputs(bands=BANDS, size=32), torch.get_rng_state()
    outputs = Outputs(channels=4, dense=isinstance(model, UNet))
    flops, tokens = work(lambda: model.build(inputs, outputs), inputs)
    assert flops > 1e6 and tokens is None
    assert torch.equal(torch.get_rng_state(), before)


class Choosy(nn.Module):
    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image * float(image.sum())


def test_a_network_that_needs_values_has_no_known_work():
    assert work(Choosy, Inputs(bands=BANDS, size=8)) is None


def test_the_peak_is_that_of_the_machine_named():
    rate, source = peak(torch.device("cpu"), "bf16", "juwels_booster")
    assert rate == 312e12 and source.startswith("JUWELS Booster: accelerator.peak_tflops.bf16 (")
    rate, source = peak(torch.device("cpu"), "fp32", "laptop")
    assert rate == 0.18e12 and "measured_tflops.fp32" in source


def test_a_peak_that_no_machine_states_is_measured():
    """At least as fast as the same product just now: it is the best of many."""
    for machine in (None, "laptop"):
        rate, source = peak(torch.device("cpu"), "fp64", machine)
        assert rate > 1e8 and source.startswith(
            "measured at the start: 1024 x 1024 matrices in fp64"
        )


def test_a_machine_that_is_not_there_is_refused_with_the_nearest():
    with pytest.raises(ConfigError, match=r"no machine 'laptp' \(did you mean 'laptop'\?\)"):
        Compute(machine="laptp")


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("usage") / "store"
    samples = Synthetic(samples=40, size=16, bands=3, label="class", classes=4)
    build(samples, path, Split(by="random"), progress=False)
    return str(path)


def job(store: str, folder: Path, **changes) -> TrainJob:
    whole = TrainJob(
        folder=str(folder),
        data=DataSettings(store=store),
        model=VIT,
        task=Classify(),
        batch=BatchSize(samples=8, micro=2),
        optim=AdamW(lr=1e-2),
        train=TrainSettings(samples=32),
        compute=Compute(device="cpu", threads=1, machine="laptop"),
    )
    return dataclasses.replace(whole, **changes)


def parameters(store: str, folder: Path) -> int:
    from safetensors.torch import load_file

    return sum(t.nbytes for t in load_file(folder / "model.safetensors").values())


@pytest.mark.parametrize("number", [1, 2, 3])
def test_the_record_of_a_run_adds_up(ranks, number, store, tmp_path):
    """mfu from the record's own figures; bytes from the closed form of an all-reduce."""
    ranks(number, train, job(store, tmp_path))
    (start,) = starts(tmp_path)
    assert start["update"] == 0 and start["ranks"] == number and start["tokens_per_sample"] == 17
    assert start["peak_flops_per_s"] == 0.18e12
    lines = [f for f in read(tmp_path) if "loss" in f]
    assert len(lines) == 4
    for figures in lines:
        rate = start["flops_per_sample"] * figures["samples_per_s"]
        assert figures["mfu"] == pytest.approx(rate / (number * 0.18e12), rel=1e-12)
        assert figures["tokens_per_s"] == pytest.approx(17 * figures["samples_per_s"], rel=1e-12)
        assert 0 <= figures["data_wait"] <= 1 and figures["memory_bytes"] > 1e7
        assert (0 if number > 1 else -1) < figures["exchange_wait"] <= 1
    sent = 2 * (number - 1) / number * parameters(store, tmp_path)
    assert ("sent_bytes" in lines[0]) == (number == 1)
    for figures in lines[1:]:
        assert figures["sent_bytes"] == pytest.approx(sent, rel=0.02)


def test_going_on_is_another_start(store, tmp_path, monkeypatch):
    """A finished run that is started again is none: nothing is measured for it."""
    short = job(store, tmp_path)
    train(short, world=World.alone())
    measured = "swath.train.assemble.cost"
    monkeypatch.setattr(measured, lambda *_: pytest.fail("the machine is measured"))
    train(short, world=World.alone())
    assert [start["update"] for start in starts(tmp_path)] == [0]
    with open(tmp_path / "starts.jsonl", "a") as file:
        file.write('{"update": 3, "ra')  # killed in the middle of a line
    assert [start["update"] for start in starts(tmp_path)] == [0]


def mapped() -> None:
    """Hold 100 MB for a moment, which go back to the system at once."""
    with mmap.mmap(-1, 100_000_000) as held:
        held.write(b"1" * 100_000_000)


def begins_anew() -> bool:
    """Whether this system lets a process begin its peak anew: some containers do not."""

    def most() -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024

    try:
        mapped()
        before = most()
        Path("/proc/self/clear_refs").write_text("5")
        return most() < before - 50_000_000
    except (OSError, StopIteration):
        return False


def test_memory_is_the_most_since_the_last_look():
    device, anew = torch.device("cpu"), begins_anew()
    peak_bytes(device)
    before = peak_bytes(device)
    mapped()
    held = peak_bytes(device)
    if anew:
        assert held >= before + 90_000_000
        assert peak_bytes(device) < before + 50_000_000
    else:  # the most since the process began: begins_anew() held as much
        assert held >= before >= 100_000_000
        assert peak_bytes(device) >= held


def slept(seconds: float) -> float:
    """Return the seconds that this rank waited; rank 1 sleeps once rank 0 has begun to wait."""
    world, waits = World.start("cpu"), Waits(torch.device("cpu"))
    store, x = dist.distributed_c10d._get_default_store(), torch.ones(3)
    wait = dist.Work.wait

    class Told:
        def __init__(self, name: str) -> None:
            assert name == "waiting"

        def __enter__(self) -> None:
            if world.rank == 0:
                store.set("waiting", "yes")

        def __exit__(self, *_: object) -> None:
            pass

    if world.rank == 1:
        store.wait(["waiting"])
        time.sleep(seconds)
    with waits.timed(), marked(Told):
        dist.all_reduce(x)
    assert dist.Work.wait is wait, "what is patched is put back"
    dist.all_reduce(x)
    return waits.seconds


def test_a_wait_for_a_late_rank_is_noticed(ranks):
    early, _ = ranks(2, slept, 0.05)
    assert early >= 0.05


class FakeStream:
    """A stream of a GPU that is not there: its clock goes on by what it is made to wait for."""

    def __init__(self) -> None:
        self.clock = 0.0

    def __eq__(self, other: object) -> bool:
        return self is other

    def wait_event(self, seconds: float) -> None:
        self.clock += seconds


class FakeEvent:
    over = True

    def __init__(self, enable_timing: bool) -> None:
        assert enable_timing

    def record(self, stream: FakeStream) -> None:
        self.at = stream.clock

    def query(self) -> bool:
        return FakeEvent.over

    def elapsed_time(self, later: FakeEvent) -> float:
        return 1000 * (later.at - self.at)


def test_on_a_gpu_events_tell_how_long_the_computing_stream_stood_still(monkeypatch):
    """With streams and events played by others: another stream's waits are its own, and what is
    not over yet is added later."""
    computing, other = FakeStream(), FakeStream()
    monkeypatch.setattr(torch.cuda, "Stream", FakeStream)
    monkeypatch.setattr(torch.cuda, "Event", FakeEvent)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _: computing)
    waits = Waits(torch.device("cuda", 0))
    with waits.timed():
        computing.wait_event(0.5)
        other.wait_event(7.0)
        assert waits.seconds == 0.5
        monkeypatch.setattr(FakeEvent, "over", False)
        computing.wait_event(0.25)
        assert waits.seconds == 0.5
    monkeypatch.setattr(FakeEvent, "over", True)
    computing.wait_event(9.0)  # after the block
    assert waits.seconds == 0.75


def noticed(parallel: Parallel) -> tuple[int, int, float]:
    """Return how often an update waited, how many exchanges it made, and seconds waited."""
    mesh = Mesh.of(World.start("cpu"), parallel)
    subject = SUBJECTS["vit"]
    replica = Replica(spread(subject.network(torch.float64), mesh, parallel), mesh)
    batches = dealt(subject, 0, mesh, replica.in_step)
    waits, times = Waits(torch.device("cpu")), []

    class Count:
        def __init__(self, name: str) -> None:
            times.append(name)

        def __enter__(self) -> None:
            pass

        def __exit__(self, *_: object) -> None:
            pass

    with waits.timed(), marked(Count), counted() as volume:
        replica.gradients(batches, subject.objective().loss)
    return times.count("waiting"), len(volume.exchanges), waits.seconds


@pytest.mark.parametrize(
    "parallel",
    [Parallel(), Parallel(context=2), Parallel(context=2, attention="ring")],
    ids=["replicas", "gather", "ring"],
)
def test_every_exchange_of_an_update_is_waited_for(ranks, parallel):
    """Ours and torch's own: as many waits as exchanges, by two independent ways of counting."""
    for waits, exchanges, seconds in ranks(2, noticed, parallel):
        assert waits == exchanges > 0 and seconds > 0


@pytest.mark.parametrize("axis", ["tensor", "shard", "pipeline"])
def test_waits_inside_torch_are_noticed(ranks, axis):
    """Torch may also wait among one rank, and once for several messages of a pipeline."""
    for waits, exchanges, seconds in ranks(2, noticed, Parallel(**{axis: 2})):
        assert waits >= (exchanges / 2 if axis == "pipeline" else exchanges) and seconds > 0


def test_the_line_for_people_tells_what_is_known():
    figures = {
        "update": 12, "samples": 400, "loss": 0.5, "lr": 1e-3, "skipped": 0, "samples_per_s": 20.0,
        "mfu": 0.38, "data_wait": 0.02, "exchange_wait": 0.0, "seconds": 1.0,
    }  # fmt: skip
    assert "20 samples/s  data wait 2%  10 s left" in line(figures, 600, 20.0)
    figures["exchange_wait"] = 0.07
    assert "data wait 2%  exchange wait 7%  10 s left" in line(figures, 600, 20.0)
