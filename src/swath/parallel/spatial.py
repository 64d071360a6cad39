"""Halo exchange: one image on several ranks, each with some of its rows, exactly as on one.

A network of convolutions asks its neighbourhood for little: so each rank keeps the activations of
its own rows and asks the ranks above and below for the few rows at the border, at every layer that
looks further than a pixel. The backward pass hands back what the borrowed rows have earned.

Layers are replaced from outside. Convolutions, max pooling and doubling borrow rows; group norm,
and batch norm in training, normalise by the statistics of all ranks' rows; what works on single
pixels, or draws once for whole channels, stays. Anything else is refused: a model says with
``spatial = True`` that it is made of such layers, and with ``multiple`` of how many rows a rank
must be given a whole number.

Sources: Dryden et al. 2019, arXiv:1903.06681; variances of pieces, Chan, Golub & LeVeque 1979,
Stanford STAN-CS-79-773.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from swath.config import ConfigError
from swath.data.chip import Batch
from swath.nn.norm import BatchNorm2d
from swath.nn.random import Dropout, DropPath
from swath.nn.resize import Double, double
from swath.parallel.mesh import Mesh
from swath.parallel.world import World

Layer = Callable[[Tensor], Tensor]

ON_PIXELS = (nn.GELU, nn.ReLU, nn.Identity, DropPath)
"""Layers that do the same to each pixel, whoever its neighbours are."""


def share_rows(model: nn.Module, mesh: Mesh) -> None:
    """Let ``model``, in place, work on the rows of the image that :func:`own_rows` leaves a rank.

    ConfigError if a layer of it cannot.
    """
    degree = mesh.degrees.spatial
    if not getattr(model, "spatial", False):
        raise ConfigError(
            f"parallel.spatial={degree} shares the rows of an image among ranks, for networks of "
            f"convolutions with an output for every pixel; {type(model).__name__} is no such "
            f"network. Choose model.kind unet, or replicate={degree} instead of spatial"
        )
    near = mesh.along("spatial")
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            replaced: Layer | None = _convolution(module, name, near)
        elif isinstance(module, nn.MaxPool2d):
            replaced = _max_pool(module, name, near)
        elif isinstance(module, Double):
            replaced = _doubling(near)
        elif isinstance(module, nn.GroupNorm) and module.affine:
            replaced = _group_norm(module, near)
        elif isinstance(module, BatchNorm2d):
            replaced = _batch_norm(module, near)
        elif (
            isinstance(module, ON_PIXELS)
            or (isinstance(module, Dropout) and module.channels)
            or next(module.children(), None) is not None  # its parts are looked at
        ):
            continue
        else:
            raise _unfit(name, module, "is not known to work on some of the rows")
        module.forward = replaced


def own_rows(batch: Batch, model: nn.Module, mesh: Mesh) -> Batch:
    """Return of ``batch`` the rows of this rank; ConfigError if there are too few to share."""
    if mesh.degrees.spatial == 1:
        return batch
    shares = rows_of_ranks(batch.image.shape[-2], model.multiple, mesh.degrees.spatial)  # type: ignore[arg-type]
    rows = slice(*shares[mesh.at("spatial")])
    target = batch.target
    return dataclasses.replace(
        batch,
        image=batch.image[:, :, rows],
        valid=batch.valid[:, rows],
        target=None if target is None else target[..., rows, :],
    )


def rows_of_ranks(height: int, multiple: int, ranks: int) -> list[tuple[int, int]]:
    """Return the rows [first, end) of each rank, whole multiples but for the image's last rows.

    ConfigError if a rank would have none.
    """
    units = -(-height // multiple)
    if units < ranks:
        raise ConfigError(
            f"parallel.spatial={ranks}: images of {height} rows come in {units} pieces of "
            f"{multiple} rows, the fewest that this network can halve; set spatial to at most "
            f"{units}, or make the images {ranks * multiple} rows high"
        )
    each, more = divmod(units, ranks)
    ends = [multiple * ((rank + 1) * each + min(rank + 1, more)) for rank in range(ranks)]
    return list(zip([0, *ends[:-1]], [*ends[:-1], height], strict=True))


def _convolution(conv: nn.Conv2d, name: str, near: World) -> Layer:
    if isinstance(conv.padding, str) or conv.padding_mode != "zeros":
        raise _unfit(name, conv, f"pads by {conv.padding}, {conv.padding_mode}, not by zeros")
    reach = conv.dilation[0] * (conv.kernel_size[0] - 1)
    above, below = _borrowed(conv, name, reach, conv.stride[0], int(conv.padding[0]))
    across = (0, int(conv.padding[1]))

    def forward(x: Tensor) -> Tensor:
        wide = with_neighbours(x, above, below, 0.0, near)
        weight, bias = conv.weight, conv.bias
        return F.conv2d(wide, weight, bias, conv.stride, across, conv.dilation, conv.groups)

    return forward


def _max_pool(pool: nn.MaxPool2d, name: str, near: World) -> Layer:
    size, stride, padding, dilation = (
        value if isinstance(value, tuple) else (value, value)
        for value in (pool.kernel_size, pool.stride, pool.padding, pool.dilation)
    )
    if pool.return_indices or pool.ceil_mode:
        raise _unfit(name, pool, "returns indices or rounds sizes up")
    above, below = _borrowed(pool, name, dilation[0] * (size[0] - 1), stride[0], padding[0])

    def forward(x: Tensor) -> Tensor:
        wide = with_neighbours(x, above, below, -torch.inf, near)
        return F.max_pool2d(wide, size, stride, (0, padding[1]), dilation)

    return forward


def _borrowed(
    module: nn.Module, name: str, reach: int, stride: int, padding: int
) -> tuple[int, int]:
    """Return how many rows above and below its own a rank needs, for its own rows / ``stride``."""
    if not reach + 1 - stride <= 2 * padding <= reach:
        raise _unfit(
            name,
            module,
            f"makes of 100 rows {(100 + 2 * padding - reach - 1) // stride + 1}, not 100 / "
            f"{stride}; pad it by {reach // 2}",
        )
    return padding, max(0, reach - stride - padding + 1)


def _doubling(near: World) -> Layer:
    def forward(x: Tensor) -> Tensor:
        wide = double(with_neighbours(x, 1, 1, None, near))  # at the image's edge it holds the edge
        top = 2 * (near.rank > 0)
        return wide[:, :, top : top + 2 * x.shape[2]]

    return forward


def _group_norm(norm: nn.GroupNorm, near: World) -> Layer:
    def forward(x: Tensor) -> Tensor:
        found = normalised(x, norm.weight, norm.bias, norm.num_groups, norm.eps, (2, 3, 4), near)
        return found[0]

    return forward


def _batch_norm(norm: BatchNorm2d, near: World) -> Layer:
    plain = norm.forward

    def forward(x: Tensor) -> Tensor:
        if not norm.training:
            return plain(x)
        dims = (0, 2, 3, 4)
        out, mean, var, count = normalised(
            x, norm.weight, norm.bias, x.shape[1], norm.eps, dims, near
        )
        if near.first:  # as they are the same on all: ranks' sums are added up later
            norm.sum_mean += mean.flatten().to(norm.sum_mean)
            norm.sum_var += (var * (count / (count - 1))).flatten().to(norm.sum_var)
            norm.passes += 1
        return out

    return forward


def _unfit(name: str, module: nn.Module, why: str) -> ConfigError:
    return ConfigError(
        f"parallel.spatial: layer {name or 'model'} ({type(module).__name__}) {why}, so ranks "
        "cannot share the rows of an image; set spatial=1"
    )


@torch.compiler.disable
def with_neighbours(x: Tensor, above: int, below: int, fill: float | None, near: World) -> Tensor:
    """Return ``x`` (b, c, rows, w) with ``above`` and ``below`` more rows: the neighbours'.

    fill: what stands beyond the image; None: nothing, there are no more rows then.
    """
    if not above and not below:
        return x
    rows = x.shape[2]
    assert rows >= max(above, below), f"{rows} rows are too few to lend {max(above, below)}"
    return _Borrow.apply(x, above, below, fill, near)


class _Borrow(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, above: int, below: int, fill: float | None, near: World
    ) -> Tensor:
        rows, outside = x.shape[2], fill is not None
        top = above if near.rank > 0 or outside else 0
        bottom = below if near.rank < near.ranks - 1 or outside else 0
        ctx.sizes, ctx.near = (above, below, top, rows), near
        shape = (*x.shape[:2], top + rows + bottom, x.shape[3])
        wide = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=_format(x))
        wide[:, :, top : top + rows] = x
        first, last = _swap(x[:, :, :below], x[:, :, rows - above :], (above, below), near)
        if top:
            wide[:, :, :top] = first if first is not None else fill or 0.0
        if bottom:
            wide[:, :, top + rows :] = last if last is not None else fill or 0.0
        return wide

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        above, below, top, rows = ctx.sizes
        own = grad[:, :, top : top + rows].clone(memory_format=_format(grad))
        up, down = grad[:, :, :top], grad[:, :, top + rows :]
        lent_up, lent_down = _swap(up, down, (below, above), ctx.near)
        if lent_up is not None:
            own[:, :, :below] += lent_up
        if lent_down is not None:
            own[:, :, rows - above :] += lent_down
        return own, None, None, None, None


def _swap(
    up: Tensor, down: Tensor, rows: tuple[int, int], near: World
) -> tuple[Tensor | None, Tensor | None]:
    """Send ``up`` to the rank above and ``down`` to the one below; return what they sent here.

    rows: how many come from above, and from below; None comes where there is nobody.
    """
    got: list[Tensor | None] = [None, None]
    wanted = []
    for side, (mine, step) in enumerate(((up, -1), (down, 1))):
        if 0 <= near.rank + step < near.ranks:
            assert near.group is not None, "several ranks have a group"
            peer = dist.get_global_rank(near.group, near.rank + step)
            if mine.numel():
                wanted.append(dist.P2POp(dist.isend, mine.contiguous(), peer, near.group))
            if rows[side]:
                into = mine.new_empty((*mine.shape[:2], rows[side], mine.shape[3]))
                wanted.append(dist.P2POp(dist.irecv, into, peer, near.group))
                got[side] = into
    for work in dist.batch_isend_irecv(wanted) if wanted else ():
        work.wait()
    return got[0], got[1]


def _format(x: Tensor) -> torch.memory_format:
    last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    return torch.channels_last if last else torch.contiguous_format


@torch.compiler.disable
def normalised(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    groups: int,
    eps: float,
    dims: tuple[int, ...],
    near: World,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return ``x`` (b, c, rows, w) normalised over the rows of all ranks, then mean, variance and
    the number of values they were taken of, over ``dims`` of (b, group, c / group, rows, w)."""
    return _Normalise.apply(x, weight, bias, groups, eps, dims, near)


