"""What views of a sample cost beside reading it: microseconds of processor time for each.

    python benchmarks/views.py [--samples 512] [--rounds 7]

Samples are cut from the Brandenburg scene that ships with the recipe, 13 x 64 x 64 uint16, and lie
in a compressed store, the default, in the page cache. One thread of torch. Rounds take turns over
all rows; the median counts, of processor time, for others may be at work. Prints the table of
views.md.
"""

import argparse
import pathlib
import statistics
import tempfile
import time
from collections.abc import Callable

import numpy as np
import torch
from loading import pieces, write_store

from swath.data.augment import Augment
from swath.data.views import Global, Local, Viewer, Views

SHAPE, MICRO = (13, 64, 64), 32
TWO = Views(global_=Global(size=32))
CROPS = Views(global_=Global(size=32, scale=(0.4, 1)), local=Local(number=6, size=16))
WHOLE = Augment(flips=True, rotations=True, gain=0.1, offset=0.2, drop_bands=0.1)
ROWS = {
    "two views of 32 px, cut and resized": (TWO, Augment()),
    "the same, turned, gain, offset, bands": (TWO, WHOLE),
    "the same two, noise": (TWO, Augment(noise=0.05)),
    "the same two, blur": (TWO, Augment(blur=0.5)),
    "the same two, erase": (TWO, Augment(erase=0.5)),
    "two of 32 px and six of 16 px": (CROPS, Augment()),
}


def work(what: Callable[[], object], samples: int) -> float:
    """Return microseconds of processor time for a sample."""
    began = time.process_time()
    what()
    return 1e6 * (time.process_time() - began) / samples


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--samples", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=7)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        store = write_store(pathlib.Path(folder) / "s", pieces(SHAPE), SHAPE, asked.samples, True)
        batches = np.arange(asked.samples).reshape(-1, MICRO)

        def read() -> list[torch.Tensor]:
            found = [store.read(rows).result()["s2"] for rows in batches]
            return [torch.from_numpy(one.astype(np.float32)) / 1000 for one in found]

        images = read()
        seen = torch.ones_like(images[0], dtype=torch.bool)
        seen[:, :, :5] = False
        images = [image * seen for image in images]

        def viewing(views: Views, augment: Augment) -> Callable[[], object]:
            viewer = Viewer(views, augment)
            return lambda: [
                viewer(image, seen, rows, 0) for image, rows in zip(images, batches, strict=True)
            ]

        rows: dict[str, Callable[[], object]] = {"reading, to float32": read}
        rows |= {name: viewing(*how) for name, how in ROWS.items()}
        found: dict[str, list[float]] = {name: [] for name in rows}
        for _ in range(asked.rounds):
            for name, what in rows.items():
                found[name].append(work(what, asked.samples))
    print("| what | CPU us/sample | quartiles |\n| --- | ---: | ---: |")
    for name, each in found.items():
        low, middle, high = statistics.quantiles(each, n=4)
        print(f"| {name} | {middle:,.0f} | {low:,.0f}-{high:,.0f} |")


if __name__ == "__main__":
    main()
