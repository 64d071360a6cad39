"""The proof of this recipe's claim: the way of sampling decides the accuracy, not the method.

A 3D-CNN, an SVM and a random forest are trained on the same pixels and scored on the same others,
three seeds each, in two ways: pixels drawn at random, and whole regions held out. Every method
must lose at least 20 points of overall accuracy (mean of the seeds) when regions are held out.
Prints the table, writes it to results.md beside this file, and ends with exit code 1 if the claim
does not hold.

    .venv/bin/python recipes/indian_pines/check.py      (about 5 minutes on 2 quiet cores)
"""

import argparse
import pathlib
import sys
import time

import numpy as np

from swath import run

HERE = pathlib.Path(__file__).parent
WAYS = {"random": "random pixels", "region": "disjoint regions"}
FIGURES = ("oa", "balanced", "kappa")
GAP = 0.2

Row = dict[str, float]


def one(way: str, seed: int, words: list[str]) -> dict[str, Row]:
    """Return the figures of every method, by name, with pixels sampled in one ``way``."""
    name = f"indian_pines-{way}-{seed}"
    chosen = run.load(
        HERE / "recipe.yaml",
        f"name={name}",
        f"seed={seed}",
        f"data.store=stores/{name}",
        f"build.split.by={way}",
        f"build.split.seed={seed}",
        *words,
    )
    run.train(chosen)
    run.evaluate(chosen)
    run.baseline(chosen)
    return {row["name"]: row for row in run.compared(chosen)}


def table(results: dict[str, list[dict[str, Row]]]) -> str:
    """Return Markdown: a row a method and way, mean and deviation over seeds of each figure.

    results: way -> seed -> method -> figures.
    """
    lines = [
        "| sampling | method | overall | balanced | kappa | windows that touch training pixels |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for way, seeds in results.items():
        for method in seeds[0]:
            cells = []
            for figure in FIGURES:
                values = np.array([rows[method][figure] for rows in seeds])
                spread = values.std(ddof=1) if len(values) > 1 else 0.0
                cells.append(f"{values.mean():.3f} ± {spread:.3f}")
            touching = np.mean([rows[method]["share_touching"] for rows in seeds])
            cells.append(f"{100 * touching:.0f} %")
            lines.append(f"| {WAYS[way]} | {method} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def verdict(results: dict[str, list[dict[str, Row]]]) -> tuple[bool, str]:
    """Return whether every method loses ``GAP``, and the sentences that say how much each does."""
    holds, said = True, []
    for method in results["random"][0]:
        random, region = (
            float(np.mean([rows[method]["oa"] for rows in results[way]])) for way in WAYS
        )
        holds &= random - region >= GAP
        said.append(
            f"{method}: {random:.3f} - {region:.3f} = {100 * (random - region):.0f} points."
        )
    return holds, "\n".join(said)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("words", nargs="*", help="key=value, over the recipe")
    asked = parser.parse_args()
    begun = time.monotonic()
    results = {way: [one(way, s, asked.words) for s in range(asked.seeds)] for way in WAYS}
    holds, said = verdict(results)
    minutes = (time.monotonic() - begun) / 60
    text = (
        f"{table(results)}\n\nMean ± standard deviation of {asked.seeds} seeds. Lost in overall"
        f" accuracy by holding out regions:\n\n{said}\n\nMeasured by check.py in {minutes:.1f}"
        " minutes."
    )
    print(text)
    if not asked.words and asked.seeds == 3:
        (HERE / "results.md").write_text(f"# Results\n\n{text}\n")
    sys.exit(0 if holds else 1)


if __name__ == "__main__":
    main()
