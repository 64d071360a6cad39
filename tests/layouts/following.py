"""A layout follows one process: loss, gradient norm and parameters after two updates.

A row is a layout's ranks, the subjects that learn in it, and its ``parallel:`` settings. Rows stand
in files by what is shared, so that files can be tested side by side.

Which rows there are: every subject meets each way of sharing that its model can have by itself.
Ways together, more ranks and options are met by one subject each, now this and now that one: what
a task makes of its share is settled by then, and how ways go together does not depend on the task.
Where one row does all that another does, and more, only that one is there. Float32, by which other
kernels are chosen, has a row for each way and each attention.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from swath.data.chip import Batch
from swath.optimizers.adamw import AdamW
from swath.parallel.apply import spread
from swath.parallel.mesh import Mesh
from swath.parallel.replica import Replica
from swath.parallel.settings import Parallel
from swath.parallel.world import World
from swath.train.ema import Average
from swath.train.settings import TrainSettings
from swath.train.state import TrainState
from swath.train.step import train_step
from tests.layouts.subjects import BATCH, SUBJECTS, TWO, UPDATES, Subject

Row = tuple[int, str, dict[str, Any]]
"""Ranks, the names of subjects, words apart, and the settings."""


def learned(
    subject: Subject, parallel: Parallel, dtype: torch.dtype, rate: float = 1e-2
) -> dict[str, Any]:
    """Return losses, gradient norms, and weights (whole, by name) after the updates."""
    mesh = Mesh.of(World.start("cpu"), parallel)
    model = spread(subject.network(dtype), mesh, parallel)
    replica = Replica(model, mesh, bucket=100_000)
    # AdamW divides by the size of the gradient: where that is rounding noise, a small eps would
    # blow it up to whole steps.
    optimizer = AdamW(lr=rate, eps=1e-8 if dtype == torch.float64 else 1e-3).build(model)
    state = TrainState(model, optimizer, Average(model, 24))
    settings = TrainSettings(samples=BATCH.samples * UPDATES, clip=0.5)
    objective, figures = subject.objective(), []
    for update in range(UPDATES):
        first = update * BATCH.samples
        figures.append(
            train_step(
                state,
                dealt(subject, first, mesh, replica.in_step),
                objective.loss,
                replica,
                settings,
                BATCH.samples,
                1.0,
            )
        )
    return {
        "loss": [f["loss"] for f in figures],
        "grad_norm": [f["grad_norm"] for f in figures],
        "weights": whole(model.state_dict()),
        "average": whole(state.average.tensors),
    }


def dealt(subject: Subject, first: int, mesh: Mesh, even: bool) -> list[Batch]:
    """Return this rank's microbatches of the update that begins at ``first``."""
    mine = []
    for row in range(0, BATCH.passes, mesh.data_ranks):
        if row + mesh.data_rank < BATCH.passes:
            mine.append(subject.batch(first + (row + mesh.data_rank) * BATCH.micro))
        elif even:
            mine.append(subject.batch(first, counts=False))
    return mine


def whole(tensors: dict[str, Tensor]) -> dict[str, np.ndarray]:
    """Return whole tensors on every rank."""
    return {
        name: (t.full_tensor() if hasattr(t, "full_tensor") else t).detach().numpy().copy()
        for name, t in tensors.items()
    }


@functools.cache
def alone(name: str, dtype: torch.dtype, rate: float = 1e-2) -> dict[str, Any]:
    return learned(SUBJECTS[name], Parallel(), dtype, rate)


def compare(found: dict[str, Any], expected: dict[str, Any], tolerance: float) -> None:
    np.testing.assert_allclose(found["loss"], expected["loss"], rtol=tolerance)
    np.testing.assert_allclose(found["grad_norm"], expected["grad_norm"], rtol=tolerance)
    for kind in ("weights", "average"):
        assert set(found[kind]) <= set(expected[kind]) and found[kind]
        for name, value in found[kind].items():
            np.testing.assert_allclose(
                value, expected[kind][name], rtol=tolerance, atol=tolerance, err_msg=name
            )


def rows(*of: Row) -> pytest.MarkDecorator:
    """Give a test ``number``, ``name`` and ``parallel`` of each subject of each row."""
    each = [(number, name, how) for number, names, how in of for name in names.split()]
    return pytest.mark.parametrize(("number", "name", "parallel"), each, ids=_named(each))


def _named(each: Sequence[Row]) -> list[str]:
    def words(how: dict[str, Any]) -> str:
        return "-".join(f"{k}={v}" for k, v in how.items()) or "replicas"

    return [f"{words(how)}-{number}-{name}" for number, name, how in each]


def of_blocks(name: str, parallel: dict[str, Any]) -> str:
    """Return the subject that learns for ``name``: four blocks only where pieces of a pipeline need
    them."""
    pieces = parallel.get("pipeline", 1) * parallel.get("stages", 1)
    return name + TWO if pieces <= 2 and name + TWO in SUBJECTS else name


def follows(ranks: Callable, number: int, name: str, parallel: dict[str, Any]) -> None:
    """Fail unless ``number`` ranks learn in float64 what one does, to 1e-9."""
    name = of_blocks(name, parallel)
    expected = alone(name, torch.float64)
    everywhere = ranks(number, learned, SUBJECTS[name], Parallel(**parallel), torch.float64)
    for found in everywhere:
        compare(found, expected, 1e-9)
    for kind in ("weights", "average"):  # a rank may hold some of the layers only
        assert set().union(*(found[kind] for found in everywhere)) == set(expected[kind])


def follows_in_float32(ranks: Callable, number: int, name: str, parallel: dict[str, Any]) -> None:
    """Fail unless ``number`` ranks learn in float32 what one does; a vit has all its blocks."""
    # At the usual rate its updates make rounding 40 times as large.
    rate = 1e-3 if name == "resnet" else 1e-2
    expected = alone(name, torch.float32, rate)
    subject = SUBJECTS[name]
    for found in ranks(number, learned, subject, Parallel(**parallel), torch.float32, rate):
        compare_float32(found, expected)


def compare_float32(found: dict[str, Any], expected: dict[str, Any]) -> None:
    """Fail unless figures agree to 1e-5, and so does each tensor, its difference measured against
    its own length: a number that is the small difference of large ones keeps their rounding."""
    for figure in ("loss", "grad_norm"):
        np.testing.assert_allclose(found[figure], expected[figure], rtol=1e-5, err_msg=figure)
    for kind in ("weights", "average"):
        for name, value in found[kind].items():
            other = expected[kind][name].astype(float)
            away = np.linalg.norm(value - other)
            assert away <= 1e-5 * np.linalg.norm(other), f"{kind} {name}: {away:.2e} away"
