"""Samples per second at random: a Swath store beside a memory map and per-band GeoTIFFs.

    python benchmarks/loading.py [--samples 4096] [--rounds 9] [--folder /tmp/loading]

All readers return the same samples, in uint16, cut from the Brandenburg scene that ships with the
recipe; they are compared before anything is timed. Rounds take turns, so that all readers see the
same machine, other people's work included; the median round counts. Files are in the page cache:
what is measured is the way from there to a batch. Prints the tables of loading.md.

memmap: one flat file, ``array[indices]``, the fastest that NumPy can do with one thread.
GeoTIFF: a file for each band, opened and read by rasterio, as published datasets are laid out.
store: ``Store.read`` with 4 batches asked ahead, as the Loader does; "one by one": none ahead.
"""

import argparse
import os
import pathlib
import shutil
import statistics
import tempfile
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator

import numpy as np
import rasterio

from swath.data.chip import Chip, Contents, Label, Modality
from swath.data.imagery import Imagery
from swath.data.sensor import Band, Sensor
from swath.data.store import Store
from swath.geo.window import Window

SHAPES = ((12, 120, 120), (13, 64, 64))
BATCH = 32
TIFFS = 256  # samples that also lie as GeoTIFFs: writing more takes long, reading knows no order
Reader = Callable[[list[np.ndarray]], Iterator[np.ndarray]]


def pieces(shape: tuple[int, int, int]) -> Callable[[int], np.ndarray]:
    """Return a function that cuts sample ``i`` out of the scene, at random and turned."""
    root = pathlib.Path(__file__).parents[1]
    scene = Imagery(
        path=str(root / "recipes/brandenburg/data/IMG_DATA"), sensor="sentinel2_l1c"
    ).open()
    image = scene.read(Window(0, 0, scene.height, scene.width))[: shape[0]].astype(np.uint16)

    def cut(i: int) -> np.ndarray:
        rng = np.random.default_rng(i)
        row = rng.integers(image.shape[1] - shape[1] + 1)
        col = rng.integers(image.shape[2] - shape[2] + 1)
        piece = image[:, row : row + shape[1], col : col + shape[2]]
        return np.ascontiguousarray(np.rot90(piece, int(rng.integers(4)), (1, 2)))

    return cut


def write_store(folder: pathlib.Path, cut, shape, samples: int, compress: bool) -> Store:
    bands = tuple(Band(name=f"B{i}") for i in range(shape[0]))
    modality = Modality(
        name="s2",
        sensor=Sensor(name="s2", bands=bands),
        height=shape[1],
        width=shape[2],
        dtype="uint16",
    )
    contents = Contents(modalities=(modality,), label=Label(kind="none"))
    store = Store.create(folder, contents, samples, compress=compress)
    for part in store.missing():
        store.write_many(part.start, [Chip(name=str(i), images={"s2": cut(i)}) for i in part])
    store.finish()
    return Store.open(folder)


def write_memmap(path: pathlib.Path, cut, shape, samples: int) -> np.memmap:
    array = np.memmap(path, np.uint16, "w+", shape=(samples, *shape))
    for i in range(samples):
        array[i] = cut(i)
    array.flush()
    return np.memmap(path, np.uint16, "r", shape=(samples, *shape))


def write_tiffs(folder: pathlib.Path, cut, shape) -> None:
    folder.mkdir()
    for i in range(TIFFS):
        for band, values in enumerate(cut(i)):
            profile = {"driver": "GTiff", "dtype": "uint16", "count": 1}
            path = folder / f"{i}_{band}.tif"
            with rasterio.open(path, "w", height=shape[1], width=shape[2], **profile) as file:
                file.write(values, 1)


def of_store(store: Store, ahead: int) -> Reader:
    def read(batches: list[np.ndarray]) -> Iterator[np.ndarray]:
        waiting: deque = deque()
        for indices in batches:
            waiting.append(store.read(indices))
            if len(waiting) > ahead:
                yield waiting.popleft().result()["s2"]
        for reading in waiting:
            yield reading.result()["s2"]

    return read


def of_memmap(array: np.memmap) -> Reader:
    return lambda batches: (array[indices] for indices in batches)


