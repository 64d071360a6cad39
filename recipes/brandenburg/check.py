"""The proof of this recipe's claim: the U-Net's map beats the best of four forests.

Three seeds, each with its own split of the polygons; the model and the forests are trained on
the same polygons and scored on the same held-out ones. The mean of the model over the seeds must
be above the mean of the best forest, in overall and in balanced accuracy. Prints the table,
writes it to results.md beside this file, and ends with exit code 1 if the claim does not hold.

    .venv/bin/python recipes/brandenburg/check.py      (about a quarter of an hour on 2 cores)
"""

import pathlib

from swath import run
from swath.report.seeds import Methods, mean_sd, prove
from swath.units import markdown

HERE = pathlib.Path(__file__).parent
FIGURES = ("oa", "balanced")
MODEL = "unet"


def one_seed(seed: int, words: list[str]) -> Methods:
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


def table(seeds: list[Methods]) -> str:
    """Return Markdown: a row a method, its figures for every seed, and mean and deviation."""

    def cells(name: str) -> list[str]:
        each = [[methods[name][figure] for figure in FIGURES] for methods in seeds]
        over = zip(*(mean_sd(seeds, name, figure) for figure in FIGURES), strict=True)
        return [name, *(f"{oa:.3f} / {balanced:.3f}" for oa, balanced in [*each, *over])]

    titles = [f"seed {seed}" for seed in range(len(seeds))] + ["mean", "sd"]
    head = ["method, overall / balanced accuracy", *titles]
    return markdown(head, [cells(name) for name in seeds[0]])


def claim(seeds: list[Methods]) -> tuple[bool, str]:
    """Return whether the model is above the best forest in both figures, and what shows it."""
    holds, said = True, []
    for figure in FIGURES:
        means = {name: mean_sd(seeds, name, figure)[0] for name in seeds[0]}
        ours = means.pop(MODEL)
        best = max(means, key=means.__getitem__)
        holds &= ours > means[best]
        word = "beats" if ours > means[best] else "does not beat"
        said.append(f"{figure}: {MODEL} {ours:.3f} {word} {best} {means[best]:.3f}.")
    return holds, f"{table(seeds)}\n\n" + "\n".join(said)


if __name__ == "__main__":
    prove(__file__, __doc__, one_seed, claim)
