"""Tensor parallelism: each rank holds some columns of one layer and the same rows of the next.

A module says with ``split = {"fc1": "columns", "fc2": "rows"}`` which of its layers are shared and
how. Its input is whole on every rank; what lies between columns and rows (heads, hidden numbers)
stays on its rank; the rows' sums are added up over ranks. That is one all-reduce forward and one
backward for each such module, however many layers read its input.

With ``sequence`` the ranks also share the tokens between these modules, so that norms and residuals
are kept once. A model names in ``trunk`` its lists of layers that hand tokens (b, n, d) on; tokens
are dealt out before the first layer of a list and collected after the last. The all-reduce becomes
an all-gather before the columns and a reduce-scatter after the rows: as many bytes.

A module names in ``wide`` layers so wide that it pays to share them alone, as the one that writes a
patch of a thousand channels: each rank makes some of the numbers, and gets those of all.

Sources: Shoeybi et al. 2019, arXiv:1909.08053; tokens, Korthikanti et al. 2022, arXiv:2205.05198.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Placement, Replicate, Shard
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    ParallelStyle,
    PrepareModuleInput,
    RowwiseParallel,
    parallelize_module,
)

from swath.config import ConfigError
from swath.nn.block import taps, trunks
from swath.nn.random import Dropout
from swath.parallel.local import local
from swath.parallel.mesh import Mesh
from swath.parallel.settings import Parallel
from swath.parallel.world import World

TOKENS = 1
"""The dim of (b, n, d) along which tokens are shared."""


def split(model: nn.Module, mesh: Mesh, parallel: Parallel) -> None:
    """Share the matrices of ``model`` among the ranks of the mesh's tensor axis, in place.

    ConfigError if nothing in it can be shared, or heads or widths do not divide.
    """
    ranks = mesh.degrees.tensor
    hinted = {name: m for name, m in model.named_modules() if getattr(m, "split", None)}
    if not hinted:
        raise ConfigError(
            f"parallel.tensor={ranks}: {type(model).__name__} has no matrices to share (transformer"
            " blocks have); set tensor=1, and shard or replicate instead"
        )
    for name, module in hinted.items():
        _check(name, module, ranks)
    shared = _shared(model, ranks) if parallel.sequence else []
    group = mesh.devices["tensor"]
    sharing = {module for layers in shared for module in layers.modules()}
    for module in hinted.values():
        between = Shard(TOKENS) if module in sharing else Replicate()
        parallelize_module(module, group, _plan(module, between), src_data_rank=None)
        _sum_over_ranks(module)
    for layer in _wide(model, ranks):
        parallelize_module(
            layer, group, ColwiseParallel(output_layouts=Replicate()), src_data_rank=None
        )
    for layers in shared:
        _share_tokens(layers, taps(model, layers), group)
        _sum_over_ranks(layers)


def complete(parameters: Sequence[nn.Parameter], mesh: Mesh) -> None:
    """Sum the gradients of ``parameters`` over the mesh's tensor axis, in one exchange.

    They are those of :func:`pieces`.
    """
    group = mesh.devices["tensor"].get_group()
    team = World(mesh.at("tensor"), mesh.degrees.tensor, mesh.world.device, group)
    grads = [p.grad for p in parameters if p.grad is not None]
    team.sum_all([local(g) for g in grads])


def pieces(model: nn.Module) -> list[nn.Parameter]:
    """Return the parameters whose gradients :func:`complete` has to sum, once an update: of layers
    that see only this rank's tokens, or heads."""
    owners = (m for m in model.modules() if getattr(m, "sum_over_ranks", False))
    return [p for m in owners for p in m.parameters(recurse=False) if p.requires_grad]


def _wide(model: nn.Module, ranks: int) -> list[nn.Module]:
    """Return the layers of which each rank makes some of the numbers and then gets those of all;
    one whose numbers do not divide is whole on each."""
    # A piece of a pipeline is without those of others.
    hinted = [getattr(m, name, None) for m in model.modules() for name in getattr(m, "wide", ())]
    linear = [layer for layer in hinted if isinstance(layer, nn.Linear)]
    return [layer for layer in linear if layer.out_features % ranks == 0]


