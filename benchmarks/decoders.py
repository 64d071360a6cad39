"""Features learned with the cross decoder beside those learned with the full one, seed by seed.

Pretrains masked autoencoders on unlabelled pixels of the Brandenburg scene, three seeds each: with
the full decoder, with the cross one on as many samples, and with the cross one on so many more that
it takes as much of the processor's time (as the first seed shows). Scores their frozen features,
k-NN and a linear layer, on the land use of that scene (polygons held out whole) and on the land
cover of four places of TerraMesh. Prints means and deviations over seeds, and the differences to
the full decoder's with 95 % intervals of Student's t.

    python benchmarks/decoders.py --data ../shared/data [--samples 12800]

Stores and runs go below the folder it is started in, the top of the repository; interrupted, the
same command goes on.
"""

import argparse
import json
import os
import pathlib
import statistics
import zipfile
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import rasterio
from rasterio.windows import Window
from scipy.stats import t

from swath import run
from swath.assess import table, verb, work
from swath.log import start

RECIPE = "recipes/brandenburg"
PRETRAIN = [f"{RECIPE}/recipe.yaml", f"{RECIPE}/pretrain.yaml"]
VIT = [f"{RECIPE}/recipe.yaml", f"{RECIPE}/vit.yaml"]
SNOW = "609U_541L_3_0"  # one class only: nothing to tell apart
TILE = 56
BANDS = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12")
CLASSES = {
    "1": "water",
    "2": "trees",
    "4": "crops",
    "5": "built",
    "6": "bare",
    "9": "rangeland",
}
SEEDS = (0, 1, 2)
FIGURES = ("oa", "balanced")
DEPTH = "model.decoder_depth=2"
CROSS = (DEPTH, "model.decoder=cross")


def unpack(archive: pathlib.Path, folder: pathlib.Path) -> None:
    """Write tiles of TerraMesh's L1C images to ``folder``/images and their land cover to masks/, in
    counts without the offset of newer products."""
    if (folder / "done").exists():
        return
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    zipfile.ZipFile(archive).extractall(folder)
    for path in sorted(folder.glob("S2L1C/*.tif")):
        with rasterio.open(path) as image, rasterio.open(folder / "LULC" / path.name) as cover:
            counts, classes, profile = image.read(), cover.read(), image.profile
        # Processing baseline 04.00 adds 1000; without it dark pixels are far below that.
        counts = counts.astype(np.uint16) - (1000 if counts.min() >= 1000 else 0)
        if path.stem == SNOW:
            continue
        for row in range(0, counts.shape[1], TILE):
            for col in range(0, counts.shape[2], TILE):
                cut = np.s_[:, row : row + TILE, col : col + TILE]
                name = f"{path.stem}_{row}_{col}.tif"
                write(folder / "images" / name, counts[cut], profile, row, col)
                write(folder / "masks" / name, classes[cut], profile, row, col)
    (folder / "done").touch()


def write(path: pathlib.Path, pixels: np.ndarray, profile: dict, row: int, col: int) -> None:
    """Write a piece of a raster that begins at ``row`` and ``col`` of it."""
    bands, height, width = pixels.shape
    where = rasterio.windows.transform(Window(col, row, width, height), profile["transform"])
    made = {"driver": "GTiff", "crs": profile["crs"], "transform": where, "count": bands}
    more = {"height": height, "width": width, "dtype": pixels.dtype}
    with rasterio.open(path, "w", **made, **more) as file:
        file.write(pixels)
        if bands > 1:
            file.descriptions = BANDS


def land_cover(folder: pathlib.Path) -> list[str]:
    """Return words for the land cover of tiles, over the settings of land use."""
    classes = ", ".join(f'"{number}": {name}' for number, name in CLASSES.items())
    return [
        f"build.dataset={{kind: masks, path: '{folder}', images: images/*.tif, "
        f"masks: 'masks/{{stem}}.tif', sensor: sentinel2_l1c, classes: {{{classes}}}, "
        "others: ignore, chip: 28}",
        "build.split.by=block",
        "data.store=stores/cover",
    ]


def pretrain(name: str, seed: int, samples: int, words: Sequence[str]) -> float:
    """Pretrain one encoder, or go on; return seconds of the processor."""
    spent = pathlib.Path(f"runs/{name}/processor_seconds.json")
    if not spent.exists():
        length = [f"train.samples={samples}", f"schedule.warmup={samples // 10}"]
        before = sum(os.times()[:4])
        run.train(run.load(*PRETRAIN, f"name={name}", f"seed={seed}", *length, *words))
        spent.write_text(json.dumps(sum(os.times()[:4]) - before))
    return float(json.loads(spent.read_text()))


def scored(models: Sequence[str], seed: int, folder: pathlib.Path) -> list[table.Row]:
    """Return the scores of the encoders of one seed, beside those of random weights."""
    weights: dict[str, object] = {name: {"from": f"runs/{name}-{seed}"} for name in models}
    tasks = {"landuse": {"run": VIT}, "cover": {"run": [*VIT, *land_cover(folder)]}}
    words = [
        f"name=decoders-{seed}",
        f"models={json.dumps({'random': None, **weights})}",
        f"tasks={json.dumps(tasks)}",
        "ways={knn: null, linear: null}",
        "shares=[0.1, 1]",
        f"seeds=[{seed}]",
    ]
    return table.rows(work.assess(verb.load(words), None))


def told(every: Sequence[float]) -> str:
    """Return the mean and half the 95 % interval around it."""
    half = float(t.ppf(0.975, len(every) - 1)) * statistics.stdev(every) / len(every) ** 0.5
    return f"{statistics.fmean(every):+.3f} ± {half:.3f}"


def main() -> None:
    """Do all of it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=pathlib.Path, default=pathlib.Path("../shared/data"))
    parser.add_argument("--samples", type=int, default=12_800)
    asked = parser.parse_args()
    start()
    folder = pathlib.Path("stores/terramesh")
    unpack(asked.data / "terramesh/terramesh_examples.zip", folder)
    spent: dict[str, list[float]] = defaultdict(list)
    values: dict[tuple[str, str, float], dict[str, dict[int, dict[str, float]]]] = {}
    for seed in SEEDS:
        for name, words in (("full", [DEPTH]), ("cross", CROSS)):
            spent[name].append(pretrain(f"{name}-{seed}", seed, asked.samples, words))
        more = round(asked.samples * spent["full"][0] / spent["cross"][0] / 64) * 64
        spent["longer"].append(pretrain(f"longer-{seed}", seed, more, CROSS))
        for row in scored(list(spent), seed, folder):
            name = row.model.removesuffix(f"-{seed}")
            of = values.setdefault((row.task, row.way, row.share), {}).setdefault(name, {})
            of.update(row.values)
    print(f"longer: {more} samples")
    for name, seconds in spent.items():
        print(f"{name}: {[round(s) for s in seconds]} s of the processor")
    for key, models in values.items():
        for name, of in models.items():
            for figure in FIGURES:
                mine, full = ([one[s][figure] for s in SEEDS] for one in (of, models["full"]))
                differs = told([a - b for a, b in zip(mine, full, strict=True)])
                said = f"{statistics.fmean(mine):.3f} ± {statistics.stdev(mine):.3f}"
                print(*key, name, figure, said, "" if name == "full" else differs, sep="\t")


if __name__ == "__main__":
    main()
