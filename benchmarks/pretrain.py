"""What pretraining buys: masked autoencoders' encoders beside the same networks from scratch.

"sensors" is pretrained on unlabelled imagery of four sensors at once (Sentinel-2 L1C and L2A,
Sentinel-1, Landsat 8: five stores by weight), its weights made from wavelengths; "scene" on as many
samples of the Brandenburg Sentinel-2 scene alone, with weights for each band. Each three times, for
a seed of the comparison picks the pretraining too. Both go beside random weights of their own
network ("sensors-0", "scene-0") to land use of Brandenburg (polygons held out whole) and to land
cover from Sentinel-2 (two places on two continents held out whole, which no pretraining has seen);
"sensors" to the land cover of the same places from Sentinel-1, too.

    python benchmarks/pretrain.py --data ../shared/data [--samples 76800] [key=value ...]

Files, stores, runs and results go below the folder it is started in, the top of the repository;
the table is left in assess/pretraining/page.md. Interrupted, the same command goes on; words are
those of swath assess, as seeds=[0].
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import logging
import pathlib
import statistics
import time
from collections.abc import Sequence

from pretrain_data import unpack

from swath import run, units
from swath.assess import table, verb
from swath.assess.plan import Plan
from swath.log import start

log = logging.getLogger("swath.benchmark")

RECIPE = "recipes/brandenburg"
PRETRAIN = [
    f"{RECIPE}/recipe.yaml",
    f"{RECIPE}/pretrain.yaml",
    "build.split.val=0",
    "data.store=stores/scene",
    "batch={samples: 32, micro: 32}",
    "optim.lr=1e-3",
    "task.normalise=false",
]
VIT = [f"{RECIPE}/recipe.yaml", f"{RECIPE}/vit.yaml", "probe.most=6000"]
NETWORKS = {
    "sensors": ["model.embed=wavelengths", "model.positions=metres"],
    "scene": ["model.embed=bands", "model.positions=waves"],
}
FILES = pathlib.Path("stores/files")
SEEDS = (0, 1, 2)
CLASSES = {"1": "water", "2": "trees", "4": "crops", "5": "built", "9": "rangeland"}
LANDSAT = "landsat8_itaipu_scene/LC08_L1TP_224078_20200518_20200518_01_RT.TIF"


def gathered(data: pathlib.Path) -> dict[str, list[str]]:
    """Return, of each further store to pretrain on, the words of a run that build it."""
    kinds = {
        "places": (f"{FILES}/S2L1C/whole/*.tif", "sentinel2_l1c", "", 64, 32, "scene"),
        "l2a": (f"{FILES}/S2L2A/whole/*.tif", "sentinel2_l2a", "", 60, 30, "scene"),
        "radar": (f"{FILES}/S1RTC/whole/*.tif", "sentinel1_grd", "", 60, 30, "scene"),
        "landsat": (f"{data}/{LANDSAT}", "landsat8_oli", ", order: [B2, B3, B4]", 64, 64, "random"),
    }
    return {
        name: [
            f"build.dataset={{kind: scenes, scenes: [{{path: '{path}', sensor: {sensor}, "
            f"when: 2020-01-01{more}}}], chip: {chip}, stride: {stride}}}",
            f"build.split={{by: {by}, test: 0, val: 0}}",
            f"data.store=stores/{name}",
        ]
        for name, (path, sensor, more, chip, stride, by) in kinds.items()
    }


def pretrain(data: pathlib.Path, samples: int) -> None:
    """Pretrain both networks with each seed, or go on: as many samples for each."""
    for built in gathered(data).values():
        run.build(run.load(*PRETRAIN, *built))
    weights = {"places": 1, "l2a": 1, "radar": 2, "landsat": 1}
    also = [{"store": f"stores/{name}", "weight": weight} for name, weight in weights.items()]
    length = [f"train.samples={samples}", f"schedule.warmup={samples // 320 * 32}"]
    for seed, name in itertools.product(SEEDS, NETWORKS):
        words = [f"name=pretrain-{name}-{seed}", f"seed={seed}", *length, *NETWORKS[name]]
        if name == "sensors":
            words += ["data.weight=3", f"data.also={json.dumps(also)}"]
        run.train(run.load(*PRETRAIN, *words))


def land_cover(kind: str, sensor: str) -> list[str]:
    """Return words for the land cover of tiles, over the settings of land use."""
    classes = ", ".join(f'"{number}": {name}' for number, name in CLASSES.items())
    return [
        f"build.dataset={{kind: masks, path: '{FILES}/{kind}/cover', images: 'images/*/*.tif', "
        f"masks: 'masks/*/{{stem}}.tif', sensor: {sensor}, classes: {{{classes}}}, "
        "others: ignore, chip: 28}",
        "build.split={by: given}",
        f"data.store=stores/cover-{sensor}",
    ]


def comparison(name: str) -> list[str]:
    """Return the words of ``swath assess``: network ``name``, pretrained and not."""
    task = [*VIT, *NETWORKS[name]]
    tasks = {
        "landuse": {"run": task},
        "cover": {"run": [*task, *land_cover("S2L1C", "sentinel2_l1c")]},
    }
    if name == "sensors":
        tasks["radar"] = {"run": [*task, *land_cover("S1RTC", "sentinel1_grd")]}
    models = {f"{name}-0": None, name: {"from": f"runs/pretrain-{name}-{{seed}}"}}
    return [
        f"name={name}",
        f"folder=assess/pretraining/{name}",
        f"models={json.dumps(models)}",
        f"tasks={json.dumps(tasks)}",
        f"ways={json.dumps({'knn': None, 'linear': None, 'tuned': TUNED})}",
        "shares=[0.01, 0.1, 1]",
        f"seeds={json.dumps(list(SEEDS))}",
        f"baselines={json.dumps([FOREST] if name == 'sensors' else [])}",  # pixels: once is enough
    ]


TUNED = {
    "words": ["adapt={kind: full, decay: 0.9}"],
    "scratch": [],
    "tries": ["optim.lr=1e-3", "optim.lr=3e-3"],
}
FOREST = {"kind": "forest", "features": "pixel", "min_leaf": 3, "trees": 100, "balanced": True}
FIGURES = ("balanced", "oa", "f1_macro", "miou")


def page(found: Sequence[table.Row]) -> str:
    """Return the tables of all tasks as Markdown; a gain is bold where its 95 % interval, by
    Student's t over seeds, leaves zero out."""
    shares = sorted({row.share for row in found})
    tables = []
    for task in dict.fromkeys(row.task for row in found):
        mine = {(r.way, r.model, r.share): r for r in found if r.task == task}
        labels = {share: r.labels for (way, _, share), r in mine.items() if way == "knn"}
        heads = [f"{100 * share:.3g} % ({labels[share]:.0f})" for share in shares]
        lines = []
        for way, model in sorted(dict.fromkeys((way, model) for way, model, _ in mine), key=_place):
            rows = [(mine.get((way, model, s)), mine.get((way, f"{model}-0", s))) for s in shares]
            named = ["pixels", "forest"] if way == "baseline" else [way, model]
            lines.append([*named, *(_told(row, other) for row, other in rows)])
        tables += [units.markdown([task, "", *heads], lines, 2), ""]
    return "\n".join(tables)


