"""Convolutions over bands, rows and columns alike, for windows of a hyperspectral cube.

Neighbouring bands are correlated as neighbouring pixels are, so a small kernel may slide along the
spectrum too. A window goes in, one output for it comes out.

Source: Lange, Cavallaro, Götz, Erlingsson & Riedel, "The influence of sampling methods on
pixel-wise hyperspectral image classification with 3D convolutional neural networks", IGARSS 2018.
"""

import itertools

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from swath.config import ConfigError
from swath.nn.bands import check_bands
from swath.nn.projector import head
from swath.nn.random import Dropout


class Conv3d(nn.Module):
    """3-d convolutions and linear layers with ReLU, on windows of one size.

    kernel: extent in rows, columns and bands. strides: steps along the bands, one a convolution.
    """

    def __init__(
        self,
        bands: tuple[str, ...],
        size: int,
        channels: int,
        *,
        filters: tuple[int, ...],
        kernel: tuple[int, int, int],
        strides: tuple[int, ...],
        hidden: tuple[int, ...],
        dropout: float,
        projector: tuple[int, ...] = (),
    ) -> None:
        super().__init__()
        self.bands, self.size = bands, size
        rows, cols, spectral = kernel
        self.convs = nn.ModuleList(
            nn.Conv3d(inputs, outputs, (spectral, rows, cols), stride=(stride, 1, 1))
            for (inputs, outputs), stride in zip(
                itertools.pairwise((1, *filters)), strides, strict=True
            )
        )
        left = extents(len(bands), size, kernel, strides)
        flat = filters[-1] * left[0] * left[1] * left[2]
        self.hidden = nn.ModuleList(
            nn.Linear(inputs, outputs) for inputs, outputs in itertools.pairwise((flat, *hidden))
        )
        # The layer whose features stand for an image.
        self.embeds = f"hidden.{len(hidden) - 1}" if hidden else f"convs.{len(filters) - 1}"
        self.dropout = Dropout(dropout)
        self.head = head((flat, *hidden)[-1], channels, projector)

    def forward(self, image: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k"]:
        """Return a vector for each window; ConfigError for other bands or another window size."""
        check_bands(image, self.bands)
        if image.shape[-2:] != (self.size, self.size):
            raise ConfigError(
                f"the windows are {image.shape[-2]} x {image.shape[-1]} pixels, the model was"
                f" built for {self.size} x {self.size}"
            )
        x = image[:, None]
        for conv in self.convs:
            x = F.relu(conv(x))
        x = x.flatten(1)
        for layer in self.hidden:
            x = self.dropout(F.relu(layer(x)))
        return self.head(x)


def extents(
    bands: int, size: int, kernel: tuple[int, int, int], strides: tuple[int, ...]
) -> tuple[int, int, int]:
    """Return bands, rows and columns that are left after all convolutions; 0 or less: none."""
    rows, cols, spectral = kernel
    for stride in strides:
        bands = (bands - spectral) // stride + 1 if bands >= spectral else 0
    return bands, size - len(strides) * (rows - 1), size - len(strides) * (cols - 1)
