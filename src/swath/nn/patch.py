"""From image to tokens: one vector for each patch of pixels.

Two ways. ``PatchEmbed`` has weights of its own for every band. ``SpectralPatchEmbed`` makes a
band's weights from its wavelength, so that one network takes several sensors: the token is a mean
over bands of ``W(band) @ patch``, a sampled integral over the spectrum. ``W`` is a mixture
of shared projections, mixed by a smooth learned function of the wavelength. ``SpectralHead`` is the
way back: from a token to the pixels of any bands.

A band without a wavelength (radar, elevation) is known by its name: in place of the waves of a
wavelength the learned function is given a fixed random vector that follows from the name. So VV is
VV for any instrument, and no weight depends on which bands there are.

Sources: Dosovitskiy et al. 2021, arXiv:2010.11929. That weights may be generated from wavelengths:
Xiong et al. 2024, arXiv:2403.15356; there a transformer generates them, here a mixture of K.
"""

import functools

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from swath.config import ConfigError
from swath.data import draw
from swath.data.chip import Known
from swath.data.sensor import Band
from swath.nn.bands import check_bands

WAVES = 16
"""Sines, and as many cosines, that tell a wavelength."""


class PatchEmbed(nn.Module):
    """Linear projection of a patch, with weights for each band."""

    def __init__(self, bands: tuple[str, ...], patch: int, width: int) -> None:
        super().__init__()
        self.bands = bands
        self.proj = nn.Conv2d(len(bands), width, patch, stride=patch)
        # As the linear layer that it is; a convolution's default would count other inputs.
        nn.init.xavier_uniform_(self.proj.weight.detach().view(width, -1))
        assert self.proj.bias is not None
        nn.init.zeros_(self.proj.bias)

    def forward(
        self, image: Float[Tensor, "b c h w"], known: Known | None = None
    ) -> Float[Tensor, "b d gh gw"]:
        """Return the tokens on their grid; ConfigError for other bands than the model's."""
        check_bands(image, self.bands, known)
        return self.proj(image)


class Spectral(nn.Module):
    """Mixtures of K shared projections: what layers whose weights follow from bands have.

    bands: those taken where a call brings none. mixed: how many projections are mixed (K).
    """

    def __init__(self, bands: tuple[Band, ...], mixed: int = 16, hidden: int = 64) -> None:
        super().__init__()
        self.bands = bands
        self.fc1 = nn.Linear(2 * WAVES, hidden)
        self.fc2 = nn.Linear(hidden, mixed)
        nn.init.xavier_uniform_(self.fc1.weight)
        nn.init.xavier_uniform_(self.fc2.weight, gain=2)
        nn.init.zeros_(self.fc1.bias)
        nn.init.zeros_(self.fc2.bias)

    def mixture(self, bands: tuple[Band, ...] | None = None) -> Float[Tensor, "c k"]:
        """Return how much of each shared projection the weights of ``bands`` have."""
        told = torch.from_numpy(codes(self.bands if bands is None else bands))
        return self.fc2(F.gelu(self.fc1(told.to(self.fc1.weight))))


