"""Which parameters are decayed.

Weights are pulled towards 0; scales, biases and tokens (one dim) are not, nor what says which
place or channel a token is of, or asks for it. A new optimiser takes its groups from here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn


TOKENS = ("pos_embed", "channel_embed", "query")


def decayed(name: str, dims: int) -> bool:
    """Whether weight decay acts on the parameter ``name``, which has ``dims`` dimensions."""
    return dims > 1 and name.rpartition(".")[2] not in TOKENS


def groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Return the parameters that learn, in groups named "decayed" and "free".

    Each keeps the order of ``named_parameters`` and the names themselves ("param_names" in the
    optimiser's groups). Of a name there are two groups where some parameters are spread over ranks
    and others are not, as no kernel takes both. A group without parameters is left out.
    """
    found: dict[tuple[str, type], list[tuple[str, nn.Parameter]]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            group = "decayed" if decayed(name, parameter.ndim) else "free"
            found.setdefault((group, type(parameter)), []).append((name, parameter))
    decay = {"decayed": weight_decay, "free": 0.0}
    return [
        {"params": members, "name": group, "weight_decay": decay[group]}
        for (group, _), members in sorted(found.items(), key=lambda item: item[0][0])
    ]
