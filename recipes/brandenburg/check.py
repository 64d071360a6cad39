"""The proof of this recipe's claim: the U-Net's map beats the best of four forests.

Three seeds, each with its own split of the polygons; the model and the forests are trained on
the same polygons and scored on the same held-out ones. The mean of the model over the seeds must
be above the mean of the best forest, in overall and in balanced accuracy. Prints the table,
writes it to results.md beside this file, and ends with exit code 1 if the claim does not hold.

    .venv/bin/python recipes/brandenburg/check.py      (about 10 minutes on 2 quiet cores)
"""

import argparse
import pathlib
import sys
import time

import numpy as np

from swath import run

HERE = pathlib.Path(__file__).parent
FIGURES = ("oa", "balanced")
MODEL = "unet"


def one_seed(seed: int, words: list[str]) -> dict[str, dict[str, float]]:
    """Return the figures of the model and of each forest, by name, on the split of ``seed``."""
    chosen = run.load(
        HERE / "recipe.yaml",
        f"seed={seed}",
        f"build.split.seed={seed}",
        f"name=brandenburg-{seed}",
        f"data.store=stores/brandenburg-{seed}",
        *words,
    )
    run.train(chosen)
    run.predict(chosen)
    run.evaluate(chosen)
    run.baseline(chosen)
    return {row["name"]: row for row in run.compared(chosen)}


def table(seeds: dict[int, dict[str, dict[str, float]]]) -> str:
    """Return Markdown: a row a method, its figures for every seed, and mean and deviation."""
    head = [f"seed {seed}" for seed in seeds] + ["mean", "sd"]
    lines = [
        "| method, overall / balanced accuracy | " + " | ".join(head) + " |",
        "|" + " --- |" * (1 + len(head)),
    ]
    for name in next(iter(seeds.values())):
        values = np.array([[rows[name][f] for f in FIGURES] for rows in seeds.values()])
        cells = [*values, values.mean(0), values.std(0, ddof=1 if len(values) > 1 else 0)]
        lines.append(f"| {name} | " + " | ".join(f"{a:.3f} / {b:.3f}" for a, b in cells) + " |")
    return "\n".join(lines)


def verdict(seeds: dict[int, dict[str, dict[str, float]]]) -> tuple[bool, str]:
    """Return whether the claim holds, and the sentences that say so."""
    holds, said = True, []
    for figure in FIGURES:
        means = {
            name: float(np.mean([rows[name][figure] for rows in seeds.values()]))
            for name in next(iter(seeds.values()))
        }
        ours = means.pop(MODEL)
        best = max(means, key=means.__getitem__)
        holds &= ours > means[best]
        word = "beats" if ours > means[best] else "does not beat"
        said.append(f"{figure}: {MODEL} {ours:.3f} {word} {best} {means[best]:.3f}.")
    return holds, "\n".join(said)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("words", nargs="*", help="key=value, over the recipe")
    asked = parser.parse_args()
    begun = time.monotonic()
    seeds = {seed: one_seed(seed, asked.words) for seed in range(asked.seeds)}
    holds, said = verdict(seeds)
    minutes = (time.monotonic() - begun) / 60
    text = f"{table(seeds)}\n\n{said}\n\nMeasured by check.py in {minutes:.1f} minutes."
    print(text)
    if not asked.words and asked.seeds == 3:
        (HERE / "results.md").write_text(f"# Results\n\n{text}\n")
    sys.exit(0 if holds else 1)


if __name__ == "__main__":
    main()
