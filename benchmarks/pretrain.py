"""What pretraining buys: a masked autoencoder's encoder beside the same network from scratch.

Pretrains on unlabelled Sentinel-2 L1C pixels: "scene" of the Brandenburg scene alone, "places" of
it and the five places of TerraMesh, two stores by weight. Then puts each encoder and random weights
to two tasks with 1, 10 and 100 % of the labels: land use of Brandenburg (polygons held out whole)
and land cover of four TerraMesh places (squares of 560 m held out). k-NN and a linear layer on
frozen features, and fine-tuning with two rates tried; three seeds. The settings are those of
recipes/brandenburg: pretrain.yaml and vit.yaml.

    python benchmarks/pretrain.py --data ../shared/data [--jobs 2] [--samples 25600] [key=value ...]

Stores, runs and results go to stores/, runs/ and assess/pretraining below the folder it is started
in, the top of the repository. Interrupted, the same command goes on; words are those of swath
assess, as seeds=[0].
"""

import argparse
import json
import pathlib
import zipfile

import numpy as np
import rasterio
from rasterio.windows import Window

from swath import run
from swath.assess import verb
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


def unpack(archive: pathlib.Path, folder: pathlib.Path) -> None:
    """Write TerraMesh's L1C images to ``folder``/whole, and tiles with their land cover to images/
    and masks/, all in counts without the offset of newer products."""
    if (folder / "done").exists():
        return
    for name in ("whole", "images", "masks"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    zipfile.ZipFile(archive).extractall(folder)
    for path in sorted(folder.glob("S2L1C/*.tif")):
        with rasterio.open(path) as image, rasterio.open(folder / "LULC" / path.name) as cover:
            counts, classes, profile = image.read(), cover.read(), image.profile
        # Processing baseline 04.00 adds 1000; without it dark pixels are far below that.
        counts = counts.astype(np.uint16) - (1000 if counts.min() >= 1000 else 0)
        write(folder / "whole" / path.name, counts, profile, 0, 0)
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


def pretrain(folder: pathlib.Path, samples: int) -> None:
    """Pretrain both encoders, or go on: as many samples of the scene for each."""
    places = run.load(
        *PRETRAIN,
        f"build.dataset={{kind: scenes, scenes: [{{path: '{folder}/whole/*.tif', "
        "sensor: sentinel2_l1c, when: 2020-01-01}], chip: 64, stride: 32}",
        "build.split={by: scene, test: 0, val: 0}",
        "data.store=stores/places",
    )
    run.build(places)
    for name, count, words in (
        ("scene", samples, []),
        ("places", samples * 3 // 2, ["data.also=[{store: stores/places, weight: 0.5}]"]),
    ):
        length = [f"train.samples={count}", f"schedule.warmup={count // 10}"]
        run.train(run.load(*PRETRAIN, f"name=pretrain-{name}", *length, *words))


def comparison(folder: pathlib.Path) -> list[str]:
    """Return the words of ``swath assess``, for both encoders beside random weights."""
    known = {name: {"from": f"runs/pretrain-{name}"} for name in ("scene", "places")}
    tasks = {"landuse": {"run": VIT}, "cover": {"run": [*VIT, *land_cover(folder)]}}
    return [
        "name=pretraining",
        f"models={json.dumps({'scratch': None, **known})}",
        f"tasks={json.dumps(tasks)}",
        "ways={knn: null, linear: null, tuned: {words: ['adapt={kind: full, decay: 0.9}'], "
        "scratch: [], tries: [optim.lr=1e-3, optim.lr=3e-3]}}",
        "shares=[0.01, 0.1, 1]",
        "seeds=[0, 1, 2]",
    ]


def main() -> None:
    """Do all of it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=pathlib.Path, default=pathlib.Path("../shared/data"))
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--samples", type=int, default=25_600, help="of the scene, in pretraining")
    parser.add_argument("words", nargs="*", help="key=value, over the comparison")
    asked = parser.parse_args()
    start()
    folder = pathlib.Path("stores/terramesh")
    unpack(asked.data / "terramesh/terramesh_examples.zip", folder)
    pretrain(folder, asked.samples)
    words = [*comparison(folder), *asked.words]
    settings = verb.load(words)
    with verb.helped(words, settings, asked.jobs):
        print(verb.assess(settings))


if __name__ == "__main__":
    main()
