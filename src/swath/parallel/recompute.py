"""Activation checkpointing: activations computed again in the backward pass instead of being kept.

Draws inside a block are keyed, so that they come out the same the second time.

Source: Chen et al. 2016, arXiv:1604.06174; what is worth keeping, Korthikanti et al. 2022,
arXiv:2205.05198.
"""

from __future__ import annotations

import contextlib
from functools import partial
from typing import Any, Literal

import torch
from torch import nn
from torch.utils.checkpoint import (
    CheckpointPolicy,
    checkpoint,
    create_selective_checkpoint_contexts,
)

from swath.nn.random import Random, given
from swath.nn.settle import unrecorded

KEPT = {
    torch.ops.aten.mm.default,
    torch.ops.aten.addmm.default,
    torch.ops.aten.bmm.default,
    torch.ops.aten.convolution.default,
    torch.ops.aten._scaled_dot_product_flash_attention.default,
    torch.ops.aten._scaled_dot_product_efficient_attention.default,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default,
}
"""Operations whose results are dear to compute; kept by "selective"."""


def recompute(model: nn.Module, kind: Literal["selective", "full"]) -> None:
    """Let every unit of ``model`` recompute, in place; its parameters keep their names."""
    import torch._dynamo  # which takes long, and training imports it anyway

    # When compiled, what is done beside computing (statistics, keys) is not done again backwards.
    torch._dynamo.config.skip_fwd_side_effects_in_bwd_under_checkpoint = True
    for module in model.modules():
        if getattr(module, "unit", False):
            for name in getattr(module, "again", ("",)):
                part = module.get_submodule(name)
                part.forward = _recomputing(part, kind)


def _recomputing(module: nn.Module, kind: str) -> Any:
    forward = module.forward
    draws = [m for m in module.modules() if isinstance(m, Random)]
    options: dict[str, Any] = {"use_reentrant": False, "preserve_rng_state": False}
    if kind == "selective":
        options["context_fn"] = partial(create_selective_checkpoint_contexts, _policy)

    def run(*args: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*args)
        keys, again = [m.key for m in draws], False

        def once(*args: Any) -> Any:
            nonlocal again
            # The second time another microbatch may have been through since.
            with given(draws, keys), unrecorded(module) if again else contextlib.nullcontext():
                again = True
                return forward(*args)

        return checkpoint(once, *args, **options)

    return run


def _policy(_: Any, operation: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
    if operation in KEPT:
        return CheckpointPolicy.MUST_SAVE
    return CheckpointPolicy.PREFER_RECOMPUTE
