"""Parameters, gradients and the optimiser's memory shared among ranks: FSDP2.

A rank holds a slice of each parameter along its first axis, gathers a unit's whole parameters when
it computes with them, and lets them go. Gradients come back as sums over ranks, in slices.

A module says with ``unit = True`` that it is to be gathered at once; what is in no unit is gathered
for the whole forward and backward pass.

With products narrower than the parameters (bf16), matrices are gathered in the narrow type, as the
products take them anyhow: half the bytes and the same numbers. Gradients are summed in the type of
the parameters. What else is in a unit (norms, tokens) is needed in full, and is so little that each
rank keeps it whole.

Sources: Rajbhandari et al. 2020, arXiv:1910.02054; Zhao et al. 2023, arXiv:2304.11277; by single
layers, Wang et al. 2024, arXiv:2404.14712 (Hybrid-STOP).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.distributed.fsdp import (
    CPUOffloadPolicy,
    FSDPModule,
    MixedPrecisionPolicy,
    OffloadPolicy,
    fully_shard,
)
from torch.nn.modules.conv import _ConvNd

from swath.config import ConfigError
from swath.parallel.mesh import Mesh
from swath.parallel.settings import Parallel


def shard(
    model: nn.Module, mesh: Mesh, parallel: Parallel, narrow: torch.dtype | None = None
) -> None:
    """Spread ``model`` over the mesh's shard axis, in place; copies along its replica axis.

    narrow: of matrix products, if that is not the type of the parameters.
    """
    if parallel.offload and mesh.world.device.type == "cpu":
        raise ConfigError(
            "parallel.offload=true moves parameters from a GPU to the CPU, and this run is on the "
            "CPU already; leave it out"
        )
    # With one copy of the model there is nothing to sum among copies.
    axes = ("replica", "shard") if mesh.degrees.copies > 1 else ("shard",)
    options: dict[str, Any] = {
        "mesh": mesh.devices[axes],
        "offload_policy": CPUOffloadPolicy() if parallel.offload else OffloadPolicy(),
    }
    inner = {**options, "reshard_after_forward": parallel.reshard}
    whole: set[nn.Parameter] = set()
    for module in units(model, parallel.wrap):
        if narrow is None:
            fully_shard(module, **inner)
            continue
        whole |= (others := _not_in_products(module))
        if others.issuperset(module.parameters()):
            continue
        kind = next(module.parameters()).dtype
        policy = MixedPrecisionPolicy(narrow, reduce_dtype=kind, cast_forward_inputs=False)
        fully_shard(module, mp_policy=policy, ignored_params=others, **inner)
    # The backward pass begins with what is in no unit: it would be gathered again at once.
    fully_shard(model, reshard_after_forward=False, ignored_params=whole, **options)
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)  # sums; they are divided once, by the weight
            module.set_force_sum_reduction_for_comms(True)  # gloo knows no other


def _not_in_products(unit: nn.Module) -> set[nn.Parameter]:
    """Return the parameters of ``unit`` that no product takes in its narrow type."""
    return {
        p
        for module in unit.modules()
        if not isinstance(module, nn.Linear | _ConvNd) and not getattr(module, "in_products", False)
        for p in module.parameters(recurse=False)
    }


def units(model: nn.Module, wrap: str) -> list[nn.Module]:
    """Return the modules of ``model`` that are gathered at once, inner ones first."""
    found = [m for m in model.modules() if getattr(m, "unit", False)]
    if wrap == "matrix":
        found += [
            layer
            for module in list(found)
            if not getattr(module, "in_products", False)  # its layers are not called one by one
            for layer in module.modules()
            if layer is not module and list(layer.parameters(recurse=False))
        ]
    return list(dict.fromkeys(reversed(found)))
