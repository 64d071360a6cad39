"""A small scene on disk and a small untrained model for it."""

import pathlib

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
from swath.tasks import Task
from swath.tasks.segment import Segment
from swath.train.export import About, LoadedModel
from swath.train.heldout import Trained

torch.set_num_threads(1)  # these networks are too small for more

LAND = Label(kind="mask", classes=("water", "forest", "farm"))


def write_scene(
    folder: pathlib.Path,
    height: int = 70,
    width: int = 90,
    seed: int = 0,
    hole: bool = True,
    sensor: str = "rgb",
    names: str = "red green blue",
    gsd: int = 10,
    level: int = 1500,
) -> Imagery:
    """Write a 3-band uint16 scene of soft patches; a corner of it was not observed (0)."""
    rng = np.random.default_rng(seed)
    # Patches of 7 px: their edges fall on the borders of windows no more than elsewhere.
    coarse = rng.normal(size=(3, height // 7 + 2, width // 7 + 2))
    pixels = np.kron(coarse, np.ones((1, 7, 7)))[:, :height, :width]
    pixels = level + 400 * pixels + 60 * rng.normal(size=pixels.shape)
    pixels = pixels.clip(1, level + 7500).astype(np.uint16)
    if hole:
        pixels[:, -20:, -25:] = 0
        pixels[1, :9, :9] = 0  # one band only: the others are still seen
    path = folder / "scene.tif"
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        height=height,
        width=width,
        count=3,
        dtype="uint16",
        nodata=0,
        crs="EPSG:32633",
        transform=from_origin(330000, 5822040, gsd, gsd),
    ) as file:
        file.write(pixels)
    return Imagery(path=str(path), sensor=sensor, order=tuple(names.split()))


def untrained(
    label: Label = LAND,
    model: Model | None = None,
    task: Task | None = None,
    size: int = 32,
    seed: int = 0,
) -> LoadedModel:
    """Return a model with random weights for the scene, sharp enough to have opinions."""
    torch.manual_seed(seed)
    task = task or Segment()
    sensor = load_sensor("rgb")
    objective = task.bind(label, np.ones(len(label.classes)))
    model = model or UNet(width=8)
    about = About(
        model=model,
        inputs=Inputs(bands=sensor.bands, size=size),
        outputs=objective.outputs,
        task=task,
        label=label,
        counts=None,
        normalize=Normalizer(
            bands=sensor.names,
            shift=(1500.0,) * 3,
            factor=(400.0,) * 3,
            nodata=(0.0,) * 3,
            scale=(sensor.scale,) * 3,
            offset=(sensor.offset,) * 3,
            unit=(sensor.unit,) * 3,
        ),
        seed=seed,
        samples=0,
        update=0,
        trained=Trained(store="", split=Split()),
    )
    network = model.build(about.inputs, about.outputs).eval().requires_grad_(False)
    return LoadedModel(network, objective, about)
