"""Which parameters are decayed.

Weights are pulled towards 0; scales, biases and tokens (one dim) are not, nor position
embeddings, which are places and not weights. A new optimiser takes its groups from here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn


def decayed(name: str, dims: int) -> bool:
    """Whether weight decay acts on the parameter ``name``, which has ``dims`` dimensions."""
    return dims > 1 and name.rpartition(".")[2] != "pos_embed"


def groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Return the parameters that learn, in two named groups: "decayed" and "free".

    Each keeps the order of ``named_parameters`` and the names themselves ("param_names" in the
    optimiser's groups). A group without parameters is left out.
    """
    found: dict[str, list[tuple[str, nn.Parameter]]] = {"decayed": [], "free": []}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            found["decayed" if decayed(name, parameter.ndim) else "free"].append((name, parameter))
    decay = {"decayed": weight_decay, "free": 0.0}
    return [
        {"params": members, "name": group, "weight_decay": decay[group]}
        for group, members in found.items()
        if members
    ]
