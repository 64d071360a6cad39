"""What words behind a verb mean, and the run and the ranks that they ask for."""

import sys
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from swath.parallel import launch

if TYPE_CHECKING:
    from swath.settings import Run

Settings = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="FILE.yaml | RUN_FOLDER | KEY=VALUE",
        help="settings files, or the folder of a run, which knows its settings; a store's folder "
        "stands for data.store; then words such as seed=1 or optim.lr=1e-3; "
        "predict.scene={path: a.tif} replaces all of predict.scene",
        show_default=False,
    ),
]

Ranks = Annotated[
    int,
    typer.Option(help="processes to start on this computer; torchrun and srun start their own"),
]


def chosen_by(verb: str, settings: list[str] | None) -> "Run":
    """Return the run that ``settings`` describe; ConfigError if ``verb`` would not heed a word."""
    from swath import heed, run

    chosen = run.load(*settings or [])
    heed.check(verb, settings or [], chosen)
    return chosen


def in_ranks(verb: str, settings: list[str] | None, ranks: int, chosen: "Run") -> NoReturn:
    """Do ``verb`` in ``ranks`` processes on this computer, and end as they do."""
    command = [sys.executable, "-m", "swath", verb, *(settings or [])]
    sys.exit(launch.launch(command, ranks, chosen.place, chosen.parallel))
