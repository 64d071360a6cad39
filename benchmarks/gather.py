"""Megapixels a second from scenes to a finished store, and what opening it again takes.

    python benchmarks/gather.py [--scenes 8] [--size 1536] [--threads 2]

Writes tiled, deflated GeoTIFFs of four bands of smooth noise (uint16) with a classification, some
of it cloud, and builds a store of them: with no filter, with the no-data filter (which reads each
scene once more), and with that and the cloud filter. Prints pixels of a band in scenes per second
of the clock and of the processor, samples per second written, and seconds to open the finished
store, whose surveys are read from its notes. The first build, of one scene, is not shown.
"""

import argparse
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
import rasterio
from scipy.ndimage import zoom

from swath.data.build import build
from swath.data.imagery import Imagery
from swath.data.split import Split
from swath.datasets._clouds import Clouds
from swath.datasets.scenes import Scenes

BANDS = ("B02", "B03", "B04", "B08")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenes", type=int, default=8)
    parser.add_argument("--size", type=int, default=1536, help="edge of a scene in px")
    parser.add_argument("--threads", type=int, default=2)
    asked = parser.parse_args()
    folder = Path(tempfile.mkdtemp())
    try:
        write(folder / "scenes", asked.scenes, asked.size)
        clouds = Clouds(most=0.2, file=f"{folder}/classes/{{scene}}.tif")
        one = Imagery(path=f"{folder}/scenes/s000*.tif", sensor="sentinel2_l2a")
        measured(Scenes(scenes=(one,), chip=128), folder / "warm", asked)
        print(f"{asked.scenes} scenes of {asked.size} x {asked.size} px, {len(BANDS)} bands")
        print("| filters | samples | Mpx/s | Mpx/s of processor | samples/s | opened again, s |")
        print("| --- | --- | --- | --- | --- | --- |")
        for name, filters in (
            ("none", {"observed": 0.0}),
            ("no-data", {"observed": 0.9}),
            ("no-data, clouds", {"observed": 0.9, "clouds": clouds}),
        ):
            imagery = Imagery(path=f"{folder}/scenes/*.tif", sensor="sentinel2_l2a")
            dataset = Scenes(scenes=(imagery,), chip=128, **filters)
            row = measured(dataset, folder / "store", asked)
            print(f"| {name} | {row}", flush=True)
            shutil.rmtree(folder / "store")
    finally:
        shutil.rmtree(folder)


def measured(dataset: Scenes, out: Path, asked: argparse.Namespace) -> str:
    """Return the cells of a row."""
    clock, processor = time.perf_counter(), time.process_time()
    store = build(dataset, out, Split(), threads=asked.threads, progress=False)
    seconds, busy = time.perf_counter() - clock, time.process_time() - processor
    clock = time.perf_counter()
    build(dataset, out, Split(), threads=asked.threads, progress=False)
    again = time.perf_counter() - clock
    pixels = asked.scenes * asked.size**2 * len(BANDS) / 1e6
    rates = f"{pixels / seconds:.1f} | {pixels / busy:.1f} | {store.samples / seconds:.0f}"
    return f"{store.samples} | {rates} | {again:.2f} |"


def write(folder: Path, scenes: int, size: int) -> None:
    """Write the scenes, and their classifications beside the folder."""
    folder.mkdir(parents=True)
    (folder.parent / "classes").mkdir()
    draw = np.random.default_rng(0)
    for number in range(scenes):
        place = rasterio.Affine(10, 0, 300_000 + 10 * size * number, 0, -10, 5_800_000)
        grid = {"driver": "GTiff", "height": size, "width": size, "crs": "EPSG:32633"}
        tiles = {"tiled": True, "blockxsize": 256, "blockysize": 256, "compress": "deflate"}
        grid |= {"transform": place, **tiles}
        rough = draw.uniform(300, 3000, (len(BANDS), 24, 24))
        pixels = np.stack([zoom(band, size / 24, order=1) for band in rough])
        pixels = (pixels + draw.normal(0, 30, pixels.shape)).clip(1).astype(np.uint16)
        name = f"s{number:03d}_20200501.tif"
        with rasterio.open(folder / name, "w", count=len(BANDS), dtype="uint16", **grid) as file:
            file.write(pixels)
            for channel, band in enumerate(BANDS, 1):
                file.set_band_description(channel, band)
        cloud = np.where(zoom(rough[0], size / 24, order=1) > 2200, 9, 4).astype(np.uint8)
        with rasterio.open(
            folder.parent / "classes" / name, "w", count=1, dtype="uint8", **grid
        ) as file:
            file.write(cloud, 1)


if __name__ == "__main__":
    main()
