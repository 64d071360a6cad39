"""Context parallelism: ranks share the tokens of one sample, from the first block to the last.

A model names in ``trunk`` its lists of blocks that hand tokens (b, n, d) on. Before the first block
each rank takes its run of tokens, after the last the runs are joined. In between norms, matrices
and residuals are for its own tokens only; attention asks the others (swath.parallel.attention).

What comes before and after is computed on every rank. So each computes the whole loss and counts
1/ranks of it, and parts of a gradient make up the whole as a sum over ranks, of *all* parameters:
before the trunk a rank has the part of its own tokens, within it the part of its own tokens, after
it 1/ranks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from swath.config import ConfigError
from swath.nn.attention import Attention
from swath.nn.block import taps, trunks
from swath.nn.random import Dropout
from swath.parallel.attention import KINDS, Gather
from swath.parallel.mesh import Mesh
from swath.parallel.runs import Join, Runs
from swath.parallel.settings import Parallel
from swath.parallel.world import World

TOKENS = 1
"""The dim of (b, n, d) along which tokens lie."""


def share_tokens(model: nn.Module, mesh: Mesh, parallel: Parallel) -> None:
    """Share the tokens in ``model`` among the ranks of the mesh's context axis, in place.

    All ranks of the mesh call it together. ConfigError if it has no tokens to share, if heads do
    not divide where they must, or if something in it draws for each token.
    """
    world, ranks = mesh.along("context"), mesh.degrees.context
    found = trunks(model)
    if not found:
        raise ConfigError(
            f"parallel.context={ranks}: {type(model).__name__} has no tokens to share "
            "(transformers have); set context=1, and shard or spatial instead"
        )
    for blocks in filter(len, found):
        _check(blocks, parallel, mesh)
        Trunk(blocks, taps(model, blocks), world, parallel.attention)


class Trunk:
    """A list of blocks whose tokens are on several ranks."""

    def __init__(
        self, blocks: nn.ModuleList, taps: Sequence[nn.Module], world: World, kind: str
    ) -> None:
        self.world = world
        self.runs: Runs | None = None
        for block in blocks:
            mixes = [_replace(m, KINDS[kind]) for m in block.modules() if isinstance(m, Attention)]
            block.forward = _told(block.forward, mixes)
            block.register_forward_pre_hook(self._tell)
        # Before and after what tensor ranks do at the same places.
        blocks[0].register_forward_pre_hook(self._enter, prepend=True)
        for module in (*taps, blocks[-1]):
            module.register_forward_hook(self._leave)

    def _enter(self, _: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        self.runs = Runs.of(args[0].shape[TOKENS], self.world)
        return (self.runs.own(args[0], TOKENS), *args[1:])

    def _tell(self, _: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        # As an argument: a block that recomputes does so with the runs of its own sample, even if
        # another sample, of another size, has been through since. All its tokens are wanted, as
        # those that are not may be another rank's.
        return (self.runs, args[0])

    def _leave(self, _: nn.Module, args: Any, output: Tensor) -> Tensor:
        return Join.apply(output, self.runs, TOKENS)


def _replace(attention: Attention, kind: type[Gather]) -> Gather:
    mix = kind(attention.mix)
    attention.mix = mix  # type: ignore[assignment]
    return mix


def _told(forward: Callable[..., Any], mixes: Sequence[Gather]) -> Callable[..., Any]:
    def run(runs: Runs, *args: Any) -> Any:
        for mix in mixes:
            mix.runs = runs
        return forward(*args)

    return run


def _check(blocks: nn.ModuleList, parallel: Parallel, mesh: Mesh) -> None:
    ranks, tensor = mesh.degrees.context, mesh.degrees.tensor
    for name, block in blocks.named_children():
        if not any(isinstance(m, Attention) for m in block.modules()):
            raise ConfigError(
                f"parallel.context={ranks}: block {name} has no swath.nn.attention.Attention, and "
                "no other layer asks tokens on other ranks; use that, or set context=1"
            )
    for name, module in blocks.named_modules():
        if isinstance(module, Dropout) and module.share:
            raise ConfigError(
                f"parallel.context={ranks}: {name} draws for each token, and ranks would draw "
                "alike for different ones; set its share to 0 or context=1"
            )
        if isinstance(module, Attention) and parallel.attention == "ulysses":
            heads = module.q.out_features // module.head_width
            if heads % (ranks * tensor):
                fit = [n for n in range(1, ranks) if heads % (n * tensor) == 0]
                also = f" x tensor={tensor}" if tensor > 1 else ""
                raise ConfigError(
                    f"parallel: attention=ulysses shares heads, and context={ranks}{also} does not "
                    f"divide the {heads} heads of {name}; set context={fit[-1] if fit else 1}, or "
                    "attention to gather, ring or lss"
                )
