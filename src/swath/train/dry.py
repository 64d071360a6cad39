"""How a run would lie on many ranks: memory, exchanges and updates, known before a job is queued.

An update is gone through once for every kind of rank, on fake tensors (swath.train.rehearse). The
store's pixels are not read; what samples look like is known from its contents, or from the files
that it will be built from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from swath.config import ConfigError
from swath.data.bands import find_bands, image_grid
from swath.data.chip import Contents
from swath.models import Inputs
from swath.nn.teacher import Teacher
from swath.parallel.dry import places
from swath.parallel.fill import hollow
from swath.parallel.settings import Degrees
from swath.train.describe import inputs_of
from swath.train.job import TrainJob
from swath.train.precision import arithmetic
from swath.train.rehearse import Rehearsal, Share


@dataclass(frozen=True, kw_only=True)
class Layout:
    """A run as it would lie on ``ranks`` ranks."""

    ranks: int
    degrees: Degrees
    parameters: int
    """Numbers in the whole model, without those of a teacher."""
    precision: str
    device: str
    """gpu or cpu: how the optimiser goes about."""
    inputs: tuple[int, int, int]
    """Bands, height and width of a sample; of several stores, of the one that needs most memory."""
    stores: int
    """That samples are from."""
    samples: int
    """Of an update, over all ranks."""
    micro: int
    """Samples of a microbatch."""
    recompute: str
    """As parallel.recompute."""
    microbatches: tuple[int, int]
    """Fewest and most that a rank has in an update."""
    updates: int
    """Of the run."""
    shares: tuple[Share, ...]
    """One for each kind of rank, in the order of ranks."""

    @property
    def largest(self) -> Share:
        """The rank that needs most memory."""
        return max(self.shares, key=_total)


def lay_out(
    job: TrainJob,
    contents: Contents,
    ranks: int,
    *,
    also: Sequence[Contents] = (),
    most: int | None = None,
) -> Layout:
    """Return how ``job`` on samples like ``contents`` lies on ``ranks`` ranks.

    also: of the stores of data.also; a rank has to have room for microbatches of each. most:
    microbatches gone through one by one; None: as many as are needed to continue them.
    ConfigError if degrees, batch, model and task do not fit one another, as the run itself says.
    """
    if ranks < 1:
        raise ConfigError(f"--ranks={ranks} must be at least 1")
    parallel = job.parallel
    if parallel.offload:
        raise ConfigError(
            "parallel.offload=true: the dry run has no GPU whose memory it could count apart from "
            "the CPU's; see with offload=false what would have to move"
        )
    degrees = parallel.over(ranks)
    sizes = [len(job.batch.mine(part, degrees.data_ranks)) for part in (degrees.data_ranks - 1, 0)]
    channels = find_bands(contents, job.data.bands, job.data.store)
    bands = tuple(m.sensor.bands[i] for m, i in channels)
    inputs = inputs_of(job, bands, image_grid(contents, channels))
    counts = np.ones(len(contents.label.classes))  # class weights are numbers like any other
    objective = job.task.bind(contents.label, counts, inputs)
    subject = Rehearsal(job, inputs, objective, contents.label, degrees)
    fed = [inputs, *_further(job, also)]
    with arithmetic(job.train.precision, job.compute):
        each = [
            [subject.share(rank, sizes[1], most, one) for rank in places(degrees)]
            for one in _largest(fed)
        ]
        shares = [max(some, key=_total) for some in zip(*each, strict=True)]
        needs = max(shares, key=_total).of
        network = hollow(subject.build)
        teachers = (m for m in network.modules() if isinstance(m, Teacher))
        whole, still = (
            sum(p.numel() for module in some for p in module.parameters())
            for some in ([network], teachers)
        )
    return Layout(
        ranks=ranks,
        degrees=degrees,
        parameters=whole - still,
        precision=job.train.precision,
        device=subject.device,
        inputs=(len(needs.bands), needs.size, needs.size),
        stores=len(fed),
        samples=job.batch.samples,
        micro=job.batch.micro,
        recompute=parallel.recompute,
        microbatches=(sizes[1] if subject.even else sizes[0], sizes[1]),
        updates=job.updates,
        shares=tuple(shares),
    )


def _total(share: Share) -> int:
    return share.memory.total


def _further(job: TrainJob, also: Sequence[Contents]) -> list[Inputs]:
    """Return what a network is given of the stores of data.also, which have contents ``also``."""
    any_bands, found = "bands" in job.model.asks, []
    for one, contents in zip(job.data.also, also, strict=True):
        named = one.bands if one.bands is not None or any_bands else job.data.bands
        channels = find_bands(contents, named, one.store)
        bands = tuple(m.sensor.bands[i] for m, i in channels)
        found.append(inputs_of(job, bands, image_grid(contents, channels)))
    return found


def _largest(fed: Sequence[Inputs]) -> list[Inputs]:
    """Return those of ``fed`` than which no other has both more bands and more pixels."""
    sizes = {(len(one.bands), one.size): one for one in reversed(fed)}
    return [
        one
        for (bands, side), one in sizes.items()
        if not any((bands, side) != (b, s) and bands <= b and side <= s for b, s in sizes)
    ]
