"""The largest presets on the computers that they are for, as benchmarks/layouts.md has them whole.

Here an encoder of one block is laid out, and what the others add is known from it. What is asked is
whether the whole fits, and whether the page still says what is so.
"""

from __future__ import annotations

import pytest

from swath.batch.size import BatchSize
from swath.data.settings import DataSettings
from swath.datasets.synthetic import Synthetic
from swath.machine import load_machine
from swath.models._transformer import SIZES
from swath.models.mae import MAE
from swath.parallel.settings import Parallel
from swath.tasks.pretrain import Pretrain
from swath.train.dry import Layout, lay_out
from swath.train.dry_text import memory_bytes
from swath.train.job import TrainJob
from swath.train.settings import TrainSettings

CONTENTS = Synthetic(size=224, bands=12).open().contents


def of(preset: str, depth: int, ranks: int, parallel: Parallel) -> Layout:
    width, _, heads, *_ = SIZES[preset]
    job = TrainJob(
        folder="none",
        data=DataSettings(store="none"),
        model=MAE(width=width, depth=depth, heads=heads, patch=16, decoder_depth=1),
        task=Pretrain(),
        batch=BatchSize(samples=4096, micro=8),
        parallel=parallel,
        train=TrainSettings(samples=10**8, precision="bf16"),
    )
    return lay_out(job, CONTENTS, ranks)


@pytest.mark.parametrize(
    ("preset", "machine", "parallel", "state_gib"),
    [
        ("15b", "frontier", Parallel(shard=8, recompute="full"), 27.3),
        ("3b", "juwels_booster", Parallel(shard=4, recompute="full"), 11.4),
    ],
)
def test_the_largest_presets_fit(preset, machine, parallel, state_gib):
    """Four numbers of float32 for each parameter of this rank's share, and beside them what one
    block, in work, takes; that all leave a tenth of the device free."""
    layout = of(preset, 1, 512, parallel)
    block = sum(row.bytes for row in layout.largest.held if row.name.startswith("blocks.0."))
    whole = 4 * (sum(row.bytes for row in layout.largest.held) + (SIZES[preset].depth - 1) * block)
    assert whole / 2**30 == pytest.approx(state_gib, rel=0.02)
    memory = layout.largest.memory
    beside = memory.total - memory.parameters - memory.optimiser
    assert whole + beside < 0.9 * memory_bytes(load_machine(machine))
