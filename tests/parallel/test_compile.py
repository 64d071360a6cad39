"""A compiled model follows one process that is not compiled, under every kind of layout.

The compiler is torch's own up to the kernels: it traces, forward and backward, and what it traced
is run one operation at a time, so that nothing is rounded otherwise and no C++ is compiled.
"""

import functools
from typing import Any
from unittest import mock

import pytest
import torch

from swath.parallel import apply
from swath.parallel.settings import Parallel
from tests.layouts import following
from tests.layouts.following import alone, compare, learned
from tests.layouts.subjects import SUBJECTS


def compiled(name: str, parallel: Parallel) -> tuple[dict[str, Any], int]:
    """Return what is learned when compiled, and how many frames were traced."""
    torch._dynamo.reset()
    counters = torch._dynamo.utils.counters
    counters.clear()
    spread = functools.partial(apply.spread, compile=True)
    tracing = functools.partial(torch.compile, backend="aot_eager")
    with (
        mock.patch.object(following, "spread", spread),
        mock.patch.object(torch, "compile", tracing),
    ):
        found = learned(SUBJECTS[name], parallel, torch.float64)
    return found, counters["stats"]["unique_graphs"]


MOST = 7
"""Graphs traced: a few kinds of units; were keys, blocks or updates compiled in, a hundred."""


@pytest.mark.parametrize(
    ("number", "name", "layout"),
    [
        (2, "vit", {}),
        (2, "vit", {"shard": 2, "recompute": "full"}),
        (2, "vit", {"tensor": 2, "sequence": True}),
        (2, "vit-channels", {"tensor": 2, "recompute": "full"}),
        (2, "mae", {"tensor": 2}),
        (2, "vit-token", {"context": 2, "attention": "ring"}),
        (2, "vit", {"pipeline": 2}),
        (2, "unet", {"shard": 2}),
        (2, "unet", {"spatial": 2}),
        (2, "resnet", {}),
        (1, "resnet", {"recompute": "full"}),
        (2, "vit", {"context": 2, "recompute": "full"}),
        (2, "unet", {"spatial": 2, "recompute": "full"}),
    ],
)  # fmt: skip
def test_compiled_it_is_the_same_curve(ranks, number, name, layout):
    expected = alone(name, torch.float64)
    for found, graphs in ranks(number, compiled, name, Parallel(**layout)):
        assert 0 < graphs <= MOST
        compare(found, expected, 1e-9)
