"""Features learned with the cross decoder beside those learned with the full one, seed by seed.

Pretrains masked autoencoders on unlabelled pixels of the Brandenburg scene, three seeds each: with
the full decoder, with the cross one on as many samples, and with the cross one on so many more that
it takes as much of the processor's time (as the first seed shows). Scores their frozen features,
k-NN and a linear layer, on the land use of that scene (polygons held out whole) and on the land
cover of four places of TerraMesh. Prints means and deviations over seeds, and the differences to
the full decoder's with 95 % intervals of Student's t.

    python benchmarks/decoders.py --data ../shared/data [--samples 12800]

Folders are those of benchmarks/pretrain.py; interrupted, the same command goes on.
"""

import argparse
import json
import os
import pathlib
import statistics
from collections import defaultdict
from collections.abc import Sequence

from pretrain import PRETRAIN, VIT, land_cover, unpack
from scipy.stats import t

from swath import run
from swath.assess import table, verb, work
from swath.log import start

SEEDS = (0, 1, 2)
FIGURES = ("oa", "balanced")
DEPTH = "model.decoder_depth=2"
CROSS = (DEPTH, "model.decoder=cross")


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