class _Normalise(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        groups: int,
        eps: float,
        dims: tuple[int, ...],
        near: World,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        each = x.shape[1] // groups
        real = (x.float() if x.element_size() < 4 else x).unflatten(1, (groups, each))
        mean, var, count = _moments(real, dims, near)
        scale = (var + eps).rsqrt()
        slope = scale * weight.to(real).view(1, groups, each, 1, 1)
        out = (real - mean).mul_(slope).add_(bias.to(real).view(1, groups, each, 1, 1))
        ctx.save_for_backward(x, weight, mean, scale)
        ctx.groups, ctx.dims, ctx.near, ctx.count = groups, dims, near, count
        ctx.mark_non_differentiable(mean, var, count)
        return out.flatten(1, 2).to(x.dtype), mean, var, count

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, scale = ctx.saved_tensors
        shape = (ctx.groups, x.shape[1] // ctx.groups)
        unit = ((x.float() if x.element_size() < 4 else x).unflatten(1, shape) - mean).mul_(scale)
        grad_out = grad.to(unit).unflatten(1, shape)
        # Sums over a channel's own pixels serve the parameters, which each rank counts for itself,
        # and the statistics, which are all ranks' together.
        plain, along = grad_out.sum((3, 4)), (grad_out * unit).sum((3, 4))
        slope = weight.to(unit).view(1, *shape)
        inner = tuple(dim for dim in ctx.dims if dim < 3)
        sums = torch.stack([(s * slope).double().sum(inner, keepdim=True) for s in (plain, along)])
        ctx.near.sum_all([sums])
        of_plain, of_along = (sums / ctx.count)[..., None, None].to(unit)
        into = (grad_out * slope[..., None, None]).sub_(of_plain).sub_(unit.mul_(of_along))
        into = into.mul_(scale).flatten(1, 2).to(x.dtype)
        own = along.sum(0).flatten().to(weight), plain.sum(0).flatten().to(weight)
        return into, *own, None, None, None, None


def _moments(x: Tensor, dims: tuple[int, ...], near: World) -> tuple[Tensor, Tensor, Tensor]:
    """Return mean, variance (in the type of ``x``) and count (float64) over all ranks' ``x``."""
    var, mean = torch.var_mean(x, dims, correction=0, keepdim=True)
    number = mean.numel()
    count = torch.tensor([x.numel() / number], dtype=torch.float64, device=x.device)
    table = torch.zeros(near.ranks, 2 * number + 1, dtype=torch.float64, device=x.device)
    table[near.rank] = torch.cat([mean.double().flatten(), var.double().flatten(), count])
    near.sum_all([table])
    means, variances, counts = table.split([number, number, 1], dim=1)
    total = counts.sum()
    middle = (counts * means).sum(0) / total
    around = (counts * (variances + (means - middle).square())).sum(0) / total
    return middle.view_as(mean).to(x.dtype), around.view_as(mean).to(x.dtype), total
