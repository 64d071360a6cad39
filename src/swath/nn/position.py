"""Where a token stands: embeddings of places on a grid.

Source of the fixed waves: Vaswani et al. 2017, arXiv:1706.03762, on rows and columns apart. That
places are counted in steps on the ground, so that a network tells resolutions apart: Reed et al.
2023, arXiv:2212.14532 (Scale-MAE), section 3.1; here a step is that of images of GSD_M metres.
Learned ones stretched bicubically: Dosovitskiy et al. 2021, arXiv:2010.11929, section 3.2.
"""

import functools

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from swath.data.chip import Known

GSD_M = 10.0
"""Metres a pixel at which places counted on the ground are those counted in patches."""


def waves(rows: int, cols: int, width: int, step: float = 1.0) -> Float[Tensor, "n d"]:
    """Return fixed embeddings (rows * cols, width), row by row: sines and cosines of the column
    in one half, of the row in the other. ``width`` must be a multiple of 4. step: from one place
    to the next."""
    assert width % 4 == 0, f"width {width} is not a multiple of 4"
    rate = 10000.0 ** (-torch.arange(width // 4, dtype=torch.float64) / (width // 4))
    row, col = torch.meshgrid(
        torch.arange(rows, dtype=torch.float64),
        torch.arange(cols, dtype=torch.float64),
        indexing="ij",
    )
    phases = [step * place.reshape(-1, 1) * rate for place in (col, row)]
    parts = [wave for phase in phases for wave in (phase.sin(), phase.cos())]
    return torch.cat(parts, 1).to(torch.get_default_dtype())


@functools.lru_cache(maxsize=16)
def kept_waves(
    rows: int, cols: int, width: int, dtype: torch.dtype, device: torch.device, step: float = 1.0
) -> Float[Tensor, "n d"]:
    """Return :func:`waves` on a device, made once for each grid. Not to be written to."""
    with torch.inference_mode(False):  # a tensor made in that mode could not be trained with later
        return waves(rows, cols, width, step).to(device, dtype)


def step_of(known: Known | None, gsd_m: float | None) -> float:
    """Return the step from pixel to pixel in units of GSD_M, of images with ``known``.

    gsd_m: where the image brings none; None: places are counted in patches, whatever their size.
    """
    if gsd_m is None:
        return 1.0
    return ((known.gsd_m if known else None) or gsd_m) / GSD_M


def resized(
    places: Float[Tensor, "n d"], grid: tuple[int, int], wanted: tuple[int, int]
) -> Float[Tensor, "m d"]:
    """Return learned embeddings of ``grid`` (rows, cols) stretched to another grid: bicubic, and
    smoothed where that is smaller. In float64, so that no precision of the run changes them."""
    if grid == wanted:
        return places
    down, across = (
        _stretching(there, here, places.device) for there, here in zip(grid, wanted, strict=True)
    )
    image = torch.einsum("ri,ijd->rjd", down, places.double().unflatten(0, grid))
    return torch.einsum("cj,rjd->rcd", across, image).flatten(0, 1).to(places.dtype)


@functools.lru_cache(maxsize=16)
def _stretching(there: int, here: int, device: torch.device) -> Float[Tensor, "h t"]:
    """Return the matrix that stretches a column of places, made once for each. As products, unlike
    torch's own gradient of stretching, have the same bits each time on a GPU."""
    with torch.inference_mode(False):
        unit = torch.eye(there, dtype=torch.float64, device=device)[None, None]
        return F.interpolate(unit, size=(here, there), mode="bicubic", antialias=True)[0, 0]