def _check(name: str, module: nn.Module, ranks: int) -> None:
    split: dict[str, str] = module.split  # type: ignore[assignment]
    for layer, way in split.items():
        linear = module.get_submodule(layer)
        assert isinstance(linear, nn.Linear), f"{name}.{layer} is no nn.Linear"
        size = linear.out_features if way == "columns" else linear.in_features
        wide = getattr(module, "head_width", 1)
        things = "numbers" if wide == 1 else "heads"
        if size // wide % ranks:
            fit = [n for n in range(1, ranks) if size // wide % n == 0]
            raise ConfigError(
                f"parallel.tensor={ranks} cannot share the {size // wide} {things} of {name}"
                f" evenly; set tensor={fit[-1]}, or model.heads and model.width to multiples of"
                f" {ranks}"
            )


def _plan(module: nn.Module, between: Placement) -> dict[str, ParallelStyle]:
    """Return the styles of ``module`` and its layers; ``between``: how tokens lie outside of it."""
    # One input for all columns: each would otherwise exchange its own gradient of it.
    others = (Replicate(),) * (getattr(module, "inputs", 1) - 1)
    plan: dict[str, ParallelStyle] = {
        "": PrepareModuleInput(
            input_layouts=(between, *others),
            desired_input_layouts=(Replicate(), *others),
        )
    }
    split: dict[str, str] = module.split  # type: ignore[assignment]
    for layer, way in split.items():
        rows = RowwiseParallel(output_layouts=between)
        plan[layer] = ColwiseParallel() if way == "columns" else rows
    return plan


def _shared(model: nn.Module, ranks: int) -> list[nn.ModuleList]:
    """Return the lists of layers of ``model`` whose tokens are shared; ConfigError if none can."""
    found = trunks(model)
    if not found:
        raise ConfigError(
            f"parallel.sequence=true: {type(model).__name__} does not say where tokens can be"
            " shared; leave sequence out"
        )
    for layers in found:
        for name, module in layers.named_modules():
            if isinstance(module, Dropout) and module.share:
                raise ConfigError(
                    f"parallel.sequence=true: {name} in {type(model).__name__} draws for each token"
                    f", and tensor={ranks} ranks would draw alike for different ones; set its share"
                    " to 0 or leave sequence out"
                )
    return [layers for layers in found if len(layers)]


def _sum_over_ranks(part: nn.Module) -> None:
    """Mark the modules in ``part`` with whole parameters as ones whose gradients are pieces."""
    for module in part.modules():
        own = list(module.parameters(recurse=False))
        if own and not any(isinstance(p, DTensor) for p in own):
            module.sum_over_ranks = True  # type: ignore[assignment]


def _share_tokens(layers: nn.ModuleList, taps: Sequence[nn.Module], group: DeviceMesh) -> None:
    def enter(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        tokens = args[0].shape[TOKENS]
        if tokens % group.size():
            raise ConfigError(
                f"parallel.sequence=true: {tokens} tokens cannot be shared evenly by tensor="
                f"{group.size()}; if one of them is a class token set model.pool=mean, else change"
                " model.patch or the size of samples, or leave sequence out"
            )
        return (_laid_out(args[0], group, Replicate(), Shard(TOKENS)), *args[1:])

    def leave(_: nn.Module, args: Any, output: Tensor) -> Tensor:
        return _laid_out(output, group, Shard(TOKENS), Replicate())

    layers[0].register_forward_pre_hook(enter)
    # All its tokens are wanted, as those that are not may be another rank's.
    layers[-1].register_forward_pre_hook(lambda _, args: args[:1])
    for module in (*taps, layers[-1]):
        module.register_forward_hook(leave)


def _laid_out(x: Tensor, group: DeviceMesh, now: Placement, then: Placement) -> Tensor:
    """Return this rank's part of ``x`` after laying it out anew; backward, the other way round."""
    spread = DTensor.from_local(x, group, [now], run_check=False)
    return spread.redistribute(placements=[then]).to_local()
