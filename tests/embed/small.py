"""A small store and an untrained model for it."""

import pathlib

from swath.batch.size import BatchSize
from swath.data.build import build
from swath.data.opened import Data
from swath.data.settings import DataSettings
from swath.data.split import Split
from swath.datasets.synthetic import Synthetic
from swath.models import Model
from swath.models.vit import ViT
from swath.tasks import Task
from swath.tasks.classify import Classify
from swath.tasks.segment import Segment
from swath.train.describe import describe, network
from swath.train.export import LoadedModel
from swath.train.job import TrainJob
from swath.train.settings import TrainSettings

VIT = ViT(width=16, depth=2, heads=2, patch=8)


def small_store(folder: pathlib.Path, label: str = "class", samples: int = 60) -> pathlib.Path:
    """Build a store of 16 x 16 px samples of three classes."""
    dataset = Synthetic(samples=samples, size=16, bands=3, label=label, classes=3)
    path = folder / f"store-{label}"
    build(dataset, str(path), Split(by="random", test=0.3, val=0.1), progress=False)
    return path


def untrained(store: pathlib.Path, model: Model = VIT) -> tuple[LoadedModel, Data]:
    """Return a model with random weights for ``store``, and the store's data."""
    settings = DataSettings(store=str(store))
    data = settings.open()
    task: Task = Segment() if data.store.contents.label.per_pixel else Classify()
    job = TrainJob(
        folder="none",
        data=settings,
        model=model,
        task=task,
        batch=BatchSize(samples=4, micro=2),
        train=TrainSettings(samples=8),
    )
    about = describe(job, data)
    trained = network(job, about).eval().requires_grad_(False)
    return LoadedModel(trained, about.bind(), about), data
