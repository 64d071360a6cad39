"""The proof of this recipe's claim: the way of sampling decides the accuracy, not the method.

A 3D-CNN, an SVM and a random forest are trained on the same pixels and scored on the same others,
three seeds each, in two ways: pixels drawn at random, and whole regions held out. Every method
must lose at least 20 points of overall accuracy (mean of the seeds) when regions are held out.
Prints the table, writes it to results.md beside this file, and ends with exit code 1 if the claim
does not hold.

    .venv/bin/python recipes/indian_pines/check.py      (about 5 minutes on 2 quiet cores)
"""

import pathlib

from swath import run
from swath.report.seeds import Methods, mean_sd, prove
from swath.units import markdown

HERE = pathlib.Path(__file__).parent
WAYS = {"random": "random pixels", "region": "disjoint regions"}
FIGURES = ("oa", "balanced", "kappa")
GAP = 0.2


def one_seed(seed: int, words: list[str]) -> dict[str, Methods]:
    """Return the figures of every method, by name, for both ways of sampling."""
    return {way: sampled(way, seed, words) for way in WAYS}


def sampled(way: str, seed: int, words: list[str]) -> Methods:
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


def table(seeds: list[dict[str, Methods]]) -> str:
    """Return Markdown: a row a method and way, mean and deviation over seeds of each figure."""
    titles = ["sampling", "method", "overall", "balanced", "kappa"]
    rows = []
    for way, words in WAYS.items():
        these = [ways[way] for ways in seeds]
        for method in these[0]:
            figures = ("{:.3f} ± {:.3f}".format(*mean_sd(these, method, f)) for f in FIGURES)
            touching = mean_sd(these, method, "share_touching")[0]
            rows.append([words, method, *figures, f"{100 * touching:.0f} %"])
    return markdown([*titles, "windows that touch training pixels"], rows)


def claim(seeds: list[dict[str, Methods]]) -> tuple[bool, str]:
    """Return whether every method loses ``GAP``, and what shows how much each does."""
    holds, said = True, []
    for method in seeds[0]["random"]:
        random, region = (mean_sd([ways[way] for ways in seeds], method, "oa")[0] for way in WAYS)
        holds &= random - region >= GAP
        said.append(
            f"{method}: {random:.3f} - {region:.3f} = {100 * (random - region):.0f} points."
        )
    lost = "\n".join(said)
    return holds, (
        f"{table(seeds)}\n\nMean ± standard deviation of {len(seeds)} seeds. Lost in overall"
        f" accuracy by holding out regions:\n\n{lost}"
    )


if __name__ == "__main__":
    prove(__file__, __doc__, one_seed, claim)
