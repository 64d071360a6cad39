"""Embeddings of a whole scene: a GeoTIFF with a vector for each patch, and what it looks like.

The scene goes through the model as in ``swath predict``, in overlapping windows whose vectors are
blended: in bounded memory, on any number of ranks, and further after an interruption. A pixel of
the file is a patch (8 x 8 px of the scene for a ViT of patch 8), or a pixel for the decoder of a
U-Net. The picture shows the first three principal components as red, green and blue.
"""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np

from swath.config import ConfigError
from swath.data.imagery import Scene
from swath.embed.embedder import Embedder
from swath.embed.settings import Embed
from swath.files import write_file
from swath.geo.cog import CogWriter
from swath.geo.raster import open_raster
from swath.geo.window import Window
from swath.predict.layers import Layer
from swath.predict.map import predict
from swath.predict.settings import Predict, stem
from swath.train.export import LoadedModel

ROWS = 64  # read at a time
PIXELS = 2_000_000  # looked at for the limits of the colours, about
LARGEST = 1600  # longer side of the picture, pixels


def embed_scene(
    model: LoadedModel,
    scene: Scene,
    embed: Embed,
    settings: Predict,
    folder: pathlib.Path,
    **how: Any,
) -> pathlib.Path:
    """Return the GeoTIFF of a vector for each patch of ``scene``, made first, or further.

    how: device, precision, compute, progress and world, as ``predict`` takes them. ConfigError as
    there, and if the layer has no places, or pool asks for one vector of an image.
    """
    if embed.pool not in (None, "patches"):
        raise ConfigError(
            f"embed.pool={embed.pool} has no effect on a scene, of which each patch has a vector; "
            "leave it out"
        )
    if settings.symmetries > 1 or settings.probabilities or settings.uncertainty:
        raise ConfigError(
            "predict.symmetries, probabilities and uncertainty have no effect on embeddings; leave"
            " them out"
        )
    embedder = Embedder.of(model, embed, "patches")
    names = embedder.label.classes
    layer = Layer("embedding", embedder.width, "float32", names)
    files = predict(
        embedder,
        scene,
        settings,
        folder / stem(embedder.layer),
        layers=[layer],
        unit=embedder.unit,
        made_of={"embedding": embedder.layer},
        **how,
    )
    return files["embedding"]


def components(path: pathlib.Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean (d,) and the first three principal directions (d, 3) of all vectors in the
    raster ``path``, in float64; the largest number of each direction is positive.

    ConfigError if there are fewer than three numbers in a vector, or no vectors.
    """
    with open_raster(path) as raster:
        width = raster.count
        count, total, squares = 0, np.zeros(width), np.zeros((width, width))
        for _, strip in _strips(raster):
            seen = _seen(strip)
            count += len(seen)
            total += seen.sum(0)
            squares += seen.T @ seen
    if width < 3 or not count:
        raise ConfigError(
            f"{path}: {count} vectors of {width} numbers make no picture; it takes three numbers"
        )
    mean = total / count
    _, directions = np.linalg.eigh(squares / count - np.outer(mean, mean))
    chosen = directions[:, :-4:-1]
    sign = np.sign(chosen[np.abs(chosen).argmax(0), np.arange(3)])
    return mean, chosen * sign


def picture(path: pathlib.Path) -> list[pathlib.Path]:
    """Write <name>_rgb.tif and .png beside the embeddings ``path``; return both.

    Each of the first three principal components from its 2 % to its 98 % value, as 1 to 255; 0 is
    where there is no data.
    """
    import io

    from matplotlib.image import imsave

    mean, directions = components(path)
    files = [path.with_name(f"{path.stem}_rgb.{kind}") for kind in ("tif", "png")]
    with open_raster(path) as raster:
        step = max(1, round((raster.height * raster.width / PIXELS) ** 0.5))
        some = [
            (_seen(strip[:, ::step, ::step]) - mean) @ directions for _, strip in _strips(raster)
        ]
        low, high = np.percentile(np.concatenate(some), (2, 98), axis=0)
        writer = CogWriter(
            files[0],
            count=3,
            height=raster.height,
            width=raster.width,
            dtype="uint8",
            transform=raster.transform,
            crs=raster.crs,
            nodata=0,
            descriptions=tuple(f"principal component {i}" for i in (1, 2, 3)),
        )
        thin = max(1, -(-max(raster.height, raster.width) // LARGEST))
        kept = []
        try:
            for first, strip in _strips(raster):
                shown = (np.moveaxis(strip, 0, -1) - mean) @ directions
                scaled = 1 + 254 * ((shown - low) / np.maximum(high - low, 1e-12)).clip(0, 1)
                known = np.isfinite(scaled).all(-1, keepdims=True)
                pixels = np.where(known, np.nan_to_num(scaled).round(), 0).astype(np.uint8)
                writer.write(
                    Window(first, 0, len(pixels), raster.width), np.moveaxis(pixels, -1, 0)
                )
                kept.append(pixels[-first % thin :: thin, ::thin])
            writer.finish()
        finally:
            writer.close()
    png = io.BytesIO()
    whole = np.concatenate(kept)
    alpha = np.where(whole.any(-1, keepdims=True), 255, 0).astype(np.uint8)
    imsave(png, np.concatenate([whole, alpha], -1), format="png")
    write_file(files[1], png.getvalue())
    return files


def _strips(raster: Any) -> Any:
    """Yield the first row and vectors (d, rows, width) in float64, from north to south."""
    for first in range(0, raster.height, ROWS):
        end = min(first + ROWS, raster.height)
        yield first, raster.read(window=((first, end), (0, raster.width))).astype(np.float64)


def _seen(strip: np.ndarray) -> np.ndarray:
    """Return the vectors (n, d) of a strip that are known."""
    every = strip.reshape(len(strip), -1).T
    return every[np.isfinite(every).all(1)]
