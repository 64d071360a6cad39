"""The check that every network makes first: are these the bands it was built for?"""

from collections.abc import Sequence

from torch import Tensor, nn

from swath.config import ConfigError
from swath.data.chip import Known


def check_bands(image: Tensor, bands: tuple[str, ...], known: Known | None = None) -> None:
    """Raise ConfigError unless ``image`` (b, c, h, w) has one channel for each of ``bands``, and
    is of these, as far as that is ``known``."""
    if image.shape[1] != len(bands):
        names = ", ".join(bands) if len(bands) <= 16 else f"{bands[0]} to {bands[-1]}"
        raise ConfigError(
            f"the image has {image.shape[1]} bands, the model was built for {len(bands)}"
            f" ({names}); give it these bands, in this order"
        )
    if known is None or known.bands is None:
        return
    here = tuple(band.name for band in known.bands)
    if here != bands:
        raise ConfigError(
            f"the image has bands {', '.join(here)}, this model has weights for each of its own"
            f" ({', '.join(bands)}); build it with model.embed=wavelengths to take several sensors"
        )


class CheckBands(nn.Module):
    """The check as a layer, for networks that are a chain: the image comes out as it went in."""

    def __init__(self, bands: Sequence[str]) -> None:
        super().__init__()
        self.bands = tuple(bands)

    def forward(self, image: Tensor) -> Tensor:
        check_bands(image, self.bands)
        return image