def _place(row: tuple[str, str]) -> int:
    return ["knn", "linear", "tuned", "baseline"].index(row[0])


def together(found: Sequence[table.Row]) -> str:
    """Return a table of what is gained in each way, over all tasks and shares of labels: their
    mean of each seed, and its 95 % interval over seeds."""
    by = {(r.task, r.way, r.model, r.share): r for r in found}
    lines = []
    for way in ("knn", "linear", "tuned"):
        cells = []
        for name in NETWORKS:
            pairs = [
                (row, by[task, way, f"{name}-0", share])
                for (task, other, model, share), row in by.items()
                if (other, model) == (way, name)
            ]
            each = zip(*(table.gains(*pair, FIGURES[0]) for pair in pairs), strict=True)
            cells.append(_gain([statistics.fmean(some) for some in each]))
        lines.append([way, *cells])
    return units.markdown(["all tasks and shares", *NETWORKS], lines, 1) + "\n"


def _told(row: table.Row | None, other: table.Row | None) -> str:
    """Return a figure and, beside random weights, what is gained, with its 95 % interval."""
    if row is None:
        return ""
    if other is None:
        return row.said(FIGURES[0])
    return f"{row.said(FIGURES[0])} ({_gain(table.gains(row, other, FIGURES[0]))})"


def _gain(every: Sequence[float]) -> str:
    """Return the mean of gains by seed with half its 95 % interval, bold if that leaves 0 out."""
    from scipy.stats import t

    if len(every) < 2:
        return f"{every[0]:+.3f}" if every else ""
    mean, error = statistics.fmean(every), statistics.stdev(every) / len(every) ** 0.5
    far = float(t.ppf(0.975, len(every) - 1)) * error
    return f"**{mean:+.3f} ± {far:.3f}**" if abs(mean) > far else f"{mean:+.3f} ± {far:.3f}"


def write(found: Sequence[table.Row], folder: pathlib.Path) -> None:
    """Write page.md, and each cell to cells.csv."""
    (folder / "page.md").write_text(page(found) + "\n" + together(found))
    with (folder / "cells.csv").open("w") as file:
        names = ["task", "way", "model", "share", "seed", *FIGURES]
        writer = csv.DictWriter(file, names, lineterminator="\n", extrasaction="ignore")
        writer.writeheader()
        for cell in table.long(found):
            writer.writerow({k: f"{v:.4f}" if k in FIGURES else v for k, v in cell.items()})


def main() -> None:
    """Do all of it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=pathlib.Path, default=pathlib.Path("../shared/data"))
    parser.add_argument("--samples", type=int, default=76_800, help="of each pretraining")
    parser.add_argument("words", nargs="*", help="key=value, over the comparison")
    asked = parser.parse_args()
    start()
    began = time.perf_counter()
    unpack(asked.data, FILES)
    pretrain(asked.data, asked.samples)
    log.info("pretrained after %s", units.seconds(time.perf_counter() - began))
    found: list[table.Row] = []
    for name in NETWORKS:
        settings = verb.load([*comparison(name), *asked.words])
        print(verb.assess(settings))
        found += table.rows(Plan(settings))
    write(found, settings.place.parent)
    print((settings.place.parent / "page.md").read_text())
    log.info("done after %s", units.seconds(time.perf_counter() - began))


if __name__ == "__main__":
    main()
