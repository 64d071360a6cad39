"""The proof of a recipe's claim: everything with several seeds, a table of it, and an exit code.

A recipe's ``check.py`` says what is done with one seed and what is claimed of all; what such
programs have in common is here: their words, the mean and deviation over seeds, results.md.
"""

from __future__ import annotations

import argparse
import pathlib
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NoReturn

from swath import units
from swath.files import write_file
from swath.report.compare import Row

SEEDS = 3
"""How many seeds a claim is proven with."""
RESULTS = "results.md"

Methods = Mapping[str, Row]
"""The figures of each method, by its name, for one seed."""


def prove(
    script: str,
    about: str,
    one_seed: Callable[[int, list[str]], Any],
    claim: Callable[[list[Any]], tuple[bool, str]],
    words: Sequence[str] | None = None,
) -> NoReturn:
    """Run ``one_seed`` for each seed, print what ``claim`` says of them, and end the program: with
    exit code 0 if the claim holds, 1 if it does not.

    script: the program's file; results.md is written beside it, but only with all seeds and
        without words, which make it another experiment.
    about: what the program is for; its first line is shown by --help.
    one_seed: from a seed and key=value words to the figures of that seed.
    claim: from the figures of all seeds to whether the claim holds, and Markdown that shows it.
    words: of the command line; None: those the program was started with.
    """
    parser = argparse.ArgumentParser(description=about.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=SEEDS, help=f"how many, {SEEDS} if not given")
    parser.add_argument("words", nargs="*", help="key=value, over the recipe")
    asked = parser.parse_args(words)
    if asked.seeds < 1:
        parser.error(f"--seeds {asked.seeds}: at least one is needed")
    begun = time.monotonic()
    holds, said = claim([one_seed(seed, asked.words) for seed in range(asked.seeds)])
    minutes = (time.monotonic() - begun) / 60
    name = pathlib.Path(script).name
    text = f"{said}\n\nMeasured by {name} in {minutes:.1f} minutes."
    print(text, flush=True)
    results = pathlib.Path(script).with_name(RESULTS)
    if asked.words or asked.seeds != SEEDS:
        other = " ".join([f"--seeds {asked.seeds}"] * (asked.seeds != SEEDS) + asked.words)
        print(f"{results} stays as it was: this was another experiment ({other})", file=sys.stderr)
    else:
        write_file(results, f"# Results\n\n{text}\n".encode())
    sys.exit(0 if holds else f"{name}: the claim does not hold")


def mean_sd(seeds: Iterable[Methods], method: str, figure: str) -> tuple[float, float]:
    """Return mean and standard deviation over ``seeds`` of one figure of a method; a single seed
    has no deviation, 0."""
    values = [float(methods[method][figure]) for methods in seeds]
    return statistics.fmean(values), units.deviation(values)