class SpectralPatchEmbed(Spectral):
    """Linear projection of a patch, with weights made for each band from what it sees."""

    def __init__(self, bands: tuple[Band, ...], patch: int, width: int) -> None:
        super().__init__(bands)
        self.patch, mixed = patch, self.fc2.out_features
        # A mean over bands whose weights differ is small: as large as the vectors that tell places.
        self.proj = nn.Parameter(torch.randn(width, mixed, patch, patch) * 4 / (patch * mixed**0.5))
        self.bias = nn.Parameter(torch.zeros(width))

    def weights(self, bands: tuple[Band, ...] | None = None) -> Float[Tensor, "d c p p"]:
        """Return the projection of each band; None: of those that the model was built for."""
        return torch.einsum("ck,dkij->dcij", self.mixture(bands), self.proj)

    def plain(self) -> tuple[Float[Tensor, "d c p p"], Float[Tensor, " d"]]:
        """Return weight and bias of the :class:`PatchEmbed` that does the same to the bands that
        the model was built for."""
        return self.weights() / len(self.bands), self.bias

    def forward(
        self, image: Float[Tensor, "b c h w"], known: Known | None = None
    ) -> Float[Tensor, "b d gh gw"]:
        """Return the tokens on their grid. known: its bands are the image's; None: the bands the
        model was built for."""
        bands = known.bands if known is not None else None
        if bands is None:
            check_bands(image, tuple(band.name for band in self.bands))
        elif len(bands) != image.shape[1]:
            raise ConfigError(
                f"the image has {image.shape[1]} bands and {len(bands)} are told of; give Known a"
                " band for each, in the same order"
            )
        weights = self.weights(bands) / image.shape[1]
        return F.conv2d(image, weights.to(image), self.bias.to(image), stride=self.patch)


class SpectralHead(Spectral):
    """Linear layer from a token to the pixels of a patch in any bands: a pixel's bands together."""

    def __init__(self, bands: tuple[Band, ...], patch: int, width: int) -> None:
        super().__init__(bands)
        mixed = self.fc2.out_features
        self.proj = nn.Parameter(torch.randn(width, mixed, patch**2) / (width * mixed) ** 0.5)
        self.bias = nn.Parameter(torch.zeros(patch**2, mixed))

    def forward(
        self, tokens: Float[Tensor, "b m e"], known: Known | None = None
    ) -> Float[Tensor, "b m q"]:
        """Return q = patch² * c numbers of each token, for the c bands of ``known``."""
        weights, bias = self.plain(None if known is None else known.bands)
        return F.linear(tokens, weights.to(tokens), bias.to(tokens))

    def plain(
        self, bands: tuple[Band, ...] | None = None
    ) -> tuple[Float[Tensor, "q e"], Float[Tensor, " q"]]:
        """Return weight and bias of the linear layer that this is for ``bands``; None: for those
        that the model was built for."""
        mixture = self.mixture(bands)
        weights = torch.einsum("ck,ekq->qce", mixture, self.proj).flatten(0, 1)
        return weights, torch.einsum("ck,qk->qc", mixture, self.bias).flatten()


@functools.lru_cache(maxsize=64)
def codes(bands: tuple[Band, ...]) -> np.ndarray:
    """Return what tells bands apart (c, 32) float64: sines and cosines of the logarithm of the
    wavelength; of a band that has none, numbers of the same length that its name determines."""
    # Periods in ln(wavelength): 8 tells visible from thermal, 0.05 tells 500 from 510 nm.
    frequencies = 2 * np.pi / np.logspace(np.log10(8), np.log10(0.05), WAVES)
    found = np.empty((len(bands), 2 * WAVES))
    for row, band in zip(found, bands, strict=True):
        if band.wavelength_nm is not None:
            phase = np.log(band.wavelength_nm / 1000) * frequencies
            row[:] = np.concatenate([np.sin(phase), np.cos(phase)])
        else:
            row[:] = draw.normal(0, np.zeros(1), f"band {band.name}", 2 * WAVES)[0]
            row *= WAVES**0.5 / np.linalg.norm(row)
    return found


def side_by_side(
    image: Float[Tensor, "b c h w"], shown: Int[Tensor, "b k"], patch: int
) -> Float[Tensor, "b c p s"]:
    """Return the patches ``shown`` as an image of one row of patches, s = k * patch."""
    cut = image.unflatten(3, (-1, patch)).unflatten(2, (-1, patch))
    row, col = shown // cut.shape[4], shown % cut.shape[4]
    sample = torch.arange(len(image), device=image.device)[:, None]
    found = cut[sample, :, row, :, col]  # (b, k, c, p, p)
    return found.permute(0, 2, 3, 1, 4).flatten(3)
