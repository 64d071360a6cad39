"""Weights of one network made to fit another: other places, patches and bands.

Places are stretched, as images are. Patches are resized such that a patch which is enlarged with
its image gives the token that it gave before. Of bands, each new one takes a share of the weights
of the band that it is most like, so that the sum over bands stays what it was.

Source: patches, Beyer et al. 2023, arXiv:2212.08013, section 3.4 ("PI-resize").
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from swath.nn.position import resized


def readout(network: nn.Module) -> set[str]:
    """Return the names of the parameters between encoder and head that a pretrained encoder comes
    without, as the network says in ``readout``."""
    parts: tuple[str, ...] = getattr(network, "readout", ())
    named = (name for name, _ in network.named_parameters())
    return {name for name in named if name.split(".")[0] in parts}


Shares = list[list[tuple[int, float]]]
"""For each band wanted: which bands given make up its weights, and how much of each."""


def places(
    table: Float[Tensor, "n d"],
    grid: tuple[int, int],
    wanted: tuple[int, int],
    ahead: tuple[int, int] = (0, 0),
) -> Float[Tensor, "m d"]:
    """Return position embeddings of ``grid`` (rows, cols) for the grid ``wanted``, stretched.

    ahead: rows before the grid's own, there (of a class token) and here. They are kept; where
    there are none to keep they are zero, where none is wanted they are left out.
    """
    first, rest = table.split([ahead[0], len(table) - ahead[0]])
    first = F.pad(first, (0, 0, 0, max(0, ahead[1] - ahead[0])))[: ahead[1]]
    return torch.cat([first, resized(rest, grid, wanted)])


def patches(weight: Float[Tensor, "... p p"], size: int) -> Float[Tensor, "... q q"]:
    """Return the projection ``weight`` of patches for patches of ``size`` pixels a side.

    With B the matrix that resizes a patch (bilinear), the new weights w' solve B^T w' = w: for
    larger patches B x gives exactly the token of x, for smaller ones the nearest there is.
    """
    side = weight.shape[-1]
    if side == size:
        return weight
    basis = torch.eye(side * side, dtype=torch.float64).unflatten(1, (1, side, side))
    matrix = F.interpolate(basis, size=(size, size), mode="bilinear").flatten(1)  # B^T
    flat = weight.double().flatten(-2) @ torch.linalg.pinv(matrix).T
    return flat.unflatten(-1, (size, size)).to(weight.dtype)


def bands(weight: Float[Tensor, "o b h w"], shares: Shares) -> Float[Tensor, "o c h w"]:
    """Return the weights of a layer on images of other bands, each made up as ``shares`` says."""
    made = torch.zeros(weight.shape[0], len(shares), *weight.shape[2:], dtype=weight.dtype)
    for band, parts in enumerate(shares):
        for given, share in parts:
            made[:, band] += weight[:, given] * share
    return made


def shared(
    given: dict[str, float | None], wanted: dict[str, float | None], missing: str
) -> tuple[Shares, list[str]]:
    """Return how the bands ``wanted`` are made up of those ``given``, and words on the missing.

    given, wanted: wavelengths in nm by name, in order. A band of the same name is taken. missing:
    "nearest": a band that is not there shares the weights of the nearest in wavelength, which is
    divided among all that take it; where a wavelength is not known, "mean": the mean over the bands
    given; "zero": none, the network begins blind to it.
    """
    names = list(given)
    donors: dict[str, str] = {name: name for name in wanted if name in given}
    known = {n: w for n in names if (w := given[n] or wanted.get(n)) is not None}
    told = []
    for name, wavelength in wanted.items():
        if name in given:
            continue
        if missing == "nearest" and wavelength is not None and known:
            donors[name] = min(known, key=lambda other: abs(known[other] - wavelength))
            told.append(f"{name} shares {donors[name]}")
        else:
            told.append(f"{name} is {'zero' if missing == 'zero' else 'the mean'}")
    many = {donor: list(donors.values()).count(donor) for donor in donors.values()}
    mean = [(i, 1 / len(names)) for i in range(len(names))] if missing != "zero" else []
    shares = [
        [(names.index(donors[name]), 1 / many[donors[name]])] if name in donors else mean
        for name in wanted
    ]
    return shares, told