def of_tiffs(folder: pathlib.Path, shape) -> Reader:
    def read(batches: list[np.ndarray]) -> Iterator[np.ndarray]:
        for indices in batches:
            out = np.empty((len(indices), *shape), np.uint16)
            for row, i in zip(out, indices % TIFFS, strict=True):
                for band in range(shape[0]):
                    with rasterio.open(folder / f"{i}_{band}.tif") as file:
                        row[band] = file.read(1)
            yield out

    return read


def timed(reader: Reader, batches: list[np.ndarray]) -> tuple[float, float]:
    """Return samples per second, and microseconds of all cores' work for a sample."""
    samples = sum(map(len, batches))
    wall, work = time.perf_counter(), time.process_time()
    for _ in reader(batches):
        pass
    wall, work = time.perf_counter() - wall, time.process_time() - work
    return samples / wall, 1e6 * work / samples


def compare(folder: pathlib.Path, shape, samples: int, rounds: int) -> None:
    cut = pieces(shape)
    plain = write_store(folder / "plain", cut, shape, samples, compress=False)
    packed = write_store(folder / "packed", cut, shape, samples, compress=True)
    array = write_memmap(folder / "flat.bin", cut, shape, samples)
    write_tiffs(folder / "tiffs", cut, shape)
    readers = {
        "memmap gather": (of_memmap(array), 16, samples * array[0].nbytes),
        "store": (of_store(plain, 4), 16, size(folder / "plain")),
        "store, one by one": (of_store(plain, 0), 16, size(folder / "plain")),
        "store, compressed": (of_store(packed, 4), 16, size(folder / "packed")),
        "GeoTIFF per band": (of_tiffs(folder / "tiffs", shape), 1, 0),
    }
    rng = np.random.default_rng(0)
    check = [rng.integers(0, TIFFS, BATCH)]
    expected = np.stack([cut(i) for i in check[0]])
    for name, (reader, _, _) in readers.items():
        assert (next(reader(check)) == expected).all(), f"{name} returns other samples"
    first = timed(readers["store"][0], [np.arange(i, i + BATCH) for i in range(0, samples, BATCH)])
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in readers}
    for _ in range(rounds):
        for name, (reader, count, _) in readers.items():
            batches = [rng.integers(0, samples, BATCH) for _ in range(count)]
            found[name].append(timed(reader, batches))
    show(shape, samples, found, {n: b for n, (_, _, b) in readers.items()}, first[0])


def show(shape, samples, found, on_disk, first: float) -> None:
    sizes = "x".join(map(str, shape))
    print(f"\n{samples} samples of {sizes} uint16, {np.prod(shape) * 2 / 1024:.0f} KiB each\n")
    print("| reader | samples/s | quartiles | of the memmap | CPU us/sample | MB on disk |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    base = [rate for rate, _ in found["memmap gather"]]
    for name, results in found.items():
        rates = sorted(rate for rate, _ in results)
        low, middle, high = statistics.quantiles(rates, n=4)
        ratio = statistics.median(r / b for (r, _), b in zip(results, base, strict=True))
        work = statistics.median(work for _, work in results)
        disk = f"{on_disk[name] / 1e6:,.0f}" if on_disk[name] else ""
        spread = f"{low:,.0f}-{high:,.0f}"
        print(f"| {name} | {middle:,.0f} | {spread} | {ratio:.2f} | {work:,.0f} | {disk} |")
    rate = {name: statistics.median(r for r, _ in results) for name, results in found.items()}
    print(
        f"\nThe store reads {rate['store'] / rate['GeoTIFF per band']:,.0f} times as fast as the "
        f"GeoTIFFs, compressed {rate['store, compressed'] / rate['GeoTIFF per band']:,.0f} times. "
        f"First reading, which checks every checksum: {first:,.0f} samples/s."
    )


def size(folder: pathlib.Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--samples", type=int, default=4096)
    options.add_argument("--rounds", type=int, default=9)
    options.add_argument("--folder", type=pathlib.Path)
    given = options.parse_args()
    warnings.filterwarnings("ignore", category=rasterio.errors.NotGeoreferencedWarning)
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, NumPy {np.__version__}")
    for shape in SHAPES:
        folder = pathlib.Path(tempfile.mkdtemp(dir=given.folder))
        try:
            compare(folder, shape, given.samples, given.rounds)
        finally:
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()
