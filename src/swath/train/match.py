"""Weights that are there matched by name with those that a network wants, and adapted to it.

What has the same name and shape is taken. Position embeddings and the first layer are adapted to
another grid, patch and set of bands (:mod:`swath.nn.transfer`). A head of another shape begins
anew, and so does whatever has no counterpart; what has no use here is left out. Anything else of
another shape is another network, and refused.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from swath.config import ConfigError
from swath.data.sensor import Band
from swath.nn import position, transfer
from swath.nn.patch import SpectralPatchEmbed
from swath.parallel.fill import hollow
from swath.train import names
from swath.train.given import Given

LEAST = 0.25
"""Share of the tensors wanted, heads left out, below which nothing is taken for a match."""


@dataclass
class Match:
    """What becomes of the weights that are there."""

    values: dict[str, Callable[[], Tensor]] = field(default_factory=dict)
    """By the network's names: what it begins with."""
    taken: list[str] = field(default_factory=list)
    adapted: dict[str, str] = field(default_factory=dict)
    """By name: how."""
    left_out: list[str] = field(default_factory=list)
    """By the names that they have there."""
    new: list[str] = field(default_factory=list)
    """Of the network, begun at random."""
    lacking: list[str] = field(default_factory=list)
    """Those of them that are no heads."""

    def table(self) -> Iterator[str]:
        """Yield lines that say all of it."""
        yield f"  taken     {_told(self.taken)}"
        for name, how in self.adapted.items():
            yield f"  adapted   {name}: {how}"
        yield f"  left out  {_told(self.left_out)}"
        yield f"  new       {_told(self.new)}"


@dataclass(frozen=True)
class Bands:
    """Bands by name with their wavelengths in nm, in order: of the weights, and of the network."""

    given: dict[str, float | None] | None
    """None: not known."""
    wanted: dict[str, float | None]
    missing: str = "nearest"


def match(
    given: Mapping[str, Given],
    network: nn.Module,
    heads: Collection[str],
    bands: Bands,
    *,
    same_heads: bool = True,
    waves: float | None = None,
    theirs: str = "",
) -> Match:
    """Return how ``given`` becomes the weights of ``network``, which may be hollow.

    heads: names of tensors whose shape follows from the outputs. same_heads: whether heads of the
    same shape mean the same. waves: the step of positions there if they are fixed waves, which no
    file holds; None: they are not. theirs: the word that asks for their network; "": not known.
    ConfigError if hardly anything matches, or what has to fit does not, with the numbers.
    """
    wanted = {name: tuple(t.shape) for name, t in network.state_dict().items()}
    between = transfer.readout(network)
    first = _first_layer(wanted, len(bands.wanted))
    ours = _renamed(given, wanted)
    made = _of_wavelengths(ours, wanted, bands)
    ours |= made
    found = Match()
    used: set[str] = set()
    for name, shape in wanted.items():
        there = ours.get(name)
        if there is None and waves is not None and name == "pos_embed":
            found.values[name] = _waves(network, shape, waves)
            found.adapted[name] = "the sines and cosines that the weights go by"
            continue
        if there is None:
            found.new.append(name)
            continue
        own, tensor = there
        tensor = _without_ones(tensor, len(shape))
        if name in between and tensor.shape != shape:
            found.new.append(name)
            continue
        if name in heads and not (same_heads and tensor.shape == shape):
            found.new.append(name)
            continue
        used.update(own)
        how: str | None = None
        if name.rpartition(".")[2] == "pos_embed" and len(shape) == len(tensor.shape) == 2:
            tensor, how = _places(name, tensor, network, shape, "cls_token" in ours)
        if name.startswith("patch_embed.proj") and tensor.shape[-2:] != shape[-2:]:
            tensor, how = _patches(tensor, shape)
        if name == first:
            tensor, bands_how = (
                (tensor, f"made from what {', '.join(bands.wanted)} see")
                if name in made
                else _bands(name, tensor, shape, bands)
            )
            how = "; ".join(filter(None, [how, bands_how])) or None
        if tensor.shape != shape:
            raise ConfigError(
                f"init.from: {own[0]} is {_by(tensor.shape)} there and {_by(shape)} in this"
                f" network; {_mend(theirs)}"
            )
        found.values[name] = tensor.read
        if how is None:
            found.taken.append(name)
        else:
            found.adapted[name] = how
    found.left_out = [name for name in given if name not in used]
    reading = {*heads, *between}
    found.lacking = [name for name in found.new if name not in reading]
    _enough(found, given, [n for n in wanted if n not in reading], theirs)
    return found


