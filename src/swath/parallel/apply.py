"""One function that spreads an innocent model over ranks, in one written order.

A pipeline first cuts the model; then, for each piece: tensor, then context or spatial, then
recompute, then compile (under the three of them the other way round), then shard. The models know
nothing of it: they only hint at what can be split:

* ``chain()``: where a pipeline may cut;
* ``split``, with ``head_width``: which linear layers tensor ranks share, and how; ``wide``: those
  of which each makes some of the numbers, and gets all; a layer that aggregates channels says the
  same of its groups;
* ``trunk``: lists of blocks among which tokens may be shared;
* ``spatial``, ``multiple``: that rows of images may be shared, and how many go together;
* ``unit``: what is recomputed, compiled, and gathered from shards at once; ``again``: parts of it
  that are recomputed one by one in its place.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import nn

from swath.parallel.channels import share_channels
from swath.parallel.context import share_tokens
from swath.parallel.cut import cut
from swath.parallel.mesh import Mesh
from swath.parallel.pipeline import Pipeline
from swath.parallel.recompute import recompute
from swath.parallel.settings import Parallel
from swath.parallel.shard import shard, units
from swath.parallel.spatial import share_rows
from swath.parallel.tensor import split


def spread(
    model: nn.Module,
    mesh: Mesh,
    parallel: Parallel,
    *,
    compile: bool = False,
    narrow: torch.dtype | None = None,
) -> nn.Module:
    """Return ``model`` (whole, the same on all ranks) as this rank of ``mesh`` holds it.

    narrow: the type of matrix products under autocast; None: that of the parameters.
    ConfigError if the degrees do not fit the model, with the numbers.
    """
    degrees = mesh.degrees
    if parallel.pipeline > 1:
        one = dataclasses.replace(parallel, pipeline=1, schedule="1f1b", stages=1)
        pieces = cut(model, mesh, parallel)
        held = {
            n: spread(piece, mesh, one, compile=compile, narrow=narrow)
            for n, piece in pieces.items()
        }
        return Pipeline(held, [n for n, _ in model.named_parameters()], mesh, parallel)
    if degrees.tensor > 1:
        split(model, mesh, parallel)
        share_channels(model, mesh)
    if degrees.context > 1:
        share_tokens(model, mesh, parallel)
    if degrees.spatial > 1:
        share_rows(model, mesh)
    # What is recomputed is traced whole or not at all, and an exchange within ends a trace.
    exchanges = degrees.context * degrees.spatial * degrees.tensor > 1
    if compile and exchanges:
        # torch 2.13 cannot trace shared matrices for tokens of any number (mae has two numbers).
        _compile(model, dynamic=False if degrees.tensor > 1 else None)
    if parallel.recompute != "none":
        recompute(model, parallel.recompute)
    if compile and not exchanges:
        _compile(model)
    if degrees.shard > 1 or degrees.tensor > 1:
        shard(model, mesh, parallel, narrow)
    return model


def _compile(model: nn.Module, dynamic: bool | None = None) -> None:
    for module in units(model, "block") or [model]:
        # Not the module with its hooks: those of shards cannot be traced, and nothing would be.
        module.forward = torch.compile(module.forward, dynamic=dynamic)
