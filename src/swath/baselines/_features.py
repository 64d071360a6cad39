"""Features of pixels: the bands, and means and deviations of the pixels around.

Pixels that were not observed take no part in a mean or a deviation. Where there is nothing to
measure a feature is NaN; whoever learns from it fills in the mean of the training samples.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from swath.baselines import Features

WINDOWS = (5, 15)  # pixels; odd, so that they have a centre
MARGIN = max(WINDOWS) // 2


def columns(bands: Sequence[str], features: Features, whole: bool) -> tuple[str, ...]:
    """Return the names of the features of ``bands``; ``whole``: of samples instead of pixels."""
    if features == "pixel":
        return tuple(bands)
    if whole:
        return (*bands, *(f"{b} sd" for b in bands))
    return (
        *bands,
        *(
            f"{b} {what} {size}x{size}"
            for size in WINDOWS
            for what in ("mean", "sd")
            for b in bands
        ),
    )


def of_pixels(
    image: np.ndarray, rows: np.ndarray, cols: np.ndarray, features: Features
) -> np.ndarray:
    """Return the features (n, f) float32 of the pixels at ``rows`` and ``cols``.

    image: (c, h, w) float64, NaN where not observed; its edges are mirrored.
    """
    found = [image[:, rows, cols]]
    if features == "neighbourhood":
        for size in WINDOWS:
            mean, deviation = around(image, size)
            found += [mean[:, rows, cols], deviation[:, rows, cols]]
    return np.concatenate(found).T.astype(np.float32)


def of_samples(images: Sequence[np.ndarray], features: Features) -> np.ndarray:
    """Return the features (n, f) float32 of whole samples: the bands' means, and deviations.

    images: of each modality (n, c, h, w) float64, NaN where not observed.
    """
    means, deviations = [], []
    for image in images:
        observed = np.isfinite(image)
        number = observed.sum((2, 3))
        with np.errstate(divide="ignore", invalid="ignore"):
            mean = np.where(observed, image, 0).sum((2, 3)) / number
            apart = np.where(observed, image - mean[:, :, None, None], 0)
            deviations.append(np.sqrt((apart**2).sum((2, 3)) / number))
        means.append(mean)
    found = means if features == "pixel" else [*means, *deviations]
    return np.concatenate(found, axis=1).astype(np.float32)


def around(image: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and standard deviation, each (c, h, w), of the observed pixels in the
    ``size`` x ``size`` window around each pixel of ``image`` (c, h, w)."""
    from scipy.ndimage import uniform_filter

    observed = np.isfinite(image)
    # Far from zero the square of the mean would eat the digits of the deviation.
    number = observed.sum((1, 2), keepdims=True)
    middle = np.where(observed, image, 0.0).sum((1, 2), keepdims=True) / np.maximum(number, 1)
    values = np.where(observed, image - middle, 0.0)

    def means(a: np.ndarray) -> np.ndarray:
        return uniform_filter(a, (1, size, size), mode="mirror")

    share = np.rint(means(observed.astype(np.float64)) * size**2)  # a whole number of pixels
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = means(values) * size**2 / share
        square = means(values**2) * size**2 / share
    return mean + middle, np.sqrt(np.maximum(square - mean**2, 0.0))