def _mend(theirs: str) -> str:
    if theirs:
        return f"the network that the weights are of is {theirs}"
    return "set model to the width, depth and kind of the network that the weights are of"


def _enough(found: Match, given: Mapping[str, Given], expected: list[str], theirs: str) -> None:
    matched = sum(name in found.values for name in expected)
    if matched and matched >= LEAST * len(expected):
        return
    raise ConfigError(
        f"init.from: {matched} of the {len(expected)} tensors that this network begins with have a"
        f" counterpart: there are {_some(given)}; the network has {_some(expected)}. Name weights"
        f" of a network of this kind, or change this one: {_mend(theirs)}"
    )


def _renamed(
    given: Mapping[str, Given], wanted: Mapping[str, object]
) -> dict[str, tuple[tuple[str, ...], Given]]:
    """Return ``given`` by the network's names, each with its own: a prefix there (``encoder.``) is
    left out, or one here put before, whichever makes most names meet."""

    def prefixes(names: Collection[str], deep: int) -> list[str]:
        parts = {tuple(name.split(".")[:-1][:n]) for name in names for n in range(deep + 1)}
        return sorted({".".join(part) + "." if part else "" for part in parts}, key=len)

    known = names.here(given)

    def by(prefix: str, before: str) -> dict[str, str]:
        others = {n: n for n in known if not n.startswith(prefix)}
        stripped = {n.removeprefix(prefix): n for n in known if n.startswith(prefix)}
        return {before + name: own for name, own in (others | stripped).items()}

    pairs = itertools.product(prefixes(known, 2), prefixes(wanted, 1))
    best = max((by(*pair) for pair in pairs), key=lambda found: len(found.keys() & wanted.keys()))
    return {name: known[own] for name, own in best.items()}


_SPECTRAL = ("fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias", "proj", "bias")


def _of_wavelengths(
    ours: Mapping[str, tuple[tuple[str, ...], Given]],
    wanted: Mapping[str, tuple[int, ...]],
    bands: Bands,
) -> dict[str, tuple[tuple[str, ...], Given]]:
    """Return the projection of patches with weights for each band that a layer which makes them
    from wavelengths comes to, if that is what there is and the other what is wanted."""
    parts = {name: ours.get(f"patch_embed.{name}") for name in _SPECTRAL}
    there = {name: part for name, part in parts.items() if part is not None}
    if "patch_embed.proj.weight" not in wanted or len(there) < len(parts):
        return {}
    width, _, patch, _ = there["proj"][1].shape
    seen = tuple(Band(name=name, wavelength_nm=nm) for name, nm in bands.wanted.items())

    def plain(number: int) -> Tensor:
        layer = hollow(lambda: SpectralPatchEmbed(seen, patch, width))
        assert isinstance(layer, SpectralPatchEmbed), "hollow returns what it is told to make"
        layer.load_state_dict({n: given.read() for n, (_, given) in there.items()}, assign=True)
        return layer.plain()[number].detach()

    names = tuple(itertools.chain(*(theirs for theirs, _ in there.values())))
    return {
        "patch_embed.proj.weight": (
            names,
            Given((width, len(seen), patch, patch), lambda: plain(0)),
        ),
        "patch_embed.proj.bias": (names, Given((width,), lambda: plain(1))),
    }


def _first_layer(wanted: Mapping[str, tuple[int, ...]], bands: int) -> str | None:
    """Return the weight that reads the bands: the first of a convolution over images of so many."""
    convolutions = ((n, s) for n, s in wanted.items() if n.endswith(".weight") and len(s) == 4)
    return next((n for n, s in convolutions if s[1] == bands), None)


def _without_ones(tensor: Given, dims: int) -> Given:
    """Return ``tensor`` without leading dims of 1 beyond ``dims``, as timm stores positions."""
    extra = max(0, len(tensor.shape) - dims)
    return tensor.shaped(tensor.shape[extra:]) if set(tensor.shape[:extra]) == {1} else tensor


