"""The check that every network makes first: are these the bands it was built for?"""

from torch import Tensor

from swath.config import ConfigError


def check_bands(image: Tensor, bands: tuple[str, ...]) -> None:
    """Raise ConfigError unless ``image`` (b, c, h, w) has one channel for each of ``bands``."""
    if image.shape[1] != len(bands):
        names = ", ".join(bands) if len(bands) <= 16 else f"{bands[0]} to {bands[-1]}"
        raise ConfigError(
            f"the image has {image.shape[1]} bands, the model was built for {len(bands)}"
            f" ({names}); give it these bands, in this order"
        )
