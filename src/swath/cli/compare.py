"""Verbs that hold models against one another, and against what they must beat."""

import sys
from typing import Annotated

import typer

from swath import here
from swath.cli.words import Ranks, Settings, chosen_by
from swath.config import ConfigError
from swath.parallel import launch


def assess(
    settings: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="FILE.yaml [KEY=VALUE]",
            help="what is compared (see docs/howto/assess.md), then words, such as seeds=[0]",
            show_default=False,
        ),
    ] = None,
    ranks: Ranks = 1,
    jobs: Annotated[
        int, typer.Option(help="processes to start that share the cells, each with its own")
    ] = 1,
) -> None:
    """Say what pretrained weights are worth: on several tasks, with 1, 10 and 100 % of the labels,
    over several seeds, beside the same network with random weights.

    The file names models (weights, or none), tasks (what swath train would be given), ways (knn,
    linear, probe, full, lora or your own words), shares of the labels and seeds. Each cell is
    measured once and kept in assess/NAME/cells; interrupted, the same command goes on, and several
    processes on one folder share the cells. Prints a table of means and deviations, and leaves it
    there as csv, json, md and as a page with pictures, report.html.

    Example: swath assess compare.yaml --jobs 2
    """
    from swath.assess import verb as room

    chosen = room.load(settings or [])
    launch.check(ranks)
    if jobs < 1 or (jobs > 1 and ranks > 1):
        raise ConfigError(
            f"--jobs {jobs} --ranks {ranks}: at least 1 job, and either several jobs, which measure"
            " a cell each, or several ranks, which measure one together"
        )
    if ranks > 1:
        room.prepare(chosen)  # several processes could not build stores
        command = [sys.executable, "-m", "swath", "assess", *(settings or [])]
        sys.exit(launch.launch(command, ranks, chosen.place))
    with room.helped(settings or [], chosen, jobs):
        told = room.assess(chosen)
    if not here.rank():
        print(told)


def baseline(settings: Settings = None) -> None:
    """Fit what the model must beat, the settings' baselines, on the same training part, and score
    it on the same held-out part.

    Prints a table with the model's own score, if there is one, and leaves the figures in the run
    folder.

    Example: swath baseline mine.yaml "baselines=[{kind: forest}, {kind: majority}]"
    """
    from swath import run

    chosen = chosen_by("baseline", settings)
    run.baseline(chosen)
    print(run.comparison(chosen))


def report(settings: Settings = None) -> None:
    """Write report.html, one page that opens without a network, to the run folder.

    It shows the settings, the curves, the scores beside those of the baselines, samples with what
    the model says of them, and the map, as far as these are there.

    Example: swath report runs/NAME
    """
    from swath import run

    print(run.report(chosen_by("report", settings)))