def _places(
    name: str, tensor: Given, network: nn.Module, shape: tuple[int, ...], token: bool
) -> tuple[Given, str | None]:
    owner = network.get_submodule(name.rpartition(".")[0])
    grid = getattr(owner, "grid", None)
    if grid is None or tensor.shape[1] != shape[1]:
        return tensor, None
    here = shape[0] - grid[0] * grid[1]
    options = [ahead for ahead in ((1, 0) if token else (0, 1)) if _root(tensor.shape[0] - ahead)]
    if not options:
        raise ConfigError(
            f"init.from: {name} holds {tensor.shape[0]} places, which are no square, with a class"
            " token or without"
        )
    there, side = options[0], _root(tensor.shape[0] - options[0])
    if (there, (side, side)) == (here, grid):
        return tensor, None
    words = [] if (side, side) == grid else [f"{side} x {side} places to {_by(grid)}, bicubic"]
    if there != here:
        words.append("the class token's " + ("left out" if there > here else "begins at 0"))
    return Given(
        shape, lambda: transfer.places(tensor.read(), (side, side), grid, (there, here))
    ), "; ".join(words)


def _waves(network: nn.Module, shape: tuple[int, ...], step: float) -> Callable[[], Tensor]:
    """Return what gives the fixed positions of the network's own grid, as learned ones."""
    rows, cols = network.grid  # type: ignore[misc]
    ahead = torch.zeros(shape[0] - rows * cols, shape[1])
    return lambda: torch.cat([ahead, position.waves(rows, cols, shape[1], step)])


def _root(number: int) -> int:
    """Return the square root of a square; 0 of another number."""
    side = math.isqrt(max(0, number))
    return side if side * side == number else 0


def _patches(tensor: Given, shape: tuple[int, ...]) -> tuple[Given, str | None]:
    size, side = shape[-1], tensor.shape[-1]
    if len(tensor.shape) != len(shape) or tensor.shape[-2] != side:
        return tensor, None
    resized = Given((*tensor.shape[:-2], size, size), lambda: transfer.patches(tensor.read(), size))
    return resized, f"patches of {side} px to {size} px"


def _bands(
    name: str, tensor: Given, shape: tuple[int, ...], bands: Bands
) -> tuple[Given, str | None]:
    if bands.given is None:
        if len(tensor.shape) == 4 and tensor.shape[1] != shape[1]:
            raise ConfigError(
                f"init.from: {name} is for {tensor.shape[1]} bands and the data have {shape[1]}"
                f" ({', '.join(bands.wanted)}); say by init.bands which ones the weights are for,"
                " by the names that the data have, or choose as many with data.bands"
            )
        return tensor, None
    if len(bands.given) != tensor.shape[1]:
        raise ConfigError(
            f"init.bands names {len(bands.given)} bands and {name} is for {tensor.shape[1]}; name"
            " each, in order"
        )
    if list(bands.given) == list(bands.wanted):
        return tensor, None
    shares, told = transfer.shared(bands.given, bands.wanted, bands.missing)
    unused = [name for name in bands.given if name not in bands.wanted]
    words = told + ([f"{', '.join(unused)} left out"] if unused else [])
    adapted = Given(
        (tensor.shape[0], len(shares), *tensor.shape[2:]),
        lambda: transfer.bands(tensor.read(), shares),
    )
    return adapted, "bands by name" + (f": {', '.join(words)}" if words else ", in another order")


def _told(names: Collection[str]) -> str:
    """Return ``names`` on one line: alike ones once, numbers as *, with how many there are."""
    if not names:
        return "nothing"
    kinds: dict[str, int] = {}
    for name in names:
        kind = re.sub(r"\.\d+\.", ".*.", name).split(".*.")[0]
        kind = kind if re.search(r"\.\d+\.", name) else name
        kinds[kind] = kinds.get(kind, 0) + 1
    words = [kind if count == 1 else f"{kind}.* ({count})" for kind, count in kinds.items()]
    return f"{len(names)}: {', '.join(words[:12])}{', ...' if len(words) > 12 else ''}"


def _some(names: Collection[str]) -> str:
    shown = list(names)[:4]
    return ", ".join(shown) + (f", ... ({len(names)})" if len(names) > 4 else "")


def _by(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) or "a number"
