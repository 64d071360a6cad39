"""A network cut into pieces between its links, one or more for each rank of a pipeline."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from swath.config import ConfigError
from swath.nn.chain import Link
from swath.parallel.mesh import Mesh
from swath.parallel.settings import Parallel


def cut(model: nn.Module, mesh: Mesh, parallel: Parallel) -> dict[int, nn.Module]:
    """Return this rank's pieces of ``model`` (whole, the same on all ranks), by their numbers.

    A piece is ``model`` without the parameters and layers of other pieces, which keep their names;
    it takes what the piece before returned, and all that the network is called with. ConfigError if
    there is no way to cut.
    """
    total = mesh.degrees.pipeline * parallel.stages
    asked = f"parallel.pipeline={mesh.degrees.pipeline}"
    if parallel.stages > 1:
        asked += f" x stages={parallel.stages}"
    chain: Any = getattr(model, "chain", None)
    if chain is None:
        raise ConfigError(
            f"{asked}: {type(model).__name__} is no chain of layers that could be cut into pieces"
            " (vit, mae and resnet are); set pipeline=1, and shard or replicate in its place"
        )
    links: list[Link] = chain()
    units = [number for number, link in enumerate(links) if link.unit]
    if total > len(units):
        raise ConfigError(
            f"{asked} makes {total} pieces and the model has {len(units)} blocks to cut between;"
            f" set pipeline x stages to {len(units)} or less, or build it deeper"
        )
    _check(model, links)
    starts = [units[len(units) * piece // total] for piece in range(1, total)]
    bounds = [0, *starts, len(links)]
    mine = range(mesh.at("pipeline"), total, mesh.degrees.pipeline)
    return {piece: _piece(model, bounds[piece], bounds[piece + 1]) for piece in mine}


def _check(model: nn.Module, links: Sequence[Link]) -> None:
    """Fail if the links do not tell exactly which parameters are whose."""
    for name, _ in [*model.named_parameters(), *model.named_buffers()]:
        users = [link for link in links if any(_within(name, part) for part in link.parts)]
        assert len(users) == 1, f"{len(users)} links of {type(model).__name__} claim {name}"


def _within(name: str, part: str) -> bool:
    return f"{name}.".startswith(f"{part}.")


def _piece(model: nn.Module, first: int, end: int) -> nn.Module:
    """Return a copy of ``model`` that does only the links from ``first`` on, up to ``end``."""
    tensors = [*model.parameters(), *model.buffers()]
    piece: Any = copy.deepcopy(model, {id(t): t for t in tensors})  # which the copy shares
    links: list[Link] = piece.chain()
    for link in [*links[:first], *links[end:]]:
        for part in link.parts:
            _remove(piece, part)
    runs = [link.run for link in links[first:end]]

    def forward(x: Tensor, *inputs: Tensor, **told: Any) -> Tensor:
        for run in runs:
            x = run(x, *inputs, **told)
        return x

    piece.forward = forward
    return piece


def _remove(model: nn.Module, name: str) -> None:
    parent, _, leaf = name.rpartition(".")
    owner = model.get_submodule(parent)
    if not isinstance(owner, nn.ModuleList | nn.Sequential):
        setattr(owner, leaf, None)
        return
    left = Some({number: layer for number, layer in owner._modules.items() if number != leaf})
    above, _, own = parent.rpartition(".")
    setattr(model.get_submodule(above), own, left)


class Some(nn.ModuleList):
    """Some layers of a list, under the numbers that they have in the whole one."""

    def __init__(self, layers: Mapping[str, nn.Module | None]) -> None:
        super().__init__()
        for number, layer in layers.items():
            self.add_module(number, layer)

    def __getitem__(self, at: Any) -> Any:
        return list(self._modules.values())[at]
