"""From image to tokens: one vector for each patch of pixels.

Two ways. ``PatchEmbed`` has weights of its own for every band. ``SpectralPatchEmbed`` makes a
band's weights from its wavelength, so that one network takes several sensors: the token is a mean
over bands of ``W(wavelength) @ patch``, a sampled integral over the spectrum. ``W`` is a mixture
of shared projections, mixed by a smooth learned function of the wavelength.

Sources: Dosovitskiy et al. 2021, arXiv:2010.11929. That weights may be generated from wavelengths:
Xiong et al. 2024, arXiv:2403.15356; there a transformer generates them, here a mixture of K.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from swath.config import ConfigError
from swath.nn.bands import check_bands


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
        self, image: Float[Tensor, "b c h w"], wavelengths: Float[Tensor, " n"] | None = None
    ) -> Float[Tensor, "b d gh gw"]:
        """Return the tokens on their grid; ConfigError for other bands than the model's."""
        if wavelengths is not None:
            raise ConfigError(
                "this model has weights for each of its bands and cannot use wavelengths; build it"
                " with model.embed=wavelengths to take several sensors"
            )
        check_bands(image, self.bands)
        return self.proj(image)


class SpectralPatchEmbed(nn.Module):
    """Linear projection of a patch, with weights made from each band's wavelength.

    wavelengths_nm: those of ``bands``, taken where a call brings none.
    mixed: how many shared projections are mixed (K).
    """

    wavelengths_nm: Tensor
    frequencies: Tensor

    def __init__(
        self,
        bands: tuple[str, ...],
        wavelengths_nm: tuple[float, ...],
        patch: int,
        width: int,
        *,
        mixed: int = 16,
        hidden: int = 64,
    ) -> None:
        super().__init__()
        assert len(bands) == len(wavelengths_nm), f"{len(bands)} bands, {len(wavelengths_nm)} nm"
        self.bands, self.patch = bands, patch
        # Periods in ln(wavelength): 8 tells visible from thermal, 0.05 tells 500 from 510 nm.
        periods = torch.logspace(math.log10(8), math.log10(0.05), 16, dtype=torch.float64)
        self.register_buffer("frequencies", 2 * torch.pi / periods, persistent=False)
        self.register_buffer(
            "wavelengths_nm", torch.tensor(wavelengths_nm, dtype=torch.float64), persistent=False
        )
        self.fc1 = nn.Linear(2 * len(periods), hidden)
        self.fc2 = nn.Linear(hidden, mixed)
        self.proj = nn.Parameter(torch.randn(mixed, width, patch, patch) / (patch * mixed**0.5))
        self.bias = nn.Parameter(torch.zeros(width))
        nn.init.xavier_uniform_(self.fc1.weight)
        nn.init.xavier_uniform_(self.fc2.weight, gain=2)
        nn.init.zeros_(self.fc1.bias)
        nn.init.zeros_(self.fc2.bias)

    def weights(self, wavelengths_nm: Float[Tensor, " c"]) -> Float[Tensor, "d c p p"]:
        """Return the projection of each band."""
        # float64: a phase of some hundred radians must not lose its fraction to rounding.
        place = wavelengths_nm.to(self.frequencies.dtype).div(1000.0).log()
        phase = place[:, None] * self.frequencies
        waves = torch.cat([phase.sin(), phase.cos()], 1).to(self.fc1.weight.dtype)
        mixture = self.fc2(F.gelu(self.fc1(waves)))
        return torch.einsum("ck,kdij->dcij", mixture, self.proj)

    def forward(
        self, image: Float[Tensor, "b c h w"], wavelengths: Float[Tensor, " n"] | None = None
    ) -> Float[Tensor, "b d gh gw"]:
        """Return the tokens on their grid.

        wavelengths: centres of the image's bands in nm; None: the bands the model was built for.
        """
        if wavelengths is None:
            check_bands(image, self.bands)
            wavelengths = self.wavelengths_nm
        elif len(wavelengths) != image.shape[1]:
            raise ConfigError(
                f"the image has {image.shape[1]} bands and {len(wavelengths)} wavelengths were"
                " given; give one in nm for each band, in the same order"
            )
        weights = self.weights(wavelengths) / image.shape[1]
        return F.conv2d(image, weights, self.bias, stride=self.patch)
