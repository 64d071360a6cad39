"""Mapping a whole scene against the bare forward passes of the same windows.

    python benchmarks/tiles.py                 # the campaign: 4096 x 4096 px, 12 bands, uint16
    python benchmarks/tiles.py --side 512      # a try

The bare loop has the windows ready as float tensors in memory and does nothing but call the
network, in groups of the same size. ``predict`` reads the scene from a tiled GeoTIFF, pads,
normalises, predicts, blends, and writes a Cloud-Optimised GeoTIFF. Both are timed in turns in one
run; the figure is bare seconds over predict's seconds (1 would be free). Peak memory is that of a
process of its own that does nothing but map.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

import numpy as np
import rasterio
import torch
from rasterio.transform import from_origin

from swath.data.chip import Label
from swath.data.imagery import Imagery
from swath.data.normalize import Normalizer
from swath.data.sensor import load_sensor
from swath.data.split import Split
from swath.models import Inputs, Model
from swath.models.unet import UNet
from swath.models.vit import ViT
from swath.predict.map import predict
from swath.predict.mapping import Mapping
from swath.predict.settings import Predict
from swath.tasks.segment import Segment
from swath.train.export import About, LoadedModel
from swath.train.heldout import Trained

SENSOR = "sentinel2_l2a"
LABEL = Label(kind="mask", classes=tuple(f"class {i}" for i in range(8)))
MODELS: dict[str, Model] = {"unet": UNet(width=32), "vit": ViT(preset="tiny", patch=16)}


def write_scene(path: pathlib.Path, side: int) -> None:
    """Write a scene of ``side`` px of the sensor's bands, tiled as products are."""
    bands = len(load_sensor(SENSOR).bands)
    rng = np.random.default_rng(0)
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        height=side,
        width=side,
        count=bands,
        dtype="uint16",
        nodata=0,
        crs="EPSG:32633",
        transform=from_origin(300000, 5800000, 10, 10),
        tiled=True,
        blockxsize=512,
        blockysize=512,
        compress="deflate",
    ) as file:
        for band in range(1, bands + 1):
            soft = np.kron(rng.integers(500, 4000, (side // 16, side // 16)), np.ones((16, 16)))
            file.write((soft + rng.integers(0, 200, soft.shape)).astype(np.uint16), band)


def scene_of(path: pathlib.Path) -> Imagery:
    return Imagery(path=str(path), sensor=SENSOR, order=load_sensor(SENSOR).names)


def model_of(kind: str, tile: int) -> LoadedModel:
    """Return an untrained model: speed does not depend on the weights."""
    torch.manual_seed(0)
    sensor, task = load_sensor(SENSOR), Segment()
    objective = task.bind(LABEL, None)
    count = len(sensor.bands)
    about = About(
        model=MODELS[kind],
        inputs=Inputs(bands=sensor.bands, size=tile),
        outputs=objective.outputs,
        task=task,
        label=LABEL,
        counts=None,
        normalize=Normalizer(
            bands=sensor.names,
            shift=(2000.0,) * count,
            factor=(900.0,) * count,
            nodata=(0.0,) * count,
            scale=(sensor.scale,) * count,
            offset=(sensor.offset,) * count,
            unit=(sensor.unit,) * count,
        ),
        seed=0,
        samples=0,
        update=0,
        trained=Trained(store="", split=Split()),
    )
    network = about.model.build(about.inputs, about.outputs).eval().requires_grad_(False)
    return LoadedModel(network, objective, about)


def bare(model: LoadedModel, windows: int, tile: int, at_once: int, device: str) -> float:
    """Return the seconds of nothing but the network on as many windows, ready in memory."""
    image = torch.randn(at_once, len(model.inputs.bands), tile, tile, device=device)
    network = model.network.to(device)
    with torch.inference_mode():
        network(image)
        _wait(device)
        begun = time.perf_counter()
        done = 0
        while done < windows:
            some = image[: min(at_once, windows - done)]
            network(some)
            done += len(some)
        _wait(device)
    return time.perf_counter() - begun


def mapped(model: LoadedModel, path: pathlib.Path, settings: Predict, device: str) -> float:
    """Return the seconds of a whole map, from opening the scene to the finished file."""
    folder = pathlib.Path(tempfile.mkdtemp(dir=path.parent))
    begun = time.perf_counter()
    with scene_of(path).open() as scene:
        predict(model, scene, settings, folder, device=device)
    seconds = time.perf_counter() - begun
    shutil.rmtree(folder)
    return seconds


def memory(arguments: argparse.Namespace, path: pathlib.Path) -> dict[str, float]:
    """Return GiB of a process that maps once: before it begins, and at its peak."""
    command = [sys.executable, __file__, "--memory", str(path)]
    for name in ("model", "side", "tile", "at_once", "device", "threads"):
        command += [f"--{name.replace('_', '-')}", str(getattr(arguments, name))]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def _peak() -> float:
    """Return GiB; getrusage's peak would be that of the process which started this one."""
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    kib = next(line.split()[1] for line in lines if line.startswith("VmHWM"))
    return int(kib) / 2**20


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", choices=MODELS, default="unet")
    parser.add_argument("--side", type=int, default=4096, help="of the scene, px")
    parser.add_argument("--tile", type=int, default=256, help="of a window, px")
    parser.add_argument("--at-once", type=int, default=1, help="windows in one pass")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--memory", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    model = model_of(arguments.model, arguments.tile)
    settings = Predict(overlap=0.5, windows_at_once=arguments.at_once)
    if arguments.memory:
        before = _peak()
        mapped(model, pathlib.Path(arguments.memory), settings, arguments.device)
        print(json.dumps({"before": before, "peak": _peak()}))
        return
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "scene.tif"
        write_scene(path, arguments.side)
        with scene_of(path).open() as scene:
            plan = Mapping(model, scene, settings, torch.device("cpu")).tiling
        windows = len(plan.rows) * len(plan.cols)
        mpx = arguments.side**2 / 1e6
        print(
            f"{arguments.model}, {arguments.side} x {arguments.side} px, "
            f"{len(model.inputs.bands)} bands, {windows} windows of {arguments.tile} px "
            f"(50 % overlap), {arguments.at_once} at once, {arguments.device}, "
            f"{arguments.threads} threads, torch {torch.__version__}"
        )
        pairs = []
        for number in range(arguments.rounds):
            alone = bare(model, windows, arguments.tile, arguments.at_once, arguments.device)
            whole = mapped(model, path, settings, arguments.device)
            pairs.append((alone, whole))
            print(
                f"round {number + 1}: bare {alone:.1f} s ({mpx / alone:.3f} Mpx/s), predict "
                f"{whole:.1f} s ({mpx / whole:.3f} Mpx/s), ratio {alone / whole:.3f}"
            )
        ratios = sorted(alone / whole for alone, whole in pairs)
        print(f"median ratio {ratios[len(ratios) // 2]:.3f} (target 0.85)")
        used = memory(arguments, path)
        print(
            f"memory: {used['before']:.2f} GiB before mapping, {used['peak']:.2f} GiB at its peak"
        )


if __name__ == "__main__":
    main()
