"""What reads a network's features out: a linear layer, or a small network before it.

On the outputs of such a projector samples are compared in pretraining, and it is left behind
afterwards: the features before it are the better ones (Chen et al. 2020, arXiv:2002.05709, section
4.2). It normalises each sample for itself, where the paper has batch norm, so that nothing depends
on what else is in the microbatch.
"""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn


class Projector(nn.Sequential):
    """Linear layers with layer norm and GELU between them."""

    def __init__(self, width: int, hidden: Sequence[int], channels: int) -> None:
        layers: list[nn.Module] = []
        for inner in hidden:
            layers += [nn.Linear(width, inner), nn.LayerNorm(inner), nn.GELU()]
            width = inner
        super().__init__(*layers, nn.Linear(width, channels))

    def forward(self, features: Float[Tensor, "... d"]) -> Float[Tensor, "... k"]:
        return super().forward(features)


def head(width: int, channels: int, hidden: Sequence[int] = ()) -> nn.Module:
    """Return what makes ``channels`` numbers of features (..., width): a linear layer, or a
    projector with layers of ``hidden`` widths."""
    return Projector(width, hidden, channels) if hidden else nn.Linear(width, channels)
